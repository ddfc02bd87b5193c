"""Two records side by side."""

import pytest

from ldbench.results.comparison import compare, find_record


def test_the_fields_that_differ_are_told_and_no_others(make):
    a, b = (
        make(metrics={"psnr": 3.0, "ssim": 0.5}),
        make(metrics={"psnr": 4.0, "ssim": 0.5}, recipe={"model": {"width": 64}}, seeds=(0, 1)),
    )
    differing = {key: (left, right) for key, left, right in compare(a, b)}
    assert differing.pop("artifacts.tokenizer") != ("", "")
    assert differing == {
        "config.tokenizer.model.width": ("96", "64"),
        "config.seed": ("0", "1"),
        "metrics.psnr": ("3.0", "4.0"),
    }


def test_what_only_one_has_stands_as_a_dash(make):
    differing = compare(make(), make(recipe={"losses": {"hog": 1}}))
    assert ("config.tokenizer.losses.hog", "-", "1") in differing


def test_a_record_does_not_differ_from_itself(make):
    assert compare(make(), make()) == []


def test_records_are_found_by_id_beginning_or_file(make):
    records = [make(), make(tokenizer="vavae")]
    one = records[0]
    for name in (one.id, one.id[:6], f"reconstruct-{one.id}", f"records/reconstruct-{one.id}.json"):
        assert find_record(records, name) is one


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("zzz", "There is no record 'zzz' among 2"),
        ("reconstruct", "is a prefix of 2"),
        ("", "no record"),
        (6213, "read as a number"),
    ],
)
def test_a_name_of_none_or_of_several_is_refused(make, name, message):
    with pytest.raises(ValueError, match=message):
        find_record([make(), make(tokenizer="vavae")], name)
