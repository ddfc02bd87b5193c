"""The files of public datasets: what of them is missing or altered, and their download where it is asked for."""

import logging
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from ldbench.data.split_names import folder_names

log = logging.getLogger(__name__)

ON_REQUEST = "set data.download=true, with which a training or a measurement gets it from"


@dataclass(frozen=True)
class Source:
    """A public dataset: where it comes from, and the files and folders below `data.root` that it is read from."""

    title: str
    url: str
    archive: str | None  # where the download puts the archive, relative to the root; None: there is none
    files: Mapping[str, str | None]  # path relative to the root -> md5; None: not compared, as of a folder

    @property
    def folder(self) -> str:
        """What `data.root` has to hold: the folder that is unpacked, or the first file."""
        first = next(iter(self.files))
        return f"{first.partition('/')[0]}/" if "/" in first else first


def get_root(root: str, source: Source, *, download: bool, fetch: Callable[[str], object]) -> str:
    """The folder that holds the files of `source`.

    With `download` it is created, and `fetch` called with it, if a file is missing or altered; other processes that
    want the same wait. Raises FileNotFoundError for missing files, and ValueError for altered ones and for downloads
    that fail.
    """
    if not isinstance(download, bool):
        raise ValueError(f"data.download is {download!r}. Give true or false.")
    if not root:
        raise ValueError(f"data.root is not set. Set data.root=DIR to the folder that holds {source.folder}.")
    root = os.path.expanduser(root)  # shells leave the ~ in data.root=~/images
    if os.path.isfile(root):
        raise ValueError(
            f"data.root={root} is a file. Unpack it if it is an archive, and set data.root to the folder that holds "
            f"{source.folder}."
        )
    try:
        validate_files(Path(root), source)
    except (ValueError, FileNotFoundError):
        if not download:
            raise
        _download(root, source, fetch)
    return root


def validate_files(root: Path, source: Source) -> None:
    """Raises FileNotFoundError for files that are missing, and ValueError for those with another md5."""
    from torchvision.datasets.utils import calculate_md5

    missing = [path for path in source.files if not (root / path).exists()]
    if missing:
        raise FileNotFoundError(_describe_missing(root, source, missing))
    for path, md5 in source.files.items():
        found = None if md5 is None else calculate_md5(root / path) if (root / path).is_file() else "none: no file"
        if found != md5:
            raise ValueError(
                f"{root / path} is not {source.title}'s file: its md5 is {found}, expected {md5}. It was not read. "
                f"Remove it and {ON_REQUEST} {source.url}, or copy it again."
            )


def _download(root: str, source: Source, fetch: Callable[[str], object]) -> None:
    try:
        os.makedirs(root, exist_ok=True)
        with FileLock(os.path.join(root, ".download.lock"), mode=0o666):
            try:
                validate_files(Path(root), source)  # another process may have got them while this one waited
            except (ValueError, FileNotFoundError):
                log.info("Downloading %s from %s to %s.", source.title, source.url, root)
                fetch(root)
    except Exception as error:  # whatever urllib, tarfile, zipfile and gdown raise
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise ValueError(
            f"{source.title} cannot be downloaded from {source.url} to {root}: {reason}. Check the network and the "
            f"space on the disk and start again, or copy {source.archive or source.folder} there from elsewhere."
        ) from error
    validate_files(Path(root), source)


def _describe_missing(root: Path, source: Source, missing: list[str]) -> str:
    others = f" (and {len(missing) - 1} more)" if len(missing) > 1 else ""
    if not root.is_dir():
        what = f"data.root={root} is not a folder"
    elif len(missing) < len(source.files):
        what = f"{source.title} is incomplete: {root / missing[0]} is missing{others}"
    else:
        what = f"{source.title} is not in data.root={root}: there is no {missing[0]}{others}"
    near = [root.parent, *(root / name for name in sorted(folder_names(root)))] if root.is_dir() else []
    right = [folder for folder in near if all((folder / path).exists() for path in source.files)]
    if right:
        return f"{what}. Set data.root={right[0]}, which holds {source.folder}."
    if source.archive and (root / source.archive).is_file() and next(iter(source.files)) in missing:
        return f"{what}. Unpack {root / source.archive} there, or set data.download=true, which unpacks it."
    return f"{what}. Set data.root to the folder that holds {source.folder}, or {ON_REQUEST} {source.url}."
