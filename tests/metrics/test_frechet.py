"""Distances between sets of features: closed forms of Gaussians, for any rank and order."""

import math

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from ldbench.metrics.feature_set import Features, gather
from ldbench.metrics.frechet import FrechetDistance, FrechetRatio, SpatialFrechetDistance, frechet_floor, nuclear_norm
from ldbench.metrics.frechet import frechet_distance as distance_of_gaussians
from ldbench.metrics.moments import Gaussian, Moments


def frechet_distance(a: torch.Tensor, b: torch.Tensor) -> float:
    return distance_of_gaussians(Moments.of(a).gaussian(), Moments.of(b).gaussian())


def normal(count: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def shaped(count: int, mean: torch.Tensor, cov: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """A set whose mean and unbiased covariance are exactly these."""
    drawn = normal(count, len(mean), seed)
    centered = drawn - drawn.mean(dim=0)
    white = centered @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(centered.T)).T)
    values, vectors = torch.linalg.eigh(cov)
    return white @ (vectors * values.clamp(min=0).sqrt()).T + mean


def by_definition(a: torch.Tensor, b: torch.Tensor) -> float:
    cov_a, cov_b = torch.cov(a.T).numpy(), torch.cov(b.T).numpy()
    root = sqrtm(cov_a @ cov_b)
    return float((a.mean(0) - b.mean(0)).square().sum() + np.trace(cov_a) + np.trace(cov_b) - 2 * np.trace(root).real)


def test_of_means_it_is_their_squared_distance() -> None:
    a = normal(50, 4)
    assert frechet_distance(a, a + torch.tensor([3.0, 4.0, 0.0, 0.0])) == pytest.approx(25.0, rel=1e-12)


def test_of_axes_it_is_the_squared_difference_of_standard_deviations() -> None:
    first, second = torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 2.0, 0.5]).double()
    mean = torch.zeros(3).double()
    a, b = shaped(40, mean, torch.diag(first**2)), shaped(70, mean + 1, torch.diag(second**2), seed=1)
    assert frechet_distance(a, b) == pytest.approx(3 + ((first - second) ** 2).sum().item(), rel=1e-12)


@pytest.mark.parametrize("counts", [(300, 200), (40, 500)])
def test_of_any_two_sets_of_full_rank_it_is_the_definition(counts: tuple[int, int]) -> None:
    mix = normal(8, 8, seed=2)
    a, b = normal(counts[0], 8), normal(counts[1], 8, seed=1) @ mix + 0.5
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-9)


def test_of_sets_in_a_plane_it_is_the_distance_within_that_plane() -> None:
    a, b = normal(60, 3), normal(80, 3, seed=1) * 2 + 1
    plane = torch.linalg.qr(normal(64, 3, seed=2)).Q.T  # (3, 64), orthonormal rows
    assert frechet_distance(a @ plane, b @ plane) == pytest.approx(frechet_distance(a, b), rel=1e-9)


def test_of_sets_in_orthogonal_planes_it_is_the_sum_of_the_traces() -> None:
    a, b = normal(60, 3), normal(80, 3, seed=1)
    planes = torch.linalg.qr(normal(64, 6, seed=2)).Q.T
    a, b = a - a.mean(0), b - b.mean(0)
    expected = torch.cov(a.T).trace() + torch.cov(b.T).trace()
    assert frechet_distance(a @ planes[:3], b @ planes[3:]) == pytest.approx(expected.item(), rel=1e-12)


def test_fewer_items_than_features_agree_with_the_definition_where_that_is_right() -> None:
    a, b = normal(10, 24), normal(12, 24, seed=1)
    assert frechet_distance(a, b) == pytest.approx(by_definition(a, b), rel=1e-5)


@pytest.mark.parametrize("count", [5, 64, 1000])
def test_of_a_set_to_itself_it_is_zero_and_never_less(count: int) -> None:
    a = normal(count, 32).relu()  # as features are
    assert 0 <= frechet_distance(a, a) <= 1e-12 * a.square().sum()
    assert 0 <= frechet_distance(a, a.flip(0)) < 1e-10


def test_order_does_not_matter_nor_which_set_is_the_first() -> None:
    a, b = normal(200, 16), normal(90, 16, seed=1) + 1
    value = frechet_distance(a, b)
    shuffled = a[torch.randperm(200, generator=torch.Generator().manual_seed(0))]
    assert frechet_distance(shuffled, b) == pytest.approx(value, rel=1e-12)
    assert frechet_distance(b, a) == pytest.approx(value, rel=1e-12)


def test_float32_features_are_measured_in_float64() -> None:
    a, b = normal(100, 8).float(), normal(100, 8, seed=1).float() + 100
    assert frechet_distance(a, b) == frechet_distance(a.double(), b.double())


def test_features_of_other_widths_and_sets_without_a_covariance_are_refused() -> None:
    with pytest.raises(ValueError, match=r"features of the same width, got \(4,\) and \(3,\)"):
        frechet_distance(torch.rand(5, 4), torch.rand(5, 3))
    with pytest.raises(ValueError, match="at least two images, got 1"):
        frechet_distance(torch.rand(1, 4), torch.rand(5, 4))


def test_dead_features_and_a_covariance_of_zero_change_nothing() -> None:
    a, b = normal(60, 5), normal(80, 5, seed=1) + 1
    dead = [torch.cat([x, torch.zeros(len(x), 40, dtype=torch.float64)], dim=1) for x in (a, b)]
    assert frechet_distance(*dead) == pytest.approx(frechet_distance(a, b), rel=1e-12)
    point = Gaussian(torch.zeros(4).double(), torch.zeros(4, 4).double())
    unit = Gaussian(torch.ones(4).double(), torch.eye(4).double())
    assert distance_of_gaussians(point, unit) == pytest.approx(8.0, rel=1e-12)


@pytest.mark.parametrize("condition", [1e-3, 1e-6, 1e-9, 1e-12])
def test_of_gaussians_with_shared_axes_it_is_known_however_flat_they_are(condition: float) -> None:
    axes = torch.linalg.qr(normal(20, 20)).Q
    flat = torch.logspace(0, float(np.log10(condition)), 20, dtype=torch.float64)
    a, b = (Gaussian(torch.zeros(20).double(), axes @ torch.diag(values) @ axes.T) for values in (flat, 4 * flat))
    assert distance_of_gaussians(a, b) == pytest.approx(flat.sum().item(), rel=1e-6)


@pytest.mark.parametrize("decades", [0, 3, 6, 9, 12, 15])
@pytest.mark.parametrize("shape", [(60, 60), (40, 70), (70, 40)])
def test_the_nuclear_norm_is_the_sum_of_singular_values_however_far_these_reach(
    shape: tuple[int, int], decades: int
) -> None:
    rank = min(shape)
    values = torch.logspace(0, -decades, rank, dtype=torch.float64)
    left, right = (torch.linalg.qr(normal(size, rank, seed=size)).Q for size in shape)
    matrix = left * values @ right.T
    assert nuclear_norm(matrix).item() == pytest.approx(values.sum().item(), rel=1e-13)
    # half of it is rounding
    assert nuclear_norm(torch.cat([matrix, matrix])).item() == pytest.approx(values.sum().item() * 2**0.5, rel=1e-13)


def test_the_spatial_distance_is_that_of_the_spatial_features() -> None:
    a, b = normal(60, 5).float(), normal(80, 5, seed=1).float() + 1
    none = torch.zeros(1, 2)
    sets = [gather(Features(none.expand(len(x), 2), spatial=x), {"spatial"}) for x in (a, b)]
    assert SpatialFrechetDistance()(*sets, paired=False).value == pytest.approx(frechet_distance(a, b), rel=1e-9)
    with pytest.raises(ValueError, match="has no spatial, which a metric requires"):
        SpatialFrechetDistance()(sets[0], gather(Features(a), {"normal"}), paired=False)


def test_its_interval_is_centered_and_about_as_wide_as_the_spread_over_draws() -> None:
    reference = gather(Features(normal(400, 6)), {"normal"})
    found = [
        FrechetDistance()(gather(Features(normal(200, 6, seed=seed) * 1.5), {"normal"}), reference, paired=False)
        for seed in range(1, 61)
    ]
    values = np.array([estimate.value for estimate in found])
    halves = np.array([estimate.high - estimate.value for estimate in found])
    assert all(estimate.value - estimate.low == pytest.approx(estimate.high - estimate.value) for estimate in found)
    assert 0.8 < (halves / 2.262).mean() / values.std(ddof=1) < 1.4
    assert (np.abs(values - values.mean()) <= halves).mean() > 0.85


def test_paired_sets_have_a_narrower_interval_since_both_lose_the_same_images() -> None:
    images = normal(200, 6)
    reference, samples = gather(Features(images), {"normal"}), gather(Features(images * 1.1), {"normal"})
    alone, paired = (FrechetDistance()(samples, reference, paired=paired) for paired in (False, True))
    assert alone.value == paired.value
    assert paired.high - paired.low < alone.high - alone.low


def test_too_few_images_have_no_interval_and_equal_sets_have_the_distance_zero() -> None:
    few = gather(Features(normal(19, 3)), {"normal"})
    assert FrechetDistance()(few, gather(Features(normal(30, 3)), {"normal"}), paired=False).low is None
    enough = gather(Features(normal(20, 3)), {"normal"})
    found = FrechetDistance()(enough, enough, paired=True)
    assert (found.value, found.low, found.high) == (0.0, 0.0, 0.0)


def expected_in_one_dimension(n: int, m: int) -> float:
    """The mean distance of two sets of standard normal numbers: of squared means, and of standard deviations."""

    def mean_deviation(count: int) -> float:  # of the unbiased variance's root
        return math.sqrt(2 / (count - 1)) * math.exp(math.lgamma(count / 2) - math.lgamma((count - 1) / 2))

    return 1 / n + 1 / m + 2 - 2 * mean_deviation(n) * mean_deviation(m)


@pytest.mark.parametrize("count", [400, 1000, 100_000])
def test_the_floor_of_a_normal_law_is_the_closed_form(count: int) -> None:
    floors = [
        frechet_floor(normal(2000, 1, seed), None, num_images=2000, num_samples=count, balanced=True)
        for seed in range(100)
    ]
    assert sum(floors) / len(floors) == pytest.approx(expected_in_one_dimension(count, 2000), rel=0.15)


def test_the_floor_knows_that_classes_of_the_reference_are_not_balanced() -> None:
    labels = (torch.arange(1000) % 4 == 0).long()  # three quarters of one class
    x = normal(1000, 1) * 0.01 + labels[:, None]
    floor = frechet_floor(x, labels, num_images=1000, num_samples=10**9, balanced=True)
    means, deviations = (0.25, 0.5), (math.sqrt(0.25 * 0.75), 0.5)
    assert floor == pytest.approx((means[1] - means[0]) ** 2 + (deviations[1] - deviations[0]) ** 2, rel=0.02)


def test_random_labels_raise_the_floor_by_the_spread_between_classes() -> None:
    labels = torch.arange(1000) % 20
    x = normal(1000, 20) * 0.01 + torch.eye(20)[labels]
    balanced, random = (
        frechet_floor(x, labels, num_images=1000, num_samples=100, balanced=balanced) for balanced in (True, False)
    )
    # of the means, whose variance is 1 - 1 / 20, and of the deviations, a quarter of the relative variances
    assert random - balanced == pytest.approx(0.95 / 100 + 19 / 4 / 100, rel=0.15)
    assert 0 < balanced < 1e-3


@pytest.mark.parametrize(("balanced", "rel"), [(True, 0.15), (False, 0.3)])  # a few draws of random labels
def test_the_floor_needs_the_features_of_a_part_of_the_reference_alone(balanced: bool, rel: float) -> None:
    """How many images of each class are among those with features is chance, and no imbalance of the reference."""
    labels = torch.arange(8000) % 40
    x = normal(8000, 8, seed=1) + normal(40, 8, seed=2)[labels] * 3
    kept = torch.randperm(8000, generator=torch.Generator().manual_seed(0))[:1500].sort().values
    of_all = frechet_floor(x, labels, num_images=8000, num_samples=2000, balanced=balanced)
    of_part = frechet_floor(x[kept], labels, indices=kept, num_images=8000, num_samples=2000, balanced=balanced)
    assert of_part == pytest.approx(of_all, rel=rel)


def test_a_reference_too_small_to_be_quartered_has_no_floor() -> None:
    assert frechet_floor(normal(30, 2), None, num_images=30, num_samples=10, balanced=True) is None


def ratio_of(samples: torch.Tensor, reference: torch.Tensor, heldout: torch.Tensor):
    sets = [gather(Features(rows), {"normal"}) for rows in (samples, reference, heldout)]
    return FrechetRatio()(*sets[:2], heldout=sets[2])


def test_a_ratio_is_that_of_the_distances_of_gaussians() -> None:
    axis, zero = torch.tensor([3.0, 0.0, 4.0, 0.0]).double(), torch.zeros(4).double()
    cov = torch.diag(torch.tensor([1.0, 4.0, 9.0, 16.0]).double())
    reference = shaped(200, zero, cov)
    scaled, shifted = shaped(300, zero, 4 * cov, seed=1), shaped(100, axis, cov, seed=2)
    assert ratio_of(scaled, reference, shifted).value == pytest.approx(30 / 25, rel=1e-5)
    assert ratio_of(shifted, reference, scaled).value == pytest.approx(25 / 30, rel=1e-5)


def test_a_ratio_is_one_for_the_heldout_images_themselves_in_any_order() -> None:
    reference, heldout = normal(80, 5), normal(60, 5, seed=1)
    assert ratio_of(heldout, reference, heldout).value == 1.0
    samples = normal(70, 5, seed=2) * 1.5
    found = ratio_of(samples, reference, heldout).value
    assert ratio_of(samples.flip(0), reference.flip(0), heldout.flip(0)).value == pytest.approx(found, rel=1e-9)


def test_a_ratio_has_the_interval_and_the_floor_of_its_distance_for_these_real_images() -> None:
    sets = [
        gather(Features(normal(count, 5, seed=count)), {"normal", "features", "labels"}, labels=torch.arange(count) % 3)
        for count in (60, 200, 80)
    ]
    distance, unit = (FrechetDistance()(sets[i], sets[1], paired=False) for i in (0, 2))
    found = FrechetRatio()(*sets[:2], heldout=sets[2])
    for field in ("value", "low", "high", "standard_error", "freedom"):
        factor = 1 if field == "freedom" else unit.value
        assert getattr(found, field) * factor == pytest.approx(getattr(distance, field), rel=1e-6)
    settings = {"num_samples": 60, "balanced": True}
    floors = FrechetRatio().floor(sets[1], heldout=sets[2], **settings), FrechetDistance().floor(sets[1], **settings)
    assert floors[0] * unit.value == pytest.approx(floors[1], rel=1e-12)


def test_a_ratio_to_images_of_the_reference_itself_is_refused() -> None:
    reference = normal(80, 5)
    with pytest.raises(ValueError, match="have the distance 0"):
        ratio_of(normal(60, 5, seed=1), reference, reference)
