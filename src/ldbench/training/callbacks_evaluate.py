"""ModuleEvaluation: measures a tokenizer inside anybody's LightningModule while it is trained."""

from collections.abc import Callable, Mapping
from typing import Any

import lightning as L
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import nn

from ldbench.core.estimate import Estimate

SHARDED = (FSDPStrategy, ModelParallelStrategy, DeepSpeedStrategy)  # no process holds all weights

FindTokenizer = str | Callable[[L.LightningModule], nn.Module] | None


class ModuleEvaluation(L.Callback):
    """Measures every `every_n_steps` optimizer steps and at the end, in rank 0 while the others wait.

    Logged under `<prefix>/<metric>` to every logger at the trainer's `global_step`, and during the training with
    `log_dict`, so that other callbacks can monitor it. `estimates` has the last metrics with their intervals, `history`
    all of them by step. A subclass says how a tokenizer is measured; it must leave it, and the process, as they were.
    Raises ValueError where the tokenizer is not found, and for a strategy that shards weights.
    """

    def __init__(self, *, every_n_steps: int, tokenizer: FindTokenizer, prefix: str):
        if not isinstance(every_n_steps, int) or isinstance(every_n_steps, bool) or every_n_steps < 1:
            raise ValueError(f"every_n_steps must be a whole number of at least 1, got {every_n_steps!r}.")
        self.every_n_steps = every_n_steps
        self.tokenizer = tokenizer
        self.prefix = prefix
        self.estimates: dict[str, Estimate] = {}
        self.history: dict[int, dict[str, Estimate]] = {}
        self.last_step = 0

    def measure(self, tokenizer: nn.Module) -> Mapping[str, Estimate]:
        """The metrics of a tokenizer."""
        raise NotImplementedError

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Looks for the tokenizer before any step."""
        if isinstance(trainer.strategy, SHARDED):
            raise ValueError(
                f"{type(trainer.strategy).__name__} shards the weights over the processes, and rank 0 measures alone. "
                "Use strategy='ddp', or measure a checkpoint: ldbench.measure(module)."
            )
        find_tokenizer(pl_module, self.tokenizer)

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Counts from the step at which the training starts, which is not 0 after a resumption."""
        self.last_step = trainer.global_step

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Measures after every `every_n_steps` optimizer steps; with several optimizers all of their steps count."""
        step, before = trainer.global_step, self.last_step
        self.last_step = step
        if step // self.every_n_steps > before // self.every_n_steps:
            values = self.measure_and_log(trainer, pl_module)
            pl_module.log_dict(values, logger=False, on_step=True, on_epoch=False)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Measures the result, unless its last step was measured."""
        if trainer.global_step not in self.history:
            self.measure_and_log(trainer, pl_module)

    def measure_and_log(self, trainer: L.Trainer, pl_module: L.LightningModule) -> dict[str, float]:
        """The values, in all ranks, as they are logged."""
        measured: dict[str, Estimate] = {}
        if trainer.is_global_zero:
            measured = dict(self.measure(find_tokenizer(pl_module, self.tokenizer)))
        self.estimates = trainer.strategy.broadcast(measured)
        self.history[trainer.global_step] = self.estimates
        values = {f"{self.prefix}/{name}": estimate.value for name, estimate in self.estimates.items()}
        for logger in trainer.loggers:
            logger.log_metrics(values, step=trainer.global_step)
        return values


def find_tokenizer(pl_module: L.LightningModule, where: FindTokenizer) -> nn.Module:
    """The tokenizer of a LightningModule: under a dotted name, by a function, or, with None, the module itself or its
    only submodule with `encode` and `decode`.

    Raises ValueError where there is none, or more than one.
    """
    name = type(pl_module).__name__
    if callable(where):
        found = where(pl_module)
    elif isinstance(where, str):
        found = pl_module
        for part in where.split("."):
            if not hasattr(found, part):
                raise ValueError(f"{name} has no {where}, where tokenizer={where!r} looks: there is no {part}.")
            found = getattr(found, part)
    else:
        found = the_only_tokenizer(pl_module)
    if not isinstance(found, nn.Module):
        raise ValueError(f"tokenizer={where!r} gives a {type(found).__name__} of {name}, and it must be a module.")
    return found


def the_only_tokenizer(pl_module: L.LightningModule) -> nn.Module:
    """The module itself, or its only direct submodule, that encodes and decodes. Raises ValueError for others."""
    if encodes_and_decodes(pl_module):
        return pl_module
    found = {key: child for key, child in pl_module.named_children() if encodes_and_decodes(child)}
    if len(found) != 1:
        which = f"several: {', '.join(found)}" if found else "none"
        raise ValueError(
            f"{type(pl_module).__name__} has no encode and decode, and of its submodules {which} of both. Say which "
            "one: tokenizer='NAME', or a function of the LightningModule."
        )
    return next(iter(found.values()))


def encodes_and_decodes(module: nn.Module) -> bool:
    """Whether a module has the methods of a tokenizer."""
    return callable(getattr(module, "encode", None)) and callable(getattr(module, "decode", None))
