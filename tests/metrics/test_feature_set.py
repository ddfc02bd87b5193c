"""Accumulated feature sets: nothing depends on batches, order or processes; missing and duplicate images are
refused.
"""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples

from ldbench.metrics.feature_set import (
    CHUNK,
    PARTS,
    FeatureAccumulator,
    Features,
    FeatureSet,
    gather,
    set_from_tensors,
    set_to_tensors,
)

REQUIRES = ("normal", "spatial", "features", "logits", "labels")


def features(count: int, width: int = 4) -> Features:
    draw = torch.randn(count, 3 * width, generator=torch.Generator().manual_seed(count))
    return Features(*draw.split(width, dim=1))


def rows(whole: Features, indices: torch.Tensor) -> Features:
    return Features(whole.features[indices], whole.spatial[indices], whole.logits[indices])


def assert_same(a: FeatureSet, b: FeatureSet, rtol: float = 1e-9) -> None:
    first, second = set_to_tensors(a), set_to_tensors(b)
    assert first.keys() == second.keys()
    for name in first:
        torch.testing.assert_close(first[name], second[name], rtol=rtol, atol=1e-12)


@examples(20)
@given(seed=st.integers(0, 1000), size=st.integers(1, 50), workers=st.integers(1, 3))
def test_batches_in_any_order_by_any_process_make_the_same_set(seed: int, size: int, workers: int) -> None:
    whole, labels = features(50), torch.arange(50) % 7
    expected = gather(whole, REQUIRES, labels=labels, kept=30)
    indices = torch.randperm(50, generator=torch.Generator().manual_seed(seed))
    accumulators = [FeatureAccumulator(50, REQUIRES, 30) for _ in range(workers)]
    for turn, batch in enumerate(indices.split(size)):
        accumulators[turn % workers].update(batch, rows(whole, batch), labels[batch])
    for other in accumulators[1:]:
        accumulators[0].merge(other)
    assert_same(accumulators[0].finish(), expected)


def test_in_order_the_batch_size_changes_no_bit() -> None:
    whole, found = features(CHUNK + 500), []
    for size in (1000, 37):
        accumulator = FeatureAccumulator(CHUNK + 500, ("normal",), 0)
        for indices in torch.arange(CHUNK + 500).split(size):
            accumulator.update(indices, rows(whole, indices))
        found.append(accumulator.finish())
    assert torch.equal(found[0].normal.whole.covariance, found[1].normal.whole.covariance)


def test_it_contains_what_was_added() -> None:
    whole, labels = features(50), torch.arange(50)
    kept = gather(whole, REQUIRES, labels=labels, kept=20)
    assert torch.equal(kept.logits, whole.logits)
    assert torch.equal(kept.labels, labels)
    assert torch.equal(kept.features, whole.features[kept.indices])
    assert len(kept.indices) == 20
    torch.testing.assert_close(kept.normal.whole.mean, whole.features.double().mean(dim=0))
    torch.testing.assert_close(kept.spatial.whole.covariance, torch.cov(whole.spatial.double().T))
    assert [part.count for part in kept.normal.parts] == [5] * PARTS


def test_what_no_metric_requires_is_not_stored() -> None:
    kept = gather(features(50), ("normal",))
    assert [kept.features, kept.spatial, kept.logits, kept.labels, kept.part] == [None] * 5
    with pytest.raises(ValueError, match="50 images has no logits, which a metric requires"):
        kept.get("logits")


def test_the_parts_of_a_set_do_not_follow_its_order() -> None:
    kept = gather(features(100), ("features",))
    assert not torch.equal(kept.part, torch.arange(100) % PARTS)
    assert torch.bincount(kept.part).tolist() == [10] * PARTS
    hits = torch.bincount(kept.part[torch.arange(0, 100, 10)], minlength=PARTS)  # every tenth image, a class for one
    assert hits.max() <= 4


def test_a_set_survives_as_tensors() -> None:
    kept = gather(features(50), REQUIRES, labels=torch.arange(50), kept=20)
    assert_same(set_from_tensors(set_to_tensors(kept)), kept, rtol=0)
    assert_same(
        set_from_tensors(set_to_tensors(gather(features(5), ("normal",)))), gather(features(5), ("normal",)), rtol=0
    )


def test_duplicate_missing_and_malformed_images_are_refused() -> None:
    whole = features(10)
    accumulator = FeatureAccumulator(10, ("normal",), 10)
    accumulator.update(torch.arange(4), rows(whole, torch.arange(4)))
    with pytest.raises(ValueError, match="added twice"):
        accumulator.update(torch.tensor([3]), rows(whole, torch.tensor([3])))
    with pytest.raises(ValueError, match="added twice"):
        accumulator.update(torch.tensor([5, 5]), rows(whole, torch.tensor([5, 5])))
    with pytest.raises(ValueError, match="10 images has no indices 10 to 10"):
        accumulator.update(torch.tensor([10]), rows(whole, torch.tensor([0])))
    with pytest.raises(ValueError, match="6 of 10 images were not added"):
        accumulator.finish()
    with pytest.raises(ValueError, match="NaN or infinity"):
        accumulator.update(torch.tensor([7]), Features(torch.full((1, 4), torch.nan)))
    with pytest.raises(ValueError, match="requires spatial, which this extractor does not provide"):
        FeatureAccumulator(10, ("spatial",), 10).update(torch.arange(4), Features(torch.zeros(4, 2)))
    with pytest.raises(ValueError, match="requires the labels"):
        FeatureAccumulator(10, ("labels",), 10).update(torch.arange(4), Features(torch.zeros(4, 2)))


def test_only_accumulators_of_one_set_are_merged() -> None:
    whole = features(10)
    first, second = FeatureAccumulator(10, ("normal",), 10), FeatureAccumulator(10, ("normal",), 10)
    first.update(torch.arange(4), rows(whole, torch.arange(4)))
    second.update(torch.arange(3, 8), rows(whole, torch.arange(3, 8)))
    with pytest.raises(ValueError, match="added twice"):
        first.merge(second)
    with pytest.raises(ValueError, match="of the same set and for the same metrics"):
        first.merge(FeatureAccumulator(10, ("features",), 10))
