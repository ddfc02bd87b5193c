"""Whole files on disk by the sha256 of their content, the least recently used ones removed, shared by processes."""

import hashlib
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path

from filelock import FileLock

from ldbench.io.files import add_path_to_errors, is_running, mark_outputs


class FileCache:
    """A folder of files that are named by the sha256 of their content, at most `max_bytes` together.

    A file is there whole or not at all. Files of one process that are removed to make room for another's stay readable
    where they are mapped.
    """

    def __init__(self, folder: Path, *, max_bytes: int):
        self.folder = folder
        self.max_bytes = max_bytes

    def find(self, sha256: str) -> Path | None:
        """A file, None where it is not stored. Counts as a use of it."""
        path = self._path(sha256)
        try:
            os.utime(path)  # the least recently used go first
        except FileNotFoundError:
            return None
        except OSError:  # another user's
            return path if path.is_file() else None
        return path

    def add(self, sha256: str, num_bytes: int, pieces: Iterable[bytes]) -> Path:
        """Stores a file from its pieces, unless another process has stored it meanwhile.

        Raises ValueError where the pieces have another sha256, and OSError where they cannot be written.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        mark_outputs(self.folder)
        path = self._path(sha256)
        path.parent.mkdir(exist_ok=True)
        with FileLock(path.with_suffix(".lock"), mode=0o666):
            found = self.find(sha256)
            if found is not None:
                return found
            scratch = path.with_name(f"{path.name}.{os.getpid()}.{threading.get_ident()}.tmp")
            try:
                self._reserve(scratch, num_bytes)
                checksum = hashlib.sha256()
                with add_path_to_errors(scratch), scratch.open("r+b") as file:
                    for piece in pieces:
                        file.write(piece)
                        checksum.update(piece)
                if checksum.hexdigest() != sha256:
                    raise ValueError(f"its sha256 is {checksum.hexdigest()}, and {sha256} was expected")
                scratch.replace(path)
            finally:
                scratch.unlink(missing_ok=True)
        return path

    def remove(self, sha256: str) -> None:
        """Removes a file, if it is stored."""
        self._path(sha256).unlink(missing_ok=True)

    def _path(self, sha256: str) -> Path:
        return self.folder / sha256[:2] / f"{sha256}.whole"

    def _reserve(self, scratch: Path, num_bytes: int) -> None:
        """Makes room, and a file of full length that counts from now on."""
        with FileLock(self.folder / "lock", mode=0o666):
            stored = sorted(self._stored())
            used = sum(size for _, size, _ in stored)
            for _, size, path in stored:
                if used + num_bytes <= self.max_bytes:
                    break
                if path.suffix != ".tmp":
                    path.unlink(missing_ok=True)
                    used -= size
            with scratch.open("wb") as file:
                file.truncate(num_bytes)

    def _stored(self) -> Iterator[tuple[float, int, Path]]:
        """(time of last use, bytes, path) of each file, also of those that are being written. Removes what killed
        processes were writing.
        """
        for path in self.folder.glob("*/*"):
            if path.suffix == ".tmp" and not is_running(path.name.split(".")[-3]):
                path.unlink(missing_ok=True)
            elif path.suffix in (".tmp", ".whole"):
                with suppress(FileNotFoundError):
                    stat = path.stat()
                    yield stat.st_mtime, stat.st_size, path
