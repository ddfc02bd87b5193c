"""The static folder: whole, what a Space needs, and in nobody's place."""

import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from ldbench.results import records, store
from ldbench.results.space import write_space

CONTENTS = {"index.html": "<!doctype html>", "leaderboard.csv": "data\n"}


@pytest.fixture
def write(make, tmp_path: Path) -> Callable[[str], Path]:
    """Exports the records of `records` to a folder."""
    records.write(make(), tmp_path / "records")

    def export(name: str = "space") -> Path:
        found = store.read_all(tmp_path / "records")
        write_space(tmp_path / name, found, tmp_path / "records", CONTENTS, num_models=len(found))
        return tmp_path / name

    return export


def test_the_readme_is_what_a_static_space_needs(write):
    folder = write()
    _, front, text = (folder / "README.md").read_text().split("---\n", 2)
    matter = yaml.safe_load(front)
    assert (matter["sdk"], matter["app_file"]) == ("static", "index.html")
    assert (folder / matter["app_file"]).is_file()
    assert "1 record of 1 model" in text


def test_another_export_replaces_all_of_it_and_leaves_nothing_else(write, make, tmp_path):
    folder = write()
    old = next((folder / "records").iterdir())
    shutil.rmtree(tmp_path / "records")
    new = records.write(make(tokenizer="vavae"), tmp_path / "records")
    write()
    assert [path.name for path in (folder / "records").iterdir()] == [new.name] != [old.name]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records", "space"]


def test_what_fails_on_the_way_leaves_the_old_folder(write, tmp_path, monkeypatch):
    folder = write()
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    monkeypatch.setitem(CONTENTS, "leaderboard.csv", "\ud800")
    with pytest.raises(UnicodeEncodeError):
        write()
    with pytest.raises(UnicodeEncodeError):
        write("new")
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["records", "space"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda folder: (folder / ".git").mkdir() or (folder / ".git" / "HEAD").write_text(""),
            r"\.git/HEAD was added or",
        ),
        (lambda folder: (folder / "README.md").write_text("mine"), r"README\.md was added or changed"),
        (lambda folder: (folder / "more").symlink_to("/etc"), r"more was added or changed"),
        (lambda folder: (folder / "manifest.json").write_text("{}"), r"was not written by export=space"),
        (lambda folder: (folder / "manifest.json").unlink(), r"was not written by export=space"),
    ],
)
def test_a_folder_with_anything_of_somebody_elses_is_refused(write, change, message):
    folder = write()
    change(folder)
    with pytest.raises(ValueError, match=rf"{message}.*space=DIR"):
        write()
    assert (folder / "index.html").is_file()


def test_a_link_is_not_replaced(write, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "space").symlink_to("elsewhere")
    with pytest.raises(ValueError, match="is a link or a file"):
        write()


def test_an_empty_folder_is_filled(write, tmp_path):
    (tmp_path / "space").mkdir()
    assert re.match("<!doctype", (write() / "index.html").read_text())
