"""Models side by side by their guidance: unguided, at a fixed scale, and each at its own best."""

from typing import Any

from tests.made_records import make_record, protocol_of

from ldbench.results.guidance_table import board_guidance, guidance_of, guidance_tables
from ldbench.results.html import render
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.markdown import render as markdown
from ldbench.results.records import Record

SHARED: dict[str, Any] = {"num_samples": 1000, "labels": "balanced", "extractor": {"name": "digits"}, "sampler": "own"}
SEARCH = {"tuned": {"component": "cfg", "scales": [1.0, 2.0], "target": "fd"}}
CFG = {"component": "cfg", "scale": 2.0}


def record_of(tokenizer: str, guidance: Any, value: float, config: dict[str, Any], **fields: Any) -> Record:
    job = "guidance" if guidance is SEARCH else "generate"
    protocol = protocol_of(**{**SHARED, **fields}, guidance=guidance)
    metrics = {"gfd_digits": (value, value - 0.1, value + 0.1)}
    found = make_record(job=job, tokenizer=tokenizer, generator="sit", metrics=metrics, protocol=protocol, settings={})
    return Record(**{**vars(found), "config": {**found.config, "guidance": config}})


def records_of_cells() -> list[Record]:
    return [
        record
        for tokenizer, value in (("vmae", 3.0), ("maetok", 2.0))
        for record in (
            record_of(tokenizer, "own", value, {"component": "none"}),
            record_of(tokenizer, CFG, value - 1, CFG),
            record_of(tokenizer, SEARCH, value - 1.5, {"component": "none"}),
        )
    ]


def test_guidance_is_said_in_words() -> None:
    said = [guidance_of(record) for record in records_of_cells()]
    assert said == ["unguided", "guided, scale 2", "guided, tuned"] * 2
    assert guidance_of(record_of("vmae", {"component": "cfg"}, 1.0, {"component": "cfg", "scale": 1.0})) == "unguided"
    assert guidance_of(make_record()) is None


def test_models_stand_side_by_side_by_guidance_and_are_ranked_within_columns() -> None:
    boards = build_leaderboards(records_of_cells())
    assert sorted(filter(None, map(board_guidance, boards))) == ["guided, scale 2", "guided, tuned", "unguided"]
    (table,) = guidance_tables(boards)
    assert table.columns == ["unguided ↓", "guided, scale 2 ↓", "guided, tuned ↓"]
    rows = {names[0]: [(entry.value, entry.rank) for entry in entries if entry] for names, entries in table.rows}
    assert rows == {
        "maetok": [("2.000", 1), ("1.000", 1), ("0.5000", 1)],
        "vmae": [("3.000", 2), ("2.000", 2), ("1.500", 2)],
    }


def test_other_samples_and_untuned_boards_are_not_beside_them() -> None:
    fewer = [record_of("vmae", "own", 1.0, {"component": "none"}, num_samples=10)]
    tuned = [record for record in records_of_cells() if guidance_of(record) == "guided, tuned"]
    untuned = [record for record in records_of_cells() if guidance_of(record) != "guided, tuned"]
    assert not guidance_tables(build_leaderboards(untuned))
    assert not guidance_tables(build_leaderboards(tuned + fewer))


def test_tuned_boards_without_a_ranked_metric_are_not_beside_others() -> None:
    unranked = [Record(**{**vars(record), "higher_is_better": {}}) for record in records_of_cells()]
    boards = build_leaderboards(unranked)
    assert len(boards) == 3
    assert not guidance_tables(boards)


def test_the_page_and_the_files_show_them() -> None:
    boards = build_leaderboards(records_of_cells())
    page = render(boards, [], [], {}, "now")
    assert '"guidance":[{"title":"digits: gfd_digits by guidance"' in page
    assert "guided, tuned" in markdown(guidance_tables(boards), "legend")
