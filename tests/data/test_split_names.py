"""Which folders are splits: by their names and by what they share, and what is refused."""

from pathlib import Path

import pytest

from ldbench.data.layouts import find_splits


def written(root: Path, *folders: str, each: int = 4) -> Path:
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for index in range(each):
            (root / folder / f"{index}.png").write_bytes(b"image")
    return root


def splits(root: Path, **settings: object) -> tuple[set[str], set[str], set[str]]:
    """The top folders of the training files and of the held-out ones, and the classes."""
    train, test = find_splits(root, **{"layout": "auto", "test_fraction": 0.25, **settings})
    tops = [{file.path.partition("/")[0] for file in files} for files in (train, test)]
    return *tops, {file.label for file in (*train, *test)}


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("Train", "Val"),
        ("TRAIN", "TEST"),
        ("train", "eval"),
        ("training", "validation"),
        ("train", "dev"),
        ("train", "images_test"),
        ("train2017", "val2017"),
        ("imagesTrain", "imagesTest"),
        ("ILSVRC2012_img_train", "ILSVRC2012_img_val"),
        ("train", "held-out"),
        ("trainset", "testset"),
        ("Training Set", "Evaluation Set"),
        ("trainval", "test"),
    ],
)
def test_two_folders_that_share_a_class_are_splits_by_their_names(tmp_path, train, held_out):
    written(tmp_path, *(f"{top}/{label}" for top in (train, held_out) for label in ("cat", "dog")))
    for layout in ("auto", "classes"):
        assert splits(tmp_path, layout=layout) == ({train}, {held_out}, {"cat", "dog"})
    assert splits(tmp_path, layout="flat") == ({train}, {held_out}, {"all"})


def test_of_several_held_out_folders_the_usual_one_is_taken(tmp_path):
    written(tmp_path, *(f"{top}/{label}" for top in ("Train", "Dev", "Val", "Test") for label in ("cat", "dog")))
    assert splits(tmp_path)[:2] == ({"Train"}, {"Test"})


def test_splits_without_classes_are_splits_too(tmp_path):
    written(tmp_path, "Train", "Validation")
    assert splits(tmp_path) == ({"Train"}, {"Validation"}, {"all"})


def test_names_alone_make_no_splits(tmp_path):
    written(tmp_path / "traffic", "plane", "train", "test tube")
    assert splits(tmp_path / "traffic")[2] == {"plane", "train", "test tube"}
    written(tmp_path / "nested", "train/fast", "train/slow", "eval/paper")
    assert splits(tmp_path / "nested")[2] == {"train", "eval"}


def test_a_training_folder_alone_is_divided(tmp_path):
    written(tmp_path, "Training/cat", "Training/dog")
    assert splits(tmp_path) == ({"Training"}, {"Training"}, {"cat", "dog"})


@pytest.mark.parametrize("names", [("first", "second"), ("train", "rest"), ("part1", "part2", "part3")])
def test_unknown_names_over_the_same_classes_are_refused_with_the_keys_that_answer(tmp_path, names):
    written(tmp_path, *(f"{top}/{label}" for top in names for label in ("cat", "dog")))
    with pytest.raises(
        ValueError, match=r"hold folders of the same names \(cat, dog\).*data\.layout=classes"
    ) as refused:
        splits(tmp_path)
    answer = f"data.train_folder={names[0]} data.test_folder={names[1]}"
    assert answer in str(refused.value)
    assert splits(tmp_path, train_folder=names[0], test_folder=names[1]) == ({names[0]}, {names[1]}, {"cat", "dog"})
    assert splits(tmp_path, layout="classes")[2] == {*names}
    assert splits(tmp_path, layout="flat")[2] == {"all"}


def test_several_training_folders_are_refused(tmp_path):
    written(tmp_path, *(f"{top}/{label}" for top in ("train_a", "train_b", "test") for label in ("cat", "dog")))
    with pytest.raises(ValueError, match=r"train_a/ and test/ .*data\.train_folder=train_a data\.test_folder=test"):
        splits(tmp_path)


def test_classes_may_each_have_a_folder_of_one_name(tmp_path):
    written(tmp_path, "cat/images", "dog/images")
    assert splits(tmp_path)[2] == {"cat", "dog"}


def test_a_folder_around_the_splits_is_refused(tmp_path):
    written(tmp_path, "pets/Train/cat", "pets/Val/cat")
    with pytest.raises(ValueError, match=r"no folder but pets/, which holds Train/ and more\. Set data\.root=.*pets"):
        splits(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"train_folder": "a"}, "name the splits together"),
        ({"train_folder": "a", "test_folder": "a"}, "name the splits together"),
        ({"train_folder": "a", "test_folder": "c"}, r"data\.test_folder: .*c is not a folder\. It has: a, b"),
    ],
)
def test_folders_of_splits_are_named_together_and_exist(tmp_path, settings, message):
    written(tmp_path, "a/cat", "b/cat")
    with pytest.raises(ValueError, match=message):
        splits(tmp_path, **settings)
