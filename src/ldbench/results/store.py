"""The store of records: reading a folder of records, and merging another one into it."""

import logging
import shutil
from collections.abc import Sequence
from pathlib import Path

from ldbench.results.per_image import path_in, read_values
from ldbench.results.records import Record, path_of, write
from ldbench.results.validation import read_validated

log = logging.getLogger(__name__)

LARGEST = 8_000_000  # bytes of a sheet
MOST_ERRORS = 10  # that are listed
PNG = b"\x89PNG\r\n\x1a\n"


def read_all(folder: Path) -> list[Record]:
    """Every valid record of a folder, oldest first. Invalid ones are left out with a warning."""
    found, errors = read_each(folder)
    for error in errors[:MOST_ERRORS]:
        log.warning("Left out: %s", error)
    if len(errors) > MOST_ERRORS:
        log.warning("... and %d more.", len(errors) - MOST_ERRORS)
    return sorted(found, key=lambda record: (record.created, record.id))


def read_each(folder: Path) -> tuple[list[Record], list[ValueError]]:
    """The valid records of a folder, and the errors of the others."""
    found, errors = [], []
    for path in record_files(folder):
        try:
            found.append(read_validated(path))
        except ValueError as error:
            errors.append(error)
    return found, errors


def record_files(folder: Path) -> list[Path]:
    """The files of a folder that are or should be records."""
    return [path for path in sorted(folder.glob("*.json")) if not path.name.startswith(".")]  # those are being written


def merge(theirs: Path, ours: Path) -> Sequence[Record]:
    """Copies the records of another folder, their sheets and values of single images, except those that exist.

    Returns the new records. Raises ValueError if there are none, and for invalid ones, with the key of each wrong
    field; then none is copied.
    """
    found = read_valid(theirs)
    if not found:
        raise ValueError(
            f"There are no records in {theirs}: merge=DIR takes a folder with files such as "
            "reconstruct-0123456789abcdef.json."
        )
    new = [record for record in found if not path_of(ours, record.job, record.id).exists()]
    for record in new:
        copy(record, theirs, ours)
    return new


def read_valid(folder: Path) -> list[Record]:
    """The records of a folder. Raises ValueError for invalid ones, with the key of a wrong field of each."""
    found, errors = read_each(folder)
    if errors:
        more = f"\n... and {len(errors) - MOST_ERRORS} more." if len(errors) > MOST_ERRORS else ""
        listed = "\n".join(map(str, errors[:MOST_ERRORS]))
        raise ValueError(
            f"Nothing was merged, because of these:\n{listed}{more}\n"
            f"Move them out of {folder}, or ask for valid copies."
        )
    return found


def copy(record: Record, theirs: Path, ours: Path) -> None:
    """Copies a record to another folder, with what stands beside it; the record itself last."""
    figures = path_of(ours, record.job, record.id).with_suffix("")
    for file in files_of(theirs, record)[1:]:
        figures.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, figures / file.name)
    write(record, ours)


def files_of(folder: Path, record: Record) -> list[Path]:
    """The file of a record, then its sheets and its values of single images."""
    values = [path_in(folder, record)] if read_values(folder, record) else []
    return [path_of(folder, record.job, record.id), *sheets(folder, record), *values]


def sheets(folder: Path, record: Record) -> list[Path]:
    """The images of a record: PNG files, by content too, in its own folder; no links."""
    figures = path_of(folder, record.job, record.id).with_suffix("")
    if figures.is_symlink():
        return []
    return [
        path for path in sorted(figures.glob("*.png")) if path.is_file() and not path.is_symlink() and is_sheet(path)
    ]


def is_sheet(path: Path) -> bool:
    """Whether a file has PNG's signature and is not too large to be shown. A large one is left out with a warning."""
    if (size := path.stat().st_size) > LARGEST:
        log.warning("%s has %d bytes and is left out: a sheet has at most %d.", path, size, LARGEST)
        return False
    with path.open("rb") as file:
        return file.read(len(PNG)) == PNG
