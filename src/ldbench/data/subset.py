"""Which items of a training split are kept."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from ldbench.data.draws import keyed_generator


def choose(
    labels: Tensor,  # (n,) of the whole training split
    *,
    subset: float | str | None,
    seed: int,
    names: Sequence[str] | None = None,
) -> Tensor:
    """The positions of the kept items, (m,) int64 in rising order.

    `subset` is None (everything), a class-stratified fraction in (0, 1] drawn from `seed`, or the path of a text file with one item
    a line: a position in the split or, where the items have `names`, a name. Blank lines do not count.

    Raises ValueError for a fraction out of range and for a list that is empty, names an unknown item or names one twice;
    FileNotFoundError where the list file is missing.
    """
    if subset is None:
        return torch.arange(len(labels))
    if isinstance(subset, str):
        return _listed(Path(subset).expanduser(), num_items=len(labels), names=names)
    if isinstance(subset, bool) or not 0 < subset <= 1:
        raise ValueError(
            f"data.subset is {subset!r}. Give a fraction in (0, 1], the path of a list file, or null for the whole split."
        )
    return stratified(labels, subset, "subset", seed)


def stratified(labels: Tensor, fraction: float, *key: str | int) -> Tensor:
    """The positions of `fraction` of each class, at least one a class, (m,) int64 in rising order.

    Drawn from `key` alone; under one key a smaller fraction is contained in a larger one.
    """
    classes, counts = labels.unique(return_counts=True)  # sorted
    members = labels.argsort(stable=True).split(counts.tolist())  # positions, class by class
    kept = []
    for label, positions in zip(classes.tolist(), members, strict=True):
        shuffled = positions[torch.randperm(len(positions), generator=keyed_generator(*key, label))]
        kept.append(shuffled[: max(1, int(len(positions) * fraction + 0.5))])
    return torch.cat(kept).sort().values


def _listed(path: Path, *, num_items: int, names: Sequence[str] | None) -> Tensor:
    if not path.is_file():
        raise FileNotFoundError(
            f"data.subset names the list file {path}, which does not exist. Give a file, a fraction in (0, 1], or null."
        )
    positions = {name: i for i, name in enumerate(names or ())}
    expected = f"an index from 0 to {num_items - 1}" + (" or a path relative to data.root" if names else "")
    kept: dict[int, int] = {}  # position -> its line
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise ValueError(
            f"The list file {path} is no text in UTF-8 ({error}). Write one item a line: {expected}."
        ) from error
    for number, line in enumerate(lines, start=1):
        item = line.strip()
        if not item:
            continue
        position = positions.get(item, int(item) if item.isascii() and item.isdigit() and len(item) < 19 else num_items)
        if position >= num_items:
            raise ValueError(
                f"Line {number} of {path} is {item[:200]!r}, no item of the training split. Expected {expected}."
            )
        if position in kept:
            raise ValueError(f"Lines {kept[position]} and {number} of {path} are the same item. Remove one.")
        kept[position] = number
    if not kept:
        raise ValueError(f"The list file {path} is empty. Write one item a line: {expected}.")
    return torch.tensor(sorted(kept))
