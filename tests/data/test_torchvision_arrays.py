"""CIFAR-10, CIFAR-100, SVHN and STL-10 in their true layouts, with few images: contents, fingerprints, mistakes."""

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from einops import rearrange
from PIL import Image
from tests import small_datasets
from tests.small_datasets import Small
from torchvision import datasets
from torchvision.datasets import utils

from ldbench.core.interfaces import ImageData
from ldbench.data import torchvision_arrays
from ldbench.data.fingerprints import images_fingerprint, pixels_digest
from ldbench.data.original_images import OriginalImages
from ldbench.data.torchvision_arrays import Cifar10, Cifar100, Stl10, Svhn

SETTINGS: dict[str, Any] = {"name": "small", "download": False, "subset": None, "seed": 0}
KINDS: dict[str, tuple[type[torchvision_arrays.TorchvisionArrays], int]] = {  # and the images' side in px
    "cifar10": (Cifar10, 32),
    "cifar100": (Cifar100, 32),
    "svhn": (Svhn, 32),
    "stl10": (Stl10, 96),
}
FILE = {  # of the training images
    "cifar10": "cifar-10-batches-py/data_batch_3",
    "cifar100": "cifar-100-python/train",
    "svhn": "train_32x32.mat",
    "stl10": "stl10_binary/train_X.bin",
}


class PlainImages(OriginalImages):
    """Images in a list."""

    def __init__(self, images: np.ndarray, labels: list[int], *, image_size: int):
        self.images = [Image.fromarray(image) for image in images]
        self.labels = torch.tensor(labels)
        self.image_size = image_size

    def original(self, index: int) -> Image.Image:
        return self.images[index]


def opened(name: str, root: Path, **changes: Any) -> torchvision_arrays.TorchvisionArrays:
    kind, size = KINDS[name]
    return kind(root=str(root), **{**SETTINGS, "image_size": size, **changes})


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def small(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Small:
    monkeypatch.setattr(utils, "_urlretrieve", lambda *_: pytest.fail("downloads"))
    return small_datasets.WRITERS[name](tmp_path / "root", monkeypatch)


def test_images_and_labels_are_those_of_the_files(name: str, small: Small, tmp_path: Path) -> None:
    data = opened(name, tmp_path / "root")
    assert isinstance(data, ImageData)
    for split, images, labels in (
        (data.train, small.train, small.train_labels),
        (data.test, small.test, small.test_labels),
    ):
        assert split.labels.tolist() == labels
        for i, pixels in enumerate(images):
            assert np.array_equal(np.array(split.original(i)), pixels)
            image, label = split[i]
            assert torch.equal(image, rearrange(torch.from_numpy(pixels), "h w c -> c h w") / 127.5 - 1)
            assert (label, type(label)) == (labels[i], int)


def test_classes_have_their_names(name: str, small: Small, tmp_path: Path) -> None:
    data = opened(name, tmp_path / "root")
    expected = {
        "cifar10": (10, "airplane", "truck", True),
        "cifar100": (100, "class 0", "class 99", True),
        "svhn": (10, "0", "9", False),
        "stl10": (10, "airplane", "truck", True),
    }
    found = (data.num_classes, data.class_names[0], data.class_names[-1], data.label_safe_flips)
    assert found == expected[name]
    assert len(data.class_names) == data.num_classes


def test_the_fingerprint_is_that_of_the_same_images_elsewhere(name: str, small: Small, tmp_path: Path) -> None:
    _, size = KINDS[name]
    data = opened(name, tmp_path / "root")
    plain = [
        PlainImages(images, labels, image_size=size)
        for images, labels in ((small.train, small.train_labels), (small.test, small.test_labels))
    ]
    contents = [
        [(int(split.labels[i]), pixels_digest(split.original(i))) for i in range(len(split))] for split in plain
    ]
    assert data.fingerprint == images_fingerprint(*contents, image_size=size, num_classes=data.num_classes)
    assert opened(name, tmp_path / "root", image_size=16).fingerprint != data.fingerprint
    for split, other in zip((data.train, data.test), plain, strict=True):
        drawn = [
            s.draw(0, scale=(0.2, 1.0), ratio=(0.75, 1.33), rng=torch.Generator().manual_seed(0))[0]
            for s in (split, other)
        ]
        assert torch.equal(*drawn)


def test_a_subset_is_a_part_of_the_training_split(name: str, small: Small, tmp_path: Path) -> None:
    items = tmp_path / "items.txt"
    items.write_text("2\n0\n")
    data = opened(name, tmp_path / "root", subset=str(items))
    assert np.array_equal(data.train.images.numpy(), small.train[[0, 2]])
    assert data.train.labels.tolist() == [small.train_labels[0], small.train_labels[2]]
    assert len(data.test) == len(small.test)


def test_workers_get_the_same_images(name: str, small: Small, tmp_path: Path) -> None:
    split = opened(name, tmp_path / "root").train
    again = pickle.loads(pickle.dumps(split))
    assert torch.equal(again[1][0], split[1][0])


def test_another_image_size_is_cropped(name: str, small: Small, tmp_path: Path) -> None:
    image, _ = opened(name, tmp_path / "root", image_size=40).train[0]
    assert image.shape == (3, 40, 40)
    with pytest.raises(ValueError, match=r"data\.image_size is 0\. Give the side"):
        opened(name, tmp_path / "root", image_size=0)


def test_files_that_are_missing_are_named(name: str, small: Small, tmp_path: Path) -> None:
    (tmp_path / "root" / FILE[name]).unlink()
    with pytest.raises(FileNotFoundError, match=r"is incomplete: .* is missing\. Set data\.root to .*download=true"):
        opened(name, tmp_path / "root")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"is not in data\.root=.*empty: there is no .* \(and \d more\)"):
        opened(name, tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is not a folder\. Set data\.root to the folder"):
        opened(name, tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


def test_a_root_one_level_off_is_told_which_one_is_right(name: str, small: Small, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"Set data\.root={tmp_path}/root, which holds "):
        opened(name, tmp_path)
    if "/" in FILE[name]:
        with pytest.raises(FileNotFoundError, match=rf"Set data\.root={tmp_path}/root, which holds "):
            opened(name, (tmp_path / "root" / FILE[name]).parent)


def test_a_root_that_is_a_file_or_not_set_is_refused(name: str, small: Small, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.root=.* is a file\. Unpack it if it is an archive"):
        opened(name, tmp_path / "root" / FILE[name])
    kind, size = KINDS[name]
    with pytest.raises(ValueError, match=r"data\.root is not set\. Set data\.root=DIR to the folder that holds"):
        kind(root="", **SETTINGS, image_size=size)
    with pytest.raises(ValueError, match=r"data\.download is 'yes'\. Give true or false\."):
        opened(name, tmp_path / "root", download="yes")


def test_a_damaged_file_is_refused(name: str, small: Small, tmp_path: Path) -> None:
    path = tmp_path / "root" / FILE[name]
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(
        ValueError, match=rf"{FILE[name]} is not .*'s file: its md5 is .*\. It was not read\. Remove it"
    ):
        opened(name, tmp_path / "root")
    path.unlink()
    path.mkdir()
    with pytest.raises(ValueError, match=r"its md5 is none: no file"):
        opened(name, tmp_path / "root")


class Malicious:
    """Creates a file when it is unpickled."""

    def __init__(self, path: Path):
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("file", ["data_batch_1", "test_batch", "batches.meta"])
def test_a_pickle_that_is_not_the_original_is_not_unpickled(
    file: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_datasets.write_cifar10(tmp_path, monkeypatch)
    path = tmp_path / "cifar-10-batches-py" / file
    path.write_bytes(pickle.dumps(Malicious(tmp_path / "ran")))
    with pytest.raises(ValueError, match=rf"{file} is not CIFAR-10's file"):
        opened("cifar10", tmp_path)
    assert not (tmp_path / "ran").exists()
    pickle.loads(path.read_bytes())
    assert (tmp_path / "ran").exists()  # it would have


def test_cifar_of_torchvision_has_the_same_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_cifar10(tmp_path, monkeypatch)
    theirs = datasets.CIFAR10(tmp_path, train=False)
    ours = opened("cifar10", tmp_path).test
    for i in range(len(ours)):
        image, label = theirs[i]
        assert (ours.original(i).tobytes(), int(ours.labels[i])) == (image.tobytes(), label)


def test_stl10_needs_no_unlabelled_images_even_where_they_are_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_datasets.write_stl10(tmp_path, monkeypatch)
    before = opened("stl10", tmp_path).fingerprint
    (tmp_path / "stl10_binary" / "unlabeled_X.bin").write_bytes(b"cut off")
    assert opened("stl10", tmp_path).fingerprint == before
