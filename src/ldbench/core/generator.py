"""Generator: noise and a label -> latent. A backbone, an objective, and the normalizer of its latents."""

from functools import partial

import torch
from torch import Tensor, nn

from ldbench.core.backbone import Backbone
from ldbench.core.distributed import draw_for_global_batch, normal_like
from ldbench.core.field import Field
from ldbench.core.inner_head import Stacked, predict_both, twice
from ldbench.core.interfaces import ChecksField, Guidance, Increments, Objective, Sampler
from ldbench.core.normalizer import Normalizer


class Generator(nn.Module):
    """A generator of raw latents (B, N, C), which their tokenizer decodes.

    `normaliser` holds the statistics of these latents; None: they are not known, and only `backbone` can be used.
    `class_dropout`: the fraction of labels that training replaces by the null class.
    Raises ValueError for components that do not fit each other, with what to change.
    """

    def __init__(
        self, *, backbone: Backbone, objective: Objective, normaliser: Normalizer | None, class_dropout: float
    ):
        super().__init__()
        if not 0 <= class_dropout < 1:
            raise ValueError(f"class_dropout must lie in [0, 1), got {class_dropout}.")
        if class_dropout and backbone.null_class is None:
            raise ValueError(
                f"class_dropout={class_dropout} replaces labels by the null class, but this {type(backbone).__name__} "
                "has none. Choose class_dropout=0, or build it with has_null_class=true."
            )
        if objective.learned_variance and not backbone.learned_variance:
            raise ValueError(
                f"{type(objective).__name__} learns a variance, but this {type(backbone).__name__} predicts none. "
                "Choose objective.variance=fixed_large, or build it with learned_variance=true."
            )
        if backbone.inner_block is not None and not hasattr(objective, "draw_times"):
            raise ValueError(
                f"{type(objective).__name__} cannot train the head after an inner block. Leave "
                "generator.backbone.inner_block out, or choose objective=flow_matching."
            )
        if normaliser is not None and len(normaliser.mean) != backbone.latent.channels:
            raise ValueError(
                f"The statistics are of {len(normaliser.mean)} channels, "
                f"but the backbone's latents have {backbone.latent.channels}."
            )
        self.backbone = backbone
        self.objective = objective
        self.normaliser = normaliser
        self.class_dropout = class_dropout

    def loss(
        self,
        z: Tensor,  # (B, N, C) raw latents
        y: Tensor,  # (B,) labels
        *,
        step: int,  # the optimizer step, from 0
        t: Tensor | None = None,  # (B,) 0 noise, 1 data
        noise: Tensor | None = None,  # (B, N, C)
        dropped: Tensor | None = None,  # (B,) bool: whose labels are replaced by the null class
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The objective's terms by name.

        What is not passed is drawn from torch's global stream: first the labels to drop, then the rest.
        """
        z = self.require_normalizer().normalize(z.float())
        y = self.drop_labels(y, dropped)
        if self.backbone.inner_block is not None:
            return self.loss_with_inner(z, y, step=step, t=t, noise=noise)
        return self.objective.loss(self.backbone, z, y, step=step, t=t, noise=noise)

    def loss_with_inner(
        self, z: Tensor, y: Tensor, *, step: int, t: Tensor | None, noise: Tensor | None
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The objective's terms of the network and, as `inner_...`, of its inner head at the same times and noise."""
        t = self.objective.draw_times(z, step=step) if t is None else t  # type: ignore[attr-defined]
        noise = normal_like(z) if noise is None else noise
        both = self.objective.loss(
            Stacked(self.backbone), twice(z), twice(y), step=step, t=twice(t), noise=twice(noise)
        )
        halves = {name: value.chunk(2) for name, value in both.items()}
        return {name: outer for name, (outer, _) in halves.items()} | {
            f"inner_{name}": inner for name, (_, inner) in halves.items()
        }

    def drop_labels(
        self,
        y: Tensor,  # (B,)
        dropped: Tensor | None = None,  # (B,) bool; drawn if None
    ) -> Tensor:  # (B,)
        """The labels, a fraction of them replaced by the null class. Raises ValueError where there is no null class."""
        if dropped is None and not self.class_dropout:
            return y
        if self.backbone.null_class is None:
            raise ValueError(
                f"No label can be dropped: this {type(self.backbone).__name__} has no null class. Pass dropped=None."
            )
        if dropped is None:
            dropped = draw_for_global_batch(torch.rand, len(y)) < self.class_dropout
        return torch.where(dropped.to(y.device), self.backbone.null_class, y)

    def field(self) -> Field:
        """The backbone's predictions at every point and time of normalized latents."""
        field = self.objective.field(self.backbone)
        if self.backbone.inner_block is not None:
            field.with_inner = partial(predict_both, self.objective.field(Stacked(self.backbone)))
        return field

    def sample(
        self,
        noise: Tensor,  # (B, N, C) standard normal
        y: Tensor,  # (B,) labels
        sampler: Sampler,
        guidance: Guidance,
        *,
        stream: Increments | None = None,
        increments: Tensor | None = None,  # (steps, B, N, C) standard normal
    ) -> Tensor:  # (B, N, C) float32, raw latents
        """Samples from noise by a sampler. `stream` or `increments` is the noise that a stochastic sampler adds.

        Raises ValueError without statistics, for unknown labels, and for a sampler or a guidance that does not apply.
        """
        normalizer = self.require_normalizer()
        self.backbone.validate_labels(y)
        sampler.check(self.objective.interpolant)
        return normalizer.denormalize(sampler(guidance(self.field()), noise, y, stream=stream, increments=increments))

    def check(self, sampler: Sampler, guidance: Guidance) -> None:
        """Raises ValueError, with what to choose, for a sampler or a guidance that does not apply to this generator."""
        sampler.check(self.objective.interpolant)
        guided = guidance(self.field())
        if isinstance(sampler, ChecksField):
            sampler.check_field(guided)

    def require_normalizer(self) -> Normalizer:
        """The normalizer of the latents. Raises ValueError where their statistics are not known."""
        if self.normaliser is None:
            raise ValueError(
                "The statistics of this generator's latents are not known, so that nothing can be sampled or trained. "
                "Load it with stats=latents_stats.pt, stats=(mean, std) or stats=0.18215 (one scale). "
                "Its `.backbone` works without."
            )
        return self.normaliser
