"""Images and latents, as data sets with the facts that models and records need."""

from collections.abc import Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec


class ImageSet(Protocol):
    """A map-style data set of labelled images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(image float32 (3, H, W) in [-1, 1], label). The same for an index in any order, process and worker."""


@runtime_checkable
class ImageData(Protocol):
    """Labelled images in two splits, with the facts about them that models and records need."""

    name: str
    image_size: int
    num_classes: int
    class_names: tuple[str, ...]
    label_safe_flips: bool  # whether a mirrored image keeps its class
    fingerprint: str  # sha256 of everything that the images and labels depend on; never of paths
    train: ImageSet
    test: ImageSet


class LatentSet(Protocol):
    """Labelled raw latents of one tokenizer, with the facts about them that a generator needs."""

    latent: LatentSpec
    num_classes: int
    fingerprint: str  # sha256 of everything that the latents and labels depend on
    tokenizer_key: str | None  # of the recipe and weights of the tokenizer that encoded them, where known

    @property
    def ahead(self) -> int:
        """How many batches should be read before they are needed: 0 where reading takes no time."""
        ...

    @property
    def settings(self) -> Mapping[str, Any]:
        """How they were encoded, without tokenizer, data and seed; what they are where that is not known."""
        ...

    @property
    def upstream(self) -> Mapping[str, str]:
        """The digests of "tokenizer" and "data" that they were encoded from, where known."""
        ...

    @property
    def mean(self) -> Tensor:
        """(C,) float64, over the whole set."""
        ...

    @property
    def std(self) -> Tensor:
        """(C,) float64, over the whole set."""
        ...

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """z (B, N, C) and y (B,). An index beyond the length is an item of a later epoch, which may be sampled anew."""
        ...

    def resident(self, device: torch.device) -> "LatentSet":
        """The whole set, held on a device."""
        ...
