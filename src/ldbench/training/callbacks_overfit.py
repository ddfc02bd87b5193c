"""What a training on the same few batches shows: whether its loss falls, as it must if every part can learn."""

import logging
from collections import deque
from statistics import fmean
from typing import Any, cast

import lightning as L

from ldbench.training.base_module import ManualOptimizationModule

log = logging.getLogger(__name__)

AVERAGED = 10  # steps at the beginning and at the end: losses of noisy inputs vary
FALLEN = 0.5  # of the first loss: what is above it at the end was hardly learned


class OverfitReport(L.Callback):
    """Says at the end of a stage by how much the loss fell, and warns where it hardly did. It changes no number."""

    def __init__(self) -> None:
        self.first: list[float] = []
        self.last: deque[float] = deque(maxlen=AVERAGED)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Notes the loss of a step."""
        if not cast(ManualOptimizationModule, pl_module).completed_step:
            return
        loss = float(outputs["loss"])
        if len(self.first) < AVERAGED:
            self.first.append(loss)
        self.last.append(loss)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Logs the report, unless there were too few steps for one."""
        if not trainer.is_global_zero or len(self.last) < AVERAGED:
            return
        first, last = fmean(self.first), fmean(self.last)
        name = cast(ManualOptimizationModule, pl_module).stage.name
        line = "  %s: the loss on the same batches went from %.4g to %.4g (means of %d steps)"
        if not last <= FALLEN * first:  # also where it is not a number
            log.warning(
                line + ". It has to fall further: look for a part that does not learn, a loss term that works against "
                "the others, or a learning rate that is too small or too large.",
                *(name, first, last, AVERAGED),
            )
        else:
            log.info(line + ", as it should.", name, first, last, AVERAGED)
