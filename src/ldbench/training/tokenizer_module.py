"""TokenizerModule: the training of a tokenizer through one stage."""

import inspect
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
from ldbench.training.adaptive_weights import (
    Adaptive,
    BalanceAnchor,
    WeightedLoss,
    balanced_sum,
    detach_to_leaves,
    weighted_sum,
)
from ldbench.training.base_module import ManualOptimizationModule
from ldbench.training.equivariance import Transform
from ldbench.training.latent_corruption import LatentCorruption
from ldbench.training.stage_config import Stage
from ldbench.training.timing import phase

CORRUPTION = "corruption."  # the prefix of its tensors


class TokenizerModule(ManualOptimizationModule):
    """Trains a tokenizer through one stage by the weighted sum of its loss terms,
    and the discriminators of adversarial terms.

    A term is active from batch `start` on, with a weight that rises over `warmup` batches; it is not computed before. A
    balanced term has an adaptive weight by gradient norms at the tokenizer's anchor. A discriminator is trained after
    the tokenizer's backward pass, on the same batch, with the same learning rate, schedule and clipping, and its own
    optimizer. Corruptions of latents and transforms of batches act in training alone.
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
        first_step: int,  # optimizer steps of earlier stages, for the log's axis
        folder: Path,
        adaptive: Adaptive,  # the gradients that adaptive weights compare, see `balanced_sum`
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
            trainable = getattr(stage, part) == "trainable"
            getattr(tokenizer, part).requires_grad_(trainable).train(trainable)  # Lightning keeps the modes it finds
        self.corruption = build_corruption(stage, tokenizer)
        decay = stage.ema_decay
        self.ema = (
            None
            if decay is None
            else AveragedModel(tokenizer, multi_avg_fn=get_ema_multi_avg_fn(decay)).requires_grad_(False)
        )

    @staticmethod
    def parts() -> tuple[str, str]:
        """The parts that a stage can freeze."""
        return "encoder", "decoder"

    def train(self, mode: bool = True) -> "TokenizerModule":
        """Train mode, with frozen parts in eval mode."""
        super().train(mode)
        for part in self.parts():
            if getattr(self.stage, part) == "frozen":
                getattr(self.tokenizer, part).eval()
        return self

    def configure_optimizers(self) -> Any:
        """The optimizer of the tokenizer and its loss terms with its schedule, and that of the discriminators."""
        excluded = {id(p) for p in self.discriminator_parameters}
        modules = [self.tokenizer, self.losses, *([] if self.corruption is None else [self.corruption])]
        own = [p for module in modules for p in module.parameters() if id(p) not in excluded]
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
        """A pass of the tokenizer, one of the discriminators, and a step of each where the batch completes one."""
        prepared = self.prepare(images)
        self.set_discriminators_trainable(False)
        with phase("tokenizer forward"):
            prepared, recon = self.training_pass(prepared)
        terms, weighted = self.compute_losses(prepared, recon, y)
        self.require_finite(weighted.value, terms, lambda: self.replay(images, y))
        with phase("tokenizer backward"):
            self.manual_backward(weighted.backward_loss / self.stage.accumulate)
        balances = {f"{name}_balance": weighted.weights[name] for name in terms if self.balanced(name)}
        self.set_discriminators_trainable(True)
        opposing = self.discriminator_losses(prepared, recon)
        if opposing:
            total = torch.stack(list(opposing.values())).sum()
            self.require_finite(total, opposing, lambda: self.replay(images, y))
            with phase("discriminators backward"):
                self.manual_backward(total / self.stage.accumulate)
        self.count(len(images))
        if self.completed_step:
            with phase("optimizers"):
                self.step(discriminators=bool(opposing))
            if self.log_is_due:
                self.write_log(weighted.value, {**terms, **balances, **opposing}, recon.images, prepared)
        return {"loss": weighted.value}

    def replay(self, images: Tensor, y: Tensor) -> dict[str, Any]:
        """The inputs that reproduce this batch."""
        return {"images": images.cpu(), "y": y.cpu(), "tokenizer": self.tokenizer.state_dict()}

    def prepare(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Tensor:  # (B, 3, image_size, image_size)
        """Images resized to the stage's size, and randomly flipped."""
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
        """Images resized to the stage's size, bilinear with antialiasing."""
        size = self.stage.image_size
        if images.shape[-1] == size:
            return images
        return F.interpolate(images, size=(size, size), mode="bilinear", align_corners=False, antialias=True)

    def reconstruct(
        self,
        images: Tensor,  # (B, 3, H, W)
    ) -> Reconstruction:
        """The pass of this stage, in training with its corruption of latents."""
        ratio = self.stage.mask_ratio.draw(self.steps, len(images))
        given = {"corruption": self.corruption} if self.corrupts else {}
        return self.tokenizer(images, mask_ratio=ratio, eps=self.eps(images), **given)

    def training_pass(
        self,
        images: Tensor,  # (B, 3, image_size, image_size)
    ) -> tuple[Tensor, Reconstruction]:
        """The target images and the pass of a batch, both transformed where the stage's equivariance draws it."""
        if not self.stage.equivariance.active:
            return images, self.reconstruct(images)
        grid = self.tokenizer.patch_grid
        pair, resizing = self.stage.equivariance.draw(grid)
        if pair is not None:
            return self.transformed_pass(images, pair)
        if resizing is not None:
            images = resizing(images, images.shape[2] // grid[0])
        return images, self.reconstruct(images)

    def transformed_pass(
        self,
        images: Tensor,  # (B, 3, H, W)
        transform: Transform,
    ) -> tuple[Tensor, Reconstruction]:
        """The transformed images, and the decoded transformed latents; `z` is of these.

        Raises ValueError for latents without a grid, and from tokenizers that decode one grid alone.
        """
        spec = self.tokenizer.latent
        posterior = self.tokenizer.encode(images)
        maps = transform(spec.to_map(posterior.sample(eps=self.eps(images))), 1)
        grid = (maps.shape[2], maps.shape[3])
        z = maps.flatten(2).transpose(1, 2)
        decoded = self.tokenizer.decode(self.tokenizer.corrupt(z, self.corruption if self.corrupts else None), grid)
        target = transform(images, images.shape[2] // self.tokenizer.patch_grid[0])
        return target, Reconstruction(images=decoded, z=z, posterior=posterior, patch_grid=grid)

    @property
    def corrupts(self) -> bool:
        """Whether latents are corrupted: in training, where the stage says so."""
        return self.training and self.corruption is not None

    def eps(self, images: Tensor) -> Tensor | None:
        """The noise of the posterior: zero for its mean, or None for a sample."""
        return images.new_zeros(()) if self.stage.latent == "mean" else None

    def started(self, name: str) -> bool:
        """Whether a term is active at this batch."""
        return self.batches >= self.terms[name].start

    def balanced(self, name: str) -> bool:
        """Whether a term has an adaptive weight."""
        term = self.terms[name]
        return isinstance(term, Balanced) and term.balancing != "none"

    def depends_on_image_only(self, name: str) -> bool:
        """Whether a term's gradients reach the reconstructed image only, and none of its own trainable parameters."""
        excluded = {id(p) for p in self.discriminator_parameters}
        own = self.losses[name].parameters() if name in self.losses else ()
        declared = name in self.adversaries or getattr(self.terms[name], "reconstructs", False)
        return declared and not any(p.requires_grad and id(p) not in excluded for p in own)

    def compute_losses(
        self, images: Tensor, recon: Reconstruction, y: Tensor
    ) -> tuple[dict[str, Tensor], WeightedLoss]:
        """The unweighted terms that are active at this batch, and their weighted loss."""
        active = [name for name in self.terms if self.started(name)]
        weights = {name: self.weight(name) for name in active}
        balanced = {name: self.balance_anchor(name) for name in active if self.balanced(name)}
        if not balanced:
            terms = {name: self.term(name, images, recon, y) for name in active}
            return terms, weighted_sum(terms, weights)
        leaves = {name: detach_to_leaves(recon) for name in active if self.depends_on_image_only(name)}
        terms = {name: self.term(name, images, leaves.get(name, recon), y) for name in active}
        reconstructing = frozenset(name for name in active if getattr(self.terms[name], "reconstructs", False))
        return terms, balanced_sum(
            terms,
            weights,
            recon=recon,
            leaves=leaves,
            reconstructing=reconstructing,
            balanced=balanced,
            adaptive=self.adaptive,
        )

    def term(self, name: str, images: Tensor, recon: Reconstruction, y: Tensor) -> Tensor:
        """The value of a term, as a named phase of a profile."""
        with phase(f"term {name}"):
            return self.terms[name](images, recon, y)

    def weight(self, name: str) -> float:
        """The weight of a term at this batch, before the adaptive factor."""
        term = self.terms[name]
        return term.weight * (min(1.0, (self.batches - term.start + 1) / term.warmup) if term.warmup else 1.0)

    def balance_anchor(self, name: str) -> BalanceAnchor:
        """The anchor of a balanced term."""
        term = self.terms[name]
        return BalanceAnchor(self.tokenizer.anchors()[term.balancing], term.largest_balance)

    def discriminator_losses(self, images: Tensor, recon: Reconstruction) -> dict[str, Tensor]:
        """The losses of the discriminators whose terms are active at this batch."""
        losses = {}
        for name in filter(self.started, self.adversaries):
            with phase(f"discriminator of {name}"):
                losses[f"{name}_discriminator"] = self.adversaries[name].discriminate(images, detached(recon))
        return losses

    def set_discriminators_trainable(self, trainable: bool) -> None:
        """Sets whether a backward pass computes gradients of the discriminators."""
        for parameter in self.discriminator_parameters:
            parameter.requires_grad_(trainable)

    def step(self, *, discriminators: bool) -> None:
        """A step of each optimizer; Lightning calls `on_before_optimizer_step` within it, after unscaling gradients."""
        optimizers, scheduler = self.optimizers(), self.lr_schedulers()
        first, *rest = optimizers if isinstance(optimizers, list) else [optimizers]
        self.prepare_step(first)
        with self.one_scale():
            first.step()
            first.zero_grad()
            for optimizer in rest if discriminators else ():
                for group in optimizer.param_groups:
                    group["lr"] = self.lr
                optimizer.step()
                optimizer.zero_grad()
        scheduler.step()
        if self.ema is not None:
            self.ema.update_parameters(self.tokenizer)

    def write_log(self, loss: Tensor, terms: Mapping[str, Tensor], recon: Tensor, images: Tensor) -> None:
        """Logs losses, the PSNR of the reconstruction, the learning rate and counters."""
        mean = self.mean_over_processes({"loss": loss, **terms, "mse": F.mse_loss(recon.float(), images.float())})
        mse = mean.pop("mse")
        self.log_values({**mean, "psnr": 10 * math.log10(4 / mse) if mse else math.inf})

    def result(self) -> Tokenizer:
        """The trained tokenizer: the weight average where the stage keeps one, else the last weights."""
        trained = self.tokenizer if self.ema is None else self.ema.module
        return trained.requires_grad_(True)

    def learned_terms(self) -> dict[str, Tensor]:
        """The current state of the loss terms (`<term>.<tensor>`) and of the corruption, on the CPU."""
        state = self.state_dict().items()
        terms = {key.removeprefix("losses."): value for key, value in state if key.startswith("losses.")}
        learned = terms | {key: value for key, value in state if key.startswith(CORRUPTION)}
        return {key: value.detach().cpu().clone() for key, value in learned.items()}

    def load_learned_terms(self, learned: Mapping[str, Tensor]) -> None:
        """Loads the state of the terms and of the corruption from an earlier stage.

        What is new, or of another shape, keeps its initial state.
        """
        own = self.learned_terms()
        parts = {**{f"{name}.": term for name, term in self.losses.items()}, CORRUPTION: self.corruption}
        for prefix, part in parts.items():
            shapes = {key.removeprefix(prefix): value.shape for key, value in own.items() if key.startswith(prefix)}
            state = {key.removeprefix(prefix): value for key, value in learned.items() if key.startswith(prefix)}
            if part is not None and shapes and shapes == {key: value.shape for key, value in state.items()}:
                part.load_state_dict(state, strict=False)  # a frozen network inside has its own source


def build_corruption(stage: Stage, tokenizer: Tokenizer) -> LatentCorruption | None:
    """The corruption of latents that a stage asks for; None for none.

    Raises ValueError where the tokenizer's training pass takes none.
    """
    if not stage.latent_noise.active and not stage.token_mask.active:
        return None
    if "corruption" not in inspect.signature(tokenizer.forward).parameters:
        raise ValueError(
            f"The training pass of {type(tokenizer).__name__} takes no `corruption` of its latents. Set "
            f"tokenizer.stages.{stage.name}.latent_noise.strength=0 and token_mask.largest=0."
        )
    return LatentCorruption(noise=stage.latent_noise, mask=stage.token_mask, channels=tokenizer.latent.channels)


def detached(recon: Reconstruction) -> Reconstruction:
    """The same pass, without gradients."""
    posterior = Posterior(
        recon.posterior.mean.detach(), None if recon.posterior.logvar is None else recon.posterior.logvar.detach()
    )
    return replace(recon, images=recon.images.detach(), z=recon.z.detach(), posterior=posterior)
