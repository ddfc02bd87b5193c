"""The condition of a generator's network: time and label embeddings, as one vector.

[0] Peebles and Xie, Scalable Diffusion Models with Transformers, 2023, https://arxiv.org/abs/2212.09748
[1] Tancik et al., Fourier Features Let Networks Learn High Frequency Functions, 2020, https://arxiv.org/abs/2006.10739
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

NUM_FREQUENCIES = 128  # [0], like TIME_STD, the standard deviation of the linear layers
TIME_STD = 0.02


class Condition(nn.Module):
    """The sum of a time embedding and a learned label embedding; `class_std`: the initial standard deviation of the
    table. With `second_time` also of an embedding of the time from a second one to the first.

    Raises ValueError for a negative `class_std`.
    """

    def __init__(self, *, width: int, num_labels: int, class_std: float, second_time: bool = False):
        super().__init__()
        self.time = TimeEmbed(width=width)
        self.classes = label_table(num_labels, width, std=class_std)
        self.interval = TimeEmbed(width=width) if second_time else None

    def forward(
        self,
        t: Tensor,  # (B,)
        y: Tensor,  # (B,)
        r: Tensor | None = None,  # (B,), the second time; None: t
    ) -> Tensor:  # (B, D)
        """The condition."""
        condition = self.time(t) + self.classes(y)
        if self.interval is None:
            return condition
        return condition + self.interval(torch.zeros_like(t) if r is None else t - r)


class TimeEmbed(nn.Module):
    """A sinusoid of the unscaled time, linear, SiLU, linear."""

    def __init__(self, *, width: int):
        super().__init__()
        self.fc1 = nn.Linear(2 * NUM_FREQUENCIES, width)
        self.fc2 = nn.Linear(width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.weight, std=TIME_STD)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        t: Tensor,  # (B,)
    ) -> Tensor:  # (B, D)
        """The embedding of the time."""
        return self.fc2(F.silu(self.fc1(sinusoid(t).to(self.fc1.weight.dtype))))


class FourierTimeEmbed(nn.Module):
    """Sines and cosines of the time at fixed random frequencies [1], linear, SiLU, linear."""

    def __init__(self, *, width: int):
        super().__init__()
        self.frequencies: Tensor
        self.register_buffer("frequencies", torch.randn(2 * NUM_FREQUENCIES))  # in turns; never trained
        self.fc1 = nn.Linear(4 * NUM_FREQUENCIES, width)
        self.fc2 = nn.Linear(width, width)
        for layer in (self.fc1, self.fc2):
            nn.init.normal_(layer.weight, std=TIME_STD)
            nn.init.zeros_(layer.bias)

    def forward(
        self,
        t: Tensor,  # (B,)
    ) -> Tensor:  # (B, D)
        """The embedding of the time."""
        angles = 2 * math.pi * t.float()[:, None] * self.frequencies.float()
        waves = torch.cat([angles.sin(), angles.cos()], dim=-1)  # (B, 512)
        return self.fc2(F.silu(self.fc1(waves.to(self.fc1.weight.dtype))))


def label_table(num_labels: int, width: int, *, std: float) -> nn.Embedding:
    """A learned embedding of labels with this initial standard deviation. Raises ValueError for a negative one."""
    if std < 0:
        raise ValueError(f"class_std must not be negative, got {std}.")
    table = nn.Embedding(num_labels, width)
    nn.init.normal_(table.weight, std=std)
    return table


def sinusoid(
    t: Tensor,  # (B,)
) -> Tensor:  # (B, 256) float32
    """Cosines, then sines, of t * 10000^(-k / 128)."""
    frequencies = torch.exp(
        -math.log(10000) * torch.arange(NUM_FREQUENCIES, dtype=torch.float32, device=t.device) / NUM_FREQUENCIES
    )
    angles = t.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)
