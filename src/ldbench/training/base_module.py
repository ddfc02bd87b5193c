"""The base of the training modules: counts steps, seeds batches, logs, and stops at a loss that is not finite."""

import hashlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import lightning as L
import torch
from torch import Tensor, nn

from ldbench.core.distributed import data_parallel
from ldbench.io.safe_load import write_pickle
from ldbench.training.fsdp import unsharded_tensor
from ldbench.training.optimizer import AdamW


class TrainingPhase(Protocol):
    """The settings of one phase of a training."""

    name: str
    max_steps: int  # optimizer steps
    accumulate: int  # batches in an optimizer step
    optimizer: AdamW


class ManualOptimizationModule(L.LightningModule):
    """A training by manual optimization through one phase.

    Every batch is seeded with `step_seed`, a function of (seed, phase, batch), so that a resumed run has the random
    numbers of an uninterrupted one, and several processes those of one. Counts its own batches and images (over all
    processes). A loss that is not finite raises FloatingPointError and writes a replay to `folder`. Losses are logged
    to every logger, and with Lightning's `self.log`, so that callbacks can monitor them in `trainer.callback_metrics`.
    """

    def __init__(self, *, stage: TrainingPhase, seed: int, log_every: int, first_step: int, folder: Path):
        super().__init__()
        self.automatic_optimization = False
        self.stage = stage
        self.seed = seed
        self.log_every = log_every  # optimizer steps
        self.first_step = first_step  # optimizer steps of earlier phases, for the log's axis
        self.folder = folder
        self.losses = nn.ModuleDict()  # loss terms with parameters; a subclass fills it
        self.batches = 0
        self.images_seen = 0

    @property
    def steps(self) -> int:
        """Optimizer steps done in this phase."""
        return self.batches // self.stage.accumulate

    @property
    def completed_step(self) -> bool:
        """Whether the last batch was the last of an optimizer step."""
        return self.batches % self.stage.accumulate == 0

    @property
    def log_is_due(self) -> bool:
        """Whether the last step is logged."""
        return self.steps % self.log_every == 0 or self.steps in (1, self.stage.max_steps)

    def step_seed(self, batch: int) -> int:
        """The seed of a batch's random numbers, the same in all processes, which keep the draws of their own images."""
        key = f"{self.seed}/{self.stage.name}/{batch}/0"
        return int.from_bytes(hashlib.sha256(key.encode()).digest()[:7], "big")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Seeds a batch and trains on it."""
        torch.manual_seed(self.step_seed(self.batches))
        with data_parallel(self.global_rank, self.trainer.world_size):
            return self.train_batch(*batch)

    def train_batch(self, *batch: Tensor) -> dict[str, Tensor]:
        """Trains on one batch of this process, and returns its `loss` without gradients."""
        raise NotImplementedError

    def count(self, num_images: int) -> None:
        """Counts a batch of this process."""
        self.batches += 1
        self.images_seen += num_images * self.trainer.world_size

    def prepare_step(self, optimizer: Any) -> None:
        """Stores the learning rate of a step, and clears the gradient norms of the one before."""
        self.lr = optimizer.param_groups[0]["lr"]
        self.grad_norms: list[Tensor] = []  # in the order in which optimizers step

    def build_optimizer(self, parameters: Iterable[nn.Parameter]) -> torch.optim.Optimizer:
        """The phase's optimizer, fused unless gradients are scaled (float16): that one would unscale after clipping."""
        return self.stage.optimizer.build(parameters, fused=self.trainer.scaler is None)

    @contextmanager
    def one_scale(self) -> Iterator[None]:
        """Lets all optimizers that step inside unscale by the scale that their losses were multiplied with.

        Lightning updates the scale of float16 after each optimizer, and would unscale the second one by another scale.
        """
        scaler = self.trainer.scaler
        if scaler is None:
            yield
            return
        scaler.update = lambda: None  # on this object, in front of its class's
        try:
            yield
        finally:
            del scaler.update
        scaler.update()

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Clips the gradients, and stores their norm before that."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        limit = self.stage.optimizer.clip_norm
        if limit is None:
            norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        else:
            norm = nn.utils.clip_grad_norm_(parameters, limit)
        self.grad_norms.append(unsharded_tensor(norm))

    def mean_over_processes(self, values: Mapping[str, Tensor]) -> dict[str, float]:
        """The means of scalars over the processes."""
        return {
            name: float(self.trainer.strategy.reduce(value.detach(), reduce_op="mean"))
            for name, value in values.items()
        }

    def log_values(self, values: Mapping[str, float]) -> None:
        """Logs values, the learning rate and counters to every logger, by the optimizer steps of all phases.

        The values are also logged with Lightning's `self.log`, as CPU tensors, for callbacks that monitor them.
        """
        losses = {f"train/{name}": value for name, value in values.items()}
        metrics = {
            **losses,
            "train/lr": self.lr,
            "train/grad_norm": float(self.grad_norms[0]),
            "train/images_seen": self.images_seen,
            "train/batch": self.batches,
        }
        for logger in self.loggers:
            logger.log_metrics(metrics, step=self.first_step + self.steps)
        monitored = {name: torch.tensor(value) for name, value in losses.items()}
        self.log_dict(monitored, on_step=True, on_epoch=False, logger=False)

    def require_finite(
        self, loss: Tensor, terms: Mapping[str, Tensor], replay: Callable[[], Mapping[str, Any]]
    ) -> None:
        """Raises FloatingPointError in every process when any process's loss is not finite,
        after saving a replay of the batch.
        """
        if self.trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(loss)), all=True):
            return
        path = self.folder / f"nonfinite-{self.stage.name}-{self.batches}-{self.global_rank}.pt"
        self.folder.mkdir(parents=True, exist_ok=True)
        write_pickle({**replay(), "seed": self.step_seed(self.batches)}, path)
        values = ", ".join(f"{name} {value.item():g}" for name, value in terms.items())
        raise FloatingPointError(
            f"The loss of stage {self.stage.name} is not finite at batch {self.batches} ({values}). Try a lower "
            "learning rate, clip_norm, or trainer.precision=fp32. The batch, its random seed and the weights are in "
            f"{path} for a replay."
        )

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # type: ignore[override]
        """The state for a checkpoint, without the frozen networks of loss terms: these have their own source."""
        frozen = tuple(
            f"losses.{name}." for name, module in self.losses.named_modules(remove_duplicate=False) if is_frozen(module)
        )
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if not key.startswith(frozen)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Loads the state of a checkpoint; frozen networks of loss terms keep theirs."""
        own = super().state_dict()
        absent = {key: own[key] for key in own.keys() - self.state_dict().keys()}
        return super().load_state_dict({**absent, **state_dict}, strict=strict, assign=assign)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Adds the counters to a checkpoint."""
        checkpoint["progress"] = {"stage": self.stage.name, "batches": self.batches, "images_seen": self.images_seen}

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restores the counters."""
        self.batches = checkpoint["progress"]["batches"]
        self.images_seen = checkpoint["progress"]["images_seen"]


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, none of them trainable, and all of them from a source of their own."""
    parameters = list(module.parameters())
    return (
        bool(parameters)
        and not any(p.requires_grad for p in parameters)
        and not any(getattr(part, "learned", False) for part in module.modules())
    )
