"""Latents in memory, as a training set for a generator."""

import hashlib
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.latent import LatentSpec

CHUNK = 65536  # latents per step of the statistics


class TensorLatents(Dataset):
    """Labeled raw latents as two tensors.

    Raises ValueError for mismatched shapes, labels out of range and non-finite latents.
    """

    def __init__(
        self,
        z: Tensor,  # (n, N, C)
        y: Tensor,  # (n,) labels
        *,
        latent: LatentSpec,
        num_classes: int,
    ):
        if z.ndim != 3 or tuple(z.shape[1:]) != (latent.num_tokens, latent.channels) or y.shape != z.shape[:1]:
            raise ValueError(
                f"Expected latents (n, {latent.num_tokens}, {latent.channels}) and as many labels (n,), "
                f"got {tuple(z.shape)} and {tuple(y.shape)}."
            )
        if len(z) < 2:
            raise ValueError(f"Statistics need at least 2 latents, got {len(z)}.")
        if not torch.isfinite(z).all():
            raise ValueError("The latents hold numbers that are not finite. Check the tokenizer that encoded them.")
        if y.min() < 0 or y.max() >= num_classes:
            raise ValueError(
                f"Labels must be 0 to {num_classes - 1} for {num_classes} classes, got {int(y.min())} to "
                f"{int(y.max())}."
            )
        self.z = z
        self.y = y
        self.latent = latent
        self.num_classes = num_classes
        self.upstream: dict[str, str] = {}
        self.tokenizer_key: str | None = None
        self.ahead = 0  # they are in memory

    def __len__(self) -> int:
        return len(self.z)

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:  # (B, N, C), (B,)
        """z (B, N, C) and y (B,); indices wrap around."""
        rows = (torch.tensor(indices) % len(self.z)).to(self.z.device)
        return self.z[rows], self.y[rows]

    def resident(self, device: torch.device) -> "TensorLatents":
        """The same latents on a device."""
        return TensorLatents(self.z.to(device), self.y.to(device), latent=self.latent, num_classes=self.num_classes)

    @cached_property
    def fingerprint(self) -> str:
        """The sha256 of latents, labels and their shape."""
        checksum = hashlib.sha256(
            f"{self.latent.to_dict()}/{self.num_classes}/{tuple(self.z.shape)}/{self.z.dtype}".encode()
        )
        for tensor in (self.z, self.y):
            checksum.update(tensor.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        return checksum.hexdigest()

    @property
    def settings(self) -> dict[str, str]:
        """What identifies them, since how they were encoded is not known: their fingerprint."""
        return {"fingerprint": self.fingerprint}

    @cached_property
    def mean(self) -> Tensor:  # (C,) float64
        """The mean of each channel over the whole set."""
        return sum(part.double().sum(dim=(0, 1)) for part in self.z.split(CHUNK)) / self.count

    @cached_property
    def std(self) -> Tensor:  # (C,) float64
        """The standard deviation of each channel over the whole set, unbiased."""
        squares = sum((part.double() - self.mean).square().sum(dim=(0, 1)) for part in self.z.split(CHUNK))
        return (squares / (self.count - 1)).sqrt()

    @property
    def count(self) -> int:
        """The number of values per channel."""
        return self.z.shape[0] * self.z.shape[1]
