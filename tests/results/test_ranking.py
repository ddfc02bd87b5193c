"""Ranks and noise: by seeds or by intervals, and never across protocols."""

import math
import statistics
from dataclasses import replace

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import ranking
from ldbench.results.records import protocol_hash


def summaries(*values: tuple[float, ...]) -> list[ranking.Summary]:
    return [ranking.summarize([Estimate(value) for value in seeds]) for seeds in values]


def test_the_mean_over_seeds_has_the_interval_of_students_t():
    found = ranking.summarize([Estimate(value) for value in (1.0, 2.0, 4.0)])
    assert found.value == pytest.approx(7 / 3)
    assert found.spread == pytest.approx(statistics.stdev((1, 2, 4)))
    half = 4.302653 * found.spread / math.sqrt(3)
    assert (found.low, found.high) == pytest.approx((7 / 3 - half, 7 / 3 + half))


def test_one_number_has_the_interval_that_it_came_with():
    found = ranking.summarize([Estimate(1.0, 0.9, 1.1)])
    assert (found.low, found.high, found.spread) == (0.9, 1.1, None)
    assert found.noise.error == pytest.approx(0.1 / 1.959964)
    assert ranking.summarize([Estimate(1.0)]).noise is None


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


def test_a_number_close_to_the_best_is_within_noise():
    near, far = ranking.rank(summaries((1.0, 1.2, 1.1), (1.1, 1.3, 1.2), (9.0, 9.1, 9.2)), higher_is_better=False)[1:]
    assert near.within_noise is True
    assert far.within_noise is False


def test_without_seeds_or_intervals_noise_is_unknown():
    best, other = ranking.rank(summaries((1.0,), (1.1,)), higher_is_better=False)
    assert best.within_noise is True
    assert other.within_noise is None


def test_intervals_of_single_numbers_are_compared():
    a, near, far = (ranking.summarize([Estimate(value, value - 1, value + 1)]) for value in (10.0, 11.3, 11.5))
    assert ranking.within_noise(a, near) is True  # together sqrt(2) wide
    assert ranking.within_noise(a, far) is False


def test_welch_has_the_degrees_of_freedom_of_satterthwaite():
    equal = [
        ranking.Summary(value, 3, noise=ranking.Noise(1.0, 2))
        for value in (0.0, 2.7764 * math.sqrt(2) - 1e-3, 2.7764 * math.sqrt(2) + 1e-3)
    ]
    assert ranking.within_noise(equal[0], equal[1]) is True  # equal errors: 2 + 2 degrees of freedom
    assert ranking.within_noise(equal[0], equal[2]) is False


def test_an_infinite_number_is_first_and_beyond_noise():
    infinite, finite = ranking.rank(summaries((math.inf,), (40.0, 41.0)), higher_is_better=True)
    assert (infinite.position, finite.position, finite.within_noise) == (1, 2, False)


def test_all_valid_numbers_can_be_summarised_and_ranked():
    huge = [
        [Estimate(1e100, -1e100, 1e100), Estimate(-1e100)],
        [Estimate(math.inf), Estimate(-math.inf)],
        [Estimate(0.0, -math.inf, math.inf)],
    ]
    ranks = ranking.rank([ranking.summarize(estimates) for estimates in huge], higher_is_better=True)
    assert [rank.position for rank in ranks] == [2, 1, 2]


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
