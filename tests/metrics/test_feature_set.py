"""FeatureAccumulator a set: nothing depends on batches, order or processes, and what is missing or doubled is told."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ldbench.metrics.feature_set import (
    CHUNK,
    PARTS,
    FeatureAccumulator,
    Features,
    FeatureSet,
    flattened,
    gather,
    unflattened,
)

NEEDS = ("normal", "spatial", "features", "logits", "labels")


def looked(count: int, width: int = 4) -> Features:
    draw = torch.randn(count, 3 * width, generator=torch.Generator().manual_seed(count))
    return Features(*draw.split(width, dim=1))


def rows(seen: Features, places: torch.Tensor) -> Features:
    return Features(seen.features[places], seen.spatial[places], seen.logits[places])


def assert_same(a: FeatureSet, b: FeatureSet, rtol: float = 1e-9) -> None:
    first, second = flattened(a), flattened(b)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=rtol, atol=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), size=st.integers(1, 50), workers=st.integers(1, 3))
def test_batches_in_any_order_by_any_process_make_the_same_set(seed: int, size: int, workers: int) -> None:
    whole, labels = looked(50), torch.arange(50) % 7
    expected = gather(whole, NEEDS, labels=labels, kept=30)
    places = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    gatherings = [FeatureAccumulator(50, NEEDS, 30) for _ in range(workers)]
    for turn, batch in enumerate(places.split(size)):
        gatherings[turn % workers].update(batch, rows(whole, batch), labels[batch])
    for other in gatherings[1:]:
        gatherings[0].merge(other)
    assert_same(gatherings[0].finish(), expected)


def test_in_order_no_batch_size_shows_in_a_single_bit() -> None:
    whole, found = looked(CHUNK + 500), []
    for size in (1000, 37):
        gathering = FeatureAccumulator(CHUNK + 500, ("normal",), 0)
        for places in torch.arange(CHUNK + 500).split(size):
            gathering.update(places, rows(whole, places))
        found.append(gathering.finish())
    assert torch.equal(found[0].normal.whole.covariance, found[1].normal.whole.covariance)


def test_it_holds_what_was_handed_over() -> None:
    whole, labels = looked(50), torch.arange(50)
    seen = gather(whole, NEEDS, labels=labels, kept=20)
    assert torch.equal(seen.logits, whole.logits)
    assert torch.equal(seen.labels, labels)
    assert torch.equal(seen.features, whole.features[seen.places])
    assert len(seen.places) == 20
    torch.testing.assert_close(seen.normal.whole.mean, whole.features.double().mean(dim=0))
    torch.testing.assert_close(seen.spatial.whole.covariance, torch.cov(whole.spatial.double().T))
    assert [part.count for part in seen.normal.parts] == [5] * PARTS


def test_what_no_metric_needs_is_not_kept() -> None:
    seen = gather(looked(50), ("normal",))
    assert [seen.features, seen.spatial, seen.logits, seen.labels, seen.part] == [None] * 5
    with pytest.raises(ValueError, match="50 images has no logits, which a metric needs"):
        seen.get("logits")


def test_the_parts_of_a_set_do_not_follow_its_order() -> None:
    seen = gather(looked(100), ("features",))
    assert not torch.equal(seen.part, torch.arange(100) % PARTS)
    assert torch.bincount(seen.part).tolist() == [10] * PARTS
    hits = torch.bincount(seen.part[torch.arange(0, 100, 10)], minlength=PARTS)  # every tenth image, a class for one
    assert hits.max() <= 4


def test_a_set_survives_as_tensors() -> None:
    seen = gather(looked(50), NEEDS, labels=torch.arange(50), kept=20)
    assert_same(unflattened(flattened(seen)), seen, rtol=0)
    assert_same(unflattened(flattened(gather(looked(5), ("normal",)))), gather(looked(5), ("normal",)), rtol=0)


def test_what_is_doubled_missing_or_strange_is_told() -> None:
    whole = looked(10)
    gathering = FeatureAccumulator(10, ("normal",), 10)
    gathering.update(torch.arange(4), rows(whole, torch.arange(4)))
    with pytest.raises(ValueError, match="handed over twice"):
        gathering.update(torch.tensor([3]), rows(whole, torch.tensor([3])))
    with pytest.raises(ValueError, match="handed over twice"):
        gathering.update(torch.tensor([5, 5]), rows(whole, torch.tensor([5, 5])))
    with pytest.raises(ValueError, match="10 images has no places 10 to 10"):
        gathering.update(torch.tensor([10]), rows(whole, torch.tensor([0])))
    with pytest.raises(ValueError, match="6 of 10 images were not seen"):
        gathering.finish()
    with pytest.raises(ValueError, match="not finite"):
        gathering.update(torch.tensor([7]), Features(torch.full((1, 4), torch.nan)))
    with pytest.raises(ValueError, match="needs spatial, which this extractor does not give"):
        FeatureAccumulator(10, ("spatial",), 10).update(torch.arange(4), Features(torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="needs the labels"):
        FeatureAccumulator(10, ("labels",), 10).update(torch.arange(4), Features(torch.zeros(4, 2)))


def test_only_gatherings_of_one_set_are_merged() -> None:
    whole = looked(10)
    first, second = FeatureAccumulator(10, ("normal",), 10), FeatureAccumulator(10, ("normal",), 10)
    first.update(torch.arange(4), rows(whole, torch.arange(4)))
    second.update(torch.arange(3, 8), rows(whole, torch.arange(3, 8)))
    with pytest.raises(ValueError, match="handed over twice"):
        first.merge(second)
    with pytest.raises(ValueError, match="of one set and for the same metrics"):
        first.merge(FeatureAccumulator(10, ("features",), 10))
