"""MNIST and Fashion-MNIST: gray images of 28 px in four IDX files, gzipped or not.

[0] LeCun et al., Gradient-based learning applied to document recognition, 1998, https://doi.org/10.1109/5.726791
(MNIST), and the format: http://yann.lecun.com/exdb/mnist
[1] Xiao et al., Fashion-MNIST: a Novel Image Dataset for Benchmarking Machine Learning Algorithms, 2017,
https://arxiv.org/abs/1708.07747
"""

import gzip
import math
import struct
import zlib
from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ldbench.core.pixels import from_uint8
from ldbench.data import fingerprints
from ldbench.data.downloads import Source, get_root
from ldbench.data.original_images import OriginalImages
from ldbench.data.subset import select_items

SPLITS = {"train": "train", "test": "t10k"}  # the first word of a split's files
KINDS = {"images-idx3-ubyte": 3, "labels-idx1-ubyte": 1}  # a file's name after it, and its dimensions
UBYTE = 0x08  # IDX's code of uint8
SCAN = 28  # px a side
PADDING = 2  # black px on each side of a scan


class IDX:
    """Gray images of 28 px in IDX files below `root`, repeated to three channels.

    `root` holds `train-images-idx3-ubyte`, `train-labels-idx1-ubyte` and the two of `t10k`, with or without `.gz`; or
    `raw/` or `<torchvision>/raw/` in it does, as torchvision stores them. Without a root the files are looked for in
    `installed`, the folders of system packages, such as Debian's `package`. With image_size=28 the images are the bare
    scans; otherwise they get two black pixels on each side, 32 px in all, and are resized if another size is asked for.
    `download` fetches missing files through torchvision's class of the name `torchvision`.

    The fingerprint is that of the images themselves (see `fingerprints.images_fingerprint`).

    Raises FileNotFoundError if there are no such files, and ValueError for files that are damaged or do not belong
    together.
    """

    def __init__(
        self,
        *,
        name: str,
        root: str | None,
        torchvision: str,
        installed: Sequence[str],
        package: str | None,
        download: bool,
        image_size: int,
        class_names: Sequence[str],
        label_safe_flips: bool,
        subset: float | str | None,
        seed: int,
    ):
        if image_size < 1:
            raise ValueError(f"data.image_size is {image_size}. Give the side of the images in pixels, such as 32.")
        self.name = name
        self.image_size = image_size
        self.class_names = tuple(class_names)
        self.num_classes = len(self.class_names)
        self.label_safe_flips = label_safe_flips
        folder = find_files(root, torchvision=torchvision, installed=installed, package=package, download=download)
        train, self.test = load_splits(folder, image_size, self.num_classes, stamps(folder))
        self.train = train.part(select_items(train.labels, subset=subset, seed=seed))
        self.fingerprint = fingerprints.images_fingerprint(
            self.train.identities(), self.test.identities(), image_size=image_size, num_classes=self.num_classes
        )


class IDXSplit(OriginalImages):
    """Gray images in memory, each with the digest of its pixels (see `fingerprints.pixels_digest`)."""

    def __init__(
        self,
        pixels: np.ndarray,  # (n, H, W) uint8
        labels: Tensor,  # (n,)
        digests: tuple[str, ...],
        *,
        image_size: int,
    ):
        self.pixels = pixels
        self.labels = labels
        self.digests = digests
        self.image_size = image_size

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        pixels = self.pixels[index]
        if pixels.shape != (self.image_size, self.image_size):
            return super().__getitem__(index)
        gray = from_uint8(torch.from_numpy(pixels))  # as above in less time: there is nothing to crop
        return gray.expand(3, -1, -1).contiguous(), int(self.labels[index])

    def original(self, index: int) -> Image.Image:
        """An image as RGB."""
        return Image.fromarray(self.pixels[index]).convert("RGB")

    def identities(self) -> Iterator[tuple[int, str]]:
        """Each item's label and the digest of its pixels, in order."""
        return zip(self.labels.tolist(), self.digests, strict=True)

    def part(
        self,
        indices: Tensor,  # (m,)
    ) -> "IDXSplit":
        """The split of some of the items."""
        digests = tuple(self.digests[i] for i in indices.tolist())
        return IDXSplit(self.pixels[indices.numpy()], self.labels[indices], digests, image_size=self.image_size)


@lru_cache(maxsize=2)  # feature networks are trained on the images of the run
def load_splits(
    folder: Path,
    image_size: int,
    num_classes: int,
    stamps: tuple[tuple[str, int, int], ...],  # of the files: they are read again after a change
) -> tuple[IDXSplit, IDXSplit]:
    """The training and the test split: scans with two black pixels on each side, unless their own 28 px are asked for.

    Raises ValueError for files that are damaged or do not belong together.
    """
    margin = 0 if image_size == SCAN else PADDING
    splits = []
    for split in SPLITS:
        scans, labels = read_split(folder, split, num_classes=num_classes)
        pixels = np.pad(scans, ((0, 0), (margin, margin), (margin, margin)))
        height, width = pixels.shape[1:]
        digests = tuple(
            fingerprints.values_digest(width, height, np.repeat(gray[:, :, None], 3, axis=2).tobytes())
            for gray in pixels
        )
        splits.append(IDXSplit(pixels, labels, digests, image_size=image_size))
    return splits[0], splits[1]


def stamps(folder: Path) -> tuple[tuple[str, int, int], ...]:
    """The path, the time of the last change and the length of each of the four files."""
    paths = [find_file(folder, name) for name in names()]
    return tuple((str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in paths if path is not None)


def find_files(
    root: str | None, *, torchvision: str, installed: Sequence[str], package: str | None, download: bool
) -> Path:
    """The folder of the four files. Raises FileNotFoundError, with what to do, if there is none."""
    places = [Path(root).expanduser()] if root else [Path(place) for place in installed]
    for place in places:
        for folder in folders_in(place, torchvision):
            if not missing_files(folder):
                return folder
    if not root:
        at = f" at {', '.join(installed)}" if installed else ""
        apt = f"On Debian or Ubuntu run: apt-get install {package}. Elsewhere set" if package else "Set"
        raise FileNotFoundError(
            f"The files of {torchvision} are not installed here{at}. {apt} data.root=DIR to the folder that holds "
            "train-images-idx3-ubyte.gz and the other three, and data.download=true to have them downloaded into it."
        )
    if not download:
        where = min(folders_in(places[0], torchvision), key=lambda folder: len(missing_files(folder)))
        raise FileNotFoundError(
            f"{where} lacks {', '.join(missing_files(where))} (with or without .gz). Set data.root to the folder that "
            "holds the four files, or data.download=true to have them downloaded."
        )
    return fetch(places[0], torchvision)


def fetch(root: Path, torchvision: str) -> Path:
    """Downloads the files through torchvision. Raises ValueError if that fails."""
    from torchvision import datasets  # seconds to load, and for a download alone

    dataset = getattr(datasets, torchvision)
    files = {f"{torchvision}/raw/{name}": None for name in names()}
    source = Source(torchvision, dataset.mirrors[0], None, files)
    get_root(str(root), source, download=True, fetch=lambda place: dataset(place, download=True))
    return root / torchvision / "raw"


def folders_in(root: Path, torchvision: str) -> tuple[Path, ...]:
    """The folders in which the files may be."""
    return root, root / "raw", root / torchvision / "raw"


def missing_files(folder: Path) -> list[str]:
    """The names of the four files that a folder lacks."""
    return [name for name in names() if find_file(folder, name) is None]


def names() -> list[str]:
    """The names of the four files."""
    return [f"{word}-{what}" for word in SPLITS.values() for what in KINDS]


def find_file(folder: Path, name: str) -> Path | None:
    """A file with or without .gz."""
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def read_split(folder: Path, split: str, *, num_classes: int) -> tuple[np.ndarray, Tensor]:
    """The scans of a split, (n, 28, 28) uint8, and their labels, (n,) int64.

    Raises ValueError for files that are damaged or do not belong together.
    """
    images, labels = (read_idx(folder, f"{SPLITS[split]}-{what}", dimensions=d) for what, d in KINDS.items())
    if images.shape[1:] != (SCAN, SCAN) or len(images) != len(labels) or not len(labels):
        raise ValueError(
            f"The {split} split in {folder} has images of shape {images.shape} and {len(labels)} labels. Expected as "
            f"many labels as images, of {SCAN} x {SCAN} pixels. Get the four files of one dataset again."
        )
    if labels.max() >= num_classes:
        raise ValueError(
            f"The {split} split in {folder} has the label {labels.max()}, but the dataset has {num_classes} classes. "
            "Get its four files again."
        )
    return images, torch.from_numpy(labels.astype(np.int64))


def read_idx(folder: Path, name: str, *, dimensions: int) -> np.ndarray:
    """The array in an IDX file: uint8, of that many dimensions.

    Raises ValueError, naming the file, if it is none.
    """
    path = find_file(folder, name)
    assert path is not None, "it was found before"
    try:
        content = path.read_bytes()
        content = gzip.decompress(content) if path.suffix == ".gz" else content
    except (OSError, EOFError, zlib.error) as error:
        raise ValueError(f"{path} cannot be read ({error}). Get it again.") from error
    start = 4 * (1 + dimensions)
    header = struct.unpack(f">{1 + dimensions}I", content[:start]) if len(content) >= start else (0,)
    if header[0] != UBYTE << 8 | dimensions:
        raise ValueError(
            f"{path} is no IDX file of bytes in {dimensions} dimensions: its first bytes are {content[:4]!r}. Get it "
            "again."
        )
    if len(content) - start != math.prod(header[1:]):
        raise ValueError(
            f"{path} has {len(content) - start} bytes for the {' x '.join(map(str, header[1:]))} that it announces: it "
            "is truncated or damaged. Get it again."
        )
    return np.frombuffer(content, np.uint8, offset=start).reshape(header[1:])
