"""Small copies of torchvision's datasets in their true layouts, whose md5s stand in for the real ones."""

import hashlib
import pickle
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat
from torchvision import datasets

from ldbench.data import torchvision_files
from ldbench.data.torchvision_arrays import STL10_CLASSES

FASHION_MNIST = Path(__file__).parent / "data" / "fashion_mnist"  # 200 real images


@dataclass(frozen=True)
class Small:
    """What a small dataset holds: images (n, H, W, 3) uint8 and labels of its two splits."""

    train: np.ndarray
    train_labels: list[int]
    test: np.ndarray
    test_labels: list[int]


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


def pixels(count: int, height: int, width: int, *, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def write_pickle(path: Path, content: Any) -> str:
    """Writes one, and returns its md5."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return md5(path)


def write_cifar10(root: Path, patch: pytest.MonkeyPatch) -> Small:
    """Five training batches of two images, and four test images."""
    labels = [0, 9, 1, 8, 2, 7, 3, 6, 4, 5]
    small = Small(pixels(10, 32, 32, seed=0), labels, pixels(4, 32, 32, seed=1), [3, 3, 0, 9])
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    _write_cifar(root, patch, datasets.CIFAR10, small, "labels", names)
    return small


def write_cifar100(root: Path, patch: pytest.MonkeyPatch) -> Small:
    """Three training images and two test images."""
    small = Small(pixels(3, 32, 32, seed=2), [99, 0, 50], pixels(2, 32, 32, seed=3), [0, 99])
    _write_cifar(root, patch, datasets.CIFAR100, small, "fine_labels", [f"class {i}" for i in range(100)])
    return small


def _write_cifar(root: Path, patch: pytest.MonkeyPatch, kind: Any, small: Small, key: str, names: list[str]) -> None:
    folder = root / kind.base_folder
    for attribute, images, labels in (
        ("train_list", small.train, small.train_labels),
        ("test_list", small.test, small.test_labels),
    ):
        files = [name for name, _ in getattr(kind, attribute)]
        share = len(images) // len(files)
        flat = images.transpose(0, 3, 1, 2).reshape(len(images), -1)  # all reds, then all greens, then all blues
        parts = [slice(i * share, (i + 1) * share) for i in range(len(files))]
        found = [
            [name, write_pickle(folder / name, {"data": flat[part], key: labels[part]})]
            for name, part in zip(files, parts, strict=True)
        ]
        patch.setattr(kind, attribute, found)
    meta = write_pickle(folder / kind.meta["filename"], {kind.meta["key"]: names})
    patch.setattr(kind, "meta", {**kind.meta, "md5": meta})


def write_svhn(root: Path, patch: pytest.MonkeyPatch) -> Small:
    """Six and four digits; the files name the digit 0 with 10."""
    small = Small(pixels(6, 32, 32, seed=4), [0, 1, 9, 0, 5, 5], pixels(4, 32, 32, seed=5), [9, 0, 2, 3])
    root.mkdir(parents=True, exist_ok=True)
    lists = dict(datasets.SVHN.split_list)
    for split, images, labels in (
        ("train", small.train, small.train_labels),
        ("test", small.test, small.test_labels),
    ):
        url, file, _ = lists[split]
        ten_for_zero = np.array([[label or 10] for label in labels], dtype=np.uint8)
        savemat(root / file, {"X": images.transpose(1, 2, 3, 0), "y": ten_for_zero})
        lists[split] = [url, file, md5(root / file)]
    patch.setattr(datasets.SVHN, "split_list", lists)
    return small


def write_stl10(root: Path, patch: pytest.MonkeyPatch) -> Small:
    """Four and three images, without the unlabelled ones; columns before rows, classes from 1."""
    small = Small(pixels(4, 96, 96, seed=6), [9, 0, 1, 1], pixels(3, 96, 96, seed=7), [0, 9, 4])
    folder = root / datasets.STL10.base_folder
    folder.mkdir(parents=True)
    (folder / "class_names.txt").write_text("\n".join(STL10_CLASSES) + "\n")
    for split, images, labels in (
        ("train", small.train, small.train_labels),
        ("test", small.test, small.test_labels),
    ):
        images.transpose(0, 3, 2, 1).tofile(folder / f"{split}_X.bin")
        (np.array(labels, dtype=np.uint8) + 1).tofile(folder / f"{split}_y.bin")
        others = [entry for entry in getattr(datasets.STL10, f"{split}_list") if entry[0].startswith("unlabeled")]
        own = [[file, md5(folder / file)] for file in (f"{split}_X.bin", f"{split}_y.bin")]
        patch.setattr(datasets.STL10, f"{split}_list", [*own, *others])
    return small


def write_imagenette(root: Path, patch: pytest.MonkeyPatch, *, folder: str = "imagenette2") -> None:
    """Two training images and one test image of each class, in JPEG."""
    for label, wnid in enumerate(sorted(datasets.Imagenette._WNID_TO_CLASS)):
        for split, count in (("train", 2), ("val", 1)):
            (root / folder / split / wnid).mkdir(parents=True)
            for i, image in enumerate(pixels(count, 30, 40, seed=100 + label)):
                Image.fromarray(image).save(root / folder / split / wnid / f"{wnid}_{i}.JPEG")
    patch.setattr(torchvision_files, "IMAGENETTE_COUNTS", {"training": 20, "test": 10})


def write_celeba(root: Path, patch: pytest.MonkeyPatch) -> None:
    """Four training images, one of the validation split and two test images, and the other lists of torchvision's."""
    base = root / "celeba"
    (base / "img_align_celeba").mkdir(parents=True)
    splits = [0, 0, 1, 2, 0, 2, 0]
    names = [f"{i + 1:06d}.jpg" for i in range(len(splits))]
    for name, image in zip(names, pixels(len(splits), 218, 178, seed=8), strict=True):
        Image.fromarray(image).save(base / "img_align_celeba" / name)
    rows = {
        "list_eval_partition.txt": [f"{name} {split}" for name, split in zip(names, splits, strict=True)],
        "identity_CelebA.txt": [f"{name} {i}" for i, name in enumerate(names)],
        "list_attr_celeba.txt": ["7", "Smiling", *(f"{name} 1" for name in names)],
        "list_bbox_celeba.txt": ["7", "image_id x_1 y_1 width height", *(f"{name} 1 2 3 4" for name in names)],
        "list_landmarks_align_celeba.txt": ["7", "lefteye_x lefteye_y", *(f"{name} 5 6" for name in names)],
    }
    for file, lines in rows.items():
        (base / file).write_text("\n".join(lines) + "\n")
    known = {file: md5(base / file) for file in rows}
    files = [(key, known.get(file, old), file) for key, old, file in datasets.CelebA.file_list]
    patch.setattr(datasets.CelebA, "file_list", files)


WRITERS: dict[str, Callable[[Path, pytest.MonkeyPatch], Any]] = {  # by the name of the data
    "cifar10": write_cifar10,
    "cifar100": write_cifar100,
    "svhn": write_svhn,
    "stl10": write_stl10,
    "imagenette": write_imagenette,
    "celeba": write_celeba,
}


def write_all(folder: Path, patch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Writes every dataset in a folder of its own, and returns these by the datasets' names."""
    for name, write in WRITERS.items():
        write(folder / name, patch)
    return {name: folder / name for name in WRITERS}


def pack(root: Path, folder: str, archive: Path) -> str:
    """Packs a folder below `root` as the originals are packed, and returns the archive's md5."""
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(root / folder, arcname=folder)
    return md5(archive)
