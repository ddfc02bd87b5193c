"""A dataset from a folder of images."""

import os
from pathlib import Path

from ldbench.data.image_files import ImageFiles, validate_settings
from ldbench.data.layouts import find_splits


class Folder(ImageFiles):
    """Images below `root` with the splits and classes that `layouts.find_splits` finds (see `ImageFiles`).

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
    ):
        validate_settings(image_size=image_size, check=check, on_error=on_error, fingerprint=fingerprint)
        root = _resolve_root(root)
        train, test = find_splits(
            Path(root),
            layout=layout,
            test_fraction=test_fraction,
            train_folder=train_folder,
            test_folder=test_folder,
        )
        super().__init__(
            root,
            train,
            test,
            name=name,
            image_size=image_size,
            label_safe_flips=label_safe_flips,
            fingerprint=fingerprint,
            check=check,
            on_error=on_error,
            subset=subset,
            seed=seed,
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
