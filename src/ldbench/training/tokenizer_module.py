"""TokenizerModule: one stage of a tokenizer's training, under `lightning.Trainer`."""

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from ldbench.core.distributed import draw_for_global_batch
from ldbench.core.interfaces import Adversary, Balanced, LossTerm, is_adversary
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction, Tokenizer
from ldbench.training.adaptive_weights import Adaptive, BalanceAnchor, WeightedLoss, balance, detach_to_leaves, plain
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.stage_config import Stage
from ldbench.training.timing import phase


class TokenizerModule(ManualOptimizationModule):
    """Trains a tokenizer through one stage: the weighted sum of its loss terms, by manual optimisation, and the opponents of adversarial terms.

    A term counts from its `start` on, with a weight that rises over `warmup` batches; before that nothing of it is computed. A balanced term
    is weighed by gradient norms at the tokenizer's anchor. A discriminator learns after the tokenizer's backward pass, from the same batch,
    with the same rate, schedule and clipping, and an optimizer of its own.
    """

    def __init__(
        self,
        *,
        tokenizer: Tokenizer,
        losses: Mapping[str, LossTerm],
        stage: Stage,
        seed: int,
        label_safe_flips: bool,
        log_every: int,  # optimizer steps
        first_step: int,  # optimizer steps of the stages before, for the log's axis
        folder: Path,
        adaptive: Adaptive,  # what balanced terms are weighed by, see `balance`
    ):
        super().__init__(stage=stage, seed=seed, log_every=log_every, first_step=first_step, folder=folder)
        self.stage: Stage
        self.tokenizer = tokenizer
        self.losses = nn.ModuleDict({name: term for name, term in losses.items() if isinstance(term, nn.Module)})
        self.terms = dict(losses)
        self.adversaries: dict[str, Adversary] = {name: term for name, term in losses.items() if is_adversary(term)}
        self.discriminator_parameters = [
            p for term in self.adversaries.values() for p in term.discriminator.parameters() if p.requires_grad
        ]
        self.adaptive = adaptive
        self.flip = stage.flip if label_safe_flips else 0.0
        for part in self.parts():
            getattr(tokenizer, part).requires_grad_(getattr(stage, part) == "trainable")
        decay = stage.ema_decay
        self.ema = (
            None
            if decay is None
            else AveragedModel(tokenizer, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)
        )

    @staticmethod
    def parts() -> tuple[str, str]:
        """What a stage can freeze."""
        return "encoder", "decoder"

    def train(self, mode: bool = True) -> "TokenizerModule":
        """Train mode, but for what is frozen: that stays in eval mode."""
        super().train(mode)
        for part in self.parts():
            if getattr(self.stage, part) == "frozen":
                getattr(self.tokenizer, part).eval()
        return self

    def configure_optimizers(self) -> tuple[list, list]:
        theirs = {id(p) for p in self.discriminator_parameters}
        own = [p for module in (self.tokenizer, self.losses) for p in module.parameters() if id(p) not in theirs]
        optimizer = self.build_optimizer(own)
        factor = lambda step: self.stage.optimizer.factor(step, self.stage.max_steps)  # noqa: E731
        schedulers = [torch.optim.lr_scheduler.LambdaLR(optimizer, factor)]
        return [
            optimizer,
            *([self.build_optimizer(self.discriminator_parameters)] if self.discriminator_parameters else []),
        ], schedulers

    def train_batch(
        self,
        images: Tensor,  # (B, 3, H, W)
        y: Tensor,  # (B,)
    ) -> dict[str, Tensor]:
        """A pass over images, one of the discriminators, and a step of each where the batch is the last of one."""
        prepared = self.prepare(images)
        self.set_discriminators_trainable(False)
        with phase("tokenizer forward"):
            recon = self.reconstruct(prepared)
        terms, weighed = self.measure(prepared, recon, y)
        self.require_finite(weighed.value, terms, lambda: self.replay(images, y))
        with phase("tokenizer backward"):
            self.manual_backward(weighed.pulling / self.stage.accumulate)
        told = {**terms, **{f"{name}_balance": weighed.weights[name] for name in terms if self.balanced(name)}}
        self.set_discriminators_trainable(True)
        opposed = self.oppose(prepared, recon)
        if opposed:
            theirs = torch.stack(list(opposed.values())).sum()
            self.require_finite(theirs, opposed, lambda: self.replay(images, y))
            with phase("discriminators backward"):
                self.manual_backward(theirs / self.stage.accumulate)
        self.count(len(images))
        if self.ended_step:
            with phase("optimizers"):
                self.step(discriminators=bool(opposed))
            if self.due:
                self.write_log(weighed.value, {**told, **opposed}, recon.images, prepared)
        return {"loss": weighed.value}

    def replay(self, images: Tensor, y: Tensor) -> dict[str, Any]:
        """What repeats this batch."""
        return {"images": images.cpu(), "y": y.cpu(), "tokenizer": self.tokenizer.state_dict()}

    def prepare(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Tensor:  # (B, 3, image_size, image_size)
        """Images as the stage wants them: of its size, mirrored by chance."""
        images = self.resize(images)
        if self.flip:
            mirrored = (
                draw_for_global_batch(lambda count: torch.rand(count, 1, 1, 1, device=images.device), len(images))
                < self.flip
            )
            images = torch.where(mirrored, images.flip(-1), images)
        return images

    def resize(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Tensor:  # (B, 3, image_size, image_size)
        """Images of the stage's size, bilinear with antialiasing."""
        size = self.stage.image_size
        if images.shape[-1] == size:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)

    def reconstruct(
        self,
        images: Tensor,  # (B, 3, image_size, image_size)
    ) -> Reconstruction:
        """The training pass of this stage."""
        eps = images.new_zeros(()) if self.stage.latent == "mean" else None
        return self.tokenizer(images, mask_ratio=self.stage.mask_ratio.draw(self.steps, len(images)), eps=eps)

    def started(self, name: str) -> bool:
        """Whether a term counts at this batch."""
        return self.batches >= self.terms[name].start

    def balanced(self, name: str) -> bool:
        """Whether a term is weighed by gradients."""
        term = self.terms[name]
        return isinstance(term, Balanced) and term.balancing != "none"

    def sees_image_alone(self, name: str) -> bool:
        """Whether a term pulls at the reconstructed image and at nothing else, and learns nothing by it itself."""
        theirs = {id(p) for p in self.discriminator_parameters}
        own = self.losses[name].parameters() if name in self.losses else ()
        told = name in self.adversaries or getattr(self.terms[name], "reconstructs", False)
        return told and not any(p.requires_grad and id(p) not in theirs for p in own)

    def measure(self, images: Tensor, recon: Reconstruction, y: Tensor) -> tuple[dict[str, Tensor], WeightedLoss]:
        """The terms that count at this batch, unweighted, and the loss that they make."""
        counting = [name for name in self.terms if self.started(name)]
        weights = {name: self.weight(name) for name in counting}
        balanced = {name: self.anchored(name) for name in counting if self.balanced(name)}
        if not balanced:
            terms = {name: self.term(name, images, recon, y) for name in counting}
            return terms, plain(terms, weights)
        leaves = {name: detach_to_leaves(recon) for name in counting if self.sees_image_alone(name)}
        terms = {name: self.term(name, images, leaves.get(name, recon), y) for name in counting}
        reconstructing = frozenset(name for name in counting if getattr(self.terms[name], "reconstructs", False))
        return terms, balance(
            terms,
            weights,
            recon=recon,
            leaves=leaves,
            reconstructing=reconstructing,
            balanced=balanced,
            adaptive=self.adaptive,
        )

    def term(self, name: str, images: Tensor, recon: Reconstruction, y: Tensor) -> Tensor:
        """The value of a term, under its name in a profile."""
        with phase(f"term {name}"):
            return self.terms[name](images, recon, y)

    def weight(self, name: str) -> float:
        """The weight of a term at this batch, before any balance."""
        term = self.terms[name]
        return term.weight * (min(1.0, (self.batches - term.start + 1) / term.warmup) if term.warmup else 1.0)

    def anchored(self, name: str) -> BalanceAnchor:
        """Where a balanced term is weighed."""
        term = self.terms[name]
        return BalanceAnchor(self.tokenizer.anchors()[term.balancing], term.largest_balance)

    def dry_run(self, images: Tensor, y: Tensor) -> None:
        """Runs every term once, also those that start later. Raises ValueError for whatever does not fit."""
        for name in filter(self.balanced, self.terms):
            where = self.terms[name].balancing
            cure = f"Say ++tokenizer.stages.{self.stage.name}.losses.{name}.balancing=none."
            if getattr(self.stage, where) == "frozen":
                raise ValueError(f"Loss {name} is balanced at the {where}'s anchor, which this stage freezes. {cure}")
            if not any(getattr(term, "reconstructs", False) and term.start == 0 for term in self.terms.values()):
                raise ValueError(
                    f"Loss {name} is balanced against the terms that reconstruct, and none of them counts from the start. {cure}"
                )
        prepared = self.prepare(images)
        self.tokenizer(prepared, mask_ratio=self.stage.mask_ratio.largest)
        recon = self.reconstruct(prepared)
        for term in self.terms.values():
            term(prepared, recon, y)
        for term in self.adversaries.values():
            term.discriminate(prepared, detached(recon))

    def oppose(self, images: Tensor, recon: Reconstruction) -> dict[str, Tensor]:
        """The losses of the discriminators whose terms count at this batch."""
        opposed = {}
        for name in filter(self.started, self.adversaries):
            with phase(f"discriminator of {name}"):
                opposed[f"{name}_discriminator"] = self.adversaries[name].discriminate(images, detached(recon))
        return opposed

    def set_discriminators_trainable(self, learning: bool) -> None:
        """Whether a backward pass leaves gradients in the discriminators."""
        for parameter in self.discriminator_parameters:
            parameter.requires_grad_(learning)

    def step(self, *, discriminators: bool) -> None:
        """One step of each optimizer; Lightning calls `on_before_optimizer_step` in it, where the gradients are unscaled."""
        optimizers, scheduler = self.optimizers(), self.lr_schedulers()
        first, *rest = optimizers if isinstance(optimizers, list) else [optimizers]
        self.begin_step(first)
        first.step()
        first.zero_grad()
        for opponent in rest if discriminators else ():
            for group in opponent.param_groups:
                group["lr"] = self.lr
            opponent.step()
            opponent.zero_grad()
        scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.tokenizer)

    def write_log(self, loss: Tensor, terms: Mapping[str, Tensor], recon: Tensor, images: Tensor) -> None:
        """Losses, the error of the reconstruction, rates and counters."""
        mean = self.over_processes({"loss": loss, **terms, "mse": F.mse_loss(recon.float(), images.float())})
        mse = mean.pop("mse")
        self.log_values({**mean, "psnr": 10 * math.log10(4 / mse) if mse else math.inf})

    def result(self) -> Tokenizer:
        """What the stage leaves behind: the averaged tokenizer where it keeps an average, else the trained one."""
        trained = self.tokenizer if self.ema is None else self.ema.module
        return trained.requires_grad_(True)

    def learned_terms(self) -> dict[str, Tensor]:
        """What the loss terms have learned so far, on the CPU: `<term>.<tensor>`."""
        state = self.state_dict().items()
        return {
            key.removeprefix("losses."): value.detach().cpu().clone()
            for key, value in state
            if key.startswith("losses.")
        }

    def load_learned_terms(self, learned: Mapping[str, Tensor]) -> None:
        """Gives the terms what they learned in an earlier stage. A term that is of another shape now, or new, begins afresh."""
        own = self.learned_terms()
        for name, term in self.losses.items():
            here = {
                key.removeprefix(f"{name}."): value.shape for key, value in own.items() if key.startswith(f"{name}.")
            }
            before = {
                key.removeprefix(f"{name}."): value for key, value in learned.items() if key.startswith(f"{name}.")
            }
            if here and here == {key: value.shape for key, value in before.items()}:
                term.load_state_dict(before, strict=False)  # a frozen network inside has its own source

    def state_dict(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """What a checkpoint holds: not the frozen networks of loss terms, which are built from their own source."""
        frozen = tuple(
            f"losses.{name}." for name, module in self.losses.named_modules(remove_duplicate=False) if is_frozen(module)
        )
        return {key: value for key, value in super().state_dict(*args, **kwargs).items() if not key.startswith(frozen)}

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        own = super().state_dict()
        absent = {key: own[key] for key in own.keys() - self.state_dict().keys()}
        return super().load_state_dict({**absent, **state_dict}, strict=strict, assign=assign)


def detached(recon: Reconstruction) -> Reconstruction:
    """The same pass, without gradients."""
    posterior = Posterior(
        recon.posterior.mean.detach(), None if recon.posterior.logvar is None else recon.posterior.logvar.detach()
    )
    return replace(recon, images=recon.images.detach(), z=recon.z.detach(), posterior=posterior)


def is_frozen(module: nn.Module) -> bool:
    """Whether a module has parameters, trains none of them, and has a source of its own for all of them."""
    parameters = list(module.parameters())
    return (
        bool(parameters)
        and not any(p.requires_grad for p in parameters)
        and not any(getattr(part, "learned", False) for part in module.modules())
    )
