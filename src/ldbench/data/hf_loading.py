"""Loads the splits of a dataset of Hugging Face: from a folder of parquet files or of save_to_disk, or from the hub."""

import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path, PurePosixPath
from types import ModuleType
from typing import Any

from ldbench.data.split_files import group_files
from ldbench.data.written import CLASSES, UNFINISHED, describe_unfinished

HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
SAVED = ("dataset_dict.json", "state.json")  # of save_to_disk
PREFIX = "hf://"
NO_STREAMS = (
    "Streams of datasets cannot be used: their order is not exact, so that a training could not be resumed or "
    "repeated. Set data.streaming=false, or write the images with job=write_shards once and use data=shards."
)


def import_datasets() -> ModuleType:
    """The package. Raises ValueError where it is not installed."""
    try:
        import datasets
    except ImportError as error:
        raise ValueError(
            f"data=hf needs a package that is not installed ({error}). Run: pip install 'ldbench[datasets]'"
        ) from error
    return datasets


@contextmanager
def bars_in_terminals(datasets: ModuleType) -> Iterator[None]:
    """Within it the package shows its progress in a terminal alone."""
    shown = datasets.is_progress_bar_enabled()
    if not sys.stderr.isatty():
        datasets.disable_progress_bars()
    try:
        yield
    finally:
        if shown:
            datasets.enable_progress_bars()


def find_parts(
    root: str, *, revision: str | None, config_name: str | None, cache: Path | None
) -> Mapping[str, Callable[[], Any]]:
    """The splits of a dataset by name, each loaded when it is asked for."""
    datasets = import_datasets()
    folder = Path(root).expanduser()
    hub_id = root.removeprefix(PREFIX).removeprefix("datasets/")
    if folder.is_dir():
        if revision is not None or config_name is not None:
            raise ValueError(f"data.revision and data.config_name have no effect on the folder {root}. Leave them out.")
        if (folder / UNFINISHED).exists() and not (folder / CLASSES).exists():
            raise ValueError(describe_unfinished(root))
        if any((folder / name).is_file() for name in SAVED):
            return loaded(lambda: datasets.load_from_disk(str(folder)), datasets, root)
        return parquet_parts(folder, datasets, root, cache=cache)
    if root.startswith(PREFIX) or HUB_ID.fullmatch(root):
        try:
            return loaded(lambda: datasets.load_dataset(hub_id, name=config_name, revision=revision), datasets, root)
        except ValueError as error:
            raise ValueError(
                f"{error} It is no folder here, so it was taken for an id of the hub: check it, data.revision and the "
                "network, or set data.root=DIR."
            ) from error
    raise FileNotFoundError(
        f"data.root={root} is not a folder. Set it to a folder of parquet files or of save_to_disk, or to an id of the "
        "hub, hf://OWNER/NAME."
    )


def loaded(load: Callable[[], Any], datasets: ModuleType, root: str) -> Mapping[str, Callable[[], Any]]:
    """The splits of a dataset that is loaded whole. Raises ValueError where it cannot be."""
    found = read(load, datasets, root)
    parts = found if isinstance(found, Mapping) else {"all": found}
    if any(isinstance(part, datasets.IterableDataset) for part in parts.values()):
        raise ValueError(NO_STREAMS)
    return {str(name): partial(parts.__getitem__, name) for name in parts}


def read(load: Callable[[], Any], datasets: ModuleType, root: str) -> Any:
    """What a function of the package returns. Raises ValueError where it fails."""
    try:
        with bars_in_terminals(datasets):
            return load()
    except (OSError, ValueError, TypeError, KeyError, datasets.exceptions.DatasetsError) as error:
        cause = error.__cause__ or error
        raise ValueError(f"{root} cannot be read: {' '.join(str(cause).split())[:400].rstrip('.')}.") from error


def parquet_parts(
    folder: Path, datasets: ModuleType, root: str, *, cache: Path | None
) -> Mapping[str, Callable[[], Any]]:
    """The splits of a folder of parquet files by name. Loading one raises ValueError where it has several folders."""
    names = [path.relative_to(folder).as_posix() for path in folder.rglob("*.parquet")]
    groups = group_files(name for name in names if not any(part.startswith(".") for part in name.split("/")))
    if not groups:
        raise ValueError(
            f"{root} holds no .parquet files and nothing that save_to_disk wrote. Set data.root to the folder that "
            "does."
        )
    settings = {} if cache is None else {"cache_dir": str(cache / "hf")}

    def load(name: str, files: list[str]) -> Any:
        refuse_configurations(name, files, root)
        paths = [str(folder / file) for file in files]
        return read(
            lambda: datasets.load_dataset("parquet", data_files={"train": paths}, split="train", **settings),
            datasets,
            root,
        )

    return {name: partial(load, name, files) for name, files in groups.items()}


def refuse_configurations(split: str, files: Sequence[str], root: str) -> None:
    """Raises ValueError where the files of a split are in several folders, as those of several configurations are.

    A folder `data` and one with the name of the split count as the one that they are in.
    """
    folders: dict[PurePosixPath, PurePosixPath] = {}
    for file in files:
        folder = base = PurePosixPath(file).parent
        while base.name in ("data", split):
            base = base.parent
        folders.setdefault(base, base if base.name else folder)
    if len(folders) > 1:
        listed = ", ".join(str(Path(root) / folder) for folder in folders.values())
        raise ValueError(
            f"The split {split} of {root} has files in several folders: {listed}. They may be of several "
            "configurations, and are not merged. Set data.root to one of them, or put all files into one folder."
        )
