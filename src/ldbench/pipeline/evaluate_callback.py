"""Evaluate: the callback for other people's trainings, `ldbench.Evaluate`."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.pipeline.composed_job import Place
from ldbench.pipeline.from_python import compose_measurement, measure_module, open_images
from ldbench.training.callbacks_evaluate import ModuleEvaluation


class Evaluate(ModuleEvaluation):
    """A Lightning callback that measures the tokenizer in any LightningModule during its training.

    Example:
        trainer = lightning.Trainer(callbacks=[ldbench.Evaluate(every_n_steps=1000, jobs="reconstruct", data="digits")])

    Every `every_n_steps` optimizer steps and at the end, each job's metrics are those of `ldbench.measure` on the
    tokenizer as it is then. They are logged under `ldbench/<metric>`; `estimates` has the last ones with their
    intervals, and `history` all of them by step. Rank 0 measures while others wait. Not a bit of the training is
    another with it: modes, gradients and random streams are restored.

    jobs: a name, several, or a mapping from names to settings, such as {"smoothness": {"num_images": 64}}.
    tokenizer: where it is: a dotted attribute, a function of the LightningModule, or None for the LightningModule
    itself or its only submodule with `encode` and `decode`.
    The other arguments are those of `ldbench.measure`. Raises ValueError, before any training, for settings that do
    not fit, and at its start for a tokenizer that is not found.
    """

    def __init__(
        self,
        every_n_steps: int,
        *,
        jobs: str | Sequence[str] | Mapping[str, Mapping[str, Any]] = "reconstruct",
        data: str | ImageData = "digits",
        tokenizer: str | Callable[[Any], nn.Module] | None = None,
        prefix: str = "ldbench",
        image_size: int | None = None,
        value_range: tuple[float, float] = (-1.0, 1.0),
        protocol: str | Mapping[str, Any] | None = None,
        root: str | os.PathLike[str] = ".",
        device: torch.device | str | None = None,
        overrides: Sequence[str] = (),
        searchpath: Sequence[str] = (),
    ):
        super().__init__(every_n_steps=every_n_steps, tokenizer=tokenizer, prefix=prefix)
        names = [jobs] if isinstance(jobs, str) else list(jobs)
        if not names:
            raise ValueError("jobs is empty. Name at least one, such as jobs='reconstruct'.")
        self.value_range = value_range
        self.data: ImageData | None = None  # read at the first measurement, and kept
        self.measurements = [
            compose_measurement(
                name,
                data,
                image_size=image_size,
                protocol=protocol,
                place=Place(root=os.fspath(root), record=None, force=False, device=device),
                overrides=overrides,
                searchpath=searchpath,
                settings=jobs[name] if isinstance(jobs, Mapping) else {},
            )
            for name in names
        ]

    def measure(self, tokenizer: nn.Module) -> dict[str, Estimate]:
        """The metrics of all jobs."""
        metrics: dict[str, Estimate] = {}
        for composed in self.measurements:
            self.data = open_images(composed, tokenizer) if self.data is None else self.data
            metrics |= measure_module(composed, tokenizer, value_range=self.value_range, data=self.data)
        return metrics
