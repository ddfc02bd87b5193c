"""Which images are compared: those of each leaderboard, or of named records; the page leaves out what does not fit."""

import numpy as np
import pytest
from tests.made_records import GENERATION, SHOWN, make_record, protocol_of, save_reconstructions, save_samples

from ldbench.results import records
from ldbench.results.board_comparisons import compare_boards, compare_named, page_comparisons
from ldbench.results.leaderboards import build_leaderboards


def gray(level: int, side: int = 4) -> np.ndarray:
    return np.full((side, side, 3), level, dtype=np.uint8)


def test_models_without_images_and_leaderboards_without_any_are_left_out(tmp_path) -> None:
    other = protocol_of(split="train")
    shown = save_reconstructions(tmp_path, make_record(), {"a": (gray(1), gray(2))})
    made = [shown, make_record(tokenizer="vavae"), make_record(tokenizer="maetok", protocol=other)]
    for record in made[1:]:
        records.write(record, tmp_path)
    (found,) = compare_boards(build_leaderboards(made), tmp_path, "reconstructions", SHOWN)
    assert [column.title for column in found.columns] == ["original", "vmae"]
    with pytest.raises(ValueError, match="No record of job=generate"):
        compare_boards(build_leaderboards(made), tmp_path, "samples", SHOWN)


def test_named_records_are_compared_whatever_their_conditions(tmp_path) -> None:
    made = [
        save_reconstructions(tmp_path, make_record(), {"a": (gray(1), gray(2))}),
        save_reconstructions(tmp_path, make_record(protocol=protocol_of(latent="sample")), {"a": (gray(1), gray(9))}),
    ]
    found = compare_named(made, made, tmp_path, "reconstructions", SHOWN)
    assert [len(column.images) for column in found.columns] == [1, 1, 1]
    without = make_record(tokenizer="vavae")
    records.write(without, tmp_path)
    with pytest.raises(ValueError, match=f"reconstruct-{without.id} has no images beside it.*save_images=true"):
        compare_named([*made, without], [without], tmp_path, "reconstructions", SHOWN)
    with pytest.raises(ValueError, match=r"sheet=samples shows images of job=generate, and reconstruct-\w+ is of job="):
        compare_named(made, made, tmp_path, "samples", SHOWN)


def test_the_page_has_whole_images_and_crops_of_large_ones_and_samples(tmp_path) -> None:
    drawn = make_record(job="generate", generator="sit", protocol=GENERATION, metrics={"gfid": 1.0})
    made = [
        save_reconstructions(tmp_path, make_record(), {"a": (gray(1, 128), gray(2, 128))}),
        save_samples(tmp_path, drawn, {("cat", 0): gray(7)}, None),
    ]
    assert len(page_comparisons(build_leaderboards(made), tmp_path, SHOWN)) == 2, "samples of one are on its own sheet"
    other = make_record(job="generate", generator="dit", protocol=GENERATION, metrics={"gfid": 1.0})
    made += [save_samples(tmp_path, other, {("cat", 0): gray(7)}, None)]
    found = page_comparisons(build_leaderboards(made), tmp_path, SHOWN)
    assert [(board.conditions.job, one.kind, one.crop) for board, one in found] == [
        ("reconstruct", "reconstructions", False),
        ("reconstruct", "reconstructions", True),
        ("generate", "samples", False),
    ]


def test_a_broken_image_is_left_out_of_the_page_with_a_warning(tmp_path, caplog) -> None:
    record = save_reconstructions(tmp_path, make_record(), {"a": (gray(1), gray(2))})
    (tmp_path / f"reconstruct-{record.id}" / "reconstructions" / "a.png").write_bytes(b"no image")
    assert page_comparisons(build_leaderboards([record]), tmp_path, SHOWN) == []
    assert "The page shows no reconstructions of digits" in caplog.text
    assert "a.png cannot be read as an image" in caplog.text
