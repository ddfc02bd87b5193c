"""Where each image of some tar shards lies: built once, stored in one file, and checked against the shards."""

import io
import json
import logging
import os
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from filelock import AcquireReturnProxy, FileLock

from ldbench.data.checks import for_each
from ldbench.data.tar_samples import Files, Sample, read_samples
from ldbench.io.files import atomic_write, digest, file_digest
from ldbench.io.local_files import LocalFiles

log = logging.getLogger(__name__)

REVISION = 1  # raise when the file changes
CHOICES = ("reuse", "rebuild")
REBUILD = "Set data.index=rebuild once if the new images are meant."
COLUMNS = {"shard": np.int32, "offset": np.int64, "length": np.int64}  # of numbers; all others are of text
TEXTS = ("key", "extension", "label", "class_name")


@dataclass(frozen=True)
class ShardFile:
    """A shard as it was when the index was built."""

    name: str
    size: int
    identity: str
    sha256: str  # "" at an address


@dataclass(frozen=True)
class ShardIndex:
    """The images of some shards, in the order of the shards and in them."""

    shards: Sequence[ShardFile]
    shard: np.ndarray  # (n,) int32, of `shards`
    offset: np.ndarray  # (n,) int64, bytes
    length: np.ndarray  # (n,) int64, bytes
    key: np.ndarray  # (n,) bytes
    extension: np.ndarray  # (n,) bytes
    label: np.ndarray  # (n,) bytes: a number or a name; empty without labels
    class_name: np.ndarray  # (n,) bytes: the name of a label that is a number, where the shard says it

    def __len__(self) -> int:
        return len(self.shard)

    def to_bytes(self) -> bytes:
        """As a file."""
        content = io.BytesIO()
        described = {"revision": REVISION, "shards": [vars(shard) for shard in self.shards]}
        np.savez_compressed(
            content,
            described=np.frombuffer(json.dumps(described).encode(), dtype=np.uint8),
            **{name: getattr(self, name) for name in (*COLUMNS, *TEXTS)},
        )
        return content.getvalue()

    @classmethod
    def from_file(cls, path: Path) -> "ShardIndex":
        """From a file. Raises ValueError where it is damaged."""
        try:
            with np.load(path, allow_pickle=False) as held:
                described = json.loads(held["described"].tobytes())
                columns = {name: held[name] for name in (*COLUMNS, *TEXTS)}
            if described["revision"] != REVISION:
                raise ValueError(f"revision {described['revision']}")
            index = cls(tuple(ShardFile(**shard) for shard in described["shards"]), **columns)
        except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"The index {path} cannot be used ({error}). Set data.index=rebuild once, or remove it."
            ) from error
        if not index.fits():
            raise ValueError(f"The index {path} does not fit its shards. Set data.index=rebuild once, or remove it.")
        return index

    def fits(self) -> bool:
        """Whether all columns are of one length and type, and all images lie in their shards."""
        if any(getattr(self, name).shape != self.shard.shape for name in (*COLUMNS, *TEXTS)):
            return False
        if any(getattr(self, name).dtype != kind for name, kind in COLUMNS.items()):
            return False
        if any(getattr(self, name).dtype.kind != "S" for name in TEXTS):
            return False
        if len(self) == 0:
            return True
        if (
            self.shard.min() < 0
            or self.shard.max() >= len(self.shards)
            or min(self.offset.min(), self.length.min()) < 0
        ):
            return False
        sizes = np.array([shard.size for shard in self.shards], dtype=np.int64)
        return bool((self.offset + self.length <= sizes[self.shard]).all())


def get_index(
    files: Files, names: Sequence[str], *, label_key: str | None, with_labels: bool, index: str, cache: Path | None
) -> ShardIndex:
    """The index of some shards: the stored one where they are unchanged, else a new one, which is stored.

    It lies beside local shards, and in `cache` where that is not possible; without a cache none is stored. `index`:
    reuse | rebuild. Of several processes one builds it. Raises ValueError for shards that changed since, and for
    damaged ones.
    """
    if index not in CHOICES:
        raise ValueError(f"data.index is {index!r}. Choose {' or '.join(CHOICES)}.")
    name = f"shards-{digest([list(names), label_key, with_labels])[:16]}.npz"
    paths = [*([files.folder / f".{name}"] if isinstance(files, LocalFiles) else [])]
    if cache is not None:
        paths.append(cache / f"{digest(os.path.realpath(files.address))[:16]}-{name}")
    if index == "reuse":
        for path in paths:
            if path.is_file():
                return validated(ShardIndex.from_file(path), files, path=None if cache is None else path)
    lock = first_lock(paths) if cache is not None else None
    if lock is None:
        log.warning("The index of %s is not stored, and built at every start. Set data.cache_dir.", files.address)
        return build_index(files, names, label_key=label_key, with_labels=with_labels)
    path, held = lock
    with held:  # releases it
        if index == "reuse" and path.is_file():  # by another process meanwhile
            return validated(ShardIndex.from_file(path), files, path=path)
        log.info("Reading what %d shards in %s hold.", len(names), files.address)
        built = build_index(files, names, label_key=label_key, with_labels=with_labels)
        write(built, path)
        for other in paths:
            if other != path:
                other.unlink(missing_ok=True)  # an older one, which would be found first
        return built


def first_lock(paths: Sequence[Path]) -> tuple[Path, AcquireReturnProxy] | None:
    """The first path where a file can be written, and its lock, which is held; None where there is none."""
    for path in paths:
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            return path, FileLock(f"{path}.lock", mode=0o666).acquire()
        except OSError:  # somebody else's folder, or a full disk
            continue
    return None


def write(index: ShardIndex, path: Path) -> None:
    """Writes an index, atomically."""
    with atomic_write(path) as scratch:
        scratch.write_bytes(index.to_bytes())


def build_index(files: Files, names: Sequence[str], *, label_key: str | None, with_labels: bool) -> ShardIndex:
    """Reads all shards. Raises ValueError for damaged ones, and for two that hold the same images."""

    def visit(name: str) -> tuple[ShardFile, list[Sample]]:
        samples = read_samples(files, name, label_key=label_key, with_labels=with_labels)
        sha256 = file_digest(files.folder / name) if isinstance(files, LocalFiles) else ""
        return ShardFile(name, files.size(name), files.identity(name), sha256), samples

    found = for_each(names, visit, "Reading shards", chunk_size=1)
    refuse_copies(files, found)
    pairs = [(number, sample) for number, (_, samples) in enumerate(found) for sample in samples]
    numbers = {
        "shard": [number for number, _ in pairs],
        "offset": [sample.offset for _, sample in pairs],
        "length": [sample.length for _, sample in pairs],
    }
    columns = {name: np.array(numbers[name], dtype=kind) for name, kind in COLUMNS.items()}
    for name in TEXTS:
        values = [os.fsencode(getattr(sample, name) or "") for _, sample in pairs]
        columns[name] = np.array(values, dtype=f"S{max(map(len, values), default=1) or 1}")
    return ShardIndex(tuple(shard for shard, _ in found), **columns)


def refuse_copies(files: Files, found: Sequence[tuple[ShardFile, list[Sample]]]) -> None:
    """Raises ValueError for two shards with the same keys, lengths, and first and last images: one is a copy."""
    alike: dict[tuple[tuple[str, int], ...], list[tuple[ShardFile, list[Sample]]]] = {}
    for shard, samples in found:
        alike.setdefault(tuple((sample.key, sample.length) for sample in samples), []).append((shard, samples))
    for group in alike.values():
        seen: dict[tuple[bytes, ...], ShardFile] = {}
        for shard, samples in group if len(group) > 1 and group[0][1] else ():
            ends = tuple(files.read(shard.name, samples[i].offset, samples[i].length) for i in (0, -1))
            if ends in seen:
                raise ValueError(
                    f"{seen[ends].name} and {shard.name} in {files.address} hold the same keys ({samples[0].key} and "
                    "so on) and images: one is a copy. Remove it."
                )
            seen[ends] = shard


def validated(index: ShardIndex, files: Files, *, path: Path | None) -> ShardIndex:
    """An index whose shards are unchanged. Raises ValueError for those that are not."""
    current = for_each(index.shards, lambda shard: unchanged(shard, files), "Checking shards", chunk_size=1)
    if current == list(index.shards):
        return index
    moved = replace(index, shards=tuple(current))  # copied: the content is the same, and the times are not
    with suppress(OSError):  # the next start compares the content again
        if path is not None:
            write(moved, path)
    return moved


def unchanged(shard: ShardFile, files: Files) -> ShardFile:
    """A shard as it is now. Raises ValueError where it is another than when the index was built."""
    where, size = f"{files.address}/{shard.name}", files.size(shard.name)
    if size != shard.size:
        what = "truncated or replaced" if size < shard.size else "replaced"
        raise ValueError(
            f"{where} has {size} bytes, and had {shard.size} when its index was built: it was {what}. Copy it again. "
            f"{REBUILD}"
        )
    identity = files.identity(shard.name)
    if identity == shard.identity:
        return shard
    if isinstance(files, LocalFiles) and file_digest(files.folder / shard.name) == shard.sha256:
        return replace(shard, identity=identity)
    raise ValueError(f"{where} has changed since its index was built. Copy it again. {REBUILD}")
