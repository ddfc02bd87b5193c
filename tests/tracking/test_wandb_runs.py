"""Runs of Weights & Biases: the export of a leaderboard has the id of its records, read back from disk."""

import builtins
import json
import logging
import random
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.made_records import SHOWN

from ldbench.config.compose import conf_dir
from ldbench.results import records, reports
from ldbench.results import store as stores
from ldbench.tracking import wandb_runs


@pytest.fixture
def report(store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[reports.Report]:
    for name in ("DATA", "CACHE", "CONFIG"):
        monkeypatch.setenv(f"WANDB_{name}_DIR", str(tmp_path / "wandb"))
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no-netrc"))
    papers = conf_dir() / "experiments" / "published"
    yield reports.build_report(stores.read_all(store), store, papers, "beside", SHOWN)
    import wandb as package

    package.teardown()  # it reads the environment once


def export(report: reports.Report, tmp_path: Path, mode: str = "offline") -> list[Path]:
    wandb_runs.export(report, report.write(tmp_path), mode=mode, project="ldbench", folder=tmp_path / "runs")
    return sorted((tmp_path / "runs" / "wandb").glob("offline-run-*"))


def test_the_offline_run_holds_table_page_sheets_and_records(report, tmp_path):
    (run,) = export(report, tmp_path)
    assert run.name.endswith(wandb_runs.run_id(report.records))
    media = run / "files" / "media"
    (table,) = (json.loads(path.read_text()) for path in (media / "table").glob("leaderboard_*.json"))
    lines = [dict(zip(table["columns"], row, strict=True)) for row in table["data"]]
    (best,) = (line for line in lines if line["metric"] == "psnr" and line["rank"] == 1)
    assert (best["tokenizer"], best["seeds"], best["within_noise"]) == ("vmae", 2, "yes")
    assert isinstance(best["value"], float)
    staged = {path.read_bytes() for path in (tmp_path / "wandb").rglob("*") if path.is_file()}
    typed = next(json.loads(content) for content in staged if content.startswith(b'{"_type": "table"'))["column_types"][
        "params"
    ]["type_map"]
    kinds = {name: {kind["wb_type"] for kind in schema["params"]["allowed_types"]} for name, schema in typed.items()}
    assert kinds["value"] == kinds["rank"] == {"number", "none"}
    assert kinds["tokenizer"] == kinds["metric"] == {"string", "none"}
    (page,) = (media / "html").glob("page_*.html")
    assert page.read_bytes() == (tmp_path / "leaderboard.html").read_bytes()
    assert len(list((media / "images").rglob("*.png"))) == 12
    file = run / f"run-{wandb_runs.run_id(report.records)}.wandb"
    for _ in range(200):
        if file.stat().st_size > 100:  # `finish` returns a moment before the file is whole
            break
        time.sleep(0.1)
    held = file.read_bytes()
    for name in (
        "leaderboard.html",
        "leaderboard.tex",
        *(f"records/{record.job}-{record.id}.json" for record in report.records[:3]),
    ):
        assert name.encode() in held, f"the artifact has no {name}"
    assert records.path_of(tmp_path / "records", report.records[0].job, report.records[0].id).read_bytes() in staged


@pytest.mark.slow
def test_unchanged_records_make_no_second_run_and_one_more_record_does(report, make, tmp_path, caplog):
    (first,) = export(report, tmp_path)
    with caplog.at_level(logging.INFO):
        assert export(report, tmp_path) == [first]
    assert "Nothing new since" in caplog.text
    more = replace(report, records=[*report.records, make(tokenizer="new")])
    assert len(export(more, tmp_path)) == 2


def test_the_id_is_that_of_the_records_in_any_order(report):
    turned = list(report.records)
    random.Random(0).shuffle(turned)
    assert wandb_runs.run_id(turned) == wandb_runs.run_id(report.records)
    other = [*turned[1:], replace(turned[0], created="2030-01-01T00:00:00+00:00")]
    assert wandb_runs.run_id(other) != wandb_runs.run_id(report.records)


@pytest.mark.parametrize("key", [None, pytest.param("a" * 40, marks=pytest.mark.slow)])
def test_online_without_a_key_or_a_server_is_refused_with_what_to_do_and_without_a_prompt(
    report, tmp_path, monkeypatch, key
):
    def ask(*_: object) -> str:
        raise AssertionError("it prompted")

    monkeypatch.setattr(builtins, "input", ask)
    monkeypatch.setattr("getpass.getpass", ask)
    monkeypatch.setattr(wandb_runs, "INIT_TIMEOUT", 0.5)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    if key:
        monkeypatch.setenv("WANDB_API_KEY", key)
    advice = "WANDB_API_KEY is set: compare it with .+" if key else "Set WANDB_API_KEY"
    with pytest.raises(ValueError, match=rf"Weights & Biases takes no online run: .*{advice}, or choose wandb=offline"):
        export(report, tmp_path, "online")
    import wandb as theirs

    assert theirs.run is None
    assert not list((tmp_path / "runs").rglob("online-*"))


def test_a_run_is_ended_even_where_its_logging_fails(report, tmp_path, monkeypatch):
    def fail(*_: object) -> None:
        raise RuntimeError("full")

    monkeypatch.setattr(wandb_runs, "export_contents", fail)
    with pytest.raises(RuntimeError, match="full"):
        export(report, tmp_path)
    import wandb as theirs

    assert theirs.run is None
    assert not list((tmp_path / "runs" / "leaderboard").glob("*"))
