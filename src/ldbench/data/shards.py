"""A dataset of tar shards in WebDataset's naming, in a local folder or at an address."""

import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldbench.data.encoded_images import ContainerSettings, EncodedImages, finish_splits
from ldbench.data.layouts import ONE_CLASS
from ldbench.data.shard_index import ShardIndex, get_index
from ldbench.data.split_files import choose_splits, group_files
from ldbench.data.tar_samples import Files
from ldbench.data.written import CLASSES, UNFINISHED, Written, describe_unfinished
from ldbench.io.local_files import LocalFiles
from ldbench.io.remote import Missing, RemoteFiles, is_remote

SPLIT_FOLDERS = ("train", "test", "val", "valid", "validation")  # below the root, where no shard lies in it
NAMES = "classes.txt"  # one class a line
MAX_CLASSES = 1_000_000  # of labels without names
INTEGER = re.compile(r"-?\d+")
GB = 10**9  # bytes


class Shards:
    """Images in tar shards (`KEY.jpg` with `KEY.cls` or `KEY.json`), center-cropped to `image_size`, in the order of
    the shards' names and within them.

    `root` is a folder or an address such as `s3://bucket/folder`, or names shards in it: `folder/*.tar`,
    `folder/train-{0000..0127}.tar`. Splits are found by the shards' names (`train-0000.tar` and `val-0000.tar`, or
    folders of these names) unless `train_shards` and `test_shards`, patterns of names below the root, say them. Class
    names are in `classes.json` or `classes.txt` beside the shards, or in the JSON of the images, or are the labels.

    Where each image lies is read once and kept in an index (see `shard_index`); then images are read in any order. What
    is read from an address is kept in `cache_dir`, up to `cache_size` GB. `check`, `on_error`, `subset` and `seed` are
    as for a folder; images that do not change are decoded once for the check and the fingerprint.

    Raises ValueError, with the shard and the key, for what cannot be read or does not fit, FileNotFoundError where
    there is nothing, and `Unreachable` for an address that does not answer.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        image_size: int,
        train_shards: str | None,
        test_shards: str | None,
        test_fraction: float | None,
        label_key: str | None,
        one_class: bool,
        label_safe_flips: bool,
        check: str,
        fingerprint: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        index: str,
        cache_dir: str | None,
        cache_size: float,
        retries: int,
        timeout: float,
    ):
        settings = ContainerSettings(image_size, test_fraction, check, on_error, fingerprint, subset, seed)
        cache = None if cache_dir is None else Path(cache_dir).expanduser()
        address, pattern = split_pattern(root)
        files = open_files(address, cache=cache, cache_size=cache_size, retries=retries, timeout=timeout)
        if files.exists(UNFINISHED) and not files.exists(CLASSES):
            raise ValueError(describe_unfinished(files.address))
        if train_shards is None and test_shards is not None:
            raise ValueError(f"data.test_shards={test_shards} is set alone. Set data.train_shards too.")
        if train_shards is not None:
            train, test = listed(files, train_shards), None if test_shards is None else listed(files, test_shards)
        else:
            keys = ("train_shards", "test_shards")
            groups = group_files(find_shards(files, pattern))
            train, test = choose_splits(groups, where=files.address, train=None, test=None, keys=keys)
        if test is not None and {*train} & {*test}:
            both = min({*train} & {*test})
            raise ValueError(f"{both} is in both splits. Give data.train_shards and data.test_shards without it.")
        found = get_index(
            files,
            [*train, *(test or ())],
            label_key=label_key,
            with_labels=not one_class,
            index=index,
            cache=cache,
        )
        written, names = (None, None) if one_class else read_class_names(files)
        labels, self.class_names = resolve_labels(found, names, one_class=one_class, where=files.address)
        places = np.arange(len(found))
        in_train = found.shard < len(train)
        splits = [ShardSplit(files, found, part, labels, image_size) for part in (places[in_train], places[~in_train])]
        if written is not None and pattern is None and train_shards is None:
            written.validate_counts(train=len(splits[0]), test=len(splits[1]), where=f"{files.address}/{CLASSES}")
        self.name = name
        self.image_size = image_size
        self.label_safe_flips = label_safe_flips
        self.num_classes = len(self.class_names)
        done = finish_splits(
            splits[0],
            None if test is None else splits[1],
            settings,
            num_classes=self.num_classes,
            where=files.address,
            cache=cache,
        )
        self.train, self.test = done.train, done.test
        self.skipped = done.skipped
        self.fingerprint = done.fingerprint


class ShardSplit(EncodedImages):
    """Images of an index, read on access."""

    def __init__(
        self,
        files: Files,
        index: ShardIndex,
        places: np.ndarray,  # (m,) in the index
        labels: np.ndarray,  # (n,) of the whole index
        image_size: int,
    ):
        self.files = files
        self.index = index
        self.places = places
        self.all_labels = labels
        self.labels = torch.from_numpy(labels[places])
        self.image_size = image_size

    def encoded(self, index: int) -> tuple[bytes, str]:
        """An image's bytes in its shard, and its extension there."""
        place = self.places[index]
        shard, length = self.index.shards[self.index.shard[place]], int(self.index.length[place])
        content = self.files.read(shard.name, int(self.index.offset[place]), length)
        if len(content) < length:
            raise ValueError(f"Its shard has become shorter: {len(content)} of {length} bytes are there.")
        return content, self.index.extension[place].decode()

    def describe(self, index: int) -> str:
        """The shard and the key."""
        return described(self.index, int(self.places[index]), self.files.address)

    def identity(self, index: int) -> str:
        """The shard as it is, and the place in it."""
        place = self.places[index]
        shard = self.index.shards[self.index.shard[place]]
        return f"{shard.name} {shard.sha256 or shard.identity} {self.index.offset[place]} {self.index.length[place]}"

    def select(self, indices: Tensor) -> "ShardSplit":
        """The split with these images only."""
        return ShardSplit(self.files, self.index, self.places[indices.numpy()], self.all_labels, self.image_size)


def described(index: ShardIndex, place: int, where: str) -> str:
    """The shard and the key of an image."""
    shard = index.shards[index.shard[place]].name
    return f"{where}/{shard}: {os.fsdecode(index.key[place])}{index.extension[place].decode()}"


def split_pattern(root: str) -> tuple[str, str | None]:
    """A folder or address, and the pattern of the shards in it, None where the root names none."""
    if not root:
        raise ValueError("data.root is not set. Set data.root=DIR to the folder or address that holds the shards.")
    folder, _, last = root.rpartition("/")
    if last.endswith(".tar") or any(character in last for character in "*?[{"):
        return folder or ".", last
    return root, None


def open_files(address: str, *, cache: Path | None, cache_size: float, retries: int, timeout: float) -> Files:
    """The files in a folder or at an address. Raises FileNotFoundError where a folder does not exist."""
    if is_remote(address):
        blocks = None if cache is None else cache / "blocks"
        return RemoteFiles(address, cache=blocks, cache_bytes=int(cache_size * GB), retries=retries, timeout=timeout)
    folder = Path(os.path.expanduser(address))
    if not folder.is_dir():
        raise FileNotFoundError(f"data.root={address} is not a folder. Set it to the one that holds the tar shards.")
    return LocalFiles(folder)


def listed(files: Files, pattern: str) -> list[str]:
    """The shards of a pattern. Raises FileNotFoundError where there are none."""
    names = files.list(pattern)
    if not names:
        raise FileNotFoundError(f"There are no {pattern} in {files.address}. Check data.root and the pattern.")
    return names


def find_shards(files: Files, pattern: str | None) -> list[str]:
    """The shards of a pattern; without one those in a folder, or in the folders of splits in it."""
    if pattern is not None:
        return listed(files, pattern)
    names = files.list("*.tar")
    for folder in SPLIT_FOLDERS if not names else ():
        try:
            names += files.list(f"{folder}/*.tar")
        except Missing:
            continue
    if not names:
        raise FileNotFoundError(
            f"There are no .tar files in {files.address}. Set data.root to the folder that holds the shards; where an "
            "address does not list its files, name them: 'data.root=\"ADDRESS/train-{0000..0127}.tar\"'."
        )
    return names


def read_class_names(files: Files) -> tuple[Written | None, Sequence[str] | None]:
    """What `job=write_shards` says of the shards, and the class names beside them; None where there is neither."""
    if files.exists(CLASSES):
        where = f"{files.address}/{CLASSES}"
        try:
            content: Any = json.loads(files.read_all(CLASSES))
        except (ValueError, RecursionError) as error:
            raise ValueError(f"{where} is not valid JSON ({error}). Write or remove it.") from error
        written = Written.from_dict(content, where)
        names = content if written is None else written.class_names
        if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
            raise ValueError(f"{where} is no list of class names. Write one, or remove it.")
        return written, names
    if files.exists(NAMES):
        try:
            lines = files.read_all(NAMES).decode("utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise ValueError(f"{files.address}/{NAMES} is not UTF-8 text ({error}). Write it again.") from error
        return None, [line.strip() for line in lines if line.strip()]
    return None, None


def resolve_labels(
    index: ShardIndex, names: Sequence[str] | None, *, one_class: bool, where: str
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all images, (n,) int64, and the class names. Raises ValueError for a label that is no class."""
    if one_class:
        return np.zeros(len(index), dtype=np.int64), (ONE_CLASS,)
    held, inverse = np.unique(index.label, return_inverse=True)
    texts = [value.decode("utf-8", "replace") for value in held]
    if all(map(INTEGER.fullmatch, texts)):
        numbers = [int(value) for value in texts]
        count = len(names) if names is not None else MAX_CLASSES
        expected = f"a number from 0 to {count - 1}"
    else:
        known = names if names is not None else sorted(texts)
        numbers = [known.index(value) if value in known else -1 for value in texts]
        count = len(known)
        expected = f"one of {', '.join(known[:5])}" + (", ..." if count > 5 else "")
        names = known
    wrong = [value for value, number in zip(texts, numbers, strict=True) if not 0 <= number < count]
    if wrong:
        place = int((inverse == texts.index(wrong[0])).argmax())
        raise ValueError(
            f"The label of {described(index, place, where)} is {wrong[0]!r}, and not {expected}. Correct it, or the "
            "class names beside the shards."
        )
    labels = np.array(numbers, dtype=np.int64)[inverse] if numbers else np.zeros(0, dtype=np.int64)
    if names is None:
        names = [str(number) for number in range(max(numbers, default=-1) + 1)]
        present, first = np.unique(labels, return_index=True)
        for label, place in zip(present.tolist(), first.tolist(), strict=True):
            names[label] = index.class_name[place].decode("utf-8", "replace") or names[label]
    return labels, tuple(names)
