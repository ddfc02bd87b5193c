"""Inception score: how confident a classifier is about each sample, and over how many classes its predictions spread.

[0] Salimans et al., Improved Techniques for Training GANs, 2016, https://arxiv.org/abs/1606.03498
[1] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233 (10
    splits of 5000, in order)
"""

from typing import ClassVar

import torch

from ldbench.core.estimate import Estimate
from ldbench.core.intervals import student_mean
from ldbench.metrics.feature_set import FeatureSet


class InceptionScore:
    """exp of the mean KL divergence of each sample's class distribution from the marginal one [0], averaged over
    `splits` consecutive splits as in [1].

    The interval is Student's over splits. Fewer than 5000 samples in a split lower the score.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    settings: ClassVar[tuple[str, ...]] = ("splits",)

    def __init__(self, *, splits: int):
        if splits < 1:
            raise ValueError(f"splits must be at least 1, got {splits}.")
        self.splits = splits
        self.smallest_set = splits  # images of a set

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        """The score with its interval. Raises ValueError for fewer images than splits."""
        logits = samples.get("logits")
        count = len(logits)
        if count < self.splits:
            raise ValueError(
                f"An inception score over {self.splits} splits needs at least {self.splits} images, got {count}."
            )
        scores = []
        for split in range(self.splits):
            rows = logits[split * count // self.splits : (split + 1) * count // self.splits]
            log_p = rows.double().log_softmax(dim=1)  # (n, classes)
            log_marginal = log_p.logsumexp(dim=0) - torch.tensor(float(len(log_p)), dtype=torch.float64).log()
            scores.append((log_p.exp() * (log_p - log_marginal)).sum(dim=1).mean().exp())
        return student_mean(torch.stack(scores))
