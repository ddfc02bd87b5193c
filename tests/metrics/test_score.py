"""Inception score and class accuracy: closed forms of confident and uncertain classifiers."""

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


def test_of_confident_and_balanced_classes_it_is_their_number() -> None:
    assert score(torch.eye(5).repeat(20, 1) * 100) == pytest.approx(5, rel=1e-9)


def test_of_one_class_and_of_uniform_predictions_it_is_one() -> None:
    assert score(torch.eye(5)[:1].repeat(20, 1) * 100) == pytest.approx(1, rel=1e-9)
    assert score(torch.zeros(20, 5)) == pytest.approx(1, rel=1e-9)


def test_two_classes_of_known_probability_have_the_score_of_their_entropy() -> None:
    p = 0.8
    logits = torch.tensor([[p, 1 - p], [1 - p, p]]).log().repeat(10, 1)
    entropy = -(p * math.log(p) + (1 - p) * math.log(1 - p))
    assert score(logits) == pytest.approx(2 * math.exp(-entropy), rel=1e-6)


def test_splits_are_consecutive_and_their_scores_are_averaged() -> None:
    confident, uncertain = torch.eye(4).repeat(10, 1) * 100, torch.zeros(40, 4)
    found = InceptionScore(splits=2)(of(torch.cat([confident, uncertain])), of(confident), paired=False)
    assert found.value == pytest.approx((4 + 1) / 2, rel=1e-9)
    assert found.low < found.value < found.high
    assert InceptionScore(splits=1)(of(confident), of(confident), paired=False).low is None


def test_more_splits_than_images_are_refused() -> None:
    with pytest.raises(ValueError, match="over 10 splits needs at least 10 images, got 4"):
        score(torch.zeros(4, 2), splits=10)
    with pytest.raises(ValueError, match="at least 1, got 0"):
        InceptionScore(splits=0)


def test_accuracy_is_the_share_of_hits_with_an_interval_that_is_valid_at_the_ends() -> None:
    logits, labels = torch.eye(4).repeat(10, 1), torch.arange(4).repeat(10)
    found = ClassAccuracy()(of(logits, labels), of(logits), paired=False)
    assert (found.value, found.high) == (1.0, 1.0)
    assert 0.9 < found.low < 1
    assert (
        ClassAccuracy()(of(logits, (labels + (torch.arange(40) < 10).long()) % 4), of(logits), paired=False).value
        == 0.75
    )


def test_labels_that_the_classifier_does_not_have_are_refused() -> None:
    with pytest.raises(ValueError, match="has 4 classes, and the images have a label 4"):
        ClassAccuracy()(of(torch.eye(4), torch.arange(1, 5)), of(torch.eye(4)), paired=False)
