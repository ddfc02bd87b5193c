"""Reads what a tar shard in WebDataset's naming holds: `KEY.jpg` with `KEY.cls` or `KEY.json`, one image a key.

[0] WebDataset, https://github.com/webdataset/webdataset (the naming)
"""

import io
import json
import tarfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

from ldbench.data.layouts import EXTENSIONS
from ldbench.io.local_files import LocalFiles
from ldbench.io.remote import RemoteFiles

Files = LocalFiles | RemoteFiles

LABEL_KEYS = ("label", "cls", "class", "class_id", "label_id")  # of a KEY.json, in the order in which they are taken
NAME_KEYS = ("class_name", "label_name", "classname")
LARGEST_TEXT = 1_000_000  # bytes of a KEY.cls or KEY.json
BUFFER = 1 << 16  # bytes


@dataclass
class Sample:
    """An image in a shard, and its class as the shard has it."""

    key: str
    offset: int = -1  # of the image's bytes in the shard; -1: there is no image
    length: int = 0
    extension: str = ""
    label: str | None = None  # a number or a name
    class_name: str = ""  # of a label that is a number
    others: set[str] = field(default_factory=set)  # extensions


class RangeFile(io.RawIOBase):
    """A file at an address as a file object."""

    def __init__(self, files: Files, name: str):
        self.files = files
        self.name_in_files = name
        self.length = files.size(name)
        self.place = 0

    def readable(self) -> bool:
        """It is."""
        return True

    def seekable(self) -> bool:
        """It is."""
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Moves to a place, and returns it."""
        self.place = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self.place, io.SEEK_END: self.length}[whence]
        return self.place

    def readinto(self, buffer: Any) -> int:
        """Reads as many bytes as fit and are left."""
        content = self.files.read(self.name_in_files, self.place, min(len(buffer), max(0, self.length - self.place)))
        buffer[: len(content)] = content
        self.place += len(content)
        return len(content)


def read_samples(files: Files, name: str, *, label_key: str | None, with_labels: bool) -> list[Sample]:
    """The samples of a shard, in their order.

    Raises ValueError, naming the shard and the key, for a shard that is truncated or no tar, for a key that stands
    twice, that has no image, or several, and with labels for one that has none.
    """
    where = f"{files.address}/{name}"
    file = io.BufferedReader(RangeFile(files, name), BUFFER)
    samples: dict[str, Sample] = {}
    last = ""
    try:
        with tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                if not member.isfile() or PurePosixPath(member.name).name.startswith("."):
                    continue
                folder, _, base = member.name.rpartition("/")
                stem, _, extension = base.partition(".")
                key, extension = f"{folder}/{stem}" if folder else stem, f".{extension.lower()}"
                if key in samples and key != last:
                    raise ValueError(f"{where} has the key {key} twice. {WRITE}")
                last = key
                sample = samples.setdefault(key, Sample(key))
                if extension in sample.others:
                    raise ValueError(f"{where} has {key}{extension} twice. {WRITE}")
                sample.others.add(extension)
                if extension in EXTENSIONS:
                    if sample.offset >= 0:
                        raise ValueError(f"{where} has two images of the key {key}. Keep one image for each key.")
                    sample.offset, sample.length = member.offset_data, member.size
                    sample.extension = extension
                elif with_labels and extension in (".cls", ".json"):
                    if member.size > LARGEST_TEXT:
                        raise ValueError(f"{key}{extension} in {where} has {member.size} bytes, too many for a label.")
                    file.seek(member.offset_data)
                    add_label(sample, file.read(member.size), extension, label_key=label_key, where=where)
            end = tar.offset
    except (tarfile.TarError, EOFError) as error:
        raise ValueError(f"{where} is truncated, or no plain tar ({error}). {AGAIN}") from error
    file.seek(end)
    if file.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise ValueError(f"{where} is truncated or damaged: no tar ends as it does after {end} bytes. {AGAIN}")
    for sample in samples.values():
        if sample.offset < 0:
            held = ", ".join(sorted(sample.others))
            raise ValueError(f"The key {sample.key} in {where} has no image, but {held}. {WRITE}")
        if with_labels and sample.label is None:
            raise ValueError(
                f"The image {sample.key}{sample.extension} in {where} has no label. Add {sample.key}.cls with its "
                "number, or set data.one_class=true to ignore labels."
            )
    return list(samples.values())


AGAIN = "Copy it again."
WRITE = "Write the shard again with one image for each key."


def add_label(sample: Sample, content: bytes, extension: str, *, label_key: str | None, where: str) -> None:
    """Sets a sample's label from `KEY.cls` or `KEY.json`; `label_key` names a field of the latter."""
    place = f"{sample.key}{extension} in {where}"
    if extension == ".cls":
        if label_key is None:
            sample.label = text(content, place).strip() or None
        return
    try:
        fields = json.loads(text(content, place))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{place} is not valid JSON ({error}). Write it again.") from error
    fields = fields if isinstance(fields, Mapping) else {}
    if label_key is not None and label_key not in fields:
        raise ValueError(f"{place} has no {label_key}, which data.label_key names, but: {', '.join(fields)}.")
    keys = [label_key] if label_key is not None else [key for key in LABEL_KEYS if key in fields]
    if keys and (label_key is not None or sample.label is None):
        label = fields[keys[0]]
        if isinstance(label, bool) or not isinstance(label, int | str):
            raise ValueError(f"The {keys[0]} in {place} is {label!r}. Expected a number or a name.")
        sample.label = str(label).strip() or None
    sample.class_name = next((str(fields[key]) for key in NAME_KEYS if key in fields), "")


def text(content: bytes, place: str) -> str:
    """Bytes as text. Raises ValueError where they are none."""
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{place} is not UTF-8 text ({error}). Write it again.") from error
