"""Where a store is: a folder of this machine, or an address such as `s3://bucket/folder`."""

import json
import zlib
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from ldbench.data.latents.shards import DTYPES, write_shard
from ldbench.io.file_cache import FileCache
from ldbench.io.files import LARGEST_JSON, file_digest, parse_json, read_json, write_json
from ldbench.io.remote import Missing, RemoteFiles, Unreachable

GB = 10**9  # bytes
CONNECTIONS = 64  # requests at once: an answer takes a while


@dataclass(frozen=True)
class WrittenShard:
    """A shard that was written."""

    num_bytes: int
    sha256: str
    rows_sha256: str | None  # of the file with the labels and checksums of its rows; None in a folder


class Folder:
    """A folder of this machine."""

    def __init__(self, path: Path):
        self.path = path

    def __str__(self) -> str:
        return str(self.path)

    def size(self, name: str) -> int | None:
        """The length of a file in bytes; None where there is none."""
        path = self.path / name
        return path.stat().st_size if path.is_file() else None

    def read_json(self, name: str) -> Any:
        """The JSON in a file. Raises ValueError, naming it, where it is not valid."""
        return read_json(self.path / name)

    def write_json(self, name: str, content: Any) -> None:
        """Writes JSON atomically."""
        write_json(self.path / name, content)

    def write_shard(self, name: str, moments: Tensor, labels: Tensor) -> WrittenShard:
        """Writes a shard atomically; moments (rows, 1 or 2, N, C), labels (rows,)."""
        path = self.path / name
        write_shard(path, moments, labels)
        return WrittenShard(path.stat().st_size, file_digest(path), None)

    def num_finished(self) -> int:
        """The number of finished shards of a store that is being built."""
        return len(list(self.path.glob("shard-*.json")))


class Address:
    """A folder at an address. Beside each shard lies a file with the labels and checksums of its rows, so that single
    rows can be read by ranges and verified.
    """

    def __init__(self, files: RemoteFiles, *, cache: FileCache | None, ahead: int):
        self.files = files
        self.cache = cache  # of whole shards
        self.ahead = ahead  # batches that are read before they are needed

    def __str__(self) -> str:
        return self.files.address

    def size(self, name: str) -> int | None:
        """The length of a file in bytes; None where there is none. Raises `Unreachable` where nothing answers."""
        try:
            return self.files.size(name)
        except Missing:
            return None

    def read_json(self, name: str) -> Any:
        """The JSON in a file. Raises ValueError, naming it, where it is not valid."""
        size = self.files.size(name)
        if size > LARGEST_JSON:
            raise ValueError(f"{self}/{name} has {size} bytes; the limit is {LARGEST_JSON}. Copy it again.")
        return parse_json(self.files.read_all(name), f"{self}/{name}")

    def write_json(self, name: str, content: Any) -> None:
        """Writes JSON."""
        text = json.dumps(content, indent=2, sort_keys=True, allow_nan=False) + "\n"
        self.files.write(name, text.encode())

    def write_shard(self, name: str, moments: Tensor, labels: Tensor) -> WrittenShard:
        """Writes a shard, the same bytes as in a folder, and the file of its rows."""
        content = save({"moments": moments.contiguous(), "labels": labels.contiguous()})
        raw = moments.contiguous().view(torch.uint8).flatten(1).numpy()  # (rows, bytes)
        assert content.endswith(raw[-1].tobytes()), "the moments are the last tensor of a shard"
        checksums = torch.tensor([zlib.crc32(row.data) for row in raw], dtype=torch.int64)
        rows = save({"labels": labels.contiguous(), "checksums": checksums})
        self.files.write(name, content)
        self.files.write(rows_name(name), rows)
        return WrittenShard(len(content), sha256(content).hexdigest(), sha256(rows).hexdigest())

    def num_finished(self) -> int:
        """0: addresses need not list what they hold."""
        return 0

    def remove(self, name: str) -> bool:
        """Removes a file, if it exists. False where the address does not allow it."""
        try:
            self.files.remove(name)
        except (NotImplementedError, Unreachable):
            return False
        return True


@dataclass(frozen=True)
class Rows:
    """The labels and checksums of the rows of a shard at an address."""

    labels: np.ndarray  # (rows,) int64
    checksums: np.ndarray  # (rows,) int64: crc32 of the bytes of each row's moments


def read_rows(place: Address, shard: str, *, expected: str, count: int) -> Rows:
    """Reads the labels and checksums of a shard's rows. Raises ValueError where the file's sha256 is not `expected`."""
    name = rows_name(shard)
    content = place.files.read_all(name)
    if sha256(content).hexdigest() != expected:
        raise ValueError(
            f"{place}/{name} was altered: its checksum differs. Remove {place} and encode again, or copy it again."
        )
    try:
        tensors = load(content)
        labels, checksums = tensors["labels"], tensors["checksums"]
        if labels.shape != (count,) or checksums.shape != (count,):
            raise ValueError(f"it holds {len(labels)} rows, and the shard {count}")
    except (SafetensorError, KeyError, ValueError) as error:
        raise ValueError(
            f"{place}/{name} does not hold the rows of a shard ({error}). Remove {place} and encode again."
        ) from error
    return Rows(labels.numpy(), checksums.numpy())


def rows_name(shard: str) -> str:
    """The name of the file of a shard's rows."""
    return shard.removesuffix(".safetensors") + ".rows"


def row_bytes(dtype: str, parts: int, num_tokens: int, channels: int) -> int:
    """The bytes of the moments of one row."""
    return parts * num_tokens * channels * DTYPES[dtype].itemsize


Place = Folder | Address


def as_place(where: str | Path | Place) -> Place:
    """A place as it is, or that of a folder."""
    return where if isinstance(where, Folder | Address) else Folder(Path(where).expanduser())


def open_address(
    address: str,
    *,
    cache_dir: Path | None,  # None: nothing is kept
    cache_size: float,  # GB
    retries: int,
    timeout: float,  # seconds
    ahead: int,
) -> Address:
    """The folder at an address. Raises ValueError for an address that cannot be used, or settings out of range."""
    files = RemoteFiles(address, cache=None, cache_bytes=0, retries=retries, timeout=timeout)
    cache = None if cache_dir is None else FileCache(cache_dir / "shards", max_bytes=int(cache_size * GB))
    return Address(files, cache=cache, ahead=ahead)
