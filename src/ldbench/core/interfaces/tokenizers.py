"""What a tokenizer is trained with: loss terms, teachers, and what these may have besides."""

from typing import ClassVar, Literal, Protocol, TypeGuard, runtime_checkable

from torch import Tensor, nn

from ldbench.core.tokenizer import Reconstruction


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
