"""Datasets of Hugging Face: folders of parquet files and of save_to_disk, the hub; columns, splits, labels, faults."""

import pickle
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small_containers import encoded, pixels
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.data import hf_loading
from ldbench.data.fingerprints import images_fingerprint, pixels_digest
from ldbench.data.hf import HuggingFace

datasets = pytest.importorskip("datasets", reason="datasets is not installed: pip install 'ldbench[datasets]'")

SETTINGS = {
    "name": "hf",
    "revision": None,
    "config_name": None,
    "streaming": False,
    "image_size": 8,
    "image_column": None,
    "label_column": None,
    "one_class": False,
    "train_split": None,
    "test_split": None,
    "test_fraction": 0.25,
    "label_safe_flips": True,
    "check": "decode",
    "fingerprint": "content",
    "on_error": "raise",
    "subset": None,
    "seed": 0,
}


@pytest.fixture
def hf(tmp_path: Path):
    """Opens a dataset with a cache of its own."""

    def opened(root: Path | str, **changes) -> HuggingFace:
        return HuggingFace(root=str(root), **{**SETTINGS, "cache_dir": str(tmp_path / "cache"), **changes})

    return opened


def rows(first: int, count: int, **columns: Any) -> Any:
    """A dataset of encoded images with labels in turn."""
    names = datasets.ClassLabel(names=["cat", "dog"])
    features = datasets.Features({"image": datasets.Image(), "label": names})
    content = {
        "image": [{"bytes": encoded(i), "path": None} for i in range(first, first + count)],
        "label": [i % 2 for i in range(first, first + count)],
    }
    made = datasets.Dataset.from_dict(content, features=features)
    for name, values in columns.items():
        made = made.add_column(name, values)
    return made


def parquet(folder: Path, **splits: Any) -> Path:
    """A folder of one parquet file a split."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, made in splits.items():
        made.to_parquet(folder / f"{name}-00000-of-00001.parquet")
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return parquet(tmp_path / "parquet", train=rows(0, 8), test=rows(100, 3))


def of_columns(folder: Path, content: dict[str, list], features: dict[str, Any], *, splits=("train", "test")) -> Path:
    """Splits of the same rows."""
    made = datasets.Dataset.from_dict(content, features=datasets.Features(features))
    return parquet(folder, **dict.fromkeys(splits, made))


def test_the_contract_is_met(folder, hf):
    data = hf(folder)
    assert isinstance(data, ImageData)
    assert (data.num_classes, data.class_names, len(data.train), len(data.test)) == (2, ("cat", "dog"), 8, 3)
    image, label = data.train[5]
    assert (image.shape, image.dtype, label, type(label)) == ((3, 8, 8), torch.float32, 1, int)


def test_items_are_in_the_order_of_the_rows_and_exact(folder, hf):
    data = hf(folder)
    for place in (7, 0, 3):
        assert np.array_equal(np.array(data.train.original(place)), pixels(place))
        assert data.train.encoded(place) == (encoded(place), ".png")
        assert data.train.labels[place] == place % 2
    pairs = [
        [(int(split.labels[i]), pixels_digest(split.original(i))) for i in range(len(split))]
        for split in (data.train, data.test)
    ]
    assert data.fingerprint == images_fingerprint(*pairs, image_size=8, num_classes=2)


def test_parquet_and_what_save_to_disk_wrote_are_the_same_data(folder, hf, tmp_path):
    both = datasets.DatasetDict({"train": rows(0, 8), "test": rows(100, 3)})
    both.save_to_disk(tmp_path / "saved")
    assert hf(tmp_path / "saved").fingerprint == hf(folder).fingerprint
    rows(0, 8).save_to_disk(tmp_path / "one")
    parquet(tmp_path / "alone", train=rows(0, 8))
    assert hf(tmp_path / "one").fingerprint == hf(tmp_path / "alone").fingerprint
    assert (len(hf(tmp_path / "one").train), len(hf(tmp_path / "one").test)) == (6, 2)


def test_many_files_are_one_split_in_their_order(folder, hf, tmp_path):
    (tmp_path / "many" / "data").mkdir(parents=True)
    for number, first in enumerate((0, 3, 6)):
        made = rows(first, 3 if first < 6 else 2)
        made.to_parquet(tmp_path / "many" / "data" / f"train-0000{number}-of-00003.parquet")
    (tmp_path / "many" / "validation").mkdir()
    rows(100, 3).to_parquet(tmp_path / "many" / "validation" / "0000.parquet")
    assert hf(tmp_path / "many").fingerprint == hf(folder).fingerprint


@pytest.mark.parametrize("below", ["", "/data", "/train"])
def test_configurations_in_folders_of_their_own_are_not_merged(below, folder, hf, tmp_path):
    several = tmp_path / "several"
    for name, first in (("full_size", 0), ("160px", 50)):
        parquet(several / f"{name}{below}", train=rows(first, 8))
        parquet(several / name, validation=rows(first + 100, 3))
    with pytest.raises(
        ValueError,
        match=r"split train of .*several has files in several folders: \S+several/160px, \S+several/full_size\. .*"
        r"Set data\.root to one of them",
    ):
        hf(several)
    assert hf(several / "full_size").fingerprint == hf(folder).fingerprint


def test_folders_of_data_and_of_splits_are_of_one_dataset(folder, hf, tmp_path):
    one = tmp_path / "one"
    for place, first in (("data/train-0", 0), ("train/train-1", 3), ("train-2", 6), ("test/0000", 100)):
        (one / place).parent.mkdir(parents=True, exist_ok=True)
        rows(first, 3 if first != 6 else 2).to_parquet(one / f"{place}.parquet")
    data = hf(one)
    assert (len(data.train), len(data.test)) == (8, 3)
    parquet(one / "more", train=rows(8, 2))
    with pytest.raises(ValueError, match=r"in several folders: \S+one/data, \S+one/more\."):
        hf(one)


def test_splits_may_be_named(folder, hf, tmp_path):
    named = parquet(tmp_path / "named", train=rows(0, 8), test=rows(100, 3), validation=rows(200, 2))
    assert len(hf(named).test) == 3
    data = hf(named, train_split="validation", test_split="train")
    assert (len(data.train), len(data.test)) == (2, 8)
    with pytest.raises(ValueError, match=r"data\.test_split=val is not in .* Choose one of test, train, validation"):
        hf(named, test_split="val")


def png(i: int) -> bytes:
    return encoded(i)


BINARY, TEXT, INT = "binary", "string", "int64"


@pytest.mark.parametrize("kind", ["binary", "struct", "array3d", "list", "path", "image of paths"])
def test_images_may_be_stored_in_many_ways(kind, folder, hf, tmp_path):
    value = datasets.Value
    held = tmp_path / "files"
    held.mkdir()
    for i in (*range(8), *range(100, 103)):
        (held / f"{i}.png").write_bytes(png(i))
    ways: dict[str, tuple[Any, Any]] = {
        "binary": (value(BINARY), png),
        "struct": ({"bytes": value(BINARY), "path": value(TEXT)}, lambda i: {"bytes": png(i), "path": f"{i}.png"}),
        "array3d": (datasets.Array3D((10, 12, 3), "uint8"), pixels),
        "list": (datasets.List(datasets.List(datasets.List(value("uint8")))), lambda i: pixels(i).tolist()),
        "path": (value(TEXT), lambda i: f"../files/{i}.png"),
        "image of paths": (
            datasets.Image(decode=False),
            lambda i: {"path": f"{tmp_path}/files/{i}.png", "bytes": None},
        ),
    }
    feature, make = ways[kind]
    for split, numbers in (("train", range(8)), ("test", range(100, 103))):
        content = {"img": [make(i) for i in numbers], "label": [i % 2 for i in numbers]}
        features = datasets.Features({"img": feature, "label": datasets.ClassLabel(names=["cat", "dog"])})
        made = datasets.Dataset.from_dict(content, features=features)
        parquet(tmp_path / "made", **{split: made})
    data = hf(tmp_path / "made")
    assert data.fingerprint == hf(folder).fingerprint
    assert torch.equal(data.test[2][0], hf(folder).test[2][0])
    content, extension = data.train.encoded(3)
    assert extension == ".png"
    if "array" not in kind and kind != "list":
        assert content == png(3)


def test_arrays_without_color_are_gray(hf, tmp_path):
    gray = np.arange(80, dtype=np.uint8).reshape(8, 10)
    features = {"image": datasets.Array2D((8, 10), "uint8"), "label": datasets.Value(INT)}
    data = hf(of_columns(tmp_path / "gray", {"image": [gray] * 2, "label": [0, 1]}, features))
    assert np.array_equal(np.array(data.train.original(0)), np.repeat(gray[..., None], 3, axis=2))


@pytest.mark.parametrize(
    ("values", "names"),
    [([0, 2, 1, 0], ("0", "1", "2")), (["owl", "bee", "owl", "ant"], ("ant", "bee", "owl"))],
)
def test_labels_may_be_numbers_or_names(values, names, hf, tmp_path):
    kind = datasets.Value(INT if isinstance(values[0], int) else TEXT)
    features = {"image": datasets.Image(), "fine_label": kind}
    content = {"image": [{"bytes": png(i), "path": None} for i in range(4)], "fine_label": values}
    data = hf(of_columns(tmp_path / "made", content, features))
    assert data.class_names == names
    assert [names[label] for label in data.train.labels.tolist()] == list(map(str, values))


def test_columns_that_are_not_clear_are_listed(folder, hf, tmp_path):
    image, label = datasets.Image(), datasets.ClassLabel(names=["a", "b"])
    held = [{"bytes": png(i), "path": None} for i in range(2)]
    labels = {"label": ([0, 1], label)}

    def made(name: str, **columns: tuple[list, Any]) -> Path:
        content, features = ({key: pair[i] for key, pair in columns.items()} for i in (0, 1))
        return of_columns(tmp_path / name, content, features)

    two = made("two", first=(held, image), second=(held, image), **labels)
    with pytest.raises(ValueError, match=r"columns of images\. It has: first: .*; second: .*data\.image_column=NAME"):
        hf(two)
    assert len(hf(two, image_column="second").train) == 2
    fine = made("fine", image=(held, image), fine=([0, 1], label), coarse=([0, 0], label))
    with pytest.raises(ValueError, match=r"several columns of labels.*fine: ClassLabel of 2.*data\.label_column=NAME"):
        hf(fine)
    assert hf(fine, label_column="coarse").train.labels.tolist() == [0, 0]
    none = made("none", image=(held, image), caption=(["x", "y"], datasets.Value(TEXT)))
    with pytest.raises(ValueError, match=r"no column of labels.*data\.one_class=true"):
        hf(none)
    assert hf(none, one_class=True).class_names == ("all",)
    with pytest.raises(ValueError, match=r"data\.image_column=picture is no column of .* It has: image"):
        hf(folder, image_column="picture")
    with pytest.raises(ValueError, match=r"The column label of .* holds ClassLabel of 2, and no images"):
        hf(folder, image_column="label")


def labelled(folder: Path, **splits: tuple[list, Any]) -> Path:
    """Splits of (labels, their type)."""
    for name, (labels, kind) in splits.items():
        content = {"image": [{"bytes": png(i), "path": None} for i in range(len(labels))], "label": labels}
        of_columns(folder, content, {"image": datasets.Image(), "label": kind}, splits=(name,))
    return folder


def classes(*names: str) -> Any:
    return datasets.ClassLabel(names=[*names])


def test_labels_that_the_splits_number_otherwise_are_found_by_their_names(hf, tmp_path):
    cats, text, number = classes("cat", "dog", "owl"), datasets.Value(TEXT), datasets.Value(INT)
    wanted = ("cat", "dog", "owl"), [0, 1, 2, 0], [0, 2, 0]
    for test in (
        ([1, 2, 1], classes("dog", "cat", "owl")),
        ([0, 1, 0], classes("cat", "owl")),  # a class that has no images there
        ([1, 2, 1], classes("ant", "cat", "owl")),  # a name without images
        (["cat", "owl", "cat"], text),
        ([0, 2, 0], number),
    ):
        for train in (([0, 1, 2, 0], cats), (["cat", "dog", "owl", "cat"], text)):
            if (test[1], train[1]) == (number, text):
                continue
            data = hf(labelled(tmp_path / "made", train=train, test=test))
            assert (data.class_names, data.train.labels.tolist(), data.test.labels.tolist()) == wanted
    data = hf(labelled(tmp_path / "made", train=([0, 2, 1], classes("dog", "owl", "cat")), test=([0, 1], cats)))
    assert (data.class_names, data.test.labels.tolist()) == (("dog", "owl", "cat"), [2, 0])
    data = hf(labelled(tmp_path / "made", train=([0, 1], number), test=([0, 1], classes("no", "yes"))))
    assert (data.class_names, data.test.labels.tolist()) == (("0", "1"), [0, 1])


def test_a_class_that_the_training_split_lacks_is_named(hf, tmp_path):
    text, number = datasets.Value(TEXT), datasets.Value(INT)
    for train, test, label in (
        (([0, 1], classes("cat", "dog")), ([1, 0], classes("cat", "bee")), "'bee'"),
        (([0, 1], classes("cat", "dog")), (["cat", "bee"], text), "'bee'"),
        ((["cat", "dog"], text), (["cat", "bee"], text), "'bee'"),
        ((["cat", "dog"], text), ([0, 1], number), "0"),
    ):
        made = labelled(tmp_path / "made", train=train, test=test)
        message = (
            rf"of the split test has the label {label} in label, .* 2 classes of the split train: cat, dog\. Choose"
        )
        with pytest.raises(ValueError, match=message):
            hf(made)
        assert hf(made, one_class=True).class_names == ("all",)


def test_a_split_that_lacks_a_column_is_named(folder, hf, tmp_path):
    held = [{"bytes": png(i), "path": None} for i in range(2)]
    other = {"img": datasets.Image(), "label": classes("cat", "dog")}
    of_columns(folder, {"img": held, "label": [0, 1]}, other, splits=("test",))
    with pytest.raises(
        ValueError,
        match=r"split test of .* no column image, .* its images\. It has: img: .*; label: ClassLabel of 2\. ",
    ):
        hf(folder)
    of_columns(folder, {"image": held}, {"image": datasets.Image()}, splits=("test",))
    with pytest.raises(
        ValueError, match=r"split test of .* no column label, .* its labels\. .*data\.label_column=NAME"
    ):
        hf(folder)
    assert len(hf(folder, one_class=True).test) == 2
    of_columns(
        folder,
        {"image": [1.0], "label": [0]},
        {"image": datasets.Value("float32"), "label": other["label"]},
        splits=("test",),
    )
    with pytest.raises(ValueError, match=r"The column image of .*, split test holds float32, and no images"):
        hf(folder)


def test_splits_may_store_images_in_different_ways(folder, hf):
    before = hf(folder)
    content = {"image": [pixels(i) for i in range(100, 103)], "label": [i % 2 for i in range(100, 103)]}
    features = {"image": datasets.Array3D((10, 12, 3), "uint8"), "label": classes("cat", "dog")}
    of_columns(folder, content, features, splits=("test",))
    assert hf(folder).fingerprint == before.fingerprint


@pytest.mark.parametrize("value", [-1, None, 7])
def test_a_label_that_is_no_class_is_named(value, hf, tmp_path):
    kind = datasets.Value(INT) if value == -1 else datasets.ClassLabel(names=["a", "b"])
    content = {"image": [{"bytes": png(i), "path": None} for i in range(4)], "label": [0, 1, 0, 1]}
    made = datasets.Dataset.from_dict(content, features=datasets.Features({"image": datasets.Image(), "label": kind}))
    wrong = made.data.table.set_column(1, "label", [[0, 1, value, 1]])
    wrong = wrong.replace_schema_metadata(made.features.arrow_schema.metadata)
    import pyarrow.parquet as pq

    parquet(tmp_path / "made", train=made)
    pq.write_table(wrong, tmp_path / "made" / "test-0.parquet")
    with pytest.raises(ValueError, match=r"Row 2 of the split test has (no label|the label (-1|7))"):
        hf(tmp_path / "made")


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (np.zeros((4, 4, 4), dtype=np.int64), r"It has the shape \(4, 4, 4\)"),
        (np.full((4, 4, 3), 300), "Its numbers, of type int64, are not whole ones from 0 to 255"),
        (np.full((4, 4, 3), -1), "Its numbers, of type int64, are not whole ones from 0 to 255"),
    ],
)
def test_arrays_that_are_no_images_are_named(value, reason, hf, tmp_path):
    features = {"image": datasets.Array3D(value.shape, "int64"), "label": datasets.Value(INT)}
    made = of_columns(tmp_path / "made", {"image": [value] * 2, "label": [0, 1]}, features)
    with pytest.raises(ValueError, match=rf"4 of 4 images .*(.|\n)*split train, row 0: {reason}"):
        hf(made)


def test_an_unreadable_image_is_an_error_or_left_out(hf, tmp_path):
    broken = rows(0, 8)
    content = {"image": [{"bytes": png(i), "path": None} for i in range(8)], "label": broken["label"][:]}
    content["image"][2] = {"bytes": b"no image", "path": None}
    content["image"][3] = None
    made = datasets.Dataset.from_dict(content, features=broken.features)
    parquet(tmp_path / "made", train=made, test=rows(100, 2))
    with pytest.raises(ValueError, match=r"2 of 10 (.|\n)*row 2: It is not an image(.|\n)*row 3: The row has no image"):
        hf(tmp_path / "made")
    data = hf(tmp_path / "made", on_error="skip")
    assert (len(data.train), len(data.skipped)) == (6, 2)
    with pytest.raises(ValueError, match=r"Cannot read .*split train, row 3: The row has no image"):
        hf(tmp_path / "made", check="none", fingerprint="sample")
    content["image"][3] = {"bytes": png(3), "path": None}
    parquet(tmp_path / "made", train=datasets.Dataset.from_dict(content, features=broken.features))
    lazily = hf(tmp_path / "made", check="none", fingerprint="sample")
    with pytest.raises(ValueError, match=r"Cannot read .*split train, row 2 as an image"):
        lazily.train[2]


def test_images_are_decoded_once(folder, hf, monkeypatch):
    before = hf(folder)
    monkeypatch.setattr("ldbench.data.encoded_images.read_image", lambda *_: pytest.fail("decodes again"))
    assert hf(folder).fingerprint == before.fingerprint


def test_a_file_that_changes_is_decoded_again(folder, hf):
    before = hf(folder).fingerprint
    parquet(folder, train=rows(1, 8))
    assert hf(folder).fingerprint != before


def test_files_beside_the_rows_are_not_taken_from_the_cache(hf, tmp_path):
    content = {"image": [{"path": f"{tmp_path}/{i}.png", "bytes": None} for i in range(4)], "label": [0, 1, 0, 1]}
    for i in range(4):
        (tmp_path / f"{i}.png").write_bytes(png(i))
    features = {"image": datasets.Image(decode=False), "label": datasets.Value(INT)}
    made = of_columns(tmp_path / "made", content, features)
    before = hf(made).fingerprint
    (tmp_path / "2.png").write_bytes(png(9))
    assert hf(made).fingerprint != before


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_items(folder, hf, start):
    data = hf(folder)
    direct = torch.stack([data.train[i][0] for i in range(8)])
    loader = DataLoader(data.train, batch_size=4, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat([images for images, _ in loader]), direct)
    assert torch.equal(pickle.loads(pickle.dumps(data.test))[1][0], data.test[1][0])


def test_a_stream_is_refused(folder, hf, monkeypatch):
    with pytest.raises(ValueError, match=r"Streams .* order is not exact.* data\.streaming=false"):
        hf(folder, streaming=True)
    monkeypatch.setattr(datasets, "load_dataset", lambda *_, **__: {"train": rows(0, 8).to_iterable_dataset()})
    with pytest.raises(ValueError, match="order is not exact"):
        hf("owner/name")


def test_an_id_of_the_hub_is_loaded_at_its_revision(folder, hf, monkeypatch):
    asked = []

    def load(path: str, **settings: Any) -> Any:
        asked.append((path, settings))
        return datasets.DatasetDict({"train": rows(0, 8), "test": rows(100, 3)})

    monkeypatch.setattr(datasets, "load_dataset", load)
    for root in ("hf://owner/name", "hf://datasets/owner/name", "owner/name"):
        data = hf(root, revision="0123abc", config_name="full")
        assert asked.pop() == ("owner/name", {"name": "full", "revision": "0123abc"})
    monkeypatch.undo()
    assert data.fingerprint == hf(folder).fingerprint


def test_a_hub_that_cannot_be_reached_is_a_sentence(hf, monkeypatch):
    def load(*_: Any, **__: Any) -> Any:
        raise ConnectionError("Couldn't reach 'owner/name' on the Hub (offline)")

    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ValueError, match=r"owner/name cannot be read: Couldn't .* no folder here, .*data\.root=DIR"):
        hf("owner/name")


def test_folders_that_hold_no_dataset_are_named(folder, hf, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*none is not a folder\. .*hf://OWNER/NAME"):
        hf(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"holds no \.parquet files"):
        hf(tmp_path / "empty")
    with pytest.raises(ValueError, match=r"data\.revision and data\.config_name have no effect"):
        hf(folder, revision="main")
    (folder / "test-00000-of-00001.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(ValueError, match=r"parquet cannot be read: .*[Pp]arquet"):
        hf(folder)


def test_the_package_is_named_where_it_is_missing(folder, hf, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ValueError, match=r"pip install 'ldbench\[datasets\]'"):
        hf(folder)


def test_bars_are_left_as_they_were(folder, hf):
    datasets.enable_progress_bars()
    with hf_loading.bars_in_terminals(datasets):
        assert datasets.is_progress_bar_enabled() == sys.stderr.isatty()
    assert datasets.is_progress_bar_enabled()


def test_jpegs_are_decoded_as_in_a_folder(hf, tmp_path):
    content = {"image": [{"bytes": encoded(i, "JPEG"), "path": None} for i in range(2)], "label": [0, 1]}
    features = {"image": datasets.Image(), "label": datasets.Value(INT)}
    data = hf(of_columns(tmp_path / "made", content, features))
    (tmp_path / "1.jpg").write_bytes(encoded(1, "JPEG"))
    with Image.open(tmp_path / "1.jpg") as image:
        assert np.array_equal(np.array(data.train.original(1)), np.array(image))
    assert data.train.encoded(1) == (encoded(1, "JPEG"), ".jpg")
