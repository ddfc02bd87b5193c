"""The validator of a folder of records: a line for each fault, with the file, the field and what was expected."""

from dataclasses import dataclass
from pathlib import Path

from ldbench.results.store import record_files
from ldbench.results.validation import find_faults


@dataclass(frozen=True)
class Verdict:
    """What the records of a folder are like."""

    num_records: int
    faults: tuple[str, ...]  # a line each

    @property
    def summary(self) -> str:
        """The verdict in one line."""
        records = f"{self.num_records} record{'' if self.num_records == 1 else 's'}"
        if not self.faults:
            return f"{records} valid."
        return f"{len(self.faults)} fault{'' if len(self.faults) == 1 else 's'} in {records}."


def validate_folder(folder: Path, name: str) -> Verdict:
    """The verdict on all records of a folder. `name`: what the folder is called in an error.

    Raises ValueError if it has none.
    """
    files = record_files(folder)
    if not files:
        raise ValueError(
            f"There are no records in {name}: validate=DIR takes a folder with files such as "
            "reconstruct-0123456789abcdef.json."
        )
    return Verdict(len(files), tuple(f"{file.name}: {fault}" for file in files for fault in find_faults(file)))
