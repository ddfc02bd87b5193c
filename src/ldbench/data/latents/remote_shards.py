"""The shards of a store at an address: whole ones in a cache on disk, rows of the others by ranges.

As many shards as fit into the cache, the first ones, are fetched whole by background threads and verified by their
sha256. Until a shard is there, and of shards that do not fit, each row is read by a range of its own and verified by
its checksum.
"""

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from hashlib import sha256
from itertools import accumulate
from typing import TypeVar

import numpy as np

from ldbench.data.latents.local_shards import shard_shape, validate_labels
from ldbench.data.latents.manifest import Manifest, Shard, describe_altered
from ldbench.data.latents.places import CONNECTIONS, Address, Rows, read_rows, row_bytes
from ldbench.data.latents.shards import NUMPY_DTYPES, MappedShard, map_shard, parse_shard
from ldbench.io.files import file_digest
from ldbench.io.remote import Unreachable

log = logging.getLogger(__name__)

Labeled = TypeVar("Labeled", MappedShard, Rows)

NUM_FETCHING = 4  # shards at once


class RemoteShards:
    """The shards of a store at an address. It can be pickled: each process has threads and connections of its own.

    Raises ValueError for a store without checksums of its rows, such as a copy of a folder, that does not fit into the
    cache.
    """

    def __init__(self, place: Address, manifest: Manifest, *, verify: bool):
        self.place = place
        self.manifest = manifest
        limit = 0 if place.cache is None else place.cache.max_bytes
        self.num_held = sum(end <= limit for end in accumulate(shard.num_bytes for shard in manifest.shards))
        if self.num_held < len(manifest.shards) and any(shard.rows_sha256 is None for shard in manifest.shards):
            raise ValueError(
                f"{place} was copied from a folder: it has no checksums of single rows, so its shards are read whole, "
                f"and their {manifest.num_bytes / 1e9:.3g} GB do not fit into the cache of {limit / 1e9:.3g} GB. Set "
                "latents.cache_size to more (job.cache_size of job=encode), or encode to the address."
            )
        if verify and place.cache is not None:
            for shard in manifest.shards:
                path = place.cache.find(shard.sha256)
                if path is not None and file_digest(path) != shard.sha256:  # a damaged disk
                    log.warning("%s is damaged and is fetched again.", path)
                    place.cache.remove(shard.sha256)
        self._process: tuple[int, Reading] | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_process": None}

    @property
    def reading(self) -> "Reading":
        """The threads and mapped files of this process: those of another do not outlive a fork."""
        if self._process is None or self._process[0] != os.getpid():
            self._process = os.getpid(), Reading(self)
        return self._process[1]

    def copy(
        self,
        shard: np.ndarray,  # (B,)
        row: np.ndarray,  # (B,) in its shard
        out: np.ndarray,  # (B, 1 or 2, N, C) of NUMPY_DTYPES
    ) -> np.ndarray:  # (B,) labels
        """Copies the moments of rows to `out`, and returns their labels. Raises `Unreachable` and ValueError."""
        reading, labels = self.reading, np.empty(len(shard), dtype=np.int64)
        reading.start()
        numbers = np.unique(shard).tolist()
        by_range = [n for n in numbers if n not in reading.mapped and self.manifest.shards[n].rows_sha256 is not None]
        known = dict(zip(by_range, reading.pool.map(reading.rows, by_range), strict=True))
        waiting: list[tuple[int, Future[np.ndarray]]] = []
        for number in numbers:
            positions = np.flatnonzero(shard == number).tolist()
            if number not in known:
                whole = reading.whole(number)
                for position in positions:
                    out[position] = whole.moments[row[position]]
                    labels[position] = whole.labels[row[position]]
                continue
            stored, rows = self.manifest.shards[number], known[number]
            for position in positions:
                labels[position] = rows.labels[row[position]]
                read = reading.pool.submit(self.range, stored, int(row[position]), rows)
                waiting.append((position, read))
        try:
            for position, read in waiting:
                out[position] = read.result()
        finally:
            for _, read in waiting:
                read.cancel()
        return labels

    def range(self, shard: Shard, row: int, rows: Rows) -> np.ndarray:  # (1 or 2, N, C)
        """The moments of one row. Raises ValueError where their checksum differs."""
        manifest, latent = self.manifest, self.manifest.latent
        shape = (shard.parts, latent.num_tokens, latent.channels)
        length = row_bytes(manifest.contents.dtype, *shape)
        offset = shard.num_bytes - (len(rows.labels) - row) * length  # the moments end the file
        content = self.place.files.read(shard.file, offset, length)
        if zlib.crc32(content) != rows.checksums[row]:
            raise ValueError(describe_altered(self.place, shard.file))
        return np.frombuffer(content, dtype=NUMPY_DTYPES[manifest.contents.dtype]).reshape(shape)

    def whole(self, number: int) -> MappedShard:
        """A whole shard, verified. Raises `Unreachable` and ValueError."""
        return self.reading.whole(number)

    def labels(self) -> list[np.ndarray]:  # of each shard (rows,)
        """The labels of all rows."""
        reading = self.reading

        def of(number: int) -> np.ndarray:
            shard = self.manifest.shards[number]
            return (reading.whole(number) if shard.rows_sha256 is None else reading.rows(number)).labels

        return list(reading.pool.map(of, range(len(self.manifest.shards))))


class Reading:
    """What one process has of a store at an address: the shards and rows that it has read, and the threads that read.

    A failure of a background thread is raised by the next `start`.
    """

    def __init__(self, shards: RemoteShards):
        self.place, self.manifest, self.num_held = shards.place, shards.manifest, shards.num_held
        self.mapped: dict[int, MappedShard] = {}
        self.pool = ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="rows")
        self._rows: dict[int, Rows] = {}
        self._locks = [threading.Lock() for _ in self.manifest.shards]
        self._rows_locks = [threading.Lock() for _ in self.manifest.shards]
        self._starting = threading.Lock()
        self._started = False
        self._failure: Exception | None = None

    def start(self) -> None:
        """Begins to fetch the shards that fit into the cache, once; maps those that are there."""
        with self._starting:
            if self._failure is not None:
                failure, self._failure, self._started = self._failure, None, False
                raise failure
            if self._started:
                return
            self._started = True
            missing = [number for number in range(self.num_held) if not self.map(number)]
            numbers = iter(missing)
            for _ in range(min(NUM_FETCHING, len(missing))):
                threading.Thread(target=self.fetch, args=(numbers,), daemon=True).start()

    def fetch(self, numbers: Iterator[int]) -> None:
        """Fetches shards until there are none left: the body of a background thread."""
        try:
            while self._failure is None:
                with self._starting:
                    number = next(numbers, None)
                if number is None:
                    return
                self.whole(number)
        except (CacheFailed, Unreachable) as error:  # where rows cannot be read either, their reader says so
            log.warning("No more shards of %s are kept, its rows are read one by one: %s", self.place, error)
        except Exception as error:  # the reader's next call raises it
            self._failure = error

    def map(self, number: int) -> bool:
        """Whether a shard is in the cache; maps it."""
        if number not in self.mapped and self.place.cache is not None:
            path = self.place.cache.find(self.manifest.shards[number].sha256)
            if path is not None:
                mapped = map_shard(path, dtype=self.manifest.contents.dtype, shape=shard_shape(self.manifest, number))
                self.mapped[number] = self.checked(number, mapped)
        return number in self.mapped

    def rows(self, number: int) -> Rows:
        """The labels and checksums of a shard's rows, read once. Raises `Unreachable` and ValueError."""
        with self._rows_locks[number]:
            if number not in self._rows:
                shard, count = self.manifest.shards[number], shard_shape(self.manifest, number)[0]
                assert shard.rows_sha256 is not None
                found = read_rows(self.place, shard.file, expected=shard.rows_sha256, count=count)
                self._rows[number] = self.checked(number, found)
            return self._rows[number]

    def checked(self, number: int, found: Labeled) -> Labeled:
        """A shard whose labels are classes. Raises ValueError for others."""
        where = f"{self.place}/{self.manifest.shards[number].file}"
        validate_labels(found.labels, self.manifest.contents.num_classes, where=where, store=str(self.place))
        return found

    def whole(self, number: int) -> MappedShard:
        """A whole shard from the cache, where it is stored first; in memory where there is none."""
        shard = self.manifest.shards[number]
        if number in self.mapped:
            return self.mapped[number]
        with self._locks[number]:
            if self.map(number):
                return self.mapped[number]
            if self.place.cache is None or number >= self.num_held:
                return self.checked(number, self.load(number))
            pieces = self.place.files.pieces(shard.file)
            try:
                self.place.cache.add(shard.sha256, shard.num_bytes, pieces)
            except ValueError as error:
                raise ValueError(describe_altered(self.place, shard.file)) from error
            except OSError as error:
                if isinstance(error, Unreachable):
                    raise
                raise CacheFailed(
                    f"{self.place.cache.folder} cannot be written ({error}). Free some space, or set latents.cache_dir."
                ) from error
            assert self.map(number)
            return self.mapped[number]

    def load(self, number: int) -> MappedShard:
        """A whole shard in memory."""
        shard = self.manifest.shards[number]
        content = b"".join(self.place.files.pieces(shard.file))
        if sha256(content).hexdigest() != shard.sha256:
            raise ValueError(describe_altered(self.place, shard.file))
        shape, where = shard_shape(self.manifest, number), f"{self.place}/{shard.file}"
        return parse_shard(content, where, dtype=self.manifest.contents.dtype, shape=shape)


class CacheFailed(OSError):
    """The cache of shards cannot be written. The message is a sentence."""
