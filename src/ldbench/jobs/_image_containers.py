"""Writes images as they are stored in containers: tar shards, parquet files, a folder of files."""

import io
import re
import tarfile
from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol

from einops import rearrange
from PIL import Image

from ldbench.core.interfaces import ImageSet
from ldbench.core.pixels import to_uint8
from ldbench.data.layouts import EXTENSIONS
from ldbench.data.original_images import OriginalImages, png
from ldbench.data.written import key_of

PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9 _,()'+-]{0,80}")  # class names that name folders on every system


def stored_image(images: ImageSet, index: int) -> tuple[bytes, str, int]:
    """An image of a split as it is stored, its extension and its label; as PNG where no image file stores it.

    Raises ValueError for one that cannot be read.
    """
    if isinstance(images, OriginalImages):
        content, extension = images.encoded(index)
        if extension not in EXTENSIONS:  # no reader would take it for an image
            content, extension = png(images.original(index)), ".png"
        return content, extension, int(images.labels[index])
    image, label = images[index]
    pixels = rearrange(to_uint8(image[None], "round")[0], "c h w -> h w c")
    return png(Image.fromarray(pixels.numpy())), ".png", int(label)


class Container(Protocol):
    """The files that hold a part of a split."""

    def files(self, split: str, images: ImageSet, part: range, number: int, count: int) -> Iterator[tuple[str, bytes]]:
        """The names and contents of the files of part `number` of `count`."""
        ...

    def names(self, split: str, part: range, number: int, count: int) -> Sequence[str] | None:
        """Their names, None where these are not known before the images are read."""
        ...


class TarShards:
    """`train-00000.tar` and so on, in WebDataset's naming, the same bytes for the same images."""

    def names(self, split: str, part: range, number: int, count: int) -> Sequence[str]:
        """One shard a part."""
        return (f"{split}-{number:05d}.tar",)

    def files(self, split: str, images: ImageSet, part: range, number: int, count: int) -> Iterator[tuple[str, bytes]]:
        """A shard of `KEY.EXTENSION` and `KEY.cls`."""
        content = io.BytesIO()
        with tarfile.open(fileobj=content, mode="w", format=tarfile.USTAR_FORMAT) as tar:
            for index in part:
                image, extension, label = stored_image(images, index)
                for name, held in ((f"{key_of(index)}{extension}", image), (f"{key_of(index)}.cls", b"%d" % label)):
                    member = tarfile.TarInfo(name)  # of no user, at no time
                    member.size = len(held)
                    tar.addfile(member, io.BytesIO(held))
        yield self.names(split, part, number, count)[0], content.getvalue()


class ParquetFiles:
    """`data/train-00000-of-00004.parquet` and so on, as the hub of Hugging Face has them: columns image and label.

    Raises ValueError where `datasets` is not installed.
    """

    def __init__(self, class_names: Sequence[str]):
        try:
            import datasets
            from pyarrow.parquet import write_table
        except ImportError as error:
            raise ValueError(
                "job.format=parquet needs a package that is not installed. Run: pip install 'ldbench[datasets]'"
            ) from error
        self.datasets = datasets
        self.write_table = write_table
        label = datasets.ClassLabel(names=list(class_names))
        self.features = datasets.Features({"image": datasets.Image(), "label": label})

    def names(self, split: str, part: range, number: int, count: int) -> Sequence[str]:
        """One file a part."""
        return (f"data/{split}-{number:05d}-of-{count:05d}.parquet",)

    def files(self, split: str, images: ImageSet, part: range, number: int, count: int) -> Iterator[tuple[str, bytes]]:
        """A file of encoded images and their labels."""
        columns: dict[str, list[object]] = {"image": [], "label": []}
        for index in part:
            image, extension, label = stored_image(images, index)
            columns["image"].append({"bytes": image, "path": f"{key_of(index)}{extension}"})
            columns["label"].append(label)
        content = io.BytesIO()
        table = self.datasets.Dataset.from_dict(columns, features=self.features).data.table
        # datasets reads the types of the columns from the metadata
        self.write_table(
            table.replace_schema_metadata(self.features.arrow_schema.metadata), content, row_group_size=100
        )
        yield self.names(split, part, number, count)[0], content.getvalue()


class FolderOfFiles:
    """`train/<class>/00000042.jpg` and so on."""

    def __init__(self, folders: Sequence[str]):
        self.folders = folders

    def names(self, split: str, part: range, number: int, count: int) -> None:
        """Classes and extensions are those of the images."""

    def files(self, split: str, images: ImageSet, part: range, number: int, count: int) -> Iterator[tuple[str, bytes]]:
        """One file an image."""
        for index in part:
            image, extension, label = stored_image(images, index)
            yield f"{split}/{self.folders[label]}/{key_of(index)}{extension}", image


def class_folders(class_names: Sequence[str]) -> list[str]:
    """A folder's name for each class: its own where all names can be told apart on every system, else by number."""
    plain = all(PLAIN.fullmatch(name) and not name.endswith(" ") for name in class_names)
    if plain and len({name.lower() for name in class_names}) == len(class_names):
        return list(class_names)
    return [f"class {label:05d}" for label in range(len(class_names))]


def build_container(name: str, class_names: Sequence[str]) -> Container:
    """The container of a format: tar, parquet or folder."""
    if name == "parquet":
        return ParquetFiles(class_names)
    containers: Mapping[str, Container] = {"tar": TarShards(), "folder": FolderOfFiles(class_folders(class_names))}
    return containers[name]
