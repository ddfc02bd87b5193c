"""Files at addresses such as `s3://bucket/folder` and `https://host/folder`: ranges, retries and a cache on disk."""

import fnmatch
import logging
import os
import re
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from ldbench.io.block_cache import BLOCK, BlockCache
from ldbench.io.braces import expand_braces
from ldbench.io.files import digest

log = logging.getLogger(__name__)

Result = TypeVar("Result")

PIECE = 1 << 24  # bytes of a long file that one request reads
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds between two tries: doubled each time
FINAL_STATUSES = (*range(400, 500), 501)  # the server has answered: it will say the same again,
TRANSIENT_STATUSES = (408, 425, 429)  # except for these
ABSENT_STATUSES = (404, 410)
STAMPS = ("ETag", "etag", "Last-Modified", "LastModified", "mtime", "updated", "md5Hash", "Content-MD5", "created")


class Unreachable(OSError):
    """An address that does not give what it was asked for. The message is a sentence: address, tries, seconds."""


class Missing(Unreachable, FileNotFoundError):
    """An address where there is nothing."""


def is_remote(address: str) -> bool:
    """Whether an address is read over a protocol, such as `s3://bucket/folder`, and is no path on this machine."""
    return re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", address) is not None


class RemoteFiles:
    """The files below an address, by their names relative to it. Reads ranges of them, and writes whole ones.

    `cache` is a folder on this machine for blocks that were read, at most `cache_bytes` together; None: nothing is
    kept. Several processes may share it. What fails is tried again, `retries` times after pauses that double, and each
    try may take `timeout` seconds. A protocol takes its credentials from where its library looks for them, such as
    AWS_PROFILE and AWS_ENDPOINT_URL.

    An object may be pickled and used in several threads, and in processes that were forked: each opens connections of
    its own.

    Raises ValueError for an address of an unknown protocol, of one whose package is not installed, and for one that
    has a password; `Unreachable` where reading or writing fails.
    """

    def __init__(self, address: str, *, cache: Path | None, cache_bytes: int, retries: int, timeout: float):
        if not is_remote(address):
            raise ValueError(f"{address} is no address of a protocol. Give one such as s3://BUCKET/FOLDER.")
        if urlsplit(address).password is not None:
            raise ValueError(
                f"The address at {urlsplit(address).hostname} holds a password, which logs and records would show. "
                "Give the credentials where the library of the protocol looks for them (~/.netrc, ~/.aws, variables)."
            )
        if retries < 0 or timeout <= 0:
            raise ValueError(f"retries is {retries} and timeout {timeout}: give at least 0, and more than 0 seconds.")
        self.address = address.rstrip("/")
        self.protocol = address.partition("://")[0].lower()
        self.retries = retries
        self.timeout = timeout
        self.cache = None if cache is None else BlockCache(cache, max_bytes=cache_bytes)
        self._opened: tuple[int, Any] | None = None  # process id, filesystem
        self._made_by = os.getpid()
        self._infos: dict[str, dict[str, Any]] = {}
        self._filesystem()

    def __getstate__(self) -> dict[str, Any]:
        if self.protocol == "memory":
            raise ValueError(self._in_memory())
        return self.__dict__ | {"_opened": None}

    def list(self, pattern: str) -> list[str]:
        """The names that match a pattern such as `train/*.tar` or `train-{0000..0127}.tar`, sorted.

        Wildcards may stand in the last part. Names in braces alone are not looked for: reading them shows whether they
        exist.
        """
        names: set[str] = set()
        for plain in expand_braces(pattern):
            folder, _, last = plain.rpartition("/")
            if not any(wildcard in last for wildcard in "*?["):
                names.add(plain)
                continue
            prefix = f"{folder}/" if folder else ""
            found = self._retried(*self._listing(f"{self._full(folder) if folder else self.address}/"))
            base = (path.rstrip("/").rpartition("/")[2] for path in found if not path.endswith("/"))
            names |= {prefix + name for name in base if fnmatch.fnmatchcase(name, last)}
        return sorted(names)

    def size(self, name: str) -> int:
        """The length of a file in bytes, as the address gave it first."""
        size = self._info(name).get("size")
        if not isinstance(size, int):
            raise Unreachable(
                f"{self._full(name)} does not say how long it is (1 try, 0 s), as it must for parts of it to be read. "
                "Use a server that gives Content-Length and answers ranges, or copy the files."
            )
        return size

    def identity(self, name: str) -> str:
        """What changes when a file is replaced: its length and, as far as the address gives them, etag and times."""
        info = self._info(name)
        stamps = {key: str(info[key]) for key in STAMPS if info.get(key) is not None}
        return digest({"size": self.size(name), **stamps})

    def read(self, name: str, offset: int, length: int) -> bytes:
        """Bytes of a file, fewer where it ends before."""
        length = max(0, min(length, self.size(name) - offset))
        if length == 0:
            return b""
        if self.cache is None:
            return self._range(name, offset, length)
        key = digest([self.address, name, self.identity(name)])
        first, last = offset // BLOCK, (offset + length - 1) // BLOCK
        blocks = {number: self.cache.get(key, number) for number in range(first, last + 1)}
        missing = [number for number, content in blocks.items() if content is None]
        if missing:  # one request from the first to the last of them
            start, end = missing[0] * BLOCK, min((missing[-1] + 1) * BLOCK, self.size(name))
            content = self._range(name, start, end - start)
            for number in missing:
                place = number * BLOCK - start
                blocks[number] = content[place : place + BLOCK]
                self.cache.put(key, number, content[place : place + BLOCK])
        whole = b"".join(block for block in blocks.values() if block is not None)
        return whole[offset - first * BLOCK : offset - first * BLOCK + length]

    def read_all(self, name: str) -> bytes:
        """A whole file."""
        return self.read(name, 0, self.size(name))

    def pieces(self, name: str) -> Iterator[bytes]:
        """A whole file in pieces, each of which may take `timeout` seconds."""
        return (self.read(name, offset, PIECE) for offset in range(0, self.size(name), PIECE))

    def write(self, name: str, content: bytes) -> None:
        """Writes a whole file, which may take `timeout` seconds for each 16 MiB. Object stores show it whole or not at
        all.
        """
        path = self._full(name)
        self._infos.pop(name, None)
        seconds = self.timeout * max(1, -(-len(content) // PIECE))
        self._retried(path, lambda: self._call("pipe_file", path, content, seconds=seconds))

    def remove(self, name: str) -> None:
        """Removes a file, if it exists."""
        path = self._full(name)
        self._infos.pop(name, None)
        if self.exists(name):
            self._retried(path, lambda: self._call("rm_file", path))
            self._infos.pop(name, None)

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        try:
            self._info(name)
        except Missing:
            return False
        return True

    def _listing(self, path: str) -> tuple[str, Callable[[], Sequence[str]]]:
        return path, lambda: self._call("ls", path, detail=False)

    def _full(self, name: str) -> str:
        return f"{self.address}/{name}"

    def _info(self, name: str) -> dict[str, Any]:
        if name not in self._infos:
            path = self._full(name)
            self._infos[name] = self._retried(path, lambda: self._call("info", path))
        return self._infos[name]

    def _range(self, name: str, offset: int, length: int) -> bytes:
        path = self._full(name)

        def get() -> bytes:
            content = self._call("cat_file", path, start=offset, end=offset + length)
            if len(content) > length:
                raise NoRanges
            if len(content) < length:
                raise OSError(f"it gave {len(content)} of {length} bytes at {offset}")
            return content

        return self._retried(path, get)

    def _retried(self, path: str, attempt: Callable[[], Result]) -> Result:
        """What an attempt returns, repeated where a later one may succeed."""
        start, wait = time.monotonic(), FIRST_WAIT
        for tries in range(1, self.retries + 2):
            try:
                return attempt()
            except (ValueError, NotImplementedError):
                raise
            except NoRanges as error:
                raise Unreachable(
                    f"{path} sends the whole file where a part is asked for ({spent(tries, start)}). Use a server that "
                    "answers ranges, or copy the files."
                ) from error
            except Exception as raised:  # each protocol's library has errors of its own
                cause = reason(raised)
                if isinstance(cause, FileNotFoundError) or getattr(cause, "status", None) in ABSENT_STATUSES:
                    raise Missing(f"{path} does not exist ({spent(tries, start)}). Check the address.") from cause
                if is_final(cause):
                    raise Unreachable(
                        f"{path} refuses ({spent(tries, start)}): {described(cause)}. Check the address and the "
                        "credentials."
                    ) from cause
                if tries > self.retries:
                    raise Unreachable(
                        f"{path} does not answer ({spent(tries, start)}): {described(cause)}. Check the network; the "
                        "same command goes on once it answers."
                    ) from cause
                next_try = f"try {tries + 1} of {self.retries + 1} in {wait:.1f} s"
                log.warning("%s: %s; %s.", path, described(cause), next_try)
                time.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
        raise AssertionError("the last try returns or raises")

    def _call(self, method: str, *args: Any, seconds: float | None = None, **kwargs: Any) -> Any:
        """Calls a method of the filesystem, which may take `seconds`, else `timeout`, where the protocol allows to end
        it.
        """
        from fsspec.asyn import sync

        filesystem = self._filesystem()
        if filesystem.async_impl:
            return sync(
                filesystem.loop, getattr(filesystem, f"_{method}"), *args, timeout=seconds or self.timeout, **kwargs
            )
        return getattr(filesystem, method)(*args, **kwargs)

    def _filesystem(self) -> Any:
        """This process's own filesystem: connections of another must not be used after a fork."""
        pid = os.getpid()
        if self._opened is not None and self._opened[0] == pid:
            return self._opened[1]
        if self.protocol == "memory" and pid != self._made_by:
            raise ValueError(self._in_memory())
        import fsspec

        try:
            options = {"skip_instance_cache": True, "use_listings_cache": False}
            options |= {"auto_mkdir": True} if self.protocol in ("file", "local") else {}
            filesystem = fsspec.filesystem(self.protocol, **options)
        except ImportError as error:
            raise ValueError(
                f"{self.address} needs a package that is not installed ({error}). Run: pip install 'ldbench[remote]'"
            ) from error
        except ValueError as error:
            raise ValueError(f"{self.address} is of a protocol that fsspec does not know: {error}.") from error
        self._opened = (pid, filesystem)
        return filesystem

    def _in_memory(self) -> str:
        return (
            f"{self.address} is in the memory of one process. Set data workers and processes aside "
            "(trainer.workers=0 trainer.devices=1), or copy the files to disk."
        )


class NoRanges(Exception):
    """More bytes than were asked for."""


def reason(error: Exception) -> Exception:
    """What stands behind an error: over HTTP, fsspec takes whatever fails at first for a missing file."""
    cause = error.__cause__
    return cause if isinstance(error, FileNotFoundError) and isinstance(cause, Exception) else error


def is_final(error: Exception) -> bool:
    """Whether an address has answered, so that asking again changes nothing."""
    status = getattr(error, "status" if hasattr(error, "status") else "code", None)  # of aiohttp, and of gcsfs
    if isinstance(status, int) and status in FINAL_STATUSES:
        return status not in TRANSIENT_STATUSES
    return isinstance(error, PermissionError) or "Credentials" in type(error).__name__  # of botocore and google-auth


def described(error: Exception) -> str:
    """An error of a protocol's library in one line."""
    if isinstance(error, TimeoutError):
        return "it took too long"
    return " ".join(str(error).split())[:200].rstrip(".") or type(error).__name__


def spent(tries: int, start: float) -> str:
    """How often and how long something was tried."""
    return f"{tries} {'try' if tries == 1 else 'tries'}, {time.monotonic() - start:.0f} s"
