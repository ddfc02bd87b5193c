"""Imagenette and CelebA in their true layouts, with few images: contents, splits, mistakes."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests import small_datasets
from torchvision import datasets
from torchvision.datasets import utils

from ldbench.core.interfaces import ImageData
from ldbench.data.image_files import ImageFiles
from ldbench.data.torchvision_files import CelebA, Imagenette

SETTINGS: dict[str, Any] = {
    "name": "small",
    "download": False,
    "image_size": 16,
    "fingerprint": "auto",
    "check": "decode",
    "on_error": "raise",
    "subset": None,
    "seed": 0,
    "cache_dir": None,
}
KINDS = {"imagenette": Imagenette, "celeba": CelebA}
FOLDER = {"imagenette": "imagenette2", "celeba": "celeba"}


def opened(name: str, root: Path, **changes: Any) -> ImageFiles:
    own = {"size": "full"} if name == "imagenette" else {}
    return KINDS[name](root=str(root), **{**SETTINGS, **own, **changes})


@pytest.fixture(params=KINDS)
def name(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def root(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(utils, "_urlretrieve", lambda *_: pytest.fail("downloads"))
    small_datasets.WRITERS[name](tmp_path / "root", monkeypatch)
    return tmp_path / "root"


def first_image(root: Path, name: str) -> Path:
    return min((root / FOLDER[name]).rglob("*_0.JPEG" if name == "imagenette" else "*.jpg"))


def test_images_are_those_of_the_files(name: str, root: Path) -> None:
    data = opened(name, root)
    assert isinstance(data, ImageData)
    assert data.label_safe_flips
    for split in (data.train, data.test):
        for i, path in enumerate(split.names):
            with Image.open(root / path) as image:
                assert np.array_equal(np.array(split.original(i)), np.array(image.convert("RGB")))
        assert split[0][0].shape == (3, 16, 16)


def test_imagenette_has_the_splits_and_classes_of_torchvision(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_imagenette(tmp_path, monkeypatch)
    data = opened("imagenette", tmp_path)
    for split, theirs in ((data.train, "train"), (data.test, "val")):
        dataset = datasets.Imagenette(tmp_path, split=theirs)
        assert split.labels.tolist() == [label for _, label in dataset]
        assert [split.original(i).tobytes() for i in range(len(split))] == [image.tobytes() for image, _ in dataset]
        assert data.class_names == tuple(names[0] for names in dataset.classes)
    assert (len(data.train), len(data.test), data.class_names[0]) == (20, 10, "tench")


def test_celeba_has_the_splits_of_torchvision_and_one_class(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_celeba(tmp_path, monkeypatch)
    data = opened("celeba", tmp_path)
    assert (len(data.train), len(data.test), data.class_names) == (4, 2, ("all",))
    assert {*data.train.labels.tolist(), *data.test.labels.tolist()} == {0}
    for split, theirs in ((data.train, "train"), (data.test, "test")):
        dataset = datasets.CelebA(tmp_path, split=theirs)
        assert [split.original(i).tobytes() for i in range(len(split))] == [image.tobytes() for image, _ in dataset]


@pytest.mark.parametrize(("size", "folder"), [("320px", "imagenette2-320"), ("160px", "imagenette2-160")])
def test_the_size_of_imagenette_names_the_folder(
    size: str, folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small_datasets.write_imagenette(tmp_path, monkeypatch, folder=folder)
    assert opened("imagenette", tmp_path, size=size).train.names[0].startswith(f"{folder}/train/n01440764/")
    with pytest.raises(FileNotFoundError, match=r"Imagenette is not in data\.root=.*: there is no imagenette2/train"):
        opened("imagenette", tmp_path)
    with pytest.raises(ValueError, match=r"data\.size is 'small'\. Choose one of full, 320px, 160px\."):
        opened("imagenette", tmp_path, size="small")


def test_celeba_needs_its_images_and_its_splits_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_celeba(tmp_path, monkeypatch)
    before = opened("celeba", tmp_path).fingerprint
    for file in ("identity_CelebA", "list_attr_celeba", "list_bbox_celeba", "list_landmarks_align_celeba"):
        (tmp_path / "celeba" / f"{file}.txt").unlink()
    assert opened("celeba", tmp_path).fingerprint == before


def test_the_fingerprint_covers_contents_and_not_the_place(name: str, root: Path, tmp_path: Path) -> None:
    before = opened(name, root).fingerprint
    shutil.copytree(root, tmp_path / "copy")
    assert opened(name, tmp_path / "copy").fingerprint == before
    assert opened(name, tmp_path / "copy", check="none").fingerprint == before  # few small files: the same in all cases
    path = first_image(tmp_path / "copy", name)
    Image.new("RGB", (40, 30), "red").save(path)
    assert opened(name, tmp_path / "copy").fingerprint != before


def test_a_subset_lists_paths(name: str, root: Path, tmp_path: Path) -> None:
    chosen = opened(name, root).train.names[1]
    (tmp_path / "items.txt").write_text(f"{chosen}\n")
    assert opened(name, root, subset=str(tmp_path / "items.txt")).train.names == (chosen,)


def test_a_damaged_image_is_named_or_left_out(name: str, root: Path) -> None:
    path = first_image(root, name)
    path.write_bytes(path.read_bytes()[:200])
    relative = path.relative_to(root).as_posix()
    with pytest.raises(ValueError, match=rf"1 of .* images in .* cannot be read:\n  {relative}: It is truncated"):
        opened(name, root)
    assert opened(name, root, on_error="skip").skipped == (relative,)
    data = opened(name, root, check="none")
    with pytest.raises(ValueError, match=rf"Cannot read .*{relative} as an image: It is truncated"):
        data.train[data.train.names.index(relative)]


def test_missing_images_are_named(name: str, root: Path) -> None:
    first_image(root, name).unlink()
    expected = {
        "imagenette": (ValueError, r"has 19 training images, and Imagenette has 20\. Remove the folder\. Then unpack"),
        "celeba": (
            FileNotFoundError,
            r"lacks 1 of the 7 images .*, such as 000001\.jpg\. Unpack img_align_celeba\.zip",
        ),
    }
    error, message = expected[name]
    with pytest.raises(error, match=message):
        opened(name, root)


def test_another_list_of_celebas_splits_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small_datasets.write_celeba(tmp_path, monkeypatch)
    partition = tmp_path / "celeba" / "list_eval_partition.txt"
    partition.write_text(partition.read_text().replace(" 2", " 0"))
    with pytest.raises(ValueError, match=r"list_eval_partition\.txt is not CelebA's file: its md5 is"):
        opened("celeba", tmp_path)


def test_roots_that_hold_nothing_are_refused(name: str, root: Path, tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=rf"Set data\.root={root}, which holds {FOLDER[name]}/"):
        opened(name, root / FOLDER[name])
    with pytest.raises(FileNotFoundError, match=r"nowhere is not a folder\. Set data\.root to .*download=true"):
        opened(name, tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"is a file\. Unpack it if it is an archive"):
        opened(name, first_image(root, name))


def test_settings_that_contradict_each_other_are_refused(name: str, root: Path) -> None:
    with pytest.raises(ValueError, match=r"data\.on_error=skip leaves out"):
        opened(name, root, check="none", on_error="skip")
