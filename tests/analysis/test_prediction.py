"""Rank correlations: known ones, ties, the null distribution, and many at once."""

import math
from itertools import permutations

import numpy as np
import pytest
import torch
from scipy import stats

from ldbench.analysis.prediction import MIN_PAIRS, associate, holm, mean_ranks, permutation_p_value, sign_matrix

FEW = {"resamples": 200, "permutations": 500, "seed": 0}


def test_the_same_order_is_one_and_the_reversed_minus_one_at_any_scale() -> None:
    x = [0.1, 2.0, 3.0, 50.0, math.inf, -math.inf]
    same = associate(x, [math.atan(value) for value in x], **FEW)
    reversed_ = associate(x, [-value for value in x], **FEW)
    for found, sign in ((same, 1), (reversed_, -1)):
        assert found.num == 6
        for estimate in (found.spearman, found.kendall):
            assert (estimate.value, estimate.low, estimate.high) == (sign, None, None), (
                "six are too few for an interval"
            )
        assert found.p == pytest.approx(2 / math.factorial(6)), "the observed order and its reverse"
    many = associate([*x, 60.0, 70.0], [*x, 60.0, 70.0], **FEW)
    assert (many.spearman.low, many.spearman.high, many.num_families) == (1, 1, 8)


def test_known_coefficients_without_ties() -> None:
    x, y = [1, 2, 3, 4, 5], [2, 1, 4, 3, 5]  # two swapped pairs: of ten pairs eight agree; sum of squared differences 4
    found = associate(x, y, **FEW)
    assert found.kendall.value == pytest.approx((8 - 2) / 10, abs=1e-15)
    assert found.spearman.value == pytest.approx(1 - 6 * 4 / (5 * 24), abs=1e-15)


def test_p_values_permute_within_families_and_intervals_are_over_families() -> None:
    families = ["a"] * 3 + ["b"] * 3 + ["c"]
    x, y = [1.0, 2.0, 3.0, 11.0, 12.0, 13.0, 5.0], [2.0, 1.0, 3.0, 14.0, 12.0, 15.0, 9.0]
    found = associate(x, y, families=families, **FEW)
    assert (found.num, found.num_families, found.spearman.low) == (7, 3, None)

    def association(order: list[float]) -> float:
        ranks = [stats.rankdata(values) for values in (x, order)]
        return abs(sum(np.cov(*(rank[rows] for rank in ranks))[0, 1] for rows in (slice(0, 3), slice(3, 6))))

    orders = [[*a, *b, y[6]] for a in permutations(y[:3]) for b in permutations(y[3:6])]
    expected = np.mean([association(order) >= association(y) - 1e-9 for order in orders])
    assert found.p == pytest.approx(expected, abs=1e-12)
    alone = associate(x, y, families=[*"abcdefg"], **FEW)
    assert alone.p == associate(x, y, **FEW).p, "tokenizers of families of their own are exchangeable"
    assert alone.smallest_p == pytest.approx(2 / math.factorial(7)), "one order and its reverse"
    apart = associate(x, y, families=["a", "a", "a", "a", "a", "b", "b"], **FEW)
    assert 0 < apart.p <= 1
    drawn = associate([*range(12)], [*range(12)], families=["a"] * 11 + ["b"], resamples=5, permutations=99, seed=0)
    assert drawn.p == pytest.approx(1 / 100)


@pytest.mark.parametrize(
    ("families", "smallest"),
    [
        ("abcdee", 1.0),  # both orders of one pair are as strong
        ("abccdd", 2 / 4),
        ("abbbbb", 2 / math.factorial(5)),
    ],
)
def test_the_smallest_p_is_that_of_the_strongest_order(families: str, smallest: float) -> None:
    x = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    for y in (x, [2.0, 1.0, 3.0, 5.0, 4.0, 6.0]):
        found = associate(x, y, families=[*families], **FEW)
        assert found.smallest_p == pytest.approx(smallest)
        assert found.p >= found.smallest_p
    assert associate(x, x, families=[*families], **FEW).p == pytest.approx(smallest)


def test_a_resample_of_families_holds_all_their_pairs() -> None:
    families = [name for name in "abcdefgh" for _ in range(2)]
    x = [float(i) for i in range(16)]
    y = [value + (0.6 if i % 2 else -0.6) * (-1) ** (i // 2) for i, value in enumerate(x)]
    found = associate(x, y, families=families, **FEW)
    assert found.num_families == 8
    assert found.spearman.low < found.spearman.value < 1
    assert found.resamples == 200


@pytest.mark.parametrize("seed", range(5))
def test_with_ties_they_are_those_of_scipy(seed: int) -> None:
    x, y = torch.randint(0, 5, (2, 12), generator=torch.Generator().manual_seed(seed)).double()
    found = associate(x.tolist(), y.tolist(), **FEW)
    assert found.spearman.value == pytest.approx(stats.spearmanr(x, y).statistic, abs=1e-12)
    assert found.kendall.value == pytest.approx(stats.kendalltau(x, y).statistic, abs=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_the_exact_p_value_is_that_of_all_permutations_and_a_drawn_one_is_near_it(seed: int) -> None:
    x, y = torch.randn(2, 6, generator=torch.Generator().manual_seed(seed)).tolist()
    theirs = stats.permutation_test(
        (x,),
        lambda order: stats.spearmanr(order, y).statistic,
        permutation_type="pairings",
        n_resamples=math.inf,
        alternative="two-sided",
    )
    found = associate(x, y, **FEW)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)
    long = [*range(10)]
    near = associate(long, [*long[5:], *long[:5]], resamples=10, permutations=20000, seed=0)
    assert near.p == pytest.approx(stats.spearmanr(long, [*long[5:], *long[:5]]).pvalue, abs=0.02)
    assert associate(long, long, resamples=10, permutations=500, seed=0).p == pytest.approx(1 / 501), "never zero"


def test_intervals_of_independent_measurements_cover_zero_at_about_their_nominal_rate() -> None:
    rng = torch.Generator().manual_seed(0)
    covered = []
    for seed in range(200):
        x, y = torch.randn(2, 15, generator=rng).tolist()
        found = associate(x, y, resamples=300, permutations=10, seed=seed)
        covered.append([estimate.low <= 0 <= estimate.high for estimate in (found.spearman, found.kendall)])
    for rate in torch.tensor(covered).double().mean(dim=0).tolist():
        assert 0.88 <= rate <= 0.98


def test_p_values_of_independent_measurements_are_uniform() -> None:
    rng = torch.Generator().manual_seed(1)
    ranks = [torch.randn(2, 7, generator=rng).argsort(dim=1).double() - 3 for _ in range(400)]
    ps = torch.tensor([permutation_p_value(x, y, [range(7)], permutations=0, rng=rng)[0] for x, y in ranks])
    for level in (0.05, 0.2, 0.5):
        assert (ps <= level).double().mean().item() == pytest.approx(level, abs=0.06)


def test_constant_resamples_are_left_out() -> None:
    x, y = [0, 0, 0, 0, 0, 0, 0, 1], [1, 2, 3, 4, 5, 6, 7, 8]  # a third of the resamples do not draw the last one
    found = associate(x, y, resamples=2000, permutations=10, seed=0)
    assert found.resamples / 2000 == pytest.approx(1 - (7 / 8) ** 8 - (1 / 8) ** 8, abs=0.04)
    assert -1 <= found.spearman.low <= found.spearman.high <= 1


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        ([1, 2, 3, 4], [1, 2, 3, 4], f"{MIN_PAIRS} pairs, got 4 and 4"),
        ([1, 2, 3, 4, 5], [1, 2, 3, 4], "got 5 and 4"),
        ([1, 2, 3, 4, math.nan], [1, 2, 3, 4, 5], "NaN"),
        ([1, 1, 1, 1, 1], [1, 2, 3, 4, 5], "A constant measurement"),
    ],
)
def test_undefined_rank_correlations_are_refused(x: list[float], y: list[float], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        associate(x, y, **FEW)


def test_holm_multiplies_each_p_value_by_the_number_of_remaining_tests() -> None:
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([]) == []


def test_holm_controls_the_family_wise_error_rate() -> None:
    ps = torch.rand(2000, 20, generator=torch.Generator().manual_seed(0)).double()
    assert (torch.tensor([min(holm(row)) for row in ps.tolist()]) <= 0.05).double().mean().item() == pytest.approx(
        0.05, abs=0.015
    )


def test_signs_and_mean_ranks() -> None:
    assert sign_matrix([1, 1, 3]).tolist() == [[0, 0, -1], [0, 0, -1], [1, 1, 0]]
    assert mean_ranks([[10, 20, 30], [5, 5, 1]]) == [1.75, 2.25, 2.0]
