"""Inception score and class accuracy: closed forms of sure and unsure classifiers."""

import math

import pytest
import torch

from ldbench.metrics.accuracy import ClassAccuracy
from ldbench.metrics.feature_set import Features, FeatureSet, gather
from ldbench.metrics.score import InceptionScore


def of(logits: torch.Tensor, labels: torch.Tensor | None = None) -> FeatureSet:
    requires = {"logits"} | (set() if labels is None else {"labels"})
    return gather(Features(torch.zeros(len(logits), 1), logits=logits.float()), requires, labels=labels)


def score(logits: torch.Tensor, splits: int = 1) -> float:
    return InceptionScore(splits=splits)(of(logits), of(logits), paired=False).value


def test_of_sure_and_even_classes_it_is_their_number() -> None:
    assert score(torch.eye(5).repeat(20, 1) * 100) == pytest.approx(5, rel=1e-9)


def test_of_one_class_and_of_no_idea_it_is_one() -> None:
    assert score(torch.eye(5)[:1].repeat(20, 1) * 100) == pytest.approx(1, rel=1e-9)
    assert score(torch.zeros(20, 5)) == pytest.approx(1, rel=1e-9)


def test_two_classes_at_a_known_doubt_have_the_score_of_their_entropy() -> None:
    p = 0.8
    logits = torch.tensor([[p, 1 - p], [1 - p, p]]).log().repeat(10, 1)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert score(logits) == pytest.approx(2 * math.exp(-entropy), rel=1e-6)


def test_splits_are_runs_of_places_and_their_scores_are_averaged() -> None:
    sure, unsure = torch.eye(4).repeat(10, 1) * 100, torch.zeros(40, 4)
    found = InceptionScore(splits=2)(of(torch.cat([sure, unsure])), of(sure), paired=False)
    assert found.value == pytest.approx((4 + 1) / 2, rel=1e-9)
    assert found.low < found.value < found.high
    assert InceptionScore(splits=1)(of(sure), of(sure), paired=False).low is None


def test_more_splits_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="over 10 splits needs as many images at least, got 4"):
        score(torch.zeros(4, 2), splits=10)
    with pytest.raises(ValueError, match="1 or more, got 0"):
        InceptionScore(splits=0)


def test_accuracy_is_the_share_of_hits_with_an_interval_that_holds_at_the_ends() -> None:
    logits, labels = torch.eye(4).repeat(10, 1), torch.arange(4).repeat(10)
    found = ClassAccuracy()(of(logits, labels), of(logits), paired=False)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.9 < found.low < 1
    assert (
        ClassAccuracy()(of(logits, (labels + (torch.arange(40) < 10).long()) % 4), of(logits), paired=False).value
        == 0.75
    )


def test_labels_that_the_classifier_does_not_know_are_refused() -> None:
    with pytest.raises(ValueError, match="knows 4 classes, and the images have a label 4"):
        ClassAccuracy()(of(torch.eye(4), torch.arange(1, 5)), of(torch.eye(4)), paired=False)
