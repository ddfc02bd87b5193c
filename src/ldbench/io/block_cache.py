"""Blocks of remote files on disk, the least recently used ones removed, shared by several processes."""

import logging
import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from ldbench.io.files import is_running, mark_outputs

log = logging.getLogger(__name__)

BLOCK = 1 << 20  # bytes
CHECKSUM = 4  # bytes, after the content
KEPT = 0.9  # of the limit, once blocks are removed


class BlockCache:
    """A folder of blocks of `BLOCK` bytes, by a key and their number, at most `max_bytes` together.

    A block is written whole or not at all, and one that is damaged counts as missing. The sum of all blocks lies in one
    file under a lock, so that the limit holds for all processes together. Where nothing can be written, reading goes on
    without the cache, and a warning says so once.

    Raises ValueError for a limit below one block.
    """

    def __init__(self, folder: Path, *, max_bytes: int):
        if max_bytes < BLOCK + CHECKSUM:
            raise ValueError(f"The cache of {max_bytes} bytes is smaller than a block of {BLOCK}. Make it larger.")
        self.folder = folder
        self.max_bytes = max_bytes
        self._works = True

    def get(self, key: str, number: int) -> bytes | None:
        """A block, None where it is not stored."""
        path = self._path(key, number)
        try:
            stored = path.read_bytes()
        except OSError:
            return None
        with suppress(OSError):  # another user's
            os.utime(path)  # the least recently used go first
        content, checksum = stored[:-CHECKSUM], stored[-CHECKSUM:]
        return content if zlib.crc32(content).to_bytes(CHECKSUM, "big") == checksum else None

    def put(self, key: str, number: int, content: bytes) -> None:
        """Stores a block, and removes others where the limit is passed."""
        if not self._works:
            return
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            mark_outputs(self.folder)
            self._reserve(len(content) + CHECKSUM)
            path = self._path(key, number)
            path.parent.mkdir(exist_ok=True)
            scratch = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            scratch.write_bytes(content + zlib.crc32(content).to_bytes(CHECKSUM, "big"))
            scratch.replace(path)
        except OSError as error:
            self._works = False
            log.warning("%s cannot be written (%s): what is read is not kept there.", self.folder, error)

    def _path(self, key: str, number: int) -> Path:
        return self.folder / key[:2] / f"{key[:32]}-{number}.block"

    def _reserve(self, num_bytes: int) -> None:
        """Counts bytes that are about to be written, so that a process that is killed leaves the sum too high."""
        total = self.folder / "total"
        with FileLock(self.folder / "lock", mode=0o666):
            try:
                used = int(total.read_text(encoding="ascii"))
            except (OSError, ValueError):
                used = sum(size for _, size, _ in self._stored())
            if used + num_bytes > self.max_bytes:
                used = self._shrink(int(self.max_bytes * KEPT) - num_bytes)
            total.write_text(str(used + num_bytes), encoding="ascii")

    def _shrink(self, limit: int) -> int:
        """Removes the least recently used blocks until `limit` bytes are left, and returns how many are."""
        stored = sorted(self._stored())
        used = sum(size for _, size, _ in stored)
        for _, size, path in stored:
            if used <= limit:
                break
            Path(path).unlink(missing_ok=True)
            used -= size
        return used

    def _stored(self) -> Iterator[tuple[float, int, str]]:
        """(time of last use, bytes, path) of each block. Removes what killed processes were writing."""
        for folder in self.folder.iterdir():
            if folder.is_dir():
                for scratch in folder.glob("*.tmp"):
                    if not is_running(scratch.name.split(".")[-3]):
                        scratch.unlink(missing_ok=True)
                for path in folder.glob("*.block"):
                    with suppress(FileNotFoundError):
                        stat = path.stat()
                        yield stat.st_mtime, stat.st_size, str(path)
