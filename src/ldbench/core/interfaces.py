"""What the parts promise each other, as structural types: whoever has the methods takes part."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Literal, Protocol, TypeGuard, runtime_checkable

import torch
from torch import Tensor, nn

from ldbench.core.estimate import Estimate
from ldbench.core.field import Field
from ldbench.core.interpolant import Interpolant, Kind
from ldbench.core.latent import LatentSpec
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


class LatentSet(Protocol):
    """Labelled raw latents of one tokenizer, and the facts that a generator of them needs."""

    latent: LatentSpec
    num_classes: int
    fingerprint: str  # sha256 of all that the latents and labels depend on
    upstream: Mapping[
        str, str
    ]  # the digests of what they were made from, "tokenizer" and "data", where these are known
    mean: Tensor  # (C,) float64, over the whole set
    std: Tensor  # (C,) float64, over the whole set

    def __len__(self) -> int: ...

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, Tensor]:
        """z (B, N, C) and y (B,). An index beyond the set is one of a later pass over it, in which it may be drawn anew."""
        ...

    def resident(self, device: torch.device) -> "LatentSet":
        """The same set held on a device, whole."""
        ...


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


def is_adversary(term: object) -> TypeGuard[Adversary]:
    """Whether a loss term has an opponent. From Python 3.12 on a check against a protocol does not see modules inside a module."""
    return isinstance(getattr(term, "discriminator", None), nn.Module) and callable(getattr(term, "discriminate", None))


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


class TimeDistribution(Protocol):
    """A law of the times at which an objective trains."""

    def sample(self, num_images: int, *, step: int, rng: torch.Generator | None = None) -> Tensor:
        """(B,) float64 of the CPU in [0, 1], 0 noise, for an optimizer step (from 0); from `rng`, or torch's global stream."""
        ...


class Network(Protocol):
    """What objectives ask of a backbone: (x, t, y) -> (B, N, C), or (B, N, 2 C) where it learns a variance too."""

    null_class: int | None  # the label that stands for none; None: it does not learn without labels
    learned_variance: bool

    def __call__(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,) float32 in the network's own time
        y: Tensor,  # (B,)
    ) -> Tensor: ...


@runtime_checkable
class Objective(Protocol):
    """What a backbone learns, and how its outputs are read."""

    revision: ClassVar[int]  # raised when its numbers change
    interpolant: Interpolant
    prediction: Kind
    learned_variance: bool  # a fact that the backbone is built from: whether it has 2 C outputs

    def loss(
        self,
        backbone: Network,
        z: Tensor,  # (B, N, C) normalised latents
        y: Tensor,  # (B,) labels, the null class where dropped
        *,
        step: int,  # the optimizer step, from 0
        t: Tensor | None = None,  # (B,) in the house's time; drawn if None
        noise: Tensor | None = None,  # (B, N, C); drawn if None
    ) -> dict[str, Tensor]:  # named terms, (B,) float32 each; the loss is the mean of their sum
        ...

    def field(self, backbone: Network) -> Field: ...


@runtime_checkable
class Guidance(Protocol):
    """From a field to one that keeps closer to the labels."""

    revision: ClassVar[int]

    def __call__(self, field: Field) -> Field: ...


class Increments(Protocol):
    """Normal noise for the steps of some images: the same for an image in any batch, process or order."""

    def normal(
        self,
        step: int,
        shape: torch.Size,  # (B, ...)
    ) -> Tensor:  # `shape`, float32 of the CPU
        ...


@runtime_checkable
class Sampler(Protocol):
    """From noise to latents along a field."""

    revision: ClassVar[int]
    stochastic: bool  # whether it draws noise on its way

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant on which it cannot work."""
        ...

    def __call__(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C) standard normal, in place of a stream
    ) -> Tensor:  # (B, N, C) float32
        ...


class Job(Protocol):
    """A measurement. It starts from artifacts and leaves its figures in `out`.

    The keywords of its constructor that its yaml does not set are facts (`facts.JobContext`), which it is handed.
    A job whose figures are ranked has `higher_is_better`, a mapping from the name of a figure to whether larger values are better: on the class, or
    where the names depend on the protocol on the object. A figure that is not in it is shown and not ranked.
    """

    name: ClassVar[str]  # of its records
    revision: ClassVar[int]  # raised when its numbers change
    requires: ClassVar[frozenset[str]]  # of "tokenizer", "generator" and "records": what it cannot run without
    # accepts: ClassVar[frozenset[str]], optional: what it measures where one is chosen
    settings: ClassVar[tuple[str, ...]]  # the keys of its yaml that its numbers depend on

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range, before any work begins."""
        ...

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in `out` without which a known measurement is made again."""
        ...

    def run(self, out: Path) -> Mapping[str, Estimate]: ...


class Learned(Protocol):
    """What a generator of fixed budget has come to: the error of each latent."""

    train: Tensor  # (n,) float64
    heldout: Tensor  # (m,) float64

    @property
    def explained(self) -> float: ...


class Budget(Protocol):
    """A generator's training, the same for any latents."""

    seed: int

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
        """What it learns of latents. It draws from no random stream but its own."""
        ...
