"""Ranks and noise: over seeds, for the trained weights, on the same images; never across protocols."""

import math
from dataclasses import replace

import pytest
from scipy.stats import norm, t

from ldbench.core.estimate import Estimate
from ldbench.results import ranking
from ldbench.results.records import protocol_hash
from ldbench.results.summaries import Error, Summary, summarize


def summaries(*values: tuple[float, ...]) -> list[Summary]:
    """One for each model, of one generator seed for each tokenizer seed."""
    return [summarize([[Estimate(value)] for value in seeds]) for seeds in values]


def measured(value: float, error: float, freedom: float | None = None) -> Summary:
    return summarize([[Estimate(value, standard_error=error, freedom=freedom)]])


@pytest.mark.parametrize(("higher_is_better", "positions"), [(False, [2, 1, 3]), (True, [2, 3, 1])])
def test_the_best_is_first_in_either_direction(higher_is_better, positions):
    ranks = ranking.rank(summaries((2.0,), (1.0,), (3.0,)), higher_is_better=higher_is_better)
    assert [rank.position for rank in ranks] == positions


def test_equal_numbers_share_a_position_and_the_next_one_counts_all_before():
    assert [rank.position for rank in ranking.rank(summaries((1.0,), (1.0,), (3.0,)), higher_is_better=False)] == [
        1,
        1,
        3,
    ]


def test_a_number_close_to_the_best_is_within_noise_over_seeds():
    near, far = ranking.rank(summaries((1.0, 1.2, 1.1), (1.1, 1.3, 1.2), (9.0, 9.1, 9.2)), higher_is_better=False)[1:]
    assert (near.within_noise, near.scope) == (True, "seeds")
    assert (far.within_noise, far.scope) == (False, "seeds")


def test_without_seeds_or_standard_errors_noise_is_unknown():
    best, other = ranking.rank(summaries((1.0,), (1.1,)), higher_is_better=False)
    assert best.within_noise is True
    assert (other.within_noise, other.scope) == (None, None)


@pytest.mark.parametrize("count", [2, 3, 12])
def test_standard_errors_are_compared_at_five_percent_over_the_number_of_pairs(count):
    bound = float(norm.ppf(1 - 0.05 / math.comb(count, 2) / 2)) * math.sqrt(2)
    for distance, expected in ((bound - 1e-6, True), (bound + 1e-6, False)):
        found = ranking.rank([measured(0.0, 1.0), *[measured(distance, 1.0)] * (count - 1)], higher_is_better=False)
        assert [rank.within_noise for rank in found[1:]] == [expected] * (count - 1)
        assert {rank.scope for rank in found[1:]} == {"weights"}


def test_errors_of_few_degrees_of_freedom_have_satterthwaites():
    bound = float(t.ppf(0.975, 18)) * math.sqrt(2)  # equal errors of 9 each
    for distance, expected in ((bound - 1e-6, True), (bound + 1e-6, False)):
        found = ranking.rank([measured(0.0, 1.0, 9), measured(distance, 1.0, 9)], higher_is_better=False)
        assert found[1].within_noise is expected


def test_over_seeds_the_variance_is_pooled_and_never_below_the_models_own():
    # three models of two seeds, each of variance 2: pooled 2 with 3 degrees of freedom; not all are above their spread
    bound = float(t.ppf(1 - 0.05 / 3 / 2, 3)) * math.sqrt(2 * 2 / 2)
    for distance, expected in ((bound - 1e-6, True), (bound + 1e-6, False)):
        found = ranking.rank(
            summaries((-1.0, 1.0), (distance - 1, distance + 1), (99.0, 101.0)), higher_is_better=False
        )
        assert found[1].within_noise is expected
    steady = [summarize([[Estimate(value)] for value in (place, place + 1e-3)]) for place in (5.0, 6.0, 7.0, 8.0)]
    wild = ranking.rank([*summaries((0.0, 10.0), (20.0, 40.0)), *steady], higher_is_better=False)
    assert wild[1].within_noise, "the variance pooled with the steady ones would be a third of their own"


def test_numbers_above_their_spread_are_also_tested_with_relative_variances_each_at_half_the_level():
    # three models of two seeds, each with a variance of 2e-4 of its square: the third's is most of the plain pool
    def column(first: float, second: float, third: float) -> list[Summary]:
        return summaries(*((0.99 * value, 1.01 * value) for value in (first, second, third)))

    def relative(value: float) -> float:
        return float(t.ppf(1 - 0.025 / 3 / 2, 3)) * math.sqrt(2e-4 * (1 + value**2) / 2)

    bound = 1.0
    for _ in range(100):
        bound = 1 + relative(bound)  # the second number that is just as far away as noise
    for second, expected in ((bound - 1e-6, True), (bound + 1e-6, False)):
        assert ranking.rank(column(1, second, 1000), higher_is_better=False)[1].within_noise is expected
    # a column of equal variances, which are unequal relative to the numbers, is tested by the plain pool
    equal = float(t.ppf(1 - 0.025 / 3 / 2, 3)) * math.sqrt(2 * 2 / 2)
    for distance, expected in ((equal - 1e-6, True), (equal + 1e-6, False)):
        found = ranking.rank(summaries((1.0, 3.0), (1 + distance, 3 + distance), (9.0, 11.0)), higher_is_better=False)
        assert found[1].within_noise is expected


def test_models_that_vary_unequally_have_fewer_degrees_of_freedom():
    equal, unequal = (ranking.pool(variances, [1.0] * 3)[1] for variances in ((1.0, 1.0, 1.0), (100.0, 1.0, 1.0)))
    assert equal == pytest.approx(3)
    assert 1 < unequal < 1.1


def test_one_seed_beside_several_is_compared_for_the_trained_weights():
    several = summarize([[Estimate(10.0, standard_error=0.3)], [Estimate(10.2, standard_error=0.3)]])
    found = ranking.rank([several, measured(9.0, 0.3)], higher_is_better=True)
    assert (found[1].within_noise, found[1].scope) == (False, "weights")
    unknown = ranking.rank([several, *summaries((9.0,))], higher_is_better=True)
    assert (unknown[1].within_noise, unknown[1].scope) == (None, None)


def test_generator_seeds_on_one_tokenizer_are_compared_for_that_tokenizer():
    def generated(*values: float) -> Summary:
        return summarize([[Estimate(value) for value in values]])

    found = ranking.rank([generated(1.0, 1.1), generated(1.2, 1.3)], higher_is_better=False)
    assert found[1].scope == "generator seeds"


def test_numbers_on_the_same_images_are_compared_in_pairs():
    a, b = measured(30.0, 0.5), measured(30.1, 0.5)
    assert ranking.rank([b, a], higher_is_better=True)[1].within_noise is True
    paired = ranking.rank([b, a], higher_is_better=True, paired=lambda first, second: Error(0.01**2, 999))
    assert paired[1].within_noise is False
    over_seeds = summaries((30.0, 31.0), (30.5, 31.5))
    assert ranking.rank(over_seeds, higher_is_better=True, paired=lambda first, second: Error(0.0))[0].within_noise, (
        "over seeds, images do not vary"
    )


def test_an_infinite_number_is_first_and_beyond_noise():
    infinite, finite = ranking.rank(summaries((math.inf,), (40.0, 41.0)), higher_is_better=True)
    assert (infinite.position, finite.position, finite.within_noise) == (1, 2, False)


def test_all_valid_numbers_can_be_summarised_and_ranked():
    huge = [
        [[Estimate(1e100, -1e100, 1e100, 1e100)], [Estimate(-1e100, standard_error=1e100, freedom=1.0)]],
        [[Estimate(math.inf)], [Estimate(-math.inf)]],
        [[Estimate(0.0, -math.inf, math.inf)]],
        [[Estimate(1e100), Estimate(-1e100)], [Estimate(1e-100), Estimate(0.0)]],
    ]
    ranks = ranking.rank([summarize(estimates) for estimates in huge], higher_is_better=True)
    assert [rank.position for rank in ranks] == [3, 1, 3, 2]


def test_records_of_different_protocols_are_not_ranked(make):
    one = make()
    fields = dict(one.protocol) | {"pixel_rule": "truncate"}
    other = make(tokenizer="vavae", protocol=fields | {"hash": protocol_hash(fields)})
    with pytest.raises(
        ValueError,
        match=r"so they are not ranked together\. They differ in protocol\.pixel_rule: round and truncate",
    ):
        ranking.rank_records([one, other], "psnr")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"data": "shapes"}, "data: digits and shapes"),
        ({"job": "other"}, "job: "),
        ({"settings": {"num_train": 5}}, "num_train"),
    ],
)
def test_records_of_other_data_jobs_or_settings_are_not_ranked(make, changed, message):
    with pytest.raises(ValueError, match="not ranked together") as refused:
        ranking.rank_records([make(), make(tokenizer="vavae", **changed)], "psnr")
    assert message in str(refused.value)


def test_a_setting_that_no_number_depends_on_is_ignored(make):
    low, high = (
        make(options={"batch_size": 8}, metrics={"psnr": 30.0}),
        make(tokenizer="vavae", options={"save_images": True}, metrics={"psnr": 40.0}),
    )
    assert [record.id for record, _ in ranking.rank_records([low, high], "psnr")] == [high.id, low.id]


def test_a_metric_without_a_direction_is_not_ranked(make):
    with pytest.raises(ValueError, match="loudness is not ranked: the records do not hold"):
        ranking.rank_records([make(metrics={"loudness": 1.0})], "loudness")


def test_records_that_disagree_on_the_direction_are_not_ranked(make):
    one, other = make(), replace(make(tokenizer="vavae"), higher_is_better={"psnr": False})
    with pytest.raises(ValueError, match="psnr is not ranked: the records do not hold, or do not agree on"):
        ranking.rank_records([one, other], "psnr")


def test_a_record_holds_which_values_of_a_new_metric_are_better(make):
    quiet, loud = (
        replace(make(tokenizer=name, metrics={"loudness": value}), higher_is_better={"loudness": False})
        for name, value in (("vmae", 1.0), ("vavae", 2.0))
    )
    assert [record.id for record, _ in ranking.rank_records([loud, quiet], "loudness")] == [quiet.id, loud.id]


def test_a_metric_that_a_record_lacks_is_named(make):
    with pytest.raises(ValueError, match="has no psnr"):
        ranking.rank_records([make(metrics={"ssim": 1.0})], "psnr")
