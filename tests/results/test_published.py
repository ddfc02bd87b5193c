"""Papers' tables: each is read, names its source, and is never ranked."""

import json

import pytest

from ldbench.config.compose import conf_dir
from ldbench.results import published, spreadsheet
from ldbench.results.ranking import rank_records

FOLDER = conf_dir() / "experiments" / "published"
TABLES = published.read_tables(FOLDER)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.title)
def test_a_table_names_its_source_and_shows_no_rank(table):
    assert table.url.startswith("https://arxiv.org/abs/")
    assert any(word in table.source for word in ("table", "ImageNet", "generation", "reconstruction", "ablation"))
    assert table.protocol["name"] == "as published"
    shown = published.published_table(table)
    assert shown.title.startswith("As published: ")
    assert all(place is None or (place.rank is None and not place.best) for _, places in shown.rows for place in places)
    assert not [arrow for column in shown.columns for arrow in "↑↓" if arrow in column]


def test_the_papers_of_all_three_tokenizers_are_there():
    found = {
        (record.subject["tokenizer"], record.subject["generator"], record.config["note"]): record
        for table in TABLES
        for record in table.records
    }
    assert found["maetok_b_128", "lightningdit_xl", "guidance"].metrics["gfid"].value == 1.73
    assert found["vavae_f16d32", "lightningdit_xl_1", "800 epochs, guidance"].metrics["gfid"].value == 1.35
    assert any(
        record.subject["tokenizer"] == "vmae" and record.metrics["gfid"].value == 5.98
        for table in TABLES
        for record in table.records
        if "gfid" in record.metrics
    )


def test_secondary_sources_are_named():
    assert all("secondary" in table.protocol["caution"] for table in TABLES if "2507.09984" in table.url)


def test_a_published_number_is_not_ranked_with_ours(make):
    (theirs, *_) = TABLES[0].records
    ours = make(data=theirs.subject["data"], metrics={"gfid": 3.0})
    with pytest.raises(ValueError, match="not ranked together"):
        rank_records([ours, theirs], "gfid")


def test_published_numbers_have_csv_lines_without_rank():
    lines = list(spreadsheet.lines([], TABLES))
    assert len(lines) == sum(len(record.metrics) for table in TABLES for record in table.records)
    assert all(
        line["rank"] is None and line["origin"] != "measured" and line.keys() == spreadsheet.COLUMNS.keys()
        for line in lines
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content.pop("url"),
            "has the keys data, date, higher_is_better, protocol, rows, source, title, url; got",
        ),
        (
            lambda content: content["higher_is_better"].update(gfid="no"),
            r"higher_is_better\.gfid must be true or false",
        ),
        (lambda content: content["rows"][0].pop("metrics"), r"rows\[0\] must have tokenizer and metrics"),
        (
            lambda content: content["rows"][0]["metrics"].update(gfid="2"),
            r"rows\[0\]\.metrics\.gfid must be a number, got '2'",
        ),
    ],
)
def test_a_table_with_a_mistake_is_refused_by_key(tmp_path, change, message):
    content = json.loads((FOLDER / "vavae_3.json").read_text())
    change(content)
    (tmp_path / "mine.json").write_text(json.dumps(content))
    with pytest.raises(ValueError, match=f"mine.json: .*{message}"):
        published.read_tables(tmp_path)
