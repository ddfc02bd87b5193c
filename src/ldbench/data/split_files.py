"""Which files or named parts of a container are its training split and which are held out, by their names."""

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath
from typing import TypeVar

from ldbench.data.split_names import HELD_OUT, TRAINING, is_like, words_of

NUMBERING = re.compile(r"([-_.]?\d+(-of-\d+)?)$")  # of train-00012 and train-00012-of-00064

Part = TypeVar("Part")


def group_files(names: Iterable[str]) -> dict[str, list[str]]:
    """Files by the split that they are numbered parts of, each in the order of their names.

    That is the name without its number, such as `train` of `data/train-00012-of-00064.parquet`, unless that says
    nothing and the folder does: `train` of `train/00012.tar`.
    """
    groups: dict[str, list[str]] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        stem = NUMBERING.sub("", path.stem)
        folder = path.parent.name
        by_folder = says_split(folder) and not says_split(stem)
        group = folder if by_folder else stem or folder or "all"
        groups.setdefault(group, []).append(name)
    return groups


def says_split(name: str) -> bool:
    """Whether a name has a word for training or for held-out images."""
    return is_like(name, TRAINING) or is_like(name, HELD_OUT)


def choose_splits(
    parts: Mapping[str, Part],
    *,
    where: str,
    train: str | None,
    test: str | None,
    keys: Sequence[str],  # of the config, that name the two
) -> tuple[Part, Part | None]:
    """The training part, and the held-out one, None where there is none.

    `train` and `test` name them; None: they are found by their names. Raises ValueError with the names where that is
    not possible.
    """
    listed = ", ".join(parts)
    for key, name in zip(keys, (train, test), strict=True):
        if name is not None and name not in parts:
            raise ValueError(f"data.{key}={name} is not in {where}. Choose one of {listed}.")
    if train is not None and train == test:
        raise ValueError(f"data.{keys[0]} and data.{keys[1]} are both {train}. Give two, or leave the second out.")
    if train is None:
        others = [name for name in parts if name != test]
        found = [name for name in others if name == "train"] or [name for name in others if is_like(name, TRAINING)]
        if not found and len(others) == 1:
            found = others
        if len(found) != 1:
            raise ValueError(
                f"{where} has these parts: {listed}. It is not clear which of them is for training: set data.{keys[0]}."
            )
        train = found[0]
        if test is None and is_like(train, HELD_OUT) and not is_like(train, TRAINING):
            raise ValueError(
                f"{where} has {train} alone, which is held-out by its name. Add the training split, or set "
                f"data.{keys[0]}={train} to divide it."
            )
    if test is None:
        held_out = sorted((name for name in parts if name != train and is_like(name, HELD_OUT)), key=preference)
        unknown = [name for name in parts if name != train and name not in held_out]
        if unknown and not held_out:
            raise ValueError(
                f"{where} has these parts: {listed}. It is not clear which of them is held out: set data.{keys[1]}."
            )
        test = held_out[0] if held_out else None
    return parts[train], None if test is None else parts[test]


def preference(name: str) -> tuple[int, str]:
    """Sorts held-out parts by the order of their words."""
    return min(HELD_OUT.index(word) for word in words_of(name) & {*HELD_OUT}), name
