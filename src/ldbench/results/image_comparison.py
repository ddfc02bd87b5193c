"""Images of several models side by side: the rows are images, the columns models."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from numpy import ndarray

from ldbench.results.leaderboards import Leaderboard
from ldbench.results.models import Model, models_of
from ldbench.results.ranking_conditions import Conditions
from ldbench.results.records import Record

AUTO = "auto"
SMALLEST = 128  # px of an image of which a part can be shown
RECONSTRUCTIONS, SAMPLES = "reconstructions", "samples"


@dataclass(frozen=True)
class SheetSettings:
    """What a sheet shows; conf/leaderboard.yaml explains it. Raises ValueError for values that are out of range."""

    rows: int
    candidates: int
    crop: str | Sequence[int] | None

    def __post_init__(self) -> None:
        for key in ("rows", "candidates"):
            value = getattr(self, key)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise ValueError(f"{key} must be a whole number of at least 1, got {value!r}.")
        if self.crop is None or self.crop == AUTO:
            return
        numbers = [] if isinstance(self.crop, str) else list(self.crop)
        whole = all(isinstance(number, int) and not isinstance(number, bool) for number in numbers)
        if len(numbers) != 3 or not whole or min(numbers) < 0 or numbers[2] < 1:
            given = self.crop if isinstance(self.crop, str) else numbers
            raise ValueError(f"crop must be null, auto, or [top,left,size] in pixels, as crop=[64,96,64]; got {given}.")


@dataclass(frozen=True)
class Subject:
    """A model of a comparison, and the record whose images are shown."""

    model: Model
    title: str
    record: Record


@dataclass(frozen=True)
class Column:
    """The images of a model, or the originals."""

    title: str
    images: Sequence[ndarray]  # of each row, (H, W, 3) uint8
    errors: Sequence[ndarray] | None = None  # their error maps in colors, likewise
    model: Model | None = None
    note: str = ""  # a second line of the title


@dataclass(frozen=True)
class ImageComparison:
    """Images of models in rows and columns."""

    kind: str
    conditions: Conditions  # of the first record
    rows: Sequence[str]  # names of images
    columns: Sequence[Column]
    notes: Sequence[str]  # sentences: what is shown, and how it was chosen
    scale: float | None  # in levels of 0 to 255, the error of the last color
    crop: bool = False  # whether parts of images are shown


def subjects_of(board: Leaderboard, shown: Sequence[Record]) -> list[Subject]:
    """For each model of a leaderboard its first record of those that have images."""
    ids = {record.id for record in shown}
    found = [(row.model, next((r for r in row.records if r.id in ids), None)) for row in board.rows]
    return [Subject(model, model.label, record) for model, record in found if record is not None]


def named_subjects(records: Sequence[Record], chosen: Sequence[Record]) -> list[Subject]:
    """The records that a command names; those of one model are distinguished by their names."""
    models = models_of(records)
    labels = [models[record.id].label for record in chosen]
    return [
        Subject(
            models[record.id],
            label if labels.count(label) == 1 else f"{label} ({record.job}-{record.id[:8]})",
            record,
        )
        for record, label in zip(chosen, labels, strict=True)
    ]


def none_saved(folder: Path, job: str) -> ValueError:
    """The error that there are no saved images."""
    return ValueError(
        f"No record of job={job} in {folder.absolute()} has its images beside it, and a sheet shows those. "
        f"{how_to_save(job)}"
    )


def how_to_save(job: str) -> str:
    """A sentence with the command that saves images."""
    subject = "tokenizer=vmae" if job == "reconstruct" else "tokenizer=vmae generator=sit"
    return (
        f"python -m ldbench.run job={job} {subject} job.save_images=true, with the overrides of the training, writes "
        "them, also where the record exists. (A training saves none by itself, and merge=DIR copies none.)"
    )
