"""The page as a file: whole, closed to scripts that are not its own, and honest about what it holds."""

import base64
import hashlib
import json
import re

import pytest

from ldbench.results import html
from ldbench.results import store as stores
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.payload import payload
from ldbench.results.table import Entry, Table

EVIL = "</script><script>alert(1)</script><!--{{SCRIPT}}\u2028"


@pytest.fixture
def page(store) -> str:
    records = stores.read_all(store)
    return html.render(
        build_leaderboards(records), [], [], {record.id: stores.sheets(store, record) for record in records}, "now"
    )


def data_of(page: str, element: str = "data") -> dict:
    (text,) = re.findall(rf'<script type="application/json" id="{element}">(.*?)</script>', page, flags=re.DOTALL)
    return json.loads(text)


def test_the_page_asks_for_nothing_outside(page):
    assert not re.findall(r"(?:src|href|action)\s*=\s*[\"'](?!#|data:)", page)
    assert "@import" not in page
    assert "url(" not in page
    assert "innerHTML" not in page
    assert "{{" not in page


def test_the_policy_lets_in_the_pages_own_script_and_style_and_no_other(page):
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)[1]
    for element in ("style", "script"):
        (text,) = re.findall(rf"<{element}>(.*?)</{element}>", page, flags=re.DOTALL)
        assert f"{element}-src 'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" in policy
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_the_data_are_those_of_the_boards(page, store):
    data = data_of(page)
    assert data["numRecords"] == len(list(store.glob("*.json")))
    assert len(data["subjects"]) == 12
    assert len(data["sheets"]) == 12
    assert all(sheet["src"].startswith("data:image/png;base64,iVBOR") for sheet in data["sheets"])


def test_the_records_behind_the_numbers_are_held_apart_and_what_they_share_once(page, store):
    provenance = data_of(page, "provenance")
    by_name = {f"{record.job}-{record.id}": record for record in stores.read_all(store)}
    assert {record["name"] for record in provenance["records"]} == by_name.keys()
    parts = provenance["parts"]
    assert len({json.dumps(part) for part in parts}) == len(parts)
    for described in provenance["records"]:
        record = by_name[described["name"]]
        assert {key: parts[index] for key, index in described["config"].items()} == record.config
        assert ["python", record.environment["python"]] in parts[described["environment"]]
    boards = data_of(page)["boards"]
    for board, rows in zip(boards, provenance["estimates"], strict=True):
        for row, estimates in zip(board["rows"], rows, strict=True):
            assert row["cells"].keys() == estimates.keys()
    index, value, interval = provenance["estimates"][1][0]["psnr"][0]
    record = by_name[provenance["records"][index]["name"]]
    assert float(value) == pytest.approx(record.metrics["psnr"].value, rel=1e-3)
    assert interval.count(" to ") == 1


def test_a_cell_stands_on_the_tokenizer_whose_artifact_it_used(page):
    subjects = data_of(page)["subjects"]
    for subject in subjects:
        if subject["generator"] is None:
            assert subject["standsOn"] is None
        else:
            below = subjects[subject["standsOn"]]
            assert (below["tokenizer"], below["generator"]) == (subject["tokenizer"], None)


def test_a_cell_stands_on_nothing_where_only_another_artifact_was_measured(make):
    records = [make(seeds=(1, 0)), make(job="generate", generator="sit", seeds=(0, 0))]
    assert [subject["standsOn"] for subject in payload(build_leaderboards(records), [], [], {}, "now")["subjects"]] == [
        None,
        None,
    ]


def test_a_name_cannot_end_the_script_that_holds_it(make):
    records = [make(tokenizer=EVIL)]
    page = html.render(build_leaderboards(records), [], [], {}, "now")
    assert page.count("</script>") == 3
    assert page.count("<!--") == 0
    assert "\u2028" not in page
    assert data_of(page)["subjects"][0]["tokenizer"] == EVIL


def test_infinite_numbers_are_json(make):
    data = data_of(html.render(build_leaderboards([make(metrics={"psnr": float("inf")})]), [], [], {}, "now"))
    assert data["boards"][0]["rows"][0]["cells"]["psnr"]["value"] == "inf"


def test_settings_are_in_a_leaderboards_name_only_if_they_distinguish_two(make):
    def names(*settings):
        return [
            board["name"]
            for board in payload(build_leaderboards([make(settings=chosen) for chosen in settings]), [], [], {}, "now")[
                "boards"
            ]
        ]

    assert [name.count("num_train") for name in names({"num_train": 5})] == [0]
    assert [name.count("num_train") for name in names({"num_train": 5}, {"num_train": 50})] == [1, 1]


def test_what_predicts_generation_is_told_in_words(make):
    table = Table(
        "digits: sit",
        ["measurement"],
        ["Spearman"],
        [(["psnr"], [Entry("0.9", "[0.1, 1]")]), (["ssim"], [None])],
        ["A note."],
    )
    (prediction,) = data_of(html.render(build_leaderboards([make()]), [table], [], {}, "now"))["predictions"]
    assert prediction["rows"] == [{"name": "psnr", "cells": [["0.9", "[0.1, 1]"]]}, {"name": "ssim", "cells": [None]}]
    assert (prediction["title"], prediction["columns"], prediction["notes"]) == (
        "digits: sit",
        ["Spearman"],
        ["A note."],
    )
