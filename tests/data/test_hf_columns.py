"""Columns of images and labels: how they are stored, how they are found, and the classes of every split."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.hf_datasets import BINARY, INT, TEXT, datasets, of_columns, parquet, png
from tests.small_containers import pixels


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
