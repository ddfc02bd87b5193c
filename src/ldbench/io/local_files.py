"""The files below a folder, with the methods of `remote.RemoteFiles`."""

import fnmatch
import os
from pathlib import Path

from ldbench.io.braces import expand_braces
from ldbench.io.files import add_path_to_errors


class LocalFiles:
    """The files below a folder of this machine, by their names relative to it. Raises OSError where reading fails."""

    def __init__(self, folder: Path):
        self.folder = folder
        self.address = str(folder)

    def list(self, pattern: str) -> list[str]:
        """The names that match a pattern (see `RemoteFiles.list`), sorted."""
        names: set[str] = set()
        for plain in expand_braces(pattern):
            folder, _, last = plain.rpartition("/")
            if not any(wildcard in last for wildcard in "*?["):
                names.add(plain)
            elif (self.folder / folder).is_dir():
                with os.scandir(self.folder / folder) as entries:
                    base = [entry.name for entry in entries if entry.is_file()]
                found = (name for name in base if fnmatch.fnmatchcase(name, last) and not name.startswith("."))
                names |= {f"{folder}/{name}" if folder else name for name in found}
        return sorted(names)

    def size(self, name: str) -> int:
        """The length of a file in bytes."""
        return self._stat(name).st_size

    def identity(self, name: str) -> str:
        """What changes when a file is written: its length and its time."""
        stat = self._stat(name)
        return f"{stat.st_size} {stat.st_mtime_ns}"

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file, fewer where it ends before."""
        with (self.folder / name).open("rb") as file:
            file.seek(offset)
            return file.read(length)

    def read_all(self, name: str) -> bytes:
        """A whole file."""
        return (self.folder / name).read_bytes()

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole file, atomically; of the same file one process at a time."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch = path.with_name(f".{path.name}.tmp")  # of a killed process: it is written again
        with add_path_to_errors(path):
            scratch.write_bytes(content)
            scratch.replace(path)

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""
        (self.folder / name).unlink(missing_ok=True)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        return (self.folder / name).is_file()

    def _stat(self, name: str) -> os.stat_result:
        path = self.folder / name
        try:
            return path.stat()
        except FileNotFoundError as error:
            raise FileNotFoundError(f"{path} does not exist. Restore it, or check its name.") from error
