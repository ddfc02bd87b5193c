"""One shard of a store: a safetensors file with posteriors and labels, written atomically and memory-mapped for
reading.

It holds `moments` (rows, 2, N, C), posterior means and log-variances, or (rows, 1, N, C), points; and `labels` (rows,)
int64.

[0] safetensors, the format, https://huggingface.co/docs/safetensors (a length of 8 bytes, a JSON header, the tensors'
bytes)
"""

import io
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from torch import Tensor

from ldbench.io.safetensors_io import write_tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
NUMPY_DTYPES = {"bf16": np.int16, "fp16": np.int16, "fp32": np.int32}  # numpy has no bf16: bits are copied unchanged
SAFETENSORS_DTYPES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # names of [0]
MAX_HEADER = 1 << 20  # bytes; ours have about 200
UNREADABLE = (
    *(OSError, ValueError, LookupError, TypeError, AttributeError),
    *(ArithmeticError, RecursionError, struct.error),
)


@dataclass(frozen=True)
class MappedShard:
    """The memory-mapped arrays of a shard: pages are read on access."""

    moments: np.ndarray  # (rows, 1 or 2, N, C) of NUMPY_DTYPES
    labels: np.ndarray  # (rows,) int64


def write_shard(
    path: Path,
    moments: Tensor,  # (rows, 1 or 2, N, C)
    labels: Tensor,  # (rows,) int64
) -> None:
    """Writes a shard atomically. Raises OSError, with what to do, if the disk refuses it."""
    write_tensors({"moments": moments, "labels": labels}, path)


def map_shard(path: Path, *, dtype: str, shape: tuple[int, ...]) -> MappedShard:
    """Maps a shard into memory. Raises ValueError if the file has another dtype or shape than (rows, 1 or 2, N, C)."""
    try:
        with path.open("rb") as file:
            offsets = read_offsets(file, dtype, shape)
        moments = np.memmap(path, mode="r", dtype=NUMPY_DTYPES[dtype], offset=offsets["moments"], shape=shape)
        labels = np.memmap(path, mode="r", dtype=np.int64, offset=offsets["labels"], shape=shape[:1])
    except UNREADABLE as error:
        raise ValueError(describe_unreadable(path, error)) from error
    return MappedShard(np.asarray(moments), np.asarray(labels))  # plain arrays: np.memmap is slow to index


def parse_shard(content: bytes, where: str, *, dtype: str, shape: tuple[int, ...]) -> MappedShard:
    """A shard from its bytes. Raises ValueError, naming `where` they are from, for another dtype or shape."""
    try:
        offsets = read_offsets(io.BytesIO(content), dtype, shape)
        moments = np.ndarray(shape, NUMPY_DTYPES[dtype], content, offsets["moments"])
        labels = np.ndarray(shape[:1], np.int64, content, offsets["labels"])
    except UNREADABLE as error:
        raise ValueError(describe_unreadable(where, error)) from error
    return MappedShard(moments, labels)


def read_offsets(file: BinaryIO, dtype: str, shape: tuple[int, ...]) -> dict[str, int]:
    """The offsets of the tensors in a shard, which is open at its start. Raises one of `UNREADABLE`."""
    (length,) = struct.unpack("<Q", file.read(8))
    if length > MAX_HEADER:
        raise ValueError(f"a header of {length} bytes")
    header = json.loads(file.read(length))
    stored = {name: (header[name]["dtype"], tuple(header[name]["shape"])) for name in ("moments", "labels")}
    expected = {"moments": (SAFETENSORS_DTYPES[dtype], shape), "labels": ("I64", shape[:1])}
    if stored != expected:
        raise ValueError(f"it holds {stored}, expected {expected}")
    offsets = {name: 8 + length + header[name]["data_offsets"][0] for name in stored}
    if min(offsets.values()) < 8 + length:
        raise ValueError("its tensors start before its header ends")
    return offsets


def describe_unreadable(where: Path | str, error: Exception) -> str:
    """The message about a file that is no shard."""
    return f"{where} is not a shard of this store ({error}). Remove its folder and encode again, or copy it again."
