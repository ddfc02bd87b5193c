"""Sets of images that anybody made: a folder (flat or by class), an `.npz` in ADM's layout, or a tar of images.

The images of a set are in the order of their names, wherever they lie: in a folder of classes by the last part of the
path, so that `3/000012.png` stands before `0/000013.png`. Numbers in names count as numbers.
"""

import hashlib
import os
import re
import tarfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal, Protocol

import numpy as np
import torch
from einops import rearrange
from torch import Tensor

from ldbench.data.checks import for_each_file, read_image
from ldbench.data.layouts import EXTENSIONS, Listing
from ldbench.io.files import file_digest, printable
from ldbench.metrics import adm_npz

Balance = Literal["balanced", "random", "unknown"]
MANY = 3  # names that a message lists
LARGEST_FILE = 1 << 28  # bytes of an image in a tar, which is read whole


class Source(Protocol):
    """Where the images of a set are read from, by their place in its own order."""

    @property
    def names(self) -> Sequence[str]:
        """The name of each image without its ending, with its folder."""
        ...

    @property
    def classes(self) -> Sequence[str] | None:
        """The folder of each image; None where there are no folders."""
        ...

    @property
    def labels(self) -> Tensor | None:
        """(n,) the labels that it holds itself."""
        ...

    @property
    def digest(self) -> str:
        """The sha256 of everything in it."""
        ...

    def read(self, places: Sequence[int]) -> Tensor:
        """(B, 3, H, W) uint8. Raises ValueError for what cannot be read, and for images of several sizes."""
        ...


@dataclass(frozen=True)
class SampleSet:
    """Images in the order of their names, with their labels where their folders are classes of some data."""

    path: Path
    source: Source
    order: Sequence[int]  # places in the source
    labels: Tensor | None  # (n,), in the set's order
    num_classes: int

    def __len__(self) -> int:
        return len(self.order)

    @property
    def names(self) -> list[str]:
        """The name of each image without its ending, with its folder."""
        return [self.source.names[place] for place in self.order]

    @property
    def balance(self) -> Balance:
        """Whether all classes are equally frequent, up to one image."""
        if self.labels is None:
            return "unknown"
        counts = torch.bincount(self.labels, minlength=self.num_classes)
        return "balanced" if counts.max() - counts.min() <= 1 else "random"

    @property
    def digest(self) -> str:
        """The sha256 of its names and contents."""
        return self.source.digest

    def read(self, indices: range) -> Tensor:
        """(B, 3, H, W) uint8. Raises ValueError as its source does."""
        return self.source.read([self.order[index] for index in indices])


def open_samples(path: str | Path, *, class_names: Sequence[str], by: Literal["name", "path"] = "name") -> SampleSet:
    """The images under a path. `class_names`: of the data that they are compared with, in the order of labels.

    `by`: the order: of names, or of whole paths. Folders are classes if each has the name of one, or is a whole number
    below their count. Raises ValueError for a path without images.
    """
    path = Path(path).expanduser()
    source: Source
    if path.is_dir():
        source = FolderSource(path)
    elif path.suffix == ".npz":
        source = NpzSource(path)
    elif path.is_file() and tarfile.is_tarfile(path):
        source = TarSource(path)
    elif path.exists():
        raise ValueError(f"{path} is no folder, .npz or tar of images.")
    else:
        raise ValueError(f"There is nothing at {path}. Expected a folder of images, an .npz in ADM's layout, or a tar.")
    if not source.names:
        raise ValueError(f"There are no images in {path}. Images end in one of: {' '.join(EXTENSIONS)}.")
    names = source.names
    sort_keys = [([] if by == "path" else natural(name), name) for name in names]
    order = sorted(range(len(names)), key=sort_keys.__getitem__)
    labels = source.labels if source.labels is not None else labels_of(source.classes, class_names)
    if labels is not None and (labels.min() < 0 or labels.max() >= len(class_names)):
        labels = None
    return SampleSet(path, source, order, None if labels is None else labels[order], len(class_names))


def natural(name: str) -> list[tuple[int, int, str]]:
    """The last part of a name, in which numbers count as numbers, for sorting."""
    last = PurePosixPath(name).name
    return [(0, int(part), "") if part.isdecimal() else (1, 0, part) for part in re.split(r"(\d+)", last) if part]


def labels_of(classes: Sequence[str] | None, class_names: Sequence[str]) -> Tensor | None:  # (n,)
    """The labels of images by the names of their folders; None where these are no classes."""
    if classes is None:
        return None
    known = {name: label for label, name in enumerate(class_names)}
    if set(classes) <= known.keys():
        return torch.tensor([known[name] for name in classes])
    if all(name.isdecimal() for name in classes):
        return torch.tensor([int(name) for name in classes])
    return None


class FolderSource:
    """The images of a folder, or of its folders of classes."""

    labels = None

    def __init__(self, root: Path):
        self.root = root
        self.files = [path for path, _ in Listing().images(root, "", nested=True)]
        self.names = [printable(os.path.splitext(path)[0]) for path in self.files]
        self.classes = folders_of(self.files)
        validate_unique(root, self.names)

    @cached_property
    def digest(self) -> str:
        """The sha256 of names and contents."""
        digests = for_each_file(str(self.root), self.files, file_digest, "Reading samples")
        return digest_of(self.names, digests)

    def read(self, places: Sequence[int]) -> Tensor:
        """The images at some places."""
        return stacked([(self.files[place], os.path.join(self.root, self.files[place]), None) for place in places])


class TarSource:
    """The images of a tar, read in place."""

    labels = None

    def __init__(self, path: Path):
        self.path = path
        try:
            with tarfile.open(path) as archive:
                members = [m for m in archive.getmembers() if m.isfile() and m.name.lower().endswith(EXTENSIONS)]
        except (tarfile.TarError, OSError, EOFError) as error:
            raise ValueError(f"{path} is no tar that can be read ({error}). Copy it again.") from error
        for member in members:
            if member.size > LARGEST_FILE:
                raise ValueError(f"{path}:{member.name} has {member.size} bytes, more than an image. Remove it.")
        self.members = members
        files = [str(PurePosixPath(member.name)) for member in members]
        self.names = [printable(os.path.splitext(name)[0]) for name in files]
        self.classes = folders_of(files)
        validate_unique(path, self.names)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return file_digest(self.path)

    def read(self, places: Sequence[int]) -> Tensor:
        """The images at some places."""
        contents = []
        with tarfile.open(self.path) as archive:
            for place in places:
                file = archive.extractfile(self.members[place])
                assert file is not None, "a regular file"
                name = self.members[place].name
                contents.append((name, f"{self.path}:{name}", file.read()))
        return stacked(contents)


class NpzSource:
    """The images of an `.npz` in ADM's layout, with their labels where it has them."""

    classes = None

    def __init__(self, path: Path):
        self.path = path
        count = adm_npz.num_images(path)
        self.names = [f"{index:06d}" for index in range(count)]
        self.labels = adm_npz.read_labels(path)

    @cached_property
    def digest(self) -> str:
        """The sha256 of the file."""
        return file_digest(self.path)

    def __getstate__(self) -> dict[str, Any]:
        """Its state for another process, which reads the file anew."""
        return {key: value for key, value in self.__dict__.items() if key != "batches"}

    @cached_property
    def batches(self) -> "Rows":
        """The images, read forward."""
        return Rows(self.path)

    def read(self, places: Sequence[int]) -> Tensor:
        """The images at some places, which follow each other."""
        return self.batches.read(places[0], len(places))


class Rows:
    """The images of an `.npz` by their places; reading on from where the last read ended is fast."""

    def __init__(self, path: Path):
        self.path = path
        self.next = 0
        self.images: Iterator[Tensor] = iter(())
        self.rest = torch.empty(0)

    def read(self, first: int, count: int) -> Tensor:
        """`count` images from `first` on."""
        if first != self.next or not first:
            self.images, self.next, self.rest = adm_npz.read_images(self.path, 256), 0, torch.empty(0)
            while self.next < first:
                self.take(min(256, first - self.next))
        return self.take(count)

    def take(self, count: int) -> Tensor:
        """The next images."""
        while len(self.rest) < count:
            batch = next(self.images)
            self.rest = torch.cat([self.rest, batch]) if len(self.rest) else batch
        taken, self.rest = self.rest[:count], self.rest[count:]
        self.next += count
        return taken


def folders_of(files: Sequence[str]) -> list[str] | None:
    """The folder of each file, the innermost; None if they all lie in one."""
    folders = [PurePosixPath(name).parent.name for name in files]
    return folders if len(set(folders)) > 1 else None


def validate_unique(path: Path, names: Sequence[str]) -> None:
    """Raises ValueError for two images whose names differ in their endings alone."""
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise ValueError(f"{path} has {twice[0]} with two endings. Remove one of the two images.")


def digest_of(names: Sequence[str], digests: Sequence[str]) -> str:
    """The sha256 of names and of the digests of their contents."""
    lines = "\n".join(sorted(f"{name} {digest}" for name, digest in zip(names, digests, strict=True)))
    return hashlib.sha256(lines.encode()).hexdigest()


def stacked(files: Sequence[tuple[str, str, bytes | None]]) -> Tensor:
    """(B, 3, H, W) uint8 of files: name, path, and content where it was read. Raises ValueError as `Source.read`."""
    images = []
    for _, path, content in files:
        try:
            images.append(np.array(read_image(path, content)))
        except ValueError as error:
            raise ValueError(f"Cannot read {path} as an image: {error} Repair or remove it.") from error
    sizes = {image.shape: name for image, (name, _, _) in zip(images, files, strict=True)}
    if len(sizes) > 1:
        (a, first), (b, second), *_ = sizes.items()
        raise ValueError(
            f"The images are of several sizes: {first} has {a[1]} x {a[0]} px and {second} {b[1]} x {b[0]}. "
            "Resize them."
        )
    return rearrange(torch.from_numpy(np.stack(images)), "b h w c -> b c h w")


def unequal_names(first: SampleSet, second: SampleSet) -> str | None:
    """A sentence with the first names that only one of two sets has; None if both have the same."""
    ours, theirs = set(first.names), set(second.names)
    for names, there, missing in ((ours - theirs, first, second), (theirs - ours, second, first)):
        if names:
            some = ", ".join(sorted(names)[:MANY]) + (", ..." if len(names) > MANY else "")
            return f"{there.path} has {len(names)} images that {missing.path} lacks: {some}."
    return None
