"""Records of schema 1 hold no models and were computed by other rules: shown apart, pooled with nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from ldbench.results import store
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.ranking import rank_records
from ldbench.results.records import Record
from ldbench.results.studies import build_studies
from ldbench.results.table import table_of

FOLDER = Path(__file__).parent / "schema1"


@pytest.fixture
def old() -> list[Record]:
    """A reconstruction and a generation, as an earlier version wrote them."""
    return store.read_all(FOLDER)


def of_today(record: Record, **changes: object) -> Record:
    """The same numbers as this version would write them."""
    models = dict.fromkeys(record.artifacts, "ab" * 8)
    return replace(record, id="0" * 16, schema=2, models=models, seeds=dict.fromkeys(models, 0), **changes)


def test_they_are_read(old: list[Record]) -> None:
    assert [record.schema for record in old] == [1, 1]
    assert {record.job for record in old} == {"generate", "reconstruct"}
    assert all(record.models is None and record.seeds is None for record in old)


def test_they_stand_on_boards_of_their_own(old: list[Record]) -> None:
    boards = build_leaderboards([*old, *map(of_today, old)])
    assert len(boards) == 4
    titles = [table_of(board).title for board in boards]
    assert sum("(records of schema 1)" in title for title in titles) == 2
    assert all(len(board.rows) == 1 for board in boards)
    assert all(row.cells["psnr"].summary.seeds == 1 for board in boards for row in board.rows if "psnr" in row.cells)


def test_two_artifacts_of_one_recipe_are_two_rows(old: list[Record]) -> None:
    (record,) = (record for record in old if record.job == "reconstruct")
    other = replace(record, id="1" * 16, artifacts={"tokenizer": "vmae-11111111"})
    (board,) = build_leaderboards([record, other])
    assert len(board.rows) == 2, "they hold no identity of a model"


def test_they_are_in_no_study_and_ranked_with_none_of_today(old: list[Record]) -> None:
    assert build_studies(old, None) == []
    (record,) = (record for record in old if record.job == "reconstruct")
    with pytest.raises(ValueError, match=r"not measured under the same conditions.*schema: 1 and 2"):
        rank_records([record, of_today(record)], "psnr")
