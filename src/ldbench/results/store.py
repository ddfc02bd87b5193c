"""The store of records: a folder of them is read, and other people's are merged into it."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from ldbench.results.records import Record, path_of, write
from ldbench.results.validation import read_checked

log = logging.getLogger(__name__)

LARGEST = 8_000_000  # bytes of a sheet
MOST = 10  # refusals that are told one by one
PNG = b"\x89PNG\r\n\x1a\n"


def read_all(folder: Path) -> list[Record]:
    """Every record of a folder, oldest first. What is no sound record is left out, and said."""
    found, refused = read_each(folder)
    for error in refused[:MOST]:
        log.warning("Left out: %s", error)
    if len(refused) > MOST:
        log.warning("... and %d more.", len(refused) - MOST)
    return sorted(found, key=lambda record: (record.created, record.id))


def read_each(folder: Path) -> tuple[list[Record], list[ValueError]]:
    """The records of a folder, and why the others were refused."""
    found, refused = [], []
    for path in sorted(folder.glob("*.json")):
        if path.name.startswith("."):  # being written
            continue
        try:
            found.append(read_checked(path))
        except ValueError as error:
            refused.append(error)
    return found, refused


def merge(theirs: Path, ours: Path) -> Sequence[Record]:
    """Copies the records of another folder, and their sheets, into ours; returns those that were not there. Where both have one, ours stays.

    Raises ValueError where there is none, and for any that is not sound, with the path of its wrong field; nothing is copied then.
    """
    found, refused = read_each(theirs)
    if refused:
        more = f"\n... and {len(refused) - MOST} more." if len(refused) > MOST else ""
        told = "\n".join(map(str, refused[:MOST]))
        raise ValueError(
            f"Nothing was merged, because of these:\n{told}{more}\nMove them out of {theirs}, or ask for sound copies."
        )
    if not found:
        raise ValueError(
            f"There are no records in {theirs}: merge=DIR wants a folder with files such as reconstruct-0123456789abcdef.json."
        )
    new = [record for record in found if not path_of(ours, record.job, record.id).exists()]
    for record in new:
        figures = path_of(ours, record.job, record.id).with_suffix("")
        for sheet in sheets(theirs, record):
            figures.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(sheet, figures / sheet.name)
        write(record, ours)
    return new


def sheets(folder: Path, record: Record) -> list[Path]:
    """The pictures beside a record: PNG files by content too, in its own folder, by no link."""
    figures = path_of(folder, record.job, record.id).with_suffix("")
    if figures.is_symlink():
        return []
    return [
        path for path in sorted(figures.glob("*.png")) if path.is_file() and not path.is_symlink() and is_sheet(path)
    ]


def is_sheet(path: Path) -> bool:
    """Whether a file begins as PNG does, and is not too large to be shown; that it is, is said."""
    if (size := path.stat().st_size) > LARGEST:
        log.warning("%s has %d bytes and is left out: a sheet has at most %d.", path, size, LARGEST)
        return False
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG
