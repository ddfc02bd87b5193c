"""What the parts promise each other, as structural types: whoever has the methods takes part."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, runtime_checkable

from torch import Tensor, nn

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
    """One named scalar of a training loss. The parameters of a term that is a module join the optimizer and the checkpoint, never the artifact.

    A frozen module inside is built from its own source and stands in no checkpoint, unless it says by a class attribute `learned = True` that an
    earlier stage may have trained it.
    A term whose constructor asks for `latent` (a LatentSpec), `patch_grid`, `image_size` or `num_classes` is handed these facts.
    A term that measures the reconstructed image itself, and nothing else that has gradients, says so by a class attribute `reconstructs = True`:
    balanced terms are weighed against these.
    """

    revision: ClassVar[int]  # raised when its numbers change
    weight: float
    start: int  # the first batch of a stage at which the term counts; nothing of it is computed before
    warmup: int  # batches after `start` over which the weight rises linearly

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,) labels
    ) -> Tensor: ...


@runtime_checkable
class Balanced(Protocol):
    """A loss term that can be weighed by gradients: times |gradient of the reconstruction terms| / (|its own gradient| + 1e-4) at an anchor."""

    balancing: Literal["none", "encoder", "decoder"]  # the tokenizer's anchor at which the two are compared
    largest_balance: float  # what the quotient is clamped to


@runtime_checkable
class Adversary(Protocol):
    """A loss term with an opponent, which learns by an optimizer of its own after each step of the tokenizer; it sees the image alone."""

    discriminator: nn.Module

    def discriminate(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,  # detached
    ) -> Tensor:
        """The loss of the discriminator, weighted as it should be."""
        ...


@runtime_checkable
class Predictor(Protocol):
    """A loss term that predicts something of the images from the latent, and can be held against a prediction that sees no image."""

    def predict(self, recon: Reconstruction) -> Tensor: ...

    def targets(self, images: Tensor, y: Tensor) -> Tensor: ...

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor: ...

    def average(self, errors: Tensor, recon: Reconstruction) -> Tensor:
        """The mean of the errors that count in a pass."""
        ...

    def constant(self, targets: Tensor) -> Tensor:
        """The best prediction for all of many images without looking at one; (1, ...)."""
        ...


class Teacher(Protocol):
    """A frozen view of images that gives target features at the places of a grid; never trained, never in a checkpoint."""

    revision: ClassVar[int]

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """How many features a place has. Raises ValueError for an image size or a grid that it cannot serve."""
        ...

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, channels), row-major over `grid`, without gradients
        ...


@dataclass(frozen=True)
class Estimate:
    """A measured number, with the ends of its 95 % interval where it has one."""

    value: float
    low: float | None = None
    high: float | None = None


class Job(Protocol):
    """A measurement. It starts from artifacts and leaves its figures in `out`.

    The keywords of its constructor that its yaml does not set are facts (`measuring.Facts`), which it is handed.
    """

    name: ClassVar[str]  # of its records
    revision: ClassVar[int]  # raised when its numbers change
    settings: ClassVar[tuple[str, ...]]  # the keys of its yaml that its numbers depend on

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range, before any work begins."""
        ...

    @staticmethod
    def leaves(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in `out` without which a known measurement is made again."""
        ...

    def run(self, out: Path) -> Mapping[str, Estimate]: ...
