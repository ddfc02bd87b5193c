"""A dataset from a folder of images."""

import os
from pathlib import Path

from ldbench.data import fingerprints
from ldbench.data.checks import validate_settings
from ldbench.data.image_files import ImageFiles
from ldbench.data.layouts import find_splits
from ldbench.data.written import CLASSES, read_written


class Folder(ImageFiles):
    """Images below `root` with the splits and classes that `layouts.find_splits` finds (see `ImageFiles`).

    Images that `job=write_shards` wrote have the order and the labels of their source (see `written`), others are in
    the order of their paths.

    Raises FileNotFoundError if `root` does not exist, and ValueError if it is not set, has another layout, or has
    images that cannot be read (with skip: if a class or a split has no others).
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        layout: str,
        image_size: int,
        test_fraction: float | None,
        train_folder: str | None,
        test_folder: str | None,
        label_safe_flips: bool,
        fingerprint: str,
        check: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        cache_dir: str | None,
    ):
        validate_settings(
            check=check,
            on_error=on_error,
            fingerprint=fingerprint,
            fingerprint_choices=fingerprints.CHOICES,
            image_size=image_size,
        )
        root = _resolve_root(root)
        written = read_written(Path(root)) if layout in ("auto", "classes") else None
        train, test = find_splits(
            Path(root),
            layout=layout,
            test_fraction=test_fraction,
            train_folder=train_folder,
            test_folder=test_folder,
        )
        if written is not None:
            written.validate_counts(train=len(train), test=len(test), where=str(Path(root) / CLASSES))
            train, test = written.in_order(train), written.in_order(test)
        super().__init__(
            root,
            train,
            test,
            written=written,
            name=name,
            image_size=image_size,
            label_safe_flips=label_safe_flips,
            fingerprint=fingerprint,
            check=check,
            on_error=on_error,
            subset=subset,
            seed=seed,
            cache_dir=cache_dir,
        )


def _resolve_root(root: str) -> str:
    if not root:
        raise ValueError(
            "data.root is not set. Set data.root=DIR to the folder that holds train/ and val/, or one folder per class."
        )
    root = os.path.expanduser(root)  # shells leave the ~ in data.root=~/images
    if os.path.isfile(root):
        raise ValueError(
            f"data.root={root} is a file. Unpack it if it is an archive, and set data.root to the folder that holds "
            "the images."
        )
    if not os.path.isdir(root):
        raise FileNotFoundError(
            f"data.root={root} is not a folder. Set it to the one that holds train/ and val/, or one folder per class."
        )
    return root
