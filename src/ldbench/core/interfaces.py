"""The interfaces of plug-ins and data, as structural types: a class with these methods satisfies them."""

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


@runtime_checkable
class LossTerm(Protocol):
    """One named scalar of a training loss.

    The parameters of a term that is a module are trained and checkpointed, and never part of the artifact. A frozen
    module inside it is built from its own source and not checkpointed, unless a class attribute `learned = True`
    declares that an earlier stage may have trained it. A term whose constructor has the parameters `latent` (a
    LatentSpec), `patch_grid`, `image_size` or `num_classes` receives these facts. A class attribute `reconstructs =
    True` declares that the term depends on the reconstructed image and on nothing else that has gradients: balanced
    terms are weighted relative to these terms.
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
    ) -> Tensor:
        """The unweighted loss of a batch, a scalar."""
        ...


@runtime_checkable
class Balanced(Protocol):
    """A loss term with an adaptive weight: |gradient of reconstruction| / (|own gradient| + 1e-4) at an anchor."""

    balancing: Literal["none", "encoder", "decoder"]  # the tokenizer's anchor at which the two are compared
    largest_balance: float  # the upper bound of the quotient


class Adversary(Protocol):
    """A loss term with a discriminator, which has its own optimizer and is trained after each tokenizer step.

    The term depends on the reconstructed image alone.
    """

    discriminator: nn.Module

    def discriminate(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,  # detached
    ) -> Tensor:
        """The weighted loss of the discriminator."""
        ...


def is_adversary(term: object) -> TypeGuard[Adversary]:
    """Whether a loss term has a discriminator.

    From Python 3.12 on, protocol checks do not see the submodules of a module.
    """
    return isinstance(getattr(term, "discriminator", None), nn.Module) and callable(getattr(term, "discriminate", None))


@runtime_checkable
class Predictor(Protocol):
    """A loss term that predicts features of the images from the latent, and can be compared with a constant."""

    def predict(self, recon: Reconstruction) -> Tensor:
        """The predicted features."""
        ...

    def targets(self, images: Tensor, y: Tensor) -> Tensor:
        """The features of the images."""
        ...

    def errors(self, predicted: Tensor, targets: Tensor) -> Tensor:
        """The error of each prediction."""
        ...

    def average(self, errors: Tensor, recon: Reconstruction) -> Tensor:
        """The mean of the errors that count in a pass."""
        ...

    def constant(self, targets: Tensor) -> Tensor:
        """The constant prediction with the smallest error over the targets; (1, ...)."""
        ...


class Teacher(Protocol):
    """A frozen network or filter that computes target features on a grid; never trained, never checkpointed."""

    revision: ClassVar[int]

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        """The number of features at each grid position. Raises ValueError for an unsupported image size or grid."""
        ...

    def __call__(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        grid: tuple[int, int],
    ) -> Tensor:  # (B, P, channels), row-major over `grid`, without gradients
        """The features of the images at the positions of the grid."""
        ...


@runtime_checkable
class MapTeacher(Protocol):
    """A teacher whose maps have gradients to the images, so that a loss term can compare two images by them."""

    def maps(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, channels, h, w)
        """The features of the images at the network's own positions."""
        ...


@runtime_checkable
class NormalizesLatents(Protocol):
    """A tokenizer that normalizes its latents by statistics of the training images, which a training begins with."""

    def features(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B, N, C)
        """What it normalizes."""
        ...

    def set_statistics(
        self,
        mean: Tensor,  # (N, C)
        std: Tensor,  # (N, C)
    ) -> None:
        """Sets the mean and the deviation of these features over the images of each position and channel."""
        ...


class TokenLoss(Protocol):
    """A loss on the tokens after a block of a generator's backbone and the clean images, for its training alone.

    Constructor keywords that its yaml does not set are filled with `backbone`, the network that it is for, and
    `image_size`.
    """

    revision: ClassVar[int]
    weight: float
    block: int  # from 1

    def __call__(
        self,
        tokens: Tensor,  # (B, T, D)
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
    ) -> Tensor:  # (B,)
        """The unweighted loss of each image."""
        ...


class TimeDistribution(Protocol):
    """The distribution of the times at which an objective trains."""

    def sample(self, num_images: int, *, step: int, num_numbers: int, rng: torch.Generator | None = None) -> Tensor:
        """(B,) float64 on the CPU in [0, 1], 0 noise, for an optimizer step (from 0) on latents of so many numbers
        (N C); from `rng`, or torch's global stream.
        """
        ...


class Network(Protocol):
    """The part of a backbone that objectives use: (x, t, y) -> (B, N, C), or (B, N, 2 C) with a learned variance."""

    null_class: int | None  # the label for "no label"; None: it is not trained without labels
    learned_variance: bool

    def __call__(
        self,
        x: Tensor,  # (B, N, C)
        t: Tensor,  # (B,) float32 in the network's own time
        y: Tensor,  # (B,)
        *,
        r: Tensor | None = None,  # (B,) a second time, for objectives with `second_time`
    ) -> Tensor:
        """The prediction for each latent."""
        ...


@runtime_checkable
class Objective(Protocol):
    """The training target of a backbone, and the interpretation of its output."""

    revision: ClassVar[int]  # raised when its numbers change
    interpolant: Interpolant
    prediction: Kind
    learned_variance: bool  # whether the backbone has 2 C outputs

    def loss(
        self,
        backbone: Network,
        z: Tensor,  # (B, N, C) normalized latents
        y: Tensor,  # (B,) labels, the null class where dropped
        *,
        step: int,  # the optimizer step, from 0
        t: Tensor | None = None,  # (B,) 0 noise, 1 data; drawn if None
        noise: Tensor | None = None,  # (B, N, C); drawn if None
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The loss terms by name; the loss is the mean of their sum."""
        ...

    # draw_times(z (B, N, C), *, step) -> (B,) float64, optional: training times, for a network with an inner head

    def field(self, backbone: Network) -> Field:
        """The field of a backbone's predictions."""
        ...


@runtime_checkable
class Guidance(Protocol):
    """A map from a field to one that follows the labels more strongly."""

    revision: ClassVar[int]

    def __call__(self, field: Field) -> Field:
        """The guided field."""
        ...


class Increments(Protocol):
    """Normal noise for the sampling steps of some images: the same for an image in any batch, process or order."""

    def normal(
        self,
        step: int,
        shape: torch.Size,  # (B, ...)
    ) -> Tensor:  # `shape`, float32 on the CPU
        """The noise of one step."""
        ...


@runtime_checkable
class Sampler(Protocol):
    """A solver from noise to latents along a field."""

    revision: ClassVar[int]
    stochastic: bool  # whether it adds noise at its steps

    def check(self, interpolant: Interpolant) -> None:
        """Raises ValueError for an interpolant that the sampler does not support."""
        ...

    def __call__(
        self,
        field: Field,
        noise: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C) standard normal, instead of a stream
    ) -> Tensor:  # (B, N, C) float32
        """The samples."""
        ...


@runtime_checkable
class ChecksField(Protocol):
    """A sampler that needs more of a field than its predictions."""

    def check_field(self, field: Field) -> None:
        """Raises ValueError for a field that it cannot sample."""
        ...


class Job(Protocol):
    """A measurement of artifacts, which writes its figures to `out`.

    Constructor keywords that its yaml does not set are filled from `job_context.JobContext`. A job whose figures are
    ranked has `higher_is_better`, a mapping from the name of a figure to whether larger values are better: a class
    attribute, or an attribute of the object where the names depend on the protocol. Other figures are shown, not
    ranked. A job whose figures are means over the protocol's images may have `per_image` after its run, a mapping from
    their names to (n,) float64 in the order of the images: models are then compared image by image. A job of somebody's
    images has the static method `measured_samples(settings, data)`, a `MeasuredSamples`; one that does without some of
    its inputs by its settings has `unneeded(settings)`, their names. One whose settings must fit the protocol's metrics
    on sets has `check_protocol(settings, distribution, labels)`, which raises as `check`. A job that searches over a
    generator's guidance names the settings of the search in `searched`: they count in the protocol, in place of what is
    found, so that models tuned by the same search are ranked together.
    """

    name: ClassVar[str]  # of its records
    revision: ClassVar[int]  # raised when its numbers change
    requires: ClassVar[frozenset[str]]  # of "tokenizer", "generator" and "records": the subjects that it needs
    # accepts: ClassVar[frozenset[str]], optional: the subjects that it measures where one is chosen
    settings: ClassVar[tuple[str, ...]]  # the keys of its yaml that its numbers depend on

    @staticmethod
    def check(settings: Mapping[str, Any]) -> None:
        """Raises ValueError for settings out of range, before any work begins."""
        ...

    @staticmethod
    def output_files(settings: Mapping[str, Any]) -> tuple[str, ...]:
        """The files in `out` without which a recorded measurement is repeated."""
        ...

    def run(self, out: Path) -> Mapping[str, Estimate]:
        """The measured numbers by name."""
        ...


class BudgetResult(Protocol):
    """The result of a generator's training with a fixed budget: the error of each latent."""

    train: Tensor  # (n,) float64
    heldout: Tensor  # (m,) float64

    @property
    def explained(self) -> float:
        """The explained fraction of the held-out latents' error."""
        ...


class Budget(Protocol):
    """A generator's training with a fixed budget, the same for any latents."""

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
    ) -> BudgetResult:
        """Trains on the latents. Draws from its own random stream only."""
        ...
