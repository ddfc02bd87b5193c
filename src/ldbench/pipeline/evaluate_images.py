"""Images that anybody made, from Python: `ldbench.evaluate`."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ldbench.config.compose import Registry
from ldbench.config.installed import with_folders
from ldbench.core.estimate import Estimate
from ldbench.core.interfaces import ImageData
from ldbench.jobs._sample_sets import open_samples
from ldbench.pipeline.composed_job import Place, compose_job
from ldbench.pipeline.from_python import measure_images, validate_data
from ldbench.pipeline.given_samples import GivenImages, Layout, data_of_file, data_of_size, validated_labels
from ldbench.pipeline.pipeline import get_protocol

IN_MEMORY = "samples"  # the name of images that lie in no file


def evaluate(
    samples: str | os.PathLike[str] | Tensor | np.ndarray,
    reference: str | os.PathLike[str] | ImageData | None,
    *,
    originals: str | os.PathLike[str] | Tensor | np.ndarray | None,
    labels: Sequence[int] | Tensor | np.ndarray | None,
    value_range: tuple[float, float] | None,
    layout: Layout | None,
    by: str | None,
    image_size: int | None,
    protocol: str | Mapping[str, Any] | None,
    place: Place,
    overrides: Sequence[str],
    searchpath: Sequence[str],
    settings: Mapping[str, Any],
) -> dict[str, Estimate]:
    """See `ldbench.evaluate`."""
    if reference is None and originals is None:
        raise ValueError(
            "Samples are compared with real images: say reference='digits', a folder or an .npz, or give the originals "
            "of reconstructions."
        )
    how = {"labels": labels, "value_range": value_range, "layout": layout}
    given: dict[str, Any] = {"samples": samples} if originals is None else {"samples": samples, "originals": originals}
    validate_meanings(given, how)
    images = {what: found if is_path(found) else in_memory(what, found, **how) for what, found in given.items()}
    with tempfile.TemporaryDirectory(prefix="ldbench-") as scratch:
        paths = {
            what: Path(scratch) / f"{what}.npz" if isinstance(found, GivenImages) else Path(found).expanduser()
            for what, found in images.items()
        }
        known = Registry(with_folders(searchpath, overrides)).options("data")
        data, protocol = reference_of(reference, images.get("originals"), protocol, known=known)
        if by is None and not is_path(samples):
            by = IN_MEMORY
        folder = isinstance(data, str) and data.startswith("folder:")
        composed = compose_job(
            "evaluate",
            data=data,
            protocol=protocol,
            # a folder is read at the samples' size: another one would be refused
            image_size=square(images["samples"]) if image_size is None and folder else image_size,
            place=place,
            overrides=overrides,
            searchpath=searchpath,
            settings={**settings, **{what: str(path) for what, path in paths.items()}, "by": by},
        )
        fields = get_protocol(composed.cfg, composed.registry)
        if originals is None and not fields.distribution:
            raise ValueError(
                f"The protocol {fields.name} compares no sets of images. Say with which features and by which metrics, "
                "as in protocol={'extractor': 'inception', 'distribution': ['fd', 'kid']}."
            )
        for what, found in images.items():
            if isinstance(found, GivenImages):
                found.write(paths[what], fields.pixel_rule)
        return measure_images(composed)


def reference_of(
    reference: str | os.PathLike[str] | ImageData | None,
    originals: Any,
    protocol: str | Mapping[str, Any] | None,
    *,
    known: Collection[str],  # names of datasets
) -> tuple[str | ImageData, str | Mapping[str, Any] | None]:
    """The data and the protocol of a reference: a name, a folder, an `.npz`, images, or None beside originals.

    A dataset's name counts before a folder of that name. Raises ValueError for a reference that is none of these, and
    for an `.npz` with a protocol that is only named.
    """
    if reference is None:
        return data_of_size("originals", size_of(originals), labels_of(originals)), protocol
    if not isinstance(reference, str | os.PathLike):
        validate_data(reference)
        return reference, protocol
    path = Path(reference).expanduser()
    if path.suffix == ".npz":
        if isinstance(protocol, str):
            raise ValueError(
                f"reference={str(reference)!r} is a file, and protocol={protocol!r} names one that has its own. Give "
                "fields: protocol={'extractor': 'inception', 'distribution': ['fd']}."
            )
        return data_of_file(path), {**(protocol or {}), "reference": str(path)}
    name = os.fspath(reference)
    return (f"folder:{path}" if path.is_dir() and name not in known else name), protocol


def validate_meanings(given: Mapping[str, Any], how: Mapping[str, Any]) -> None:
    """Raises ValueError for what is said of images in memory where there are none."""
    if not all(map(is_path, given.values())):
        return
    for key, value in how.items():
        if value is not None:
            raise ValueError(
                f"{key} is for images in memory, and these are paths: their files have 8 bits, and their labels are "
                "the names of folders, or arr_1 of an .npz. Leave it out."
            )


def in_memory(what: str, images: Any, *, labels: Any, value_range: Any, layout: Any) -> GivenImages:
    """Images in memory with what is said of them. Raises ValueError for what are none, and see `GivenImages`."""
    if not isinstance(images, Tensor | np.ndarray):
        raise ValueError(f"{what} must be a path, a tensor or an array, got a {type(images).__name__}.")
    tensor = torch.as_tensor(images)
    found = None if labels is None else validated_labels(labels, len(tensor))
    return GivenImages(what, tensor, layout, value_range, found)


def size_of(images: Any) -> tuple[int, int]:
    """Height and width (px) of images in memory, or of the first of a path."""
    if isinstance(images, GivenImages):
        return images.size
    height, width = open_samples(images, class_names=()).read(range(1)).shape[2:]
    return int(height), int(width)


def square(images: Any) -> int:
    """The side of square images. Raises ValueError for others."""
    height, width = size_of(images)
    if height != width:
        raise ValueError(f"The samples have {width} x {height} px, and only square images are compared.")
    return height


def labels_of(images: Any) -> Tensor | None:
    """The labels of images in memory, or those that an `.npz` holds."""
    return images.labels if isinstance(images, GivenImages) else open_samples(images, class_names=()).source.labels


def is_path(images: Any) -> bool:
    """Whether images are named by a path."""
    return isinstance(images, str | os.PathLike)
