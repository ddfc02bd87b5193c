"""Which columns of a Hugging Face dataset hold the images and the labels, and what their values are.

[0] Hugging Face, datasets: features, https://huggingface.co/docs/datasets/about_dataset_features
"""

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldbench.data.checks import BROKEN

IMAGE_NAMES = ("image", "images", "img", "jpg", "jpeg", "png", "picture", "photo")
LABEL_NAMES = ("label", "labels", "fine_label", "class", "class_id", "cls", "category", "target", "y")
EXTENSIONS = {"JPEG": ".jpg", "PNG": ".png", "WEBP": ".webp", "BMP": ".bmp", "GIF": ".gif", "TIFF": ".tif"}
MAX_LISTED = 5

Stored = Literal["encoded", "path", "array"]


def find_column(features: Mapping[str, Any], named: str | None, *, kind: Literal["image", "label"], where: str) -> str:
    """The column of the images or of the labels: the one that is named, the only one of that type, or of such a name.

    Raises ValueError, listing the columns, where there is none or several.
    """
    key = f"data.{kind}_column"
    listed = "; ".join(f"{name}: {described_type(feature)}" for name, feature in features.items())
    if named is not None:
        if named not in features:
            raise ValueError(f"{key}={named} is no column of {where}. It has: {listed}.")
        return named
    wanted, names = ("Image", IMAGE_NAMES) if kind == "image" else ("ClassLabel", LABEL_NAMES)
    found = [name for name, feature in features.items() if type(feature).__name__ == wanted]
    found = found or [name for name in features if name.lower() in names]
    if len(found) == 1:
        return found[0]
    what = "several columns" if found else "no column"
    rest = "" if kind == "image" else ", or data.one_class=true without labels"
    raise ValueError(f"{where} has {what} of {kind}s. It has: {listed}. Choose one with {key}=NAME{rest}.")


def column_type(
    features: Mapping[str, Any], column: str, *, kind: Literal["image", "label"], split: str, where: str
) -> Any:
    """The type of a column in a split. Raises ValueError, listing the split's columns, where it has none of this name:
    the training split gave the name.
    """
    if column in features:
        return features[column]
    listed = "; ".join(f"{name}: {described_type(feature)}" for name, feature in features.items())
    raise ValueError(
        f"The split {split} of {where} has no column {column}, where the training split has its {kind}s. It has: "
        f"{listed}. Name the column alike in both splits, choose one that both have with data.{kind}_column=NAME, or "
        "choose other splits with data.train_split and data.test_split."
    )


def described_type(feature: Any) -> str:
    """The type of a column, short."""
    if hasattr(feature, "names"):
        return f"ClassLabel of {len(feature.names)}"
    return str(getattr(feature, "dtype", None) or type(feature).__name__)


def how_stored(feature: Any, name: str, *, where: str) -> Stored:
    """How a column holds images. Raises ValueError for a type that holds none."""
    kind, dtype = type(feature).__name__, str(getattr(feature, "dtype", ""))
    if kind == "Image" or dtype in ("binary", "large_binary"):
        return "encoded"
    if isinstance(feature, Mapping) and {*feature} == {"bytes", "path"}:
        return "encoded"
    if dtype in ("string", "large_string"):
        return "path"
    if kind in ("Array2D", "Array3D", "List", "LargeList", "Sequence") or isinstance(feature, list):
        return "array"
    raise ValueError(
        f"The column {name} of {where} holds {described_type(feature)}, and no images: encoded images, paths, or "
        "arrays (H, W) or (H, W, 3) of uint8. Choose another with data.image_column=NAME."
    )


def encoded_value(value: Any, stored: Stored, root: Path | None) -> tuple[bytes, str]:
    """An image file of a row and its extension. Raises ValueError, with the reason, where there is none."""
    if isinstance(value, Mapping):
        content, path = value.get("bytes"), value.get("path")
    else:
        content, path = (None, value) if stored == "path" else (value, None)
    if content is not None:
        return content, extension_of(content, path)
    if path is None:
        raise ValueError("The row has no image.")
    full = os.path.join(root, path) if root is not None else path
    try:
        return Path(full).read_bytes(), os.path.splitext(full)[1].lower()
    except OSError as error:
        raise ValueError(f"{full} cannot be read ({error.strerror}).") from error


def extension_of(content: bytes, path: str | None) -> str:
    """The extension of an image's format, from its name, or else from its bytes; "" where neither says it."""
    given = os.path.splitext(path or "")[1].lower()
    if given:
        return given
    try:
        with Image.open(io.BytesIO(content), formats=tuple(EXTENSIONS)) as image:
            return EXTENSIONS.get(image.format or "", "")
    except BROKEN:
        return ""


def image_of_array(value: Any) -> Image.Image:
    """The image of an array (H, W) or (H, W, 3). Raises ValueError, with the reason, for any other."""
    try:
        pixels = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"Its rows are of different lengths ({error}).") from error
    gray = pixels.ndim == 2
    if pixels.size == 0 or not (gray or (pixels.ndim == 3 and pixels.shape[2] == 3)):
        raise ValueError(f"It has the shape {pixels.shape}, and not (H, W) or (H, W, 3).")
    if pixels.dtype.kind not in "iu" or pixels.min() < 0 or pixels.max() > 255:
        raise ValueError(f"Its numbers, of type {pixels.dtype}, are not whole ones from 0 to 255.")
    return Image.fromarray(pixels.astype(np.uint8)).convert("RGB")


def labels_of(
    columns: Sequence[Sequence[Any]],  # the labels of each split, first of the training split
    names: Sequence[Sequence[str] | None],  # of each split's ClassLabel
    *,
    splits: Sequence[str],
    column: str,
) -> tuple[list[Tensor], tuple[str, ...]]:
    """The labels of each split, (n,) int64, and the class names: of the training split those of its ClassLabel or its
    strings in their order, else the numbers up to the largest.

    Where both splits have names the labels of the other one are found by them, since it may number them otherwise.
    Raises ValueError, with the row, for a value that is no class of the training split.
    """
    classes, held = names[0], {value for value in columns[0] if isinstance(value, str)}
    from_strings = classes is None and bool(held)
    numbered = classes is None and not held
    if from_strings:
        classes = sorted(held)
    elif classes is None:
        values = [value for labels in columns for value in labels if isinstance(value, int)]
        classes = [str(number) for number in range(min(max(values, default=0), len(values) + 1_000_000) + 1)]
    positions = {name: place for place, name in enumerate(classes)}
    found = []
    for split, labels, own in zip(splits, columns, names, strict=True):
        if own is None or numbered:
            own = () if from_strings else classes  # numbers alone say no name
        places = [positions.get(name, -1) for name in own]
        numbers = [place_of(value, places, positions) for value in labels]
        if -1 in numbers:
            row = numbers.index(-1)
            raise ValueError(
                f"Row {row} of the split {split} has {described_label(labels[row], own)} in {column}, and not one of "
                f"the {len(classes)} classes of the split {splits[0]}: {', '.join(classes[:MAX_LISTED])}"
                f"{', ...' if len(classes) > MAX_LISTED else ''}. Choose other splits with data.train_split and "
                "data.test_split, another column with data.label_column, or data.one_class=true to ignore labels."
            )
        found.append(torch.tensor(numbers, dtype=torch.int64))
    return found, tuple(classes)


def place_of(value: Any, places: Sequence[int], positions: Mapping[str, int]) -> int:
    """The class of a label: of a string by its name, of a number among `places`; -1 where it is none."""
    if isinstance(value, str):
        return positions.get(value, -1)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < len(places):
        return -1
    return places[value]


def described_label(value: Any, names: Sequence[str]) -> str:
    """A label that is no class, by its name where it has one."""
    if value is None:
        return "no label"
    known = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < len(names)
    return f"the label {names[value] if known else value!r}"
