"""Inception score: how sure a classifier is of each sample, and how many classes it sees in all.

[0] Salimans et al., Improved Techniques for Training GANs, 2016, https://arxiv.org/abs/1606.03498
[1] Dhariwal and Nichol, Diffusion Models Beat GANs on Image Synthesis, 2021, https://arxiv.org/abs/2105.05233 (10 splits of 5000, in order)
"""

from typing import ClassVar

import torch

from ldbench.core.interfaces import Estimate
from ldbench.core.intervals import student_mean
from ldbench.metrics.feature_set import FeatureSet


class InceptionScore:
    """exp of the mean divergence of each sample's classes from their average [0], averaged over `splits` runs of places, as in [1].

    The interval is Student's over splits. Fewer samples than 5000 a split lower the score.
    """

    revision: ClassVar[int] = 1
    requires: ClassVar[frozenset[str]] = frozenset({"logits"})
    is_distance: ClassVar[bool] = False
    higher_is_better: ClassVar[bool | None] = True
    settings: ClassVar[tuple[str, ...]] = ("splits",)

    def __init__(self, *, splits: int):
        if splits < 1:
            raise ValueError(f"splits must be 1 or more, got {splits}.")
        self.splits = splits

    def __call__(self, samples: FeatureSet, reference: FeatureSet, *, paired: bool) -> Estimate:
        logits = samples.get("logits")
        count = len(logits)
        if count < self.splits:
            raise ValueError(
                f"An inception score over {self.splits} splits needs as many images at least, got {count}."
            )
        scores = []
        for split in range(self.splits):
            told = logits[split * count // self.splits : (split + 1) * count // self.splits].double().log_softmax(dim=1)
            average = told.logsumexp(dim=0) - torch.tensor(float(len(told)), dtype=torch.float64).log()
            scores.append((told.exp() * (told - average)).sum(dim=1).mean().exp())
        return student_mean(torch.stack(scores))
