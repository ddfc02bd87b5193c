"""One shard of a store: a safetensors file with the posteriors of some images and their labels, written in one move, read without a copy.

It holds `moments` (rows, 2, N, C), posterior means and log-variances, or (rows, 1, N, C), points; and `labels` (rows,) int64.

[0] safetensors, the format, https://huggingface.co/docs/safetensors (a length of 8 bytes, a JSON header, the tensors' bytes)
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from ldbench.io.safetensors_io import write_tensors

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
WORDS = {"bf16": np.int16, "fp16": np.int16, "fp32": np.int32}  # numpy has no bf16: numbers are carried as they lie
CODES = {"bf16": "BF16", "fp16": "F16", "fp32": "F32"}  # what [0] calls them
LONGEST_HEADER = 1 << 20  # bytes; ours have about 200


@dataclass(frozen=True)
class MappedShard:
    """A shard's arrays in the file itself: nothing is read before it is looked at."""

    moments: np.ndarray  # (rows, 1 or 2, N, C) of WORDS
    labels: np.ndarray  # (rows,) int64


def write_shard(
    path: Path,
    moments: Tensor,  # (rows, 1 or 2, N, C)
    labels: Tensor,  # (rows,) int64
) -> None:
    """Writes a shard: it is there whole or not at all. Raises OSError with what to do where the disk does not take it."""
    write_tensors({"moments": moments, "labels": labels}, path)


def map_shard(path: Path, *, dtype: str, shape: tuple[int, ...]) -> MappedShard:
    """A shard mapped into memory. Raises ValueError where the file is not of this dtype and shape (rows, 1 or 2, N, C)."""
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LONGEST_HEADER:
                raise ValueError(f"a header of {length} bytes")
            header = json.loads(file.read(length))
        held = {name: (header[name]["dtype"], tuple(header[name]["shape"])) for name in ("moments", "labels")}
        expected = {"moments": (CODES[dtype], shape), "labels": ("I64", shape[:1])}
        if held != expected:
            raise ValueError(f"it holds {held}, expected {expected}")
        begins = {name: 8 + length + header[name]["data_offsets"][0] for name in held}
        if min(begins.values()) < 8 + length:
            raise ValueError("its numbers begin before its header ends")
        moments = np.memmap(path, mode="r", dtype=WORDS[dtype], offset=begins["moments"], shape=shape)
        labels = np.memmap(path, mode="r", dtype=np.int64, offset=begins["labels"], shape=shape[:1])
    except (
        OSError,
        ValueError,
        LookupError,
        TypeError,
        AttributeError,
        ArithmeticError,
        RecursionError,
        struct.error,
    ) as error:
        raise ValueError(
            f"{path} is no shard of this store ({error}). Remove its folder and encode again, or copy it again."
        ) from error
    return MappedShard(
        np.asarray(moments), np.asarray(labels)
    )  # plain arrays: numpy's own for mapped files are slow to index
