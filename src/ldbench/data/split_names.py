"""Which folders at the top of a data root are its splits, by their names and by the folders below them."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

TRAINING = ("train", "training", "trainset", "trainval")
HELD_OUT = (  # in the order in which they are taken
    *("test", "val", "valid", "validation", "eval", "evaluation", "dev", "development", "testing", "heldout"),
    *("holdout", "testset", "valset", "devset", "evalset"),
)
USUAL = HELD_OUT[:4]  # beside train/ these are splits whatever they hold
WORDS = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of images_test, imagesTest and test2017
MAX_LISTED = 3


@dataclass(frozen=True)
class SplitFolders:
    """The folder of the training images, and those of held-out images, of which the first that fits is taken."""

    train: Path
    held_out: tuple[Path, ...] = ()


def find_split_folders(root: Path, folders: Sequence[Path], *, ambiguous: bool) -> SplitFolders | None:
    """The folders of `root` that are splits, None where all are classes.

    Two folders are splits if one has a training-like name and the other a held-out-like one, such as Train and Val, and
    they share the name of a folder in them, or hold no folders and stand alone. `train` beside test, val, valid or
    validation is one in any case. `ambiguous`: whether other folders may share the names of folders in them.

    Raises ValueError, with the keys that answer, where several are training-like, or where it is not `ambiguous` and
    two folders of other names share two names.
    """
    usual = [root / name for name in USUAL if root / name in folders]
    if root / "train" in folders and usual:
        return SplitFolders(root / "train", tuple(usual))
    if len(folders) == 1 and folders[0].name.lower() in TRAINING:
        return SplitFolders(folders[0])
    training = [folder for folder in folders if is_like(folder.name, TRAINING)]
    held_out = sorted((folder for folder in folders if is_like(folder.name, HELD_OUT)), key=preference)
    below = {folder: folder_names(folder) for folder in (*training, *held_out)} if training and held_out else {}
    if below and len(below) == len(folders) and not any(below.values()):
        pairs = {training[0]: tuple(held_out)} if len(training) == 1 else {}
    else:
        pairs = {
            folder: found
            for folder in training
            if (found := tuple(other for other in held_out if other != folder and below[folder] & below[other]))
        }
    exact = [folder for folder in pairs if folder.name == "train"]
    if len(pairs) == 1 or exact:
        train = exact[0] if exact else next(iter(pairs))
        return SplitFolders(train, pairs[train])
    for train, others in pairs.items():
        refuse(root, train, others[0], below[train])
    if not ambiguous:
        refuse_alike(root, folders)
    return None


def refuse_alike(root: Path, folders: Sequence[Path]) -> None:
    """Raises ValueError for two folders that share the names of two folders in them, as splits do."""
    owners: dict[str, Path] = {}
    for folder in folders:
        names = folder_names(folder)
        counts = Counter(owners[name] for name in names if name in owners)
        for other, count in counts.items():
            if count > 1:
                first, second = sorted((other, folder), key=lambda path: not is_like(path.name, TRAINING))
                refuse(root, first, second, names)
        owners |= dict.fromkeys(names, folder)


def refuse(root: Path, first: Path, second: Path, names: set[str]) -> NoReturn:
    """Raises ValueError for two folders of which it is not known whether they are splits."""
    shared = sorted(names & folder_names(second))
    listed = ", ".join(shared[:MAX_LISTED]) + (" ..." if len(shared) > MAX_LISTED else "")
    raise ValueError(
        f"{first.name}/ and {second.name}/ in {root} hold folders of the same names ({listed}): they may be splits or "
        f"classes. Set data.train_folder={first.name} data.test_folder={second.name} if they are splits, or "
        "data.layout=classes if they are classes."
    )


def is_like(name: str, words: Sequence[str]) -> bool:
    """Whether a folder's name has one of these words, in any case: Train, images_test, val2017, held-out."""
    return bool(words_of(name) & {*words})


def preference(folder: Path) -> tuple[int, str]:
    """Sorts held-out folders by the order of their words."""
    return min(HELD_OUT.index(word) for word in words_of(folder.name) & {*HELD_OUT}), folder.name


def words_of(name: str) -> set[str]:
    """The words of a name, and each two in a row as one."""
    words = [word.lower() for word in WORDS.findall(name)]
    return {*words, *map("".join, pairwise(words))}


def folder_names(folder: Path) -> set[str]:
    """The names of the folders in a folder, without hidden ones."""
    with os.scandir(folder) as entries:
        return {entry.name for entry in entries if not entry.name.startswith(".") and os.path.isdir(entry.path)}
