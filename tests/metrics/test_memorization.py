"""Memorization: 0 for unseen images of the training law, large for copies, whatever the held-out images are."""

import pytest
import torch

from ldbench.metrics.feature_set import Features, FeatureSet, gather
from ldbench.metrics.memorization import Memorization


def of(features: torch.Tensor) -> FeatureSet:
    return gather(Features(features), {"features"})


def normal(count: int, seed: int) -> torch.Tensor:
    return torch.randn(count, 4, generator=torch.Generator().manual_seed(seed))


TRAIN = normal(1200, 0)


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_unseen_images_of_the_training_law_are_within_the_interval_and_copies_beyond(shift: float) -> None:
    heldout = of(normal(300, 1) + shift)
    unseen = Memorization()(of(normal(1000, 2)), of(TRAIN), heldout=heldout)
    assert unseen.low < 0 < unseen.high
    copies = Memorization()(of(TRAIN[:1000]), of(TRAIN), heldout=heldout)
    assert copies.low > 0.05
    copied_heldout = Memorization()(of(normal(300, 1) + shift), of(TRAIN), heldout=heldout)
    assert copied_heldout.high < 0


def test_a_perfect_copy_gets_what_its_text_says() -> None:
    heldout = of(normal(300, 1))
    found = Memorization()(of(TRAIN), of(TRAIN), heldout=heldout)
    assert found.value == pytest.approx((1 - 0.5) / 4, abs=0.03), "four groups of the held-out set's size"


def test_too_few_images_are_refused() -> None:
    with pytest.raises(ValueError, match=r"got 3 training and 300 held-out images\. Leave memorization out"):
        Memorization()(of(TRAIN), of(TRAIN[:3]), heldout=of(normal(300, 1)))
