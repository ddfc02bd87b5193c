"""The parts of a generator: objectives, times, guidance, samplers, and losses on inner tokens."""

from typing import ClassVar, Protocol, runtime_checkable

import torch
from torch import Tensor

from ldbench.core.field import Field
from ldbench.core.interpolant import Interpolant, Kind


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
