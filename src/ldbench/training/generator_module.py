"""GeneratorModule: the training of a generator on latents."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ldbench.core.generator import Generator
from ldbench.core.interfaces import TokenLoss
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.fsdp import shard, shard_learned, unsharded
from ldbench.training.generator_config import GeneratorTrainingConfig
from ldbench.training.timing import phase


class GeneratorModule(ManualOptimizationModule):
    """Trains a generator by the sum of its objective's terms and of losses on the tokens inside its backbone,
    and keeps weight averages of its backbone at several decays.
    """

    def __init__(
        self,
        *,
        generator: Generator,
        course: GeneratorTrainingConfig,
        seed: int,
        log_every: int,
        folder: Path,
        losses: Mapping[str, TokenLoss] = {},  # by name; they also take the images of a batch
    ):
        super().__init__(stage=course, seed=seed, log_every=log_every, first_step=0, folder=folder)
        self.stage: GeneratorTrainingConfig
        self.generator = generator
        self.terms = dict(losses)
        self.losses.update({name: term for name, term in losses.items() if isinstance(term, nn.Module)})
        averages = [
            AveragedModel(generator.backbone, multi_avg_fn=get_ema_multi_avg_fn(decay)) for decay in course.ema_decays
        ]
        self.sharded = False
        self.averages = nn.ModuleList(averages).requires_grad_(False)

    def configure_model(self) -> None:
        """Shards the backbone and its averages over the processes if the trainer's strategy does."""
        if isinstance(self.trainer.strategy, ModelParallelStrategy) and not self.sharded:
            for network in (self.generator.backbone, *(average.module for average in self.averages)):
                shard(network, self.device_mesh["data_parallel"])
            for term in self.losses.values():
                shard_learned(term, self.device_mesh["data_parallel"])
            self.sharded = True

    def configure_optimizers(self) -> Any:
        """The optimizer and its learning rate schedule."""
        optimizer = self.build_optimizer([*self.generator.parameters(), *self.losses.parameters()])
        factor = lambda step: self.stage.optimizer.factor(step, self.stage.max_steps)  # noqa: E731
        return [optimizer], [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]

    def train_batch(
        self,
        z: Tensor,  # (B, N, C)
        y: Tensor,  # (B,)
        images: Tensor | None = None,  # (B, 3, H, W) in [-1, 1], where a loss takes them
    ) -> dict[str, Tensor]:
        """A forward and backward pass, and an optimizer step where the batch completes one."""
        blocks = {term.block for term in self.terms.values()}
        with phase("generator forward"), self.generator.backbone.keep_tokens(blocks) as tokens:
            terms = {name: value.mean() for name, value in self.generator.loss(z, y, step=self.steps).items()}
        for name, term in self.terms.items():
            with phase(f"term {name}"):
                value = term.weight * term(tokens[term.block], images).mean()
            terms[f"losses.{name}" if name in terms else name] = value  # the objective has terms by name too
        loss = torch.stack(list(terms.values())).sum()
        self.require_finite(
            loss, terms, lambda: {"z": z.cpu(), "y": y.cpu(), "generator": unsharded(self.generator.state_dict())}
        )
        with phase("generator backward"):
            self.manual_backward(loss / self.stage.accumulate)
        self.count(len(z))
        if self.completed_step:
            with phase("optimizer"):
                self.step()
            if self.log_is_due:
                self.log_values(self.mean_over_processes({"loss": loss, **terms}))
        return {"loss": loss.detach()}

    def step(self) -> None:
        """Steps the optimizer, its schedule and the averages; Lightning calls `on_before_optimizer_step` within it."""
        optimizer: Any = self.optimizers()
        self.prepare_step(optimizer)
        optimizer.step()
        optimizer.zero_grad()
        self.lr_schedulers().step()
        for average in self.averages:
            average.update_parameters(self.generator.backbone)

    def averaged(self, decay: float | None) -> Generator:
        """The generator with the average of a decay, or the last weights (None).

        Raises ValueError for a decay without an average.
        """
        if decay is None:
            return self.generator
        if decay not in self.stage.ema_decays:
            raise ValueError(
                f"There is no average with the decay {decay}. Choose one of {list(self.stage.ema_decays)}, "
                "or None for the last weights."
            )
        trained = self.generator
        return Generator(
            backbone=self.averages[list(self.stage.ema_decays).index(decay)].module,
            objective=trained.objective,
            normaliser=trained.normaliser,
            class_dropout=trained.class_dropout,
        )

    def exported(self) -> Generator:
        """The generator with the weights that are exported."""
        return self.averaged(self.stage.exported_decay)
