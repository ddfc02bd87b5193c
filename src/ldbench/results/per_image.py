"""Values of single images beside a record, by which models that were measured on the same images are compared.

A file of safetensors in the record's folder holds for each metric (n,) float64, in the order of the protocol's images.
"""

import logging
import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ldbench.results.records import Record, path_of
from ldbench.results.summaries import Error

if TYPE_CHECKING:
    from numpy import ndarray

log = logging.getLogger(__name__)

FILE = "per_image.safetensors"
LARGEST = 400_000_000  # bytes

PerImage = Callable[[Record], "Mapping[str, ndarray]"]


def no_values(record: Record) -> "Mapping[str, ndarray]":
    """No record has any."""
    return {}


def path_in(folder: Path, record: Record) -> Path:
    """The path of a record's file."""
    return path_of(folder, record.job, record.id).with_suffix("") / FILE


def read_values(folder: Path, record: Record) -> "dict[str, ndarray]":
    """The values of a record's metrics, by name; empty where there is no file.

    Files of unknown origin: what does not fit the record is left out, with a warning.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    path = path_in(folder, record)
    if path.parent.is_symlink() or path.is_symlink() or not path.is_file():
        return {}
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"has {path.stat().st_size} bytes, and at most {LARGEST} are read")
        values = load_file(path)
    except (SafetensorError, ValueError, OSError, MemoryError) as error:
        log.warning("%s is left out: %s. Models are then compared by their intervals.", path, error)
        return {}
    return {name: array for name, array in values.items() if fits(record, name, array)}


def fits(record: Record, name: str, values: "ndarray") -> bool:
    """Whether values are those whose mean a record holds."""
    if values.ndim != 1 or values.dtype != "float64" or len(values) < 2 or name not in record.metrics:
        return False
    mean, value = float(values.mean()), record.metrics[name].value
    return math.isfinite(mean) and math.isclose(mean, value, rel_tol=1e-6, abs_tol=1e-9)


def paired_error(
    first: Sequence[Sequence[Record]], second: Sequence[Sequence[Record]], metric: str, values: PerImage
) -> Error | None:
    """The error of the difference of two models' means over the same images; None where values of one are missing.

    `first`, `second`: for each tokenizer seed the records of its generator seeds.
    """
    a, b = (nested_mean(records, metric, values) for records in (first, second))
    if a is None or b is None or len(a) != len(b):
        return None
    return Error(float((a - b).var(ddof=1)), len(a) - 1, 1 / len(a))


def nested_mean(records: Sequence[Sequence[Record]], metric: str, values: PerImage) -> "ndarray | None":
    """(n,) the mean over seeds of each image's value; None where values are missing, or of different images."""
    arrays = [[values(record).get(metric) for record in inner] for inner in records]
    known = [array for inner in arrays for array in inner if array is not None]
    if len(known) < sum(map(len, arrays)) or len({len(array) for array in known}) != 1:
        return None
    outer = [sum(array for array in inner if array is not None) / len(inner) for inner in arrays]
    return sum(outer) / len(outer)  # type: ignore[return-value]
