"""The adversarial term: a discriminator learns to classify images and reconstructions, and the tokenizer to fool it.

[0] Goodfellow et al., Generative Adversarial Nets, 2014, https://arxiv.org/abs/1406.2661
[1] Lim and Ye, Geometric GAN, 2017, https://arxiv.org/abs/1705.02894 (hinge)
[2] Tseng et al., Regularizing Generative Adversarial Networks under Limited Data (LeCAM), 2021,
https://arxiv.org/abs/2104.03310
[3] Zhao et al., Improved Consistency Regularization for GANs (bCR), 2020, https://arxiv.org/abs/2002.04724
[4] Esser et al., Taming Transformers, 2021, https://arxiv.org/abs/2012.09841 (gradient balance: eq. 7)
[5] Chen et al., Masked Autoencoders Are Effective Tokenizers (MAETok), 2025, https://arxiv.org/abs/2502.03444
"""

from collections.abc import Collection
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ldbench.core.distributed import mean_over_ranks
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.augmentation import DiffAug
from ldbench.losses.base_term import BalancedTerm, Balancing


def hinge(
    real: Tensor,  # logits of images
    fake: Tensor,  # logits of reconstructions
) -> Tensor:
    """The hinge loss of a discriminator [1], halved."""
    return 0.5 * (F.relu(1 - real).mean() + F.relu(1 + fake).mean())


def logistic(
    real: Tensor,  # logits of images
    fake: Tensor,  # logits of reconstructions
) -> Tensor:
    """The cross-entropy of a discriminator [0], halved: LDM's `vanilla`."""
    return 0.5 * (F.softplus(-real).mean() + F.softplus(fake).mean())


def linear(
    fake: Tensor,  # logits of reconstructions
) -> Tensor:
    """The negative mean logit: the generator's loss of the hinge GAN [1]."""
    return -fake.mean()


def non_saturating(
    fake: Tensor,  # logits of reconstructions
) -> Tensor:
    """The cross-entropy of reconstructions labeled as images [0], steepest where the discriminator is confident."""
    return F.softplus(-fake).mean()


def lecam(
    real: Tensor,  # logits of images
    fake: Tensor,  # logits of reconstructions
    average_real: Tensor,  # moving averages of the two, ()
    average_fake: Tensor,
) -> Tensor:
    """The squared excess of each kind's logits over the other kind's moving average [2]."""
    return F.relu(real - average_fake).square().mean() + F.relu(average_real - fake).square().mean()


OBJECTIVES = {"hinge": hinge, "logistic": logistic}
GENERATOR_OBJECTIVES = {"linear": linear, "non_saturating": non_saturating}


class Adversarial(BalancedTerm):
    """The generator's loss against a discriminator, and the discriminator's own loss.

    The discriminator minimizes `discriminator_weight` times the sum of objective and LeCAM, plus `consistency_weight`
    times bCR; `weight` scales the tokenizer's loss only. Images and reconstructions are augmented (DiffAug) before the
    discriminator, each operation with `augment_probability`, with a box of `augment_cutout` of the side and independent
    draws. The consistency term compares these logits with those of the same images always augmented, with a box of
    `consistency_cutout`. Both sides of it have gradients, as in [3]. LeCAM's moving averages start at 0 with the term's
    start (the official code updates them from the first batch on, long before they are used), are updated before they
    are used, and are part of the state dict. Raises ValueError for an unknown objective or balancing and for numbers
    out of range.
    """

    revision: ClassVar[int] = 1

    def __init__(
        self,
        *,
        weight: float,
        start: int,
        warmup: int,
        discriminator: nn.Module,  # images (B, 3, H, W) -> logits of any shape
        objective: str,  # hinge or logistic
        generator_objective: str,  # linear or non_saturating
        balancing: Balancing,
        largest_balance: float,
        discriminator_weight: float,
        lecam_weight: float,
        lecam_decay: float,
        consistency_weight: float,
        consistency_cutout: float,
        augment_probability: float,
        augment_cutout: float,
    ):
        super().__init__(
            weight=weight, start=start, warmup=warmup, balancing=balancing, largest_balance=largest_balance
        )
        choices: dict[str, tuple[str, Collection[str]]] = {
            "objective": (objective, OBJECTIVES),
            "generator_objective": (generator_objective, GENERATOR_OBJECTIVES),
        }
        for name, (choice, known) in choices.items():
            if choice not in known:
                raise ValueError(f"The adversarial term's {name} is {choice!r}. Choose one of {', '.join(known)}.")
        weights = {
            "discriminator_weight": discriminator_weight,
            "lecam_weight": lecam_weight,
            "consistency_weight": consistency_weight,
        }
        for name, number in weights.items():
            if number < 0:
                raise ValueError(f"The adversarial term's {name} must not be negative, got {number}.")
        if not 0 <= lecam_decay < 1:
            raise ValueError(f"The adversarial term's lecam_decay must lie in [0, 1), got {lecam_decay}.")
        self.discriminator = discriminator
        self.objective = OBJECTIVES[objective]
        self.generator_objective = GENERATOR_OBJECTIVES[generator_objective]
        self.discriminator_weight = discriminator_weight
        self.lecam_weight = lecam_weight
        self.lecam_decay = lecam_decay
        self.consistency_weight = consistency_weight
        self.augment = DiffAug(probability=augment_probability, cutout=augment_cutout)
        self.augment_strongly = DiffAug(probability=1.0, cutout=consistency_cutout)
        self.average_real: Tensor
        self.average_fake: Tensor
        self.register_buffer("average_real", torch.zeros(()))
        self.register_buffer("average_fake", torch.zeros(()))

    def forward(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,
        y: Tensor,  # (B,)
    ) -> Tensor:
        """The generator's loss of a batch."""
        return self.generator_objective(self.logits(recon.images, self.augment))

    def discriminate(
        self,
        images: Tensor,  # (B, 3, H, W) in [-1, 1]
        recon: Reconstruction,  # detached
    ) -> Tensor:
        """The discriminator's weighted loss; updates LeCAM's averages."""
        assert not recon.images.requires_grad, "the discriminator's step must not reach the tokenizer"
        # apart: batch statistics are of one kind
        real, fake = (self.logits(kind, self.augment) for kind in (images, recon.images))
        loss = self.objective(real, fake)
        if self.lecam_weight:
            self.update_averages(real, fake)
            loss = loss + self.lecam_weight * lecam(real, fake, self.average_real, self.average_fake)
        loss = self.discriminator_weight * loss
        if self.consistency_weight:
            strong = [self.logits(kind, self.augment_strongly) for kind in (images, recon.images)]
            loss = loss + self.consistency_weight * F.mse_loss(torch.cat([real, fake]), torch.cat(strong))
        return loss

    def logits(self, images: Tensor, augment: DiffAug) -> Tensor:
        """The discriminator's logits of augmented images, in single precision."""
        return self.discriminator(augment(images.float())).float()

    @torch.no_grad()
    def update_averages(self, real: Tensor, fake: Tensor) -> None:
        """Moves the averages towards the mean logits of a batch over all processes, so that all hold the same."""
        for average, logits in ((self.average_real, real), (self.average_fake, fake)):
            average.lerp_(mean_over_ranks(logits.mean()), 1 - self.lecam_decay)
