"""What the parts promise each other, as structural types: whoever has the methods takes part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Protocol, runtime_checkable

from torch import Tensor

from ldbench.core.tokenizer import Reconstruction


class ImageSet(Protocol):
    """A map-style data set of labelled images."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """(image float32 (3, H, W) in [-1, 1], label). The same for an index in any order, process and worker."""


@runtime_checkable
class ImageData(Protocol):
    """Labelled images in two splits, and the facts that others need of them."""

    name: str
    image_size: int
    num_classes: int
    class_names: tuple[str, ...]
    label_safe_flips: bool  # may an image be mirrored without changing its class?
    fingerprint: str  # sha256 of all that the images and labels depend on; never of paths
    train: ImageSet
    test: ImageSet


@runtime_checkable
class LossTerm(Protocol):
    """One named scalar of a training loss. The parameters of a term that is a module join the optimizer and the checkpoint, never the artifact."""

    revision: ClassVar[int]  # raised when its numbers change
    weight: float
    start: int  # the first optimizer step of a stage at which the term counts

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,) labels
    ) -> Tensor: ...


@dataclass(frozen=True)
class Estimate:
    """A measured number, with the ends of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class Job(Protocol):
    """A measurement. It starts from artifacts and leaves its figures in `out`."""

    def run(self, out: Path) -> Mapping[str, Estimate]: ...
