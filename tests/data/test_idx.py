"""Fashion-MNIST and MNIST in IDX files: contents, places, padding, fingerprints, mistakes."""

import gzip
import shutil
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.small_datasets import FASHION_MNIST
from torchvision import datasets

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.data.fingerprints import images_fingerprint, pixels_digest
from ldbench.data.idx import IDX
from ldbench.data.original_images import OriginalImages

INSTALLED = Path("/usr/share/datasets/fashion-mnist")  # by Debian's package dataset-fashion-mnist
CLASSES = tuple("abcdefghij")
IMAGES, LABELS = "train-images-idx3-ubyte", "train-labels-idx1-ubyte"


def opened(root: Path | None, **changes: Any) -> IDX:
    settings: dict[str, Any] = {
        **{
            "name": "small",
            "torchvision": "FashionMNIST",
            "installed": [],
            "package": None,
            "download": False,
            "image_size": 32,
        },
        **{"class_names": CLASSES, "label_safe_flips": False, "subset": None, "seed": 0},
    }
    return IDX(root=None if root is None else str(root), **settings | changes)


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    folder = tmp_path / "raw"
    shutil.copytree(FASHION_MNIST, folder)
    return folder


def unpacked(folder: Path, name: str) -> Path:
    """The file without gzip."""
    path = folder / name
    path.write_bytes(gzip.decompress((folder / f"{name}.gz").read_bytes()))
    (folder / f"{name}.gz").unlink()
    return path


def test_images_are_padded_with_black_and_gray_is_repeated() -> None:
    bare, padded = opened(FASHION_MNIST, image_size=28), opened(FASHION_MNIST)
    assert (len(padded.train), len(padded.test), padded.num_classes) == (160, 40, 10)
    assert torch.equal(torch.bincount(padded.train.labels), torch.full((10,), 16))
    for index in (0, 77, 159):
        scan, image = bare.train[index][0], padded.train[index][0]
        assert scan.shape == (3, 28, 28)
        assert image.shape == (3, 32, 32)
        assert torch.equal(image[:, 2:30, 2:30], scan)
        assert torch.equal(image[0], image[2])
        frame = torch.ones(32, 32, dtype=torch.bool)
        frame[2:30, 2:30] = False
        assert (image[:, frame] == -1).all()


@pytest.mark.parametrize("size", [24, 28, 32, 48])
def test_items_are_those_of_any_whole_images(size: int) -> None:
    data = opened(FASHION_MNIST, image_size=size)
    for index in (0, 100):
        image, label = data.train[index]
        expected, same = OriginalImages.__getitem__(data.train, index)
        assert torch.equal(image, expected)
        assert label == same
        assert image.shape == (3, size, size)


def test_pixels_are_the_bytes_of_the_file() -> None:
    content = gzip.decompress((FASHION_MNIST / f"{IMAGES}.gz").read_bytes())
    assert struct.unpack(">4I", content[:16]) == (0x803, 160, 28, 28)
    scans = np.frombuffer(content, np.uint8, offset=16).reshape(160, 28, 28)
    data = opened(FASHION_MNIST, image_size=28)
    assert np.array_equal(np.array(data.train.original(5))[:, :, 1], scans[5])


def test_the_fingerprint_is_that_of_the_images() -> None:
    data = opened(FASHION_MNIST)

    def contents(split: OriginalImages) -> list[tuple[int, str]]:
        return [(int(label), pixels_digest(split.original(i))) for i, label in enumerate(split.labels)]

    expected = images_fingerprint(contents(data.train), contents(data.test), image_size=32, num_classes=10)
    assert data.fingerprint == expected
    assert opened(FASHION_MNIST, subset=0.5).fingerprint != expected
    assert opened(FASHION_MNIST, image_size=28).fingerprint != expected


def test_files_lie_in_the_folder_or_where_torchvision_puts_them(copied: Path, tmp_path: Path) -> None:
    expected = opened(FASHION_MNIST).fingerprint
    assert opened(copied).fingerprint == expected
    assert opened(tmp_path).fingerprint == expected  # in raw/
    (tmp_path / "FashionMNIST").mkdir()
    moved = shutil.move(copied, tmp_path / "FashionMNIST" / "raw")
    assert opened(tmp_path).fingerprint == expected
    unpacked(Path(moved), IMAGES)
    assert opened(tmp_path).fingerprint == expected
    assert opened(None, installed=["/nowhere", moved]).fingerprint == expected


def test_a_changed_file_is_read_again(copied: Path) -> None:
    before = opened(copied)
    path = unpacked(copied, IMAGES)
    content = bytearray(path.read_bytes())
    content[16] ^= 255
    path.write_bytes(bytes(content))
    after = opened(copied)
    assert after.fingerprint != before.fingerprint
    assert not torch.equal(after.train[0][0], before.train[0][0])


def test_a_subset_is_a_part_of_each_class() -> None:
    data = opened(FASHION_MNIST, subset=0.25)
    assert torch.equal(torch.bincount(data.train.labels), torch.full((10,), 4))
    assert len(data.test) == 40
    whole = opened(FASHION_MNIST)
    digests = dict(zip(whole.train.digests, range(160), strict=True))
    for index, digest in enumerate(data.train.digests):
        assert torch.equal(data.train[index][0], whole.train[digests[digest]][0])


def test_missing_files_are_named(copied: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"not installed here at /somewhere.*get install some.*data.root=DIR"):
        opened(None, installed=["/somewhere"], package="some")
    with pytest.raises(FileNotFoundError, match=r"not installed here\. Set data.root=DIR"):
        opened(None)
    (copied / f"{LABELS}.gz").unlink()
    with pytest.raises(FileNotFoundError, match=rf"raw lacks {LABELS} \(with or without .gz\).*data.download=true"):
        opened(tmp_path)
    with pytest.raises(FileNotFoundError, match="lacks train-images"):
        opened(tmp_path / "nothing")


def test_damaged_files_are_named(copied: Path) -> None:
    path = unpacked(copied, IMAGES)
    content = path.read_bytes()
    for damaged, message in (
        (content[:-1], "has 125439 bytes for the 160 x 28 x 28"),
        (content + b"0", "has 125441 bytes"),
        (b"\0\0\x0d" + content[3:], "no IDX file of bytes in 3 dimensions"),
        (b"", "no IDX file"),
    ):
        path.write_bytes(damaged)
        with pytest.raises(ValueError, match=message) as raised:
            opened(copied)
        assert str(path) in str(raised.value)
    path.unlink()
    (copied / f"{IMAGES}.gz").write_bytes((FASHION_MNIST / f"{IMAGES}.gz").read_bytes()[:1000])
    with pytest.raises(ValueError, match="cannot be read"):
        opened(copied)


def test_files_that_do_not_belong_together_are_refused(copied: Path) -> None:
    shutil.copy(copied / "t10k-labels-idx1-ubyte.gz", copied / f"{LABELS}.gz")
    with pytest.raises(ValueError, match=r"160, 28, 28.* and 40 labels"):
        opened(copied)
    with pytest.raises(ValueError, match="label 9, but the dataset has 9 classes"):
        opened(FASHION_MNIST, class_names=CLASSES[:9])


def test_download_asks_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Stand:
        mirrors = ("https://example.org/",)

        def __init__(self, root: str, *, download: bool):
            asked.append((root, download))
            folder = Path(root) / "FashionMNIST" / "raw"
            shutil.copytree(FASHION_MNIST, folder)
            for packed in folder.glob("*.gz"):
                unpacked(folder, packed.stem)

    monkeypatch.setattr(datasets, "FashionMNIST", Stand)
    data = opened(tmp_path / "new", download=True)
    assert len(data.train) == 160
    assert asked == [(str(tmp_path / "new"), True)]
    opened(tmp_path / "new", download=True)
    assert len(asked) == 1  # nothing is fetched that is there


def test_a_download_that_fails_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: object, *_: object, **__: object) -> None:
        raise RuntimeError("Error downloading train-images-idx3-ubyte.gz")

    monkeypatch.setattr(datasets.FashionMNIST, "download", fail)
    with pytest.raises(ValueError, match=r"FashionMNIST cannot be downloaded from http.*Error downloading"):
        opened(tmp_path, download=True)


@pytest.mark.skipif(not INSTALLED.is_dir(), reason="Debian's package dataset-fashion-mnist is not installed")
def test_the_installed_files_are_found_without_a_root() -> None:
    data = instantiate(Registry().option("data", "fashion_mnist"))
    assert (len(data.train), len(data.test)) == (60000, 10000)
    assert torch.equal(torch.bincount(data.train.labels), torch.full((10,), 6000))
    small = opened(FASHION_MNIST)
    assert set(small.train.digests) <= set(data.train.digests)
    assert data.fingerprint == "14bce2d7d29655db95501f87f73db459d137b52272cb7ceb5d794718157c00bc"
