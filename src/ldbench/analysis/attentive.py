"""Attentive probe: how well a classifier with attention over tokens reads an image's class from its latent.

Unlike a linear probe it finds information that is at no fixed token, which is the fairer question for latents without a
grid.

[0] Chen et al., Context Autoencoder for Self-Supervised Representation Learning, 2022, https://arxiv.org/abs/2202.03026
    (attentive probing)
"""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class AttentiveProbe:
    """Which held-out items the classifier gets right, and its accuracy on the training split."""

    correct: Tensor  # (m,) bool
    train_accuracy: float


class AttentionClassifier(nn.Module):
    """Tokens with positions, a query that attends to them, and a linear head."""

    def __init__(self, *, num_tokens: int, channels: int, num_classes: int, width: int, num_heads: int):
        super().__init__()
        self.embed = nn.Linear(channels, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, num_tokens, width))
        self.hidden = nn.Sequential(nn.GELU(), nn.Linear(width, width))
        self.query = nn.Parameter(0.02 * torch.randn(1, 1, width))
        self.attention = nn.MultiheadAttention(width, num_heads, batch_first=True)
        self.classify = nn.Sequential(nn.LayerNorm(width), nn.Linear(width, num_classes))

    def forward(
        self,
        z: Tensor,  # (B, N, C)
    ) -> Tensor:  # (B, num_classes)
        """The logits of the classes."""
        tokens = self.hidden(self.embed(z) + self.positions)
        pooled, _ = self.attention(self.query.expand(len(z), -1, -1), tokens, tokens, need_weights=False)
        return self.classify(pooled[:, 0])


def attentive_probe(
    train: Tensor,  # (n, N, C), each channel of mean 0 and deviation 1
    train_y: Tensor,  # (n,)
    test: Tensor,  # (m, N, C)
    test_y: Tensor,  # (m,)
    *,
    width: int,
    num_heads: int,
    steps: int,
    batch_size: int,
    lr: float,
    weight_decay: float,
    seed: int,
    device: torch.device,
) -> AttentiveProbe:
    """A classifier with one query [0], trained by AdamW with cosine decay of the learning rate to 0.

    All randomness comes from `seed`.

    Raises ValueError for a training split of fewer than two classes, and for latents that are not finite.
    """
    if len(train_y.unique()) < 2:
        raise ValueError(
            f"A probe needs training items of at least two classes, got {len(train_y)} items of "
            f"{len(train_y.unique())}."
        )
    if not (train.isfinite().all() and test.isfinite().all()):
        raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
    num_classes = int(max(train_y.max(), test_y.max())) + 1
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        classifier = AttentionClassifier(
            num_tokens=train.shape[1],
            channels=train.shape[2],
            num_classes=num_classes,
            width=width,
            num_heads=num_heads,
        ).to(device)
    optimizer = torch.optim.AdamW(classifier.parameters(), lr=lr, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=steps)
    rng = torch.Generator().manual_seed(seed)
    with torch.enable_grad():
        for _ in range(steps):
            rows = torch.randint(len(train), (batch_size,), generator=rng)
            loss = F.cross_entropy(classifier(train[rows].float().to(device)), train_y[rows].to(device))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    correct = predict(classifier, train, batch_size, device) == train_y
    return AttentiveProbe(
        correct=predict(classifier, test, batch_size, device) == test_y, train_accuracy=correct.double().mean().item()
    )


@torch.no_grad()
def predict(classifier: AttentionClassifier, z: Tensor, batch_size: int, device: torch.device) -> Tensor:  # (n,)
    """The predicted class of each latent."""
    return torch.cat([classifier(part.float().to(device)).argmax(dim=1).cpu() for part in z.split(batch_size)])
