"""Which files and parts are splits, by their names."""

import pytest

from ldbench.data.split_files import choose_splits, group_files

KEYS = ("train_split", "test_split")


@pytest.mark.parametrize(
    ("names", "groups"),
    [
        (["train-000.tar", "train-001.tar", "val-000.tar"], {"train": 2, "val": 1}),
        ([f"data/{part}-of-00002.parquet" for part in ("train-00000", "train-00001")], {"train": 2}),
        (["train/0000.parquet", "train/0001.parquet", "validation/0000.parquet"], {"train": 2, "validation": 1}),
        (["imagenet-train-{0}.tar", "imagenet_val.tar"], {"imagenet-train-{0}": 1, "imagenet_val": 1}),
        (["0000.tar", "0001.tar"], {"all": 2}),
        (["cats_1.tar", "cats_2.tar"], {"cats": 2}),
    ],
)  # fmt: skip
def test_files_are_grouped_by_their_split(names, groups):
    assert {name: len(files) for name, files in group_files(names).items()} == groups


def choose(*names: str, train: str | None = None, test: str | None = None) -> tuple[str, str | None]:
    return choose_splits({name: name for name in names}, where="here", train=train, test=test, keys=KEYS)


def test_splits_are_chosen_by_their_names():
    assert choose("validation", "train", "test") == ("train", "test")
    assert choose("val", "train") == ("train", "val")
    assert choose("imagenet-train", "imagenet-val") == ("imagenet-train", "imagenet-val")
    assert choose("all") == ("all", None)
    assert choose("train") == ("train", None)
    assert choose("a", "b", train="b", test="a") == ("b", "a")
    assert choose("train", "val", "unlabelled") == ("train", "val")


@pytest.mark.parametrize(
    ("names", "given", "message"),
    [
        (("a", "b"), {}, r"these parts: a, b\. .* for training: set data\.train_split"),
        (("train", "b"), {}, r"held out: set data\.test_split"),
        (("test",), {}, "held-out by its name"),
        (("train", "test"), {"test": "val"}, r"data\.test_split=val is not in here\. Choose one of train, test"),
        (("train", "test"), {"train": "train", "test": "train"}, "are both train"),
        (("train_a", "train_b", "test"), {}, "for training"),
    ],
)
def test_unclear_splits_are_refused(names, given, message):
    with pytest.raises(ValueError, match=message):
        choose(*names, **given)
