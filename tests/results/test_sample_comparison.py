"""Samples side by side: a row is one index and label; whether the noise is equal is said."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from tests.made_records import GENERATION, SHOWN, make_record, save_samples

from ldbench.results.image_comparison import named_subjects
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.records import Record
from ldbench.results.sample_comparison import compare_samples, of_one_seed

NOISE = {"seed": 0, "num_tokens": 16, "channels": 4}


def drawn(
    folder: Path,
    tokenizer: str,
    level: int,
    noise: Mapping[str, int] | None = NOISE,
    classes: Sequence[str] = ("cat", "dog", "cat"),
    seed: int = 0,
) -> Record:
    """A record of gray samples, each a level lighter than the one before."""
    made = {"job": "generate", "tokenizer": tokenizer, "generator": "sit", "protocol": GENERATION}
    record = make_record(**made, seeds=(0, seed), metrics={"gfid": 1.0})
    images = {(name, i): np.full((4, 4, 3), level + i, dtype=np.uint8) for i, name in enumerate(classes)}
    return save_samples(folder, record, images, noise)


def test_a_row_is_one_index_and_one_label(tmp_path) -> None:
    made = [drawn(tmp_path, "vmae", 10), drawn(tmp_path, "vavae", 50, classes=("cat", "dog"))]
    found = compare_samples(named_subjects(made, made), tmp_path, SHOWN)
    assert found.rows == ["0, class cat", "1, class dog"], "the third is of one alone"
    assert [column.title for column in found.columns] == ["vmae + sit", "vavae + sit"]
    assert [[int(image[0, 0, 0]) for image in column.images] for column in found.columns] == [[10, 11], [50, 51]]
    assert (found.scale, {column.errors for column in found.columns}) == (None, {None})
    assert found.notes[-1] == "All start from the same noise in each row."


def test_columns_of_one_shape_stand_together_and_shapes_are_named_where_they_differ(tmp_path) -> None:
    other = {"seed": 0, "num_tokens": 8, "channels": 32}
    made = [drawn(tmp_path, "a", 10), drawn(tmp_path, "b", 20, other), drawn(tmp_path, "c", 30)]
    found = compare_samples(named_subjects(made, made), tmp_path, SHOWN)
    assert [(column.title, column.note) for column in found.columns] == [
        ("a + sit", "noise 16 x 4, seed 0"),
        ("c + sit", "noise 16 x 4, seed 0"),
        ("b + sit", "noise 8 x 32, seed 0"),
    ]
    assert "equal only in columns of one seed and shape" in found.notes[-1]


def test_noise_that_was_not_recorded_is_not_said_to_be_equal(tmp_path) -> None:
    made = [drawn(tmp_path, "a", 10), drawn(tmp_path, "b", 20, None)]
    found = compare_samples(named_subjects(made, made), tmp_path, SHOWN)
    assert found.columns[1].note == "noise not recorded"
    assert "the shape is not known (force=true draws them again)" in found.notes[-1]


def test_samples_of_other_labels_are_not_compared(tmp_path) -> None:
    made = [drawn(tmp_path, "a", 10), drawn(tmp_path, "b", 20, classes=("cat", "cat"))]
    with pytest.raises(ValueError, match=r"Sample 1 of generate-\w+ is of class dog, .* of class cat.*only="):
        compare_samples(named_subjects(made, made), tmp_path, SHOWN)


def test_without_saved_samples_the_command_that_saves_them_is_named(tmp_path) -> None:
    with pytest.raises(ValueError, match=r"ldbench\.run job=generate .* job\.save_images=true"):
        compare_samples([], tmp_path, SHOWN)
    empty = drawn(tmp_path, "a", 10, classes=())
    with pytest.raises(ValueError, match=r"job\.save_images=true"):
        compare_samples(named_subjects([empty], [empty]), tmp_path, SHOWN)


def test_a_leaderboard_is_shown_by_the_seed_that_most_models_were_sampled_with(tmp_path) -> None:
    made = [drawn(tmp_path, "a", 1, seed=0), drawn(tmp_path, "a", 1, seed=1), drawn(tmp_path, "b", 2, seed=1)]
    (board,) = build_leaderboards(made)
    assert {record.id for record in of_one_seed(board, made)} == {made[1].id, made[2].id}
    (board,) = build_leaderboards(made[:2])
    assert [record.id for record in of_one_seed(board, made[:2])] == [made[0].id], "of several the smallest"
    assert of_one_seed(board, []) == []
