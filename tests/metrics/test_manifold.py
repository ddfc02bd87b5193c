"""Nearest neighbors: sets on a line whose balls can be counted by hand, and the definitions."""

import pytest
import torch

from ldbench.core.intervals import jackknife
from ldbench.metrics.feature_set import PARTS, Features, FeatureSet, gather
from ldbench.metrics.manifold import Coverage, Density, Precision, Recall

METRICS = (Precision, Recall, Density, Coverage)


def of(*points: float) -> FeatureSet:
    return gather(Features(torch.tensor(points)[:, None]), {"features"})


def values(samples: FeatureSet, reference: FeatureSet, k: int) -> list[float]:
    return [metric(k=k)(samples, reference, paired=False).value for metric in METRICS]


def test_points_on_a_line() -> None:
    reference = of(0.0, 1.0, 10.0)  # balls to the nearest other: [-1, 1], [0, 2], [1, 19]
    samples = of(1.5, 2.5, 30.0, 30.5)  # [0.5, 2.5], [1.5, 3.5], [29.5, 30.5], [30, 31]
    precision, recall, density, coverage = values(samples, reference, 1)
    assert precision == 2 / 4  # 1.5 in two balls, 2.5 in that of 10
    assert recall == 1 / 3  # 1 lies in the ball of 1.5
    assert density == (2 + 1) / 4
    assert coverage == 2 / 3  # those of 1 and of 10


def test_points_on_a_boundary_are_inside_up_to_rounding() -> None:
    grid = torch.arange(0.0, 12.0).repeat(1) * 0.1 + 1e3
    samples = gather(Features(grid[:, None]), {"features"})
    assert values(samples, samples, 1)[:2] == [1.0, 1.0]
    inner = torch.rand(300, 40, generator=torch.Generator().manual_seed(0)) + 50
    same = gather(Features(inner), {"features"})
    shuffled = gather(Features(inner[torch.randperm(300, generator=torch.Generator().manual_seed(1))]), {"features"})
    assert values(shuffled, same, 5) == pytest.approx(values(same, same, 5), rel=1e-9)
    # each ball contains five others and its center
    assert values(same, same, 5)[2] == pytest.approx((300 * 5 + 300) / (300 * 5), rel=1e-9)


def test_they_are_their_definitions() -> None:
    x, y = (torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) for count in (60, 45))
    radius = [torch.cdist(rows.double(), rows.double()).sort(dim=1).values[:, 3] for rows in (x, y)]
    distances = torch.cdist(x.double(), y.double())
    in_y, in_x = distances <= radius[1], distances <= radius[0][:, None]
    expected = [in_y.any(dim=1), in_x.any(dim=0), in_y.double().sum(dim=1) / 3, in_y.any(dim=0)]
    sets = [gather(Features(rows), {"features"}) for rows in (x, y)]
    assert values(*sets, 3) == pytest.approx([rows.double().mean().item() for rows in expected], rel=1e-9)


def test_more_rows_than_a_block_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    sets = [
        gather(Features(torch.randn(count, 3, generator=torch.Generator().manual_seed(count))), {"features"})
        for count in (60, 45)
    ]
    whole = values(*sets, 3)
    monkeypatch.setattr("ldbench.metrics.manifold.BLOCK", 7)
    assert values(*sets, 3) == pytest.approx(whole, rel=1e-9)


@pytest.mark.parametrize("metric", METRICS)
def test_too_few_images_for_the_neighbors_are_refused(metric) -> None:
    with pytest.raises(ValueError, match=r"3 nearest neighbors of an image need sets of at least 4 images, got 3"):
        metric(k=3)(of(0, 1, 2), of(0, 1, 2, 3), paired=False)
    with pytest.raises(ValueError, match="got 0"):
        metric(k=0)


@pytest.mark.parametrize("metric", METRICS)
def test_intervals_contain_the_value(metric) -> None:
    sets = [
        gather(Features(torch.randn(count, 3, generator=torch.Generator().manual_seed(count))), {"features"})
        for count in (60, 45)
    ]
    found = metric(k=3)(*sets, paired=False)
    assert found.low < found.value < found.high


@pytest.mark.parametrize("k", [1, 3])
@pytest.mark.parametrize("nearest", [1, 8])
def test_replicates_are_the_metric_without_each_part(k: int, nearest: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where most of the neighbors that are found at first are of the part that is left out."""
    monkeypatch.setattr("ldbench.metrics.manifold.NEAREST", nearest)
    x, y = (torch.randn(count, 3, generator=torch.Generator().manual_seed(count)) for count in (60, 45))
    samples, reference = (gather(Features(rows), {"features"}) for rows in (x, y))
    for metric in (Recall, Coverage):
        replicates = [
            metric(k=k)(gather(Features(x[samples.part != part]), {"features"}), reference, paired=False).value
            for part in range(PARTS)
        ]
        whole = metric(k=k)(samples, reference, paired=False)
        assert jackknife(whole.value, replicates).standard_error > 1 / 45
        expected = jackknife(whole.value, replicates, lower_bound=0.0, upper_bound=1.0)
        assert whole.standard_error == pytest.approx(expected.standard_error, rel=1e-9)
        assert whole.high == pytest.approx(expected.high, rel=1e-9)


@pytest.mark.parametrize("metric", [Recall, Coverage])
def test_where_all_are_hit_the_error_is_one_hit(metric) -> None:
    x = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))
    samples, reference = (gather(Features(rows), {"features"}) for rows in (x, x[:50] + 1e-4))
    found = metric(k=3)(samples, reference, paired=False)
    assert (found.value, found.high, found.standard_error) == (1, 1, 1 / 50)
    assert found.low < 1 - 1 / 50


@pytest.mark.parametrize("metric", [Recall, Coverage])
def test_a_set_too_small_to_be_divided_has_no_interval(metric) -> None:
    found = metric(k=3)(of(0, 1, 2, 3, 4), of(0, 1, 2, 3, 4), paired=False)
    assert found.value == 1
    assert found.low is found.standard_error is None
