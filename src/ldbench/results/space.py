"""A static folder of the leaderboard, which a Hugging Face Space and GitHub Pages serve as it is.

It has the page, the tables, all records, and a manifest of its files. A folder with a file that no export wrote, or
that was changed since, is never replaced.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from ldbench.io.files import atomic_write, file_digest, read_json, write_json
from ldbench.results.records import Record
from ldbench.results.store import copy

MANIFEST = "manifest.json"
PAGE = "index.html"
RECORDS = "records"
README = """---
title: ldbench leaderboard
emoji: 📊
colorFrom: blue
colorTo: green
sdk: static
app_file: index.html
pinned: false
---

# ldbench leaderboard

{records} of {models}, ranked by ldbench: `index.html` is the page, `leaderboard.md` and `leaderboard.csv` have the same
numbers, and `records` has the measurements, one JSON file each. This folder is written by

    python -m ldbench.leaderboard export=space

which replaces it as a whole. To add the records to your own:

    python -m ldbench.leaderboard merge=DIR/records
"""


def write_space(
    folder: Path, records: Sequence[Record], ours: Path, contents: Mapping[str, str], *, num_models: int
) -> None:
    """Writes the folder, or replaces one that was written so: it is there whole or not at all.

    `ours`: the folder of the records; `contents`: text by file name. Raises ValueError for a folder with files that are
    not of an export.
    """
    validate_space(folder)
    readme = README.format(records=counted(len(records), "record"), models=counted(num_models, "model"))
    with atomic_write(folder.absolute(), own_folder=True) as scratch:
        scratch.mkdir()
        for record in records:
            copy(record, ours, scratch / RECORDS)
        for name, content in {**contents, "README.md": readme, ".nojekyll": ""}.items():
            (scratch / name).write_text(content, encoding="utf-8")
        write_json(scratch / MANIFEST, {"files": {name: file_digest(scratch / name) for name in files_in(scratch)}})
        if folder.exists():
            folder.replace(scratch.with_name("replaced"))


def validate_space(folder: Path) -> None:
    """Raises ValueError unless a folder is not there, is empty, or has exactly the files that an export wrote."""
    if folder.is_symlink() or (folder.exists() and not folder.is_dir()):
        raise ValueError(f"{folder} is a link or a file, and a space is a folder. Name another one: space=DIR.")
    if not folder.exists() or not any(folder.iterdir()):
        return
    expected = manifest_of(folder)
    if expected is None:
        raise ValueError(
            f"{folder} has files and was not written by export=space, so that it is not replaced. Name a new folder: "
            "space=DIR."
        )
    for name in files_in(folder):
        path = folder / name
        if name != MANIFEST and (path.is_symlink() or expected.get(name) != file_digest(path)):
            raise ValueError(
                f"{path} was added or changed since {folder} was exported, so that it is not replaced. Move it "
                "away, or name a new folder: space=DIR."
            )


def manifest_of(folder: Path) -> dict[str, str] | None:
    """The files of an exported folder with their sha256; None of another folder."""
    path = folder / MANIFEST
    if path.is_symlink() or not path.is_file():
        return None
    try:
        content = read_json(path)
    except ValueError:
        return None
    files = content.get("files") if isinstance(content, dict) and content.keys() == {"files"} else None
    return files if isinstance(files, dict) else None


def files_in(folder: Path) -> list[str]:
    """The paths of all files and links below a folder, those of linked folders too."""
    return sorted(
        (Path(parent) / name).relative_to(folder).as_posix()
        for parent, folders, names in os.walk(folder)
        for name in (*names, *(each for each in folders if (Path(parent) / each).is_symlink()))
    )


def counted(number: int, noun: str) -> str:
    """A number with its noun."""
    return f"{number} {noun}{'' if number == 1 else 's'}"
