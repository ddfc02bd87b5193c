"""Which files make up which split, with files of which only the names count."""

import logging
import shutil
import unicodedata
from collections import Counter
from pathlib import Path

import pytest

from ldbench.data.layouts import File, find_splits
from ldbench.io.files import mark_outputs


def _write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"image")


def _splits(root: Path, layout: str = "auto", test_fraction: float | None = 0.2) -> tuple[list[File], list[File]]:
    return find_splits(root, layout=layout, test_fraction=test_fraction)


def _paths(files: list[File]) -> list[str]:
    return [file.path for file in files]


def _labels(files: list[File]) -> Counter[str]:
    return Counter(file.label for file in files)


@pytest.fixture
def pets(tmp_path) -> Path:
    """Ten cats and twenty dogs, some of them nested."""
    _write(
        tmp_path / "pets",
        *(f"cat/{i}.png" for i in range(10)),
        *(f"dog/{'young/' if i < 5 else ''}{i}.PNG" for i in range(20)),
    )
    return tmp_path / "pets"


@pytest.fixture
def divided(tmp_path) -> Path:
    _write(
        tmp_path / "divided",
        *(f"train/{c}/{i}.png" for c in ("cat", "dog") for i in range(4)),
        "val/cat/0.png",
        "val/dog/0.png",
    )
    return tmp_path / "divided"


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Tiny ImageNet, with two classes of three training images, three validation images and a test folder."""
    root = tmp_path / "tiny"
    _write(root, *(f"train/{c}/images/{c}_{i}.JPEG" for c in ("n1", "n2") for i in range(3)))
    _write(root, *(f"val/images/val_{i}.JPEG" for i in range(3)), "test/images/test_0.JPEG", "test/images/test_1.JPEG")
    (root / "train" / "n1" / "n1_boxes.txt").write_text("n1_0.JPEG\t0\t0\t9\t9\n")
    (root / "val" / "val_annotations.txt").write_text(
        "".join(f"val_{i}.JPEG\tn{2 - i % 2}\t0\t0\t9\t9\n" for i in range(3))
    )
    return root


def test_class_folders_alone_are_divided_by_class(pets):
    train, test = _splits(pets)
    assert (_labels(train), _labels(test)) == ({"cat": 8, "dog": 16}, {"cat": 2, "dog": 4})
    assert sorted(_paths(train) + _paths(test)) == sorted(
        path.relative_to(pets).as_posix() for path in pets.rglob("*") if path.is_file()
    )
    assert (_paths(train), _paths(test)) == (sorted(_paths(train)), sorted(_paths(test)))
    assert all(file.path.startswith(f"{file.label}/") and file.num_bytes == len(b"image") for file in train)
    assert (train, test) == _splits(pets, "classes")


def test_train_and_a_held_out_folder_are_used_unchanged(divided):
    train, test = _splits(divided, test_fraction=None)
    assert (len(train), _paths(test)) == (8, ["val/cat/0.png", "val/dog/0.png"])
    _write(divided, "test/dog/0.png")
    assert _splits(divided)[1] == [File("test/dog/0.png", "dog", 5)]  # test comes before val


@pytest.mark.parametrize("layout", ["auto", "classes"])
@pytest.mark.parametrize("unlabeled", ["test/0.png", "test/images/0.png"], ids=["ImageNet", "Tiny ImageNet"])
def test_a_held_out_folder_without_the_classes_is_passed_over_and_logged(divided, layout, unlabeled, caplog):
    _write(divided, unlabeled)
    with caplog.at_level(logging.INFO):
        assert _paths(_splits(divided, layout)[1]) == ["val/cat/0.png", "val/dog/0.png"]
    assert f"{divided / 'test'} is skipped" in caplog.text


def test_train_alone_is_divided(divided):
    shutil.rmtree(divided / "val")
    assert _labels(_splits(divided)[1]) == {"cat": 1, "dog": 1}


def test_a_class_may_be_called_train_or_all(tmp_path):
    _write(tmp_path / "traffic", *(f"{c}/{i}.png" for c in ("plane", "train") for i in range(4)))
    assert _labels(_splits(tmp_path / "traffic")[0]).keys() == {"plane", "train"}
    _write(tmp_path / "single", *(f"all/{i}.png" for i in range(4)))
    assert _splits(tmp_path / "single", "classes") == _splits(tmp_path / "single")


@pytest.mark.parametrize("layout", ["auto", "flat"])
def test_images_without_class_folders_are_of_one_class(tmp_path, layout):
    _write(tmp_path / "flat", *(f"{i}.jpg" for i in range(10)))
    train, test = _splits(tmp_path / "flat", layout)
    assert (_labels(train), _labels(test)) == ({"all": 8}, {"all": 2})
    _write(tmp_path / "both", "train/0.png", "train/1.png", "test/0.png")
    train, test = _splits(tmp_path / "both", layout)
    assert (_labels(train), _paths(test)) == ({"all": 2}, ["test/0.png"])


def test_flat_takes_class_folders_as_one_class(pets, divided):
    assert _labels([file for split in _splits(pets, "flat") for file in split]) == {"all": 30}
    _write(divided, "val/loose.png")
    train, test = _splits(divided, "flat")
    assert (_labels(train), _paths(test)) == ({"all": 8}, ["val/cat/0.png", "val/dog/0.png", "val/loose.png"])


@pytest.mark.parametrize("layout", ["auto", "tinyimagenet"])
def test_tiny_imagenet_has_its_validation_classes_from_the_annotations(tiny, layout):
    train, test = _splits(tiny, layout, test_fraction=None)
    assert _labels(train) == {"n1": 3, "n2": 3}
    assert [(file.path, file.label) for file in test] == [
        (f"val/images/val_{i}.JPEG", f"n{2 - i % 2}") for i in range(3)
    ]


def test_tiny_imagenet_with_a_sorted_val_is_read_by_classes(tiny):
    shutil.rmtree(tiny / "val" / "images")
    _write(tiny, "val/n1/val_0.JPEG", "val/n2/images/val_1.JPEG")
    assert _splits(tiny) == _splits(tiny, "classes")
    assert [(file.path, file.label) for file in _splits(tiny)[1]] == [
        ("val/n1/val_0.JPEG", "n1"),
        ("val/n2/images/val_1.JPEG", "n2"),
    ]
    with pytest.raises(
        ValueError, match=r"val/images is missing.* If val/ is sorted into class folders, set data\.layout=classes"
    ):
        _splits(tiny, "tinyimagenet")


@pytest.mark.parametrize("num_splits", [0, 1, 2])
def test_what_does_not_count_does_not_count(tmp_path, num_splits):
    for prefix in ("train/", "val/")[:num_splits] or ("",):
        _write(tmp_path, *(f"{prefix}{c}/{i}.png" for c in ("cat", "dog") for i in range(4)))
    before = _splits(tmp_path)
    folder = tmp_path / ("train" if num_splits else "")
    _write(folder, "cat/notes.txt", "cat/.hidden.png", ".cache/0.png", "readme.md", "cat/._0.png")
    assert _splits(tmp_path) == before


@pytest.mark.parametrize("ending", [".jfif", ".jpe", ".pgm", ".avif", ".PNM", ".tga"])
def test_all_endings_that_can_be_read_are_read(tmp_path, ending):
    _write(tmp_path, *(f"{index}.jpg" for index in range(4)), f"x{ending}")
    assert len([file for split in _splits(tmp_path) for file in split]) == 5


def test_other_files_are_counted_by_their_endings(tmp_path, caplog):
    _write(tmp_path, *(f"{index}.jpg" for index in range(4)), "a.heic", "b.HEIC", "notes.txt", "README", ".hidden.heic")
    with caplog.at_level(logging.INFO, logger="ldbench"):
        assert len([file for split in _splits(tmp_path) for file in split]) == 4
    assert f"4 files in {tmp_path} are left out, by their endings: .heic (2), .txt (1), none (1)." in caplog.text


def test_a_name_with_accents_is_one_class_however_it_is_encoded(tmp_path):
    composed, split = (unicodedata.normalize(form, "café") for form in ("NFC", "NFD"))
    _write(tmp_path, *(f"train/{composed}/{index}.png" for index in range(2)), f"test/{split}/0.png")
    train, test = _splits(tmp_path)
    assert _labels(train + test) == {composed: 3}
    assert test[0].path == f"test/{split}/0.png"


def test_outputs_are_no_data(pets):
    before = _splits(pets)
    for folder in ("artifacts", "runs/sweeps", "cat/shown"):
        _write(pets, f"{folder}/vmae-01/images/0.png", f"{folder}/1.png")
        mark_outputs(pets / folder.partition("/")[0] if folder != "cat/shown" else pets / folder)
    assert _splits(pets) == before
    flat = _splits(pets, "flat")
    assert sorted(_paths(flat[0] + flat[1])) == sorted(_paths(before[0] + before[1]))
    mark_outputs(pets)
    with pytest.raises(ValueError, match=r"holds what ldbench writes, see .*\.ldbench\. Set data\.root to the folder"):
        _splits(pets)


def test_links_are_followed(divided, tmp_path):
    (tmp_path / "linked").mkdir()
    for part in ("train", "val"):
        (tmp_path / "linked" / part).symlink_to(divided / part)
    assert _splits(tmp_path / "linked") == _splits(divided)
