"""Generator: noise and a label -> latent. A backbone, what it learns, and the scale at which it sees latents."""

import torch
from torch import Tensor, nn

from ldbench.core.backbone import Backbone
from ldbench.core.distributed import draw_for_global_batch
from ldbench.core.field import Field
from ldbench.core.interfaces import Guidance, Increments, Objective, Sampler
from ldbench.core.normalizer import Normalizer


class Generator(nn.Module):
    """A generator of raw latents (B, N, C), as the tokenizer that they are of decodes them.

    `normaliser` holds the statistics of these latents; None: they are not known, and `backbone` is all that can be used.
    `class_dropout`: the share of labels that training replaces by the null class.
    Raises ValueError for parts that do not fit, with what to change.
    """

    def __init__(
        self, *, backbone: Backbone, objective: Objective, normaliser: Normalizer | None, class_dropout: float
    ):
        super().__init__()
        if not 0 <= class_dropout < 1:
            raise ValueError(f"class_dropout must lie in [0, 1), got {class_dropout}.")
        if class_dropout and backbone.null_class is None:
            raise ValueError(
                f"class_dropout={class_dropout} replaces labels by the null class, but this {type(backbone).__name__} has none. "
                "Choose class_dropout=0, or build it with has_null_class=true."
            )
        if objective.learned_variance and not backbone.learned_variance:
            raise ValueError(
                f"{type(objective).__name__} learns a variance, but this {type(backbone).__name__} tells none. "
                "Choose objective.variance=fixed_large, or build it with learned_variance=true."
            )
        if normaliser is not None and len(normaliser.mean) != backbone.latent.channels:
            raise ValueError(
                f"The statistics are of {len(normaliser.mean)} channels, but the backbone's latents have {backbone.latent.channels}."
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
        t: Tensor | None = None,  # (B,) in the house's time
        noise: Tensor | None = None,  # (B, N, C)
        dropped: Tensor | None = None,  # (B,) bool: whose labels are replaced by the null class
    ) -> dict[str, Tensor]:  # (B,) float32 each
        """The objective's terms by name. What is not handed in is drawn from torch's global stream: first the labels to drop, then the rest."""
        z = self.scale().normalize(z.float())
        return self.objective.loss(self.backbone, z, self.drop(y, dropped), step=step, t=t, noise=noise)

    def drop(
        self,
        y: Tensor,  # (B,)
        dropped: Tensor | None = None,  # (B,) bool; drawn if None
    ) -> Tensor:  # (B,)
        """Labels of which a share is the null class. Raises ValueError where there is none to put in their place."""
        if dropped is None and not self.class_dropout:
            return y
        if self.backbone.null_class is None:
            raise ValueError(
                f"No label can be dropped: this {type(self.backbone).__name__} has no null class. Hand over dropped=None."
            )
        if dropped is None:
            dropped = draw_for_global_batch(torch.rand, len(y)) < self.class_dropout
        return torch.where(dropped.to(y.device), self.backbone.null_class, y)

    def field(self) -> Field:
        """What the backbone says at every place and time of normalised latents."""
        return self.objective.field(self.backbone)

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
        """Where a sampler carries noise. `stream` or `increments` is what a stochastic sampler draws.

        Raises ValueError without statistics, for labels that are not known, and for a sampler or a guidance that cannot work here.
        """
        scale = self.scale()
        self.backbone.validate_labels(y)
        sampler.check(self.objective.interpolant)
        return scale.denormalize(sampler(guidance(self.field()), noise, y, stream=stream, increments=increments))

    def check(self, sampler: Sampler, guidance: Guidance) -> None:
        """Raises ValueError, with what to choose, for a sampler or a guidance that cannot work with this generator."""
        sampler.check(self.objective.interpolant)
        guidance(self.field())

    def scale(self) -> Normalizer:
        """The statistics. Raises ValueError where there are none."""
        if self.normaliser is None:
            raise ValueError(
                "This generator does not know the statistics of its latents, so that nothing can be sampled or trained. Load it with "
                "stats=latents_stats.pt, stats=(mean, std) or stats=0.18215 (one scale). Its `.backbone` works without."
            )
        return self.normaliser
