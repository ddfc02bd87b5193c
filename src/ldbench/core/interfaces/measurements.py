"""Measurements of artifacts, and trainings of a fixed budget."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from ldbench.core.estimate import Estimate


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
