"""A dataset of Hugging Face's `datasets`: of its hub, a folder of parquet files, or what `save_to_disk` wrote.

[0] Lhoest et al., Datasets: A Community Library for Natural Language Processing, 2021,
https://arxiv.org/abs/2109.02846
"""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from ldbench.data.encoded_images import ContainerSettings, EncodedImages, finish_splits
from ldbench.data.hf_columns import (
    Stored,
    column_type,
    encoded_value,
    find_column,
    how_stored,
    image_of_array,
    labels_of,
)
from ldbench.data.hf_loading import NO_STREAMS, find_parts, import_datasets
from ldbench.data.layouts import ONE_CLASS
from ldbench.data.original_images import png
from ldbench.data.split_files import choose_splits
from ldbench.data.written import CLASSES, read_written
from ldbench.io.files import digest


class HuggingFace:
    """Images of a dataset of Hugging Face, center-cropped to `image_size`, in the order of its rows.

    `root` is a folder of parquet files or of `save_to_disk`, or an id of the hub (`hf://owner/name`), which is
    downloaded, at `revision` and of the configuration `config_name` where they are set. Splits and columns are found by
    names and types where they are not set. Both splits have the columns of the training split, and its classes in its
    order: labels that the other one numbers otherwise are found by their names. Images may be encoded, paths, or arrays
    (H, W[, 3]) of uint8. `check`, `on_error`, `subset` and `seed` are as for a folder; what does not change is decoded
    once for the check and the fingerprint.

    Raises ValueError for what cannot be read or does not fit, with the columns, splits or row, and for
    `streaming=true`.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str,
        revision: str | None,
        config_name: str | None,
        streaming: bool,
        image_size: int,
        image_column: str | None,
        label_column: str | None,
        one_class: bool,
        train_split: str | None,
        test_split: str | None,
        test_fraction: float | None,
        label_safe_flips: bool,
        check: str,
        fingerprint: str,
        on_error: str,
        subset: float | str | None,
        seed: int,
        cache_dir: str | None,
    ):
        settings = ContainerSettings(image_size, test_fraction, check, on_error, fingerprint, subset, seed)
        if streaming:
            raise ValueError(NO_STREAMS)
        cache = None if cache_dir is None else Path(cache_dir).expanduser()
        parts = find_parts(root, revision=revision, config_name=config_name, cache=cache)
        keys = ("train_split", "test_split")
        chosen = choose_splits(
            {name: name for name in parts}, where=root, train=train_split, test=test_split, keys=keys
        )
        names = [name for name in chosen if name is not None]
        rows = [parts[name]() for name in names]
        column = find_column(rows[0].features, image_column, kind="image", where=root)
        wheres = [f"{root}, split {name}" for name in names]
        stored = [
            how_stored(column_type(part.features, column, kind="image", split=name, where=root), column, where=where)
            for name, part, where in zip(names, rows, wheres, strict=True)
        ]
        if one_class:
            labels = [torch.zeros(len(part), dtype=torch.int64) for part in rows]
            self.class_names: tuple[str, ...] = (ONE_CLASS,)
        else:
            label = find_column(rows[0].features, label_column, kind="label", where=root)
            types = [
                column_type(part.features, label, kind="label", split=name, where=root)
                for name, part in zip(names, rows, strict=True)
            ]
            values = [part.with_format(None)[label][:] for part in rows]
            known = [getattr(kind, "names", None) for kind in types]
            labels, self.class_names = labels_of(values, known, splits=names, column=label)
        folder = Path(root).expanduser()
        splits = [
            RowSplit(
                image_rows(part, column),
                label,
                column=column,
                stored=kind,
                folder=folder if folder.is_dir() else None,
                where=where,
                image_size=image_size,
            )
            for where, part, label, kind in zip(wheres, rows, labels, stored, strict=True)
        ]
        if (written := read_written(folder)) is not None and len(splits) == 2:
            written.validate_counts(train=len(splits[0]), test=len(splits[1]), where=str(folder / CLASSES))
        self.name = name
        self.image_size = image_size
        self.label_safe_flips = label_safe_flips
        self.num_classes = len(self.class_names)
        done = finish_splits(
            splits[0],
            splits[1] if len(splits) == 2 else None,
            settings,
            num_classes=self.num_classes,
            where=root,
            cache=cache if all(split.files for split in splits) else None,
        )
        self.train, self.test = done.train, done.test
        self.skipped = done.skipped
        self.fingerprint = done.fingerprint


class RowSplit(EncodedImages):
    """Rows of a dataset, read on access."""

    def __init__(
        self,
        rows: Any,  # datasets.Dataset with the column of images alone, not decoded
        labels: Tensor,  # (m,) int64
        *,
        column: str,
        stored: Stored,
        folder: Path | None,  # of paths that are not absolute
        where: str,
        image_size: int,
        places: Tensor | None = None,  # (m,) int64, in `rows`; None: all
    ):
        self.rows = rows
        self.labels = labels
        self.column = column
        self.stored = stored
        self.folder = folder
        self.where = where
        self.image_size = image_size
        self.places = torch.arange(len(rows)) if places is None else places

    @cached_property
    def files(self) -> str:
        """What identifies the files in which all images lie; "" where they lie elsewhere, as files of their own."""
        if self.stored == "path" or not holds_bytes(self.rows, self.column):
            return ""
        paths = [file["filename"] for file in self.rows.cache_files]
        stats = [os.stat(path) for path in paths]
        stamps = [[path, stat.st_size, stat.st_mtime_ns] for path, stat in zip(paths, stats, strict=True)]
        return digest([self.column, stamps]) if paths else ""

    def encoded(self, index: int) -> tuple[bytes, str]:
        """An image file of a row; of an array as PNG."""
        if self.stored == "array":
            return png(self.original(index)), ".png"
        return encoded_value(self.value(index), self.stored, self.folder)

    def decode(self, index: int) -> Image.Image:
        """An image's pixels. Raises ValueError with the reason alone."""
        return image_of_array(self.value(index)) if self.stored == "array" else super().decode(index)

    def value(self, index: int) -> Any:
        """What a row holds."""
        return self.rows[int(self.places[index])][self.column]

    def describe(self, index: int) -> str:
        """The split and the row."""
        return f"{self.where}, row {int(self.places[index])}"

    def identity(self, index: int) -> str:
        """The files, the split and the row."""
        return f"{self.files} {self.where} {int(self.places[index])}"

    def select(self, indices: Tensor) -> "RowSplit":
        """The split with these images only."""
        return RowSplit(
            self.rows,
            self.labels[indices],
            column=self.column,
            stored=self.stored,
            folder=self.folder,
            where=self.where,
            image_size=self.image_size,
            places=self.places[indices],
        )


def image_rows(part: Any, column: str) -> Any:
    """A dataset with the column of images alone, which are not decoded."""
    datasets = import_datasets()
    rows = part.with_format(None).select_columns([column])
    if isinstance(rows.features[column], datasets.Image):
        rows = rows.cast_column(column, datasets.Image(decode=False))
    return rows


def holds_bytes(rows: Any, column: str) -> bool:
    """Whether a dataset holds the bytes of all images, and no paths in their place."""
    chunks = rows.data.column(column).chunks
    fields = [chunk.field("bytes") if hasattr(chunk, "field") else chunk for chunk in chunks]
    return all(field.null_count == 0 for field in fields)
