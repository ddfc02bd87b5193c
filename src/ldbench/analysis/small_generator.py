"""A small generator of fixed budget: how well the same few steps of flow matching learn any latents.

Latents are standardized by channel, so that scales do not matter. A generator that models every number as an
independent standard normal has the velocity error 1 / (t^2 + (1 - t)^2) at time t, pi / 2 on average; a lower error
means that it has learned structure of the latents.

[0] Lipman et al., Flow Matching for Generative Modeling, 2023, https://arxiv.org/abs/2210.02747
[1] Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, https://arxiv.org/abs/2212.09748
"""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from ldbench.layers.condition import Condition
from ldbench.layers.vit import Transformer

NORMAL_LOSS = math.pi / 2  # the optimal loss for independent standard normal numbers
TIMES = 1000.0  # the network's time input at t = 1, as in DiT [1]


@dataclass(frozen=True)
class Learned:
    """Mean squared velocity errors of each latent, over times and noises."""

    train: Tensor  # (n,) float64
    heldout: Tensor  # (m,) float64

    @property
    def explained(self) -> float:
        """The reduction of the held-out error relative to the optimal one for independent normal numbers; negative
        above that.
        """
        return 1 - self.heldout.mean().item() / NORMAL_LOSS


class SmallGenerator(nn.Module):
    """Predicts the velocity from noise to latents of a class: a transformer over tokens, with time and label added to
    each token, plus the input times a learned factor of time and label for each channel, which suffices for
    independent normal numbers.

    Initialized to 0.
    """

    def __init__(self, *, num_tokens: int, channels: int, num_classes: int, width: int, depth: int, num_heads: int):
        super().__init__()
        self.enter = nn.Linear(channels, width)
        self.positions = nn.Parameter(torch.randn(num_tokens, width) * 0.02)
        self.condition = Condition(width=width, num_labels=num_classes, class_std=0.7)
        self.blocks = Transformer(width=width, depth=depth, num_heads=num_heads, mlp_ratio=4.0)
        self.leave = nn.Linear(width, channels)
        self.factor = nn.Linear(width, channels)
        for layer in (self.leave, self.factor):
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,) 0 is noise, 1 is data
        y: Tensor,  # (B,)
    ) -> Tensor:  # (B, N, C)
        """The predicted velocity."""
        condition = self.condition(TIMES * t, y)[:, None]
        return self.leave(self.blocks(self.enter(x) + self.positions + condition)) + self.factor(condition) * x


class Budget:
    """The size of the generator and of its training.

    All randomness comes from `seed`; the global random state is unchanged.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self, *, width: int, depth: int, num_heads: int, steps: int, batch_size: int, lr: float, repeats: int, seed: int
    ):
        for name, value in (
            ("width", width),
            ("depth", depth),
            ("num_heads", num_heads),
            ("batch_size", batch_size),
            ("repeats", repeats),
        ):
            if value < 1:
                raise ValueError(f"budget.{name} must be at least 1, got {value}.")
        if steps < 0 or lr <= 0:
            raise ValueError(f"budget.steps must be at least 0 and budget.lr above 0, got {steps} and {lr}.")
        if width % num_heads:
            raise ValueError(f"budget.num_heads={num_heads} does not divide budget.width={width}.")
        self.size = {"width": width, "depth": depth, "num_heads": num_heads}
        self.steps = steps
        self.batch_size = batch_size
        self.lr = lr
        self.repeats = repeats
        self.seed = seed

    def learn(
        self,
        train: Tensor,  # (n, N, C)
        train_y: Tensor,  # (n,)
        heldout: Tensor,  # (m, N, C)
        heldout_y: Tensor,  # (m,)
        *,
        num_classes: int,
        device: torch.device,
    ) -> Learned:
        """The errors of a generator trained on the training latents.

        Raises ValueError for latents that are not finite.
        """
        if not (torch.isfinite(train).all() and torch.isfinite(heldout).all()):
            raise ValueError("The latents contain NaN or infinity. Check the tokenizer before measuring it.")
        mean, std = train.mean(dim=(0, 1)), train.std(dim=(0, 1), correction=0)
        std = torch.where(std > 0, std, 1.0)
        z, heldout_z = ((part.float().cpu() - mean.cpu()) / std.cpu() for part in (train, heldout))
        rng = torch.Generator().manual_seed(self.seed)
        with torch.random.fork_rng(devices=[]), torch.enable_grad(), torch.autocast(device.type, enabled=False):
            torch.manual_seed(self.seed)
            network = SmallGenerator(
                num_tokens=z.shape[1], channels=z.shape[2], num_classes=num_classes, **self.size
            ).to(device)
            self.fit(network, z, train_y.cpu(), rng)
        with torch.no_grad(), torch.autocast(device.type, enabled=False):
            return Learned(
                self.errors(network, z, train_y.cpu(), rng), self.errors(network, heldout_z, heldout_y.cpu(), rng)
            )

    def fit(self, network: SmallGenerator, z: Tensor, y: Tensor, rng: torch.Generator) -> None:
        """Trains for all steps, on batches drawn with replacement."""
        optimizer = torch.optim.Adam(network.parameters(), lr=self.lr)
        for step in range(self.steps):
            for group in optimizer.param_groups:
                group["lr"] = self.lr * (1 - step / self.steps)
            rows = torch.randint(len(z), (self.batch_size,), generator=rng)
            loss = squared_errors(network, z[rows], y[rows], torch.rand(self.batch_size, generator=rng), rng).mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

    def errors(self, network: SmallGenerator, z: Tensor, y: Tensor, rng: torch.Generator) -> Tensor:  # (n,) float64
        """The error of each latent, averaged over stratified times with independent noises."""
        errors = []
        for part in range(self.repeats):
            t = (part + torch.rand(len(z), generator=rng)) / self.repeats
            batches = zip(*(values.split(4 * self.batch_size) for values in (z, y, t)), strict=True)
            errors.append(torch.cat([squared_errors(network, *batch, rng).double().cpu() for batch in batches]))  # type: ignore[call-arg]
        return torch.stack(errors).mean(dim=0)


def squared_errors(
    network: SmallGenerator,
    z: Tensor,  # (B, N, C)
    y: Tensor,  # (B,)
    t: Tensor,  # (B,)
    rng: torch.Generator,
) -> Tensor:  # (B,)
    """Mean squared velocity errors on the straight lines from noise to latents."""
    device = network.positions.device
    noise = torch.randn(z.shape, generator=rng)
    x = torch.lerp(noise, z, t[:, None, None])
    return (network(x.to(device), t.to(device), y.to(device)) - (z - noise).to(device)).square().mean(dim=(1, 2))
