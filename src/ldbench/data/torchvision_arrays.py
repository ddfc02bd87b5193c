"""CIFAR-10, CIFAR-100, SVHN and STL-10, read by torchvision's own classes and held in memory.

[0] torchvision, Datasets, https://docs.pytorch.org/vision/stable/datasets.html
[1] Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, https://www.cs.toronto.edu/~kriz/cifar.html
[2] Netzer et al., Reading Digits in Natural Images with Unsupervised Feature Learning, 2011,
http://ufldl.stanford.edu/housenumbers/
[3] Coates et al., An Analysis of Single-Layer Networks in Unsupervised Feature Learning, 2011,
https://cs.stanford.edu/~acoates/stl10/
"""

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import numpy as np
import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.data.downloads import Source, get_root
from ldbench.data.fingerprints import images_fingerprint, pixels_digest
from ldbench.data.original_images import OriginalImages
from ldbench.data.subset import select_items

STL10_CLASSES = ("airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck")  # [3]

SplitName = Literal["train", "test"]


class TorchvisionArrays(ABC):
    """A dataset of torchvision's [0] whose images are in a few large files, with its standard training and test split.

    The files are below `root`; with `download` those that are missing are fetched. Files with another md5 than the
    original's are refused before they are read: some are pickles. Images are center-cropped to `image_size`.

    The fingerprint covers the pixels, labels and order of both splits, and `image_size`.

    Raises FileNotFoundError for missing files, and ValueError for altered ones and for downloads that fail.
    """

    label_safe_flips = True

    def __init__(self, *, name: str, root: str, download: bool, image_size: int, subset: float | str | None, seed: int):
        if image_size < 1:
            raise ValueError(f"data.image_size is {image_size}. Give the side of the square crop in pixels.")
        root = get_root(root, self._source(), download=download, fetch=self._fetch)
        self.name = name
        self.image_size = image_size
        opened = self._open(root, "train", download=False)
        self.class_names = self._names(opened)
        self.num_classes = len(self.class_names)
        images, labels = self._arrays(opened)
        kept = select_items(labels, subset=subset, seed=seed)
        self.train = ArraySplit(images[kept], labels[kept], image_size=image_size)
        images, labels = self._arrays(self._open(root, "test", download=False))
        self.test = ArraySplit(images, labels, image_size=image_size)
        self.fingerprint = images_fingerprint(
            _contents(self.train), _contents(self.test), image_size=image_size, num_classes=self.num_classes
        )

    @abstractmethod
    def _source(self) -> Source:
        """The files that it is read from."""

    @abstractmethod
    def _open(self, root: str, split: SplitName, *, download: bool) -> Any:
        """torchvision's dataset."""

    @abstractmethod
    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        """The images of torchvision's dataset, (n, H, W, 3) uint8, and their labels, (n,) int64."""

    @abstractmethod
    def _names(self, dataset: Any) -> tuple[str, ...]:
        """The names of the classes, by their labels."""

    def _fetch(self, root: str) -> None:
        self._open(root, "train", download=True)
        self._open(root, "test", download=True)


class ArraySplit(OriginalImages):
    """Images in memory."""

    def __init__(self, images: Tensor, labels: Tensor, *, image_size: int):
        self.images = images  # (n, H, W, 3) uint8
        self.labels = labels
        self.image_size = image_size

    def original(self, index: int) -> Image.Image:
        """An image as it is stored."""
        return Image.fromarray(self.images[index].numpy())


class Cifar10(TorchvisionArrays):
    """CIFAR-10 [1]: 50 000 and 10 000 photographs of 32 x 32 px in 10 classes."""

    title = "CIFAR-10"

    def _dataset(self) -> Any:
        from torchvision.datasets import CIFAR10

        return CIFAR10

    def _source(self) -> Source:
        kind = self._dataset()
        files = dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])
        return Source(self.title, kind.url, kind.filename, {f"{kind.base_folder}/{f}": md5 for f, md5 in files.items()})

    def _open(self, root: str, split: SplitName, *, download: bool) -> Any:
        return self._dataset()(root, train=split == "train", download=download)

    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        return torch.from_numpy(np.ascontiguousarray(dataset.data)), torch.tensor(dataset.targets)

    def _names(self, dataset: Any) -> tuple[str, ...]:
        return tuple(dataset.classes)


class Cifar100(Cifar10):
    """CIFAR-100 [1]: 50 000 and 10 000 photographs of 32 x 32 px in 100 classes, its fine labels."""

    title = "CIFAR-100"

    def _dataset(self) -> Any:
        from torchvision.datasets import CIFAR100

        return CIFAR100


class Svhn(TorchvisionArrays):
    """SVHN [2]: 73 257 and 26 032 house numbers of 32 x 32 px, cropped to one of their digits, without `extra`.

    A mirrored digit is not a digit.
    """

    label_safe_flips = False

    def _source(self) -> Source:
        from torchvision.datasets import SVHN

        files = {SVHN.split_list[split][1]: SVHN.split_list[split][2] for split in ("train", "test")}
        return Source("SVHN", "http://ufldl.stanford.edu/housenumbers/", None, files)

    def _open(self, root: str, split: SplitName, *, download: bool) -> Any:
        from torchvision.datasets import SVHN

        return SVHN(root, split=split, download=download)

    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        return _channels_last(dataset.data), torch.from_numpy(dataset.labels).long()

    def _names(self, dataset: Any) -> tuple[str, ...]:
        return tuple("0123456789")


class Stl10(TorchvisionArrays):
    """STL-10 [3]: its 5000 and 8000 labelled photographs of 96 x 96 px in 10 classes.

    The 100 000 unlabelled ones need not be there.
    """

    def _source(self) -> Source:
        kind = _labelled_stl10()
        files = {f"{kind.base_folder}/{file}": md5 for file, md5 in (*kind.train_list, *kind.test_list)}
        return Source("STL-10", kind.url, kind.filename, files)

    def _open(self, root: str, split: SplitName, *, download: bool) -> Any:
        return _labelled_stl10()(root, split=split, download=download)

    def _arrays(self, dataset: Any) -> tuple[Tensor, Tensor]:
        return _channels_last(dataset.data), torch.from_numpy(dataset.labels).long()

    def _names(self, dataset: Any) -> tuple[str, ...]:
        return STL10_CLASSES


def _labelled_stl10() -> Any:
    """torchvision's class, which compares the md5 of the labelled files only: the others are 2.8 GB."""
    from torchvision.datasets import STL10

    labelled = [entry for entry in STL10.train_list if not entry[0].startswith("unlabeled")]
    return type("STL10", (STL10,), {"train_list": labelled})


def _channels_last(images: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(rearrange(images, "n c h w -> n h w c")))


def _contents(split: ArraySplit) -> Iterator[tuple[int, str]]:
    for index, label in enumerate(split.labels.tolist()):
        yield label, pixels_digest(split.original(index))
