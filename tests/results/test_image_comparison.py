"""What a sheet shows: settings out of range are refused; a model is shown by one record."""

import pytest
from tests.made_records import make_record

from ldbench.results.image_comparison import SheetSettings, named_subjects, subjects_of
from ldbench.results.leaderboards import build_leaderboards


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rows": 0}, "rows must be a whole number of at least 1, got 0"),
        ({"rows": True}, "rows must be a whole number"),
        ({"candidates": 2.5}, "candidates must be a whole number of at least 1, got 2.5"),
        ({"crop": "middle"}, "crop must be null, auto, or .* got middle"),
        ({"crop": [1, 2]}, r"as crop=\[64,96,64\]; got \[1, 2\]"),
        ({"crop": [-1, 0, 8]}, "crop must be"),
        ({"crop": [0, 0, 0]}, "crop must be"),
        ({"crop": [0.5, 0, 8]}, "crop must be"),
    ],
)
def test_settings_out_of_range_are_refused(changes, message) -> None:
    with pytest.raises(ValueError, match=message):
        SheetSettings(**{"rows": 8, "candidates": 400, "crop": None, **changes})


def test_a_model_of_a_leaderboard_is_shown_by_its_first_record_with_images() -> None:
    made = [make_record(seeds=(seed, 0)) for seed in (0, 1, 2)] + [make_record(tokenizer="vavae")]
    (board,) = build_leaderboards(made)
    subjects = subjects_of(board, [made[2], made[1]])
    assert [subject.title for subject in subjects] == ["vmae"], "the other has no images"
    assert subjects[0].record.id == made[1].id


def test_records_of_one_model_are_told_apart_by_their_names() -> None:
    made = [make_record(), make_record(seeds=(1, 0)), make_record(tokenizer="vavae")]
    assert [subject.title for subject in named_subjects(made, made)] == [
        *(f"vmae (reconstruct-{record.id[:8]})" for record in made[:2]),
        "vavae",
    ]
