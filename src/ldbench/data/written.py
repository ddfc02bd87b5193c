"""What a container of images that we wrote says of itself: class names in their order, and that keys give the order.

`job=write_shards` leaves `classes.json` beside the images, as the last file. `unfinished.json` is there before.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Protocol, TypeGuard, TypeVar

from ldbench.io.files import read_json

CLASSES = "classes.json"
UNFINISHED = "unfinished.json"
SCHEMA = "ldbench images 1"
KEY_DIGITS = 8


class HasPath(Protocol):
    """A file with a path relative to the root, with forward slashes."""

    @property
    def path(self) -> str:
        """The path."""
        ...


FileType = TypeVar("FileType", bound=HasPath)


@dataclass(frozen=True)
class Written:
    """The contents of `classes.json`."""

    class_names: Sequence[str]  # by label
    folders: Sequence[str]  # by label: their folders, where each class has one
    num_images: Mapping[str, int]  # by split: train and test
    plan: str  # the digest of what was written and how

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"schema": SCHEMA, **asdict(self)}

    @classmethod
    def from_dict(cls, content: Any, where: str) -> "Written | None":
        """From JSON; None for other files of this name. Raises ValueError where it is ours and damaged."""
        if not isinstance(content, Mapping) or content.get("schema") != SCHEMA:
            return None
        names, folders, counts = (content.get(key) for key in ("class_names", "folders", "num_images"))
        if not (is_names(names) and is_names(folders) and len(names) == len(folders) and is_counts(counts)):
            raise ValueError(f"{where} is damaged. Run job=write_shards again with another job.target.")
        return cls(names, folders, counts, str(content.get("plan")))

    def validate_counts(self, *, train: int, test: int, where: str) -> None:
        """Raises ValueError where images have been added or removed."""
        if (train, test) != (self.num_images["train"], self.num_images["test"]):
            expected = f"{self.num_images['train']} training and {self.num_images['test']} test images"
            raise ValueError(
                f"{where} says {expected}, and there are {train} and {test}. Write the images again with "
                f"job=write_shards, or remove {CLASSES} to read what is there in the order of the names."
            )

    def label_of(self, file: HasPath) -> int:
        """The label of an image, by the folder that it is in. Raises ValueError for a folder of no class."""
        folder = PurePosixPath(file.path).parent.name
        if folder not in self.folders:
            raise ValueError(f"{file.path} is in a folder that {CLASSES} beside it does not name. Move or remove it.")
        return list(self.folders).index(folder)

    def in_order(self, files: Iterable[FileType]) -> list[FileType]:
        """Files in the order of their keys."""
        return sorted(files, key=lambda file: PurePosixPath(file.path).stem)


def is_names(value: Any) -> TypeGuard[list[str]]:
    """Whether a value is a list of different strings."""
    return isinstance(value, list) and all(isinstance(name, str) for name in value) and len({*value}) == len(value)


def is_counts(value: Any) -> TypeGuard[dict[str, int]]:
    """Whether a value has the number of images of each split."""
    return isinstance(value, dict) and {*value} == {"train", "test"} and all(type(n) is int for n in value.values())


def key_of(index: int) -> str:
    """The key of an image, by its position in its split."""
    return str(index).zfill(KEY_DIGITS)


def describe_unfinished(where: str) -> str:
    """What to do about images that were written in part."""
    return f"The images in {where} are not all written. Run the same command with job=write_shards again to finish."


def read_written(root: Path) -> Written | None:
    """What the folder of images that we wrote says of itself, None for any other.

    Raises ValueError where it is not finished, or damaged.
    """
    path = root / CLASSES
    if (root / UNFINISHED).exists() and not path.exists():
        raise ValueError(describe_unfinished(str(root)))
    if not path.is_file():
        return None
    try:
        content = read_json(path)
    except ValueError:
        return None  # somebody else's file of this name
    return Written.from_dict(content, str(path))
