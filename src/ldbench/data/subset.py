"""Selects a subset of a training split."""

import unicodedata
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldbench.data.draws import keyed_generator


def select_items(
    labels: Tensor,  # (n,) of the whole training split
    *,
    subset: float | str | None,
    seed: int,
    names: Sequence[str] | None = None,
) -> Tensor:
    """The indices of the selected items, (m,) int64 in ascending order.

    `subset` is None (everything), a class-stratified fraction in (0, 1] drawn from `seed`, or the path of a text file
    with one item per line: an index or, if the items have `names`, a name. Blank lines are ignored.

    Raises ValueError for a fraction out of range and for a list that is empty, has an unknown item or has one twice;
    FileNotFoundError if the list file is missing.
    """
    if subset is None:
        return torch.arange(len(labels))
    if isinstance(subset, str):
        return _read_list(Path(subset).expanduser(), num_items=len(labels), names=names)
    if isinstance(subset, bool) or not 0 < subset <= 1:
        raise ValueError(
            f"data.subset is {subset!r}. Give a fraction in (0, 1], the path of a list file, or null for the whole "
            "split."
        )
    return select_stratified(labels, subset, "subset", seed)


def select_stratified(labels: Tensor, fraction: float, *key: str | int) -> Tensor:
    """The indices of `fraction` of each class, at least one per class, (m,) int64 in ascending order.

    Drawn from `key` alone; with one key a smaller fraction is contained in a larger one.
    """
    classes, counts = labels.unique(return_counts=True)  # sorted
    members = labels.argsort(stable=True).split(counts.tolist())  # indices, class by class
    kept = []
    for label, indices in zip(classes.tolist(), members, strict=True):
        shuffled = indices[torch.randperm(len(indices), generator=keyed_generator(*key, label))]
        kept.append(shuffled[: max(1, int(len(indices) * fraction + 0.5))])
    return torch.cat(kept).sort().values


def _read_list(path: Path, *, num_items: int, names: Sequence[str] | None) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(
            f"data.subset is the list file {path}, which does not exist. Give a file, a fraction in (0, 1], or null."
        )
    index_of = {unicodedata.normalize("NFC", name): i for i, name in enumerate(names or ())}
    expected = f"an index from 0 to {num_items - 1}" + (" or a path relative to data.root" if names else "")
    kept: dict[int, int] = {}  # index -> its line
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The list file {path} is not UTF-8 text ({error}). Write one item per line: {expected}."
        ) from error
    for number, line in enumerate(lines, start=1):
        item = unicodedata.normalize("NFC", line.strip())
        if not item:
            continue
        index = index_of.get(item, int(item) if item.isascii() and item.isdigit() and len(item) < 19 else num_items)
        if index >= num_items:
            raise ValueError(
                f"Line {number} of {path} is {item[:200]!r}, which is not an item of the training split. "
                f"Expected {expected}."
            )
        if index in kept:
            raise ValueError(f"Lines {kept[index]} and {number} of {path} are the same item. Remove one.")
        kept[index] = number
    if not kept:
        raise ValueError(f"The list file {path} is empty. Write one item per line: {expected}.")
    return torch.tensor(sorted(kept))
