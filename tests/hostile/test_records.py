"""Untrusted records and figures, and names with markup: a bad one stops a merge, and every name is shown as text."""

import csv
import io
import json
import os
import re
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from ldbench.core.estimate import Estimate
from ldbench.results import html, latex, markdown, records, spreadsheet, store, terminal
from ldbench.results.leaderboards import build_leaderboards
from ldbench.results.reports import stdout
from ldbench.results.table import table_of

PROTOCOL = {"name": "digits", "split": "test", "data": "ab"}
PROTOCOL |= {"hash": records.protocol_hash(PROTOCOL)}


def made(tokenizer: str = "vmae", metric: str = "psnr", data: str = "digits", **more: Any) -> records.Record:
    fields = {
        "subject": {"tokenizer": tokenizer, "generator": None, "data": data},
        "metrics": {metric: Estimate(40.0, 39.0, 41.0)},
    }
    config = {
        "tokenizer": {"name": tokenizer, "seed": 0},
        "job": {"component": "reconstruct"},
        "seed": 0,
        "data": {"name": data},
    }
    fields |= {
        "protocol": PROTOCOL,
        "artifacts": {"tokenizer": f"{tokenizer}-01"[:200]},
        "config": config,
        "environment": {"python": "3.11.7"},
        "models": {"tokenizer": "01"},
        "seeds": {"tokenizer": 0},
        "weights": {"tokenizer": "01"},
        "components": {"tokenizer": tokenizer[:200]},
    }
    return records.Record(
        **{"id": "0123456789abcdef", "job": "reconstruct", "created": "2026-11-24T16:13:24+00:00", **fields, **more}
    )


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder with a sound record of somebody else."""
    records.write(made(), tmp_path / "theirs")
    return tmp_path / "theirs"


def changed(field: str, value: Any) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        content = json.loads(path.read_text())
        *parents, last = field.split(".")
        node = content
        for key in parents:
            node = node[key]
        node[last] = value
        path.write_text(json.dumps(content))

    return spoil


def replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def spoil(path: Path) -> None:
        path.unlink()
        make(path)

    return spoil


RECORDS: dict[str, Callable[[Path], object]] = {
    "an id that climbs out": changed("id", "../../../../tmp/x"),
    "a job that climbs out": changed("job", "../reconstruct"),
    "a job that is a program": changed("job", "$(touch x)"),
    "a name in which nothing is printed": changed("subject.tokenizer", "\u202e\u200b"),
    "a name that clears the screen": changed("subject.tokenizer", "\x1b[2Jvmae"),
    "a name of a million characters": changed("subject.tokenizer", "a" * 10**6),
    "a name of half a character": changed("subject.tokenizer", "\ud800"),
    "a metric of endless digits": lambda path: path.write_text(path.read_text().replace("40.0", "9" * 5000)),
    "a metric of NaN": lambda path: path.write_text(path.read_text().replace("40.0", "NaN")),
    "a metric that is a component": changed("metrics.psnr", {"_target_": "os.system"}),
    "artifacts that are a path": changed("artifacts", {"tokenizer": "a\n../../etc/passwd"}),
    "a protocol that was changed": changed("protocol.split", "train"),
    "a config nested without end": lambda path: path.write_text(
        path.read_text().replace('"seed": 0', '"seed": ' + "[" * 50_000, 1)
    ),
    "weights of nothing": changed("weights", {}),
    "an artifact without a model": changed("artifacts", {}),
    "a component that is code": changed("components.tokenizer", "\x1b[2J"),
    "a field that nobody knows": changed("__reduce__", "os.system"),
    "a key twice": lambda path: path.write_text(path.read_text().replace("{", '{"job": "a", "job": "b",', 1)),
    "a pickle": lambda path: path.write_bytes(b"\x80\x04cposix\nsystem\n."),
    "a pipe": replaced(os.mkfifo),
    "an endless device": replaced(lambda path: path.symlink_to("/dev/zero")),
    "a link to itself": replaced(lambda path: path.symlink_to(path)),
    "a folder": replaced(Path.mkdir),
    "a link to a secret": replaced(lambda path: path.symlink_to("/etc/passwd")),
    "a hundred million bytes": replaced(lambda path: path.open("wb").truncate(10**8)),
}


@pytest.mark.parametrize("spoil", RECORDS.values(), ids=RECORDS.keys())
def test_a_merge_is_stopped_by(spoil: Callable[[Path], object], theirs: Path, tmp_path: Path, refused) -> None:
    path = next(theirs.glob("*.json"))
    spoil(path)
    refused(lambda: store.merge(theirs, tmp_path / "ours"), path, "Nothing was merged", "Move them out")
    assert not (tmp_path / "ours").exists()
    assert store.read_all(theirs) == []


def png(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(store.PNG + b"rest")


SHEETS: dict[str, Callable[[Path], object]] = {
    "a program named png": lambda figures: (figures.mkdir(), (figures / "a.png").write_text("#!/bin/sh")),
    "a page named png": lambda figures: (figures.mkdir(), (figures / "a.png").write_text("<svg onload=alert(1)>")),
    "a link to a picture outside": lambda figures: (
        png(figures.parent / "x" / "secret.png"),
        figures.mkdir(),
        link(figures / "a.png"),
    ),
    "a folder that is a link": lambda figures: (
        png(figures.parent / "x" / "secret.png"),
        figures.symlink_to(figures.parent / "x"),
    ),
    "a pipe named png": lambda figures: (figures.mkdir(), os.mkfifo(figures / "a.png")),
    "a folder named png": lambda figures: (figures / "a.png").mkdir(parents=True),
    "a program beside the sheets": lambda figures: (figures.mkdir(), (figures / "a.sh").write_text("#!/bin/sh")),
    "a picture of ten million bytes": lambda figures: (
        png(figures / "a.png"),
        (figures / "a.png").open("r+b").truncate(10**7),
    ),
}


def link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "x" / "secret.png")


@pytest.mark.parametrize("spoil", SHEETS.values(), ids=SHEETS.keys())
def test_a_merge_leaves_behind(spoil: Callable[[Path], object], theirs: Path, tmp_path: Path) -> None:
    spoil(next(theirs.glob("*.json")).with_suffix(""))
    assert len(store.merge(theirs, tmp_path / "ours")) == 1
    assert [path.suffix for path in (tmp_path / "ours").rglob("*")] == [".json"]


NAMES = {
    "a script": "<script>alert(1)</script>",
    "the end of a script": "</script><img src=x onerror=alert(1)>",
    "a comment": "<!--<script>",
    "a link of Markdown": "[click](javascript:alert(1))",
    "a picture of Markdown": "![x](http://example.com/x.png)",
    "a row of a table": "a | b | c",
    "a heading": "# vmae",
    "a mention": "@everybody #1",
    "a command of LaTeX": "\\input{/etc/passwd}",
    "a program of LaTeX": "\\immediate\\write18{touch x}",
    "the end of a table of LaTeX": "\\end{tabular} & % $x$ ^^5c",
    "a formula": "=cmd|'/c calc'!A0",
    "a formula with a plus": '+HYPERLINK("http://example.com")',
    "a formula with a minus": "-2+3",
    "a formula with an at": "@SUM(A1)",
    "a formula of full width": "\uff1d1+1",
    "quotes and commas": '","=1+1","',
    "markup of a terminal": "[bold red]vmae[/] [link=http://example.com]x[/link]",
    "a placeholder of the page": "{{DATA}} {{SCRIPT}} \\g<0>",
    "a component": "${oc.env:HOME}",
}


@pytest.mark.parametrize("name", NAMES.values(), ids=NAMES.keys())
@pytest.mark.parametrize("field", ["tokenizer", "metric", "data"])
def test_a_name_stays_text(name: str, field: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    records.write(made(**{field: name}), tmp_path)
    (record,) = store.read_all(tmp_path)
    boards = build_leaderboards([record])
    page = html.render(boards, [], [], {}, "now")
    assert "onerror=alert" not in page.replace("\\u003cimg src=x onerror=alert", "")
    assert len(re.findall(r"<script", page)) == 3
    data, provenance = re.findall(r"<script[^>]*application/json[^>]*>(.*?)</script>", page, re.S)
    assert json.loads(data)["subjects"]
    assert json.loads(provenance)["records"]
    rows = list(csv.reader(io.StringIO(spreadsheet.render(boards, []))))
    assert {len(row) for row in rows} == {len(spreadsheet.COLUMNS)}
    assert not [cell for row in rows for cell in row if cell[:1] in "=+@\uff1d\t\r" and cell]
    assert not [
        cell for row in rows for cell in row if cell.startswith("-") and not cell.lstrip("-").replace(".", "").isdigit()
    ]
    tex = latex.render([table_of(board) for board in boards], "")
    text = tex.replace("\\textbackslash{}", "")
    assert not [word for word in ("\\input", "\\immediate", "\\write") if word in text]
    assert text.count("\\end{tabular}") == len(boards)
    text = markdown.render([table_of(board) for board in boards], "")
    assert not [
        mark
        for mark in ("<script", "<img", "](", "![")
        if mark in text.replace("\\<", "").replace("\\]", "").replace("\\!", "")
    ]
    widths = {line.replace("\\|", "").count("|") for line in text.splitlines() if line.startswith("|")}
    assert len(widths) <= 1
    terminal.show([table_of(board) for board in boards], stdout())
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert asdict(record)["subject"]["tokenizer"] == (name if field == "tokenizer" else "vmae")
