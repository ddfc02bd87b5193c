"""Tar shards in a local folder: order, labels, splits, faults."""

import json
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.small_containers import encoded, pixels, samples, write_shards, write_tar
from tests.small_shards import SETTINGS, shards
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.data.fingerprints import images_fingerprint, pixels_digest


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SETTINGS, "cache_dir", str(tmp_path / "cache"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_shards(tmp_path / "shards")


def test_the_contract_is_met(folder):
    data = shards(folder)
    assert isinstance(data, ImageData)
    assert (data.num_classes, data.class_names, len(data.train), len(data.test)) == (2, ("0", "1"), 8, 2)
    image, label = data.train[5]
    assert (image.shape, image.dtype, label, type(label)) == ((3, 8, 8), torch.float32, 1, int)


def test_items_are_in_the_order_of_the_shards_and_exact(folder):
    data = shards(folder)
    assert data.train.labels.tolist() == [0, 1] * 4
    for place in (7, 0, 3):
        assert np.array_equal(np.array(data.train.original(place)), pixels(place))
        assert data.train.encoded(place) == (encoded(place), ".png")
    assert np.array_equal(np.array(data.test.original(1)), pixels(101))


def test_the_fingerprint_is_that_of_the_pixels_labels_and_order(folder):
    data = shards(folder)
    pairs = [
        [(int(split.labels[i]), pixels_digest(split.original(i))) for i in range(len(split))]
        for split in (data.train, data.test)
    ]
    assert data.fingerprint == images_fingerprint(*pairs, image_size=8, num_classes=2)
    assert shards(folder, check="none").fingerprint == data.fingerprint
    others = [
        shards(folder, **change).fingerprint
        for change in ({"image_size": 4}, {"subset": 0.5}, {"fingerprint": "bytes"}, {"fingerprint": "sample"})
    ]
    assert len({data.fingerprint, *others[:3]}) == 4
    assert others[2] == others[3]  # up to 1000 images


@pytest.mark.parametrize("fingerprint", ["content", "bytes", "sample"])
def test_another_pixel_and_another_label_are_other_data(folder, fingerprint):
    before = shards(folder, fingerprint=fingerprint, check="none").fingerprint
    changed = []
    for key, content in (("00000002.png", encoded(77)), ("00000002.cls", b"1")):
        write_tar(folder / "train-000.tar", samples(0, 4) | {key: content})
        changed.append(shards(folder, fingerprint=fingerprint, check="none", index="rebuild").fingerprint)
    assert len({before, *changed}) == 3


@pytest.mark.parametrize("start", ["fork", "spawn"])
def test_workers_read_the_same_items(folder, start):
    data = shards(folder)
    direct = torch.stack([data.train[i][0] for i in range(8)])
    loader = DataLoader(data.train, batch_size=4, num_workers=2, multiprocessing_context=start)
    assert torch.equal(torch.cat([images for images, _ in loader]), direct)


def test_a_split_may_be_pickled(folder):
    data = shards(folder)
    assert torch.equal(pickle.loads(pickle.dumps(data.test))[1][0], data.test[1][0])


@pytest.mark.parametrize("pattern", ["*.tar", "train-{000..001}.tar", "train-00?.tar"])
def test_the_root_may_name_shards(folder, pattern):
    data = shards(folder / pattern)
    if pattern == "*.tar":
        assert (len(data.train), len(data.test)) == (8, 2)
    else:
        assert (len(data.train), len(data.test)) == (6, 2)
        assert sorted([*data.train.labels.tolist(), *data.test.labels.tolist()]) == [0] * 4 + [1] * 4


def test_splits_are_found_in_folders_and_by_patterns(folder, tmp_path):
    for name, split in (("train-000.tar", "train"), ("train-001.tar", "train"), ("val-000.tar", "val")):
        path = tmp_path / "nested" / split / name.split("-")[1]
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(folder / name, path)
    nested = shards(tmp_path / "nested")
    assert nested.fingerprint == shards(folder).fingerprint
    named = shards(folder, train_shards="train-001.tar", test_shards="train-000.tar")
    assert np.array_equal(np.array(named.train.original(0)), pixels(4))


def test_class_names_stand_beside_the_shards_or_in_them(folder, tmp_path):
    (folder / "classes.txt").write_text("cat\ndog\nfox\n")
    assert shards(folder).class_names == ("cat", "dog", "fox")
    (folder / "classes.json").write_text('["Katze", "Hund"]')
    assert shards(folder).class_names == ("Katze", "Hund")
    members = {}
    for i, name in enumerate(["owl", "bee", "owl", "bee"]):
        members |= {f"{i}.png": encoded(i), f"{i}.json": json.dumps({"label": name}).encode()}
    write_tar(tmp_path / "named" / "a-0.tar", members)
    data = shards(tmp_path / "named")
    assert data.class_names == ("bee", "owl")
    members = {}
    for i in range(4):
        fields = {"label": i % 2, "class_name": ["owl", "bee"][i % 2], "kind": 1 - i % 2}
        members |= {f"{i}.png": encoded(i), f"{i}.json": json.dumps(fields).encode()}
    write_tar(tmp_path / "both" / "a-0.tar", members)
    assert shards(tmp_path / "both").class_names == ("owl", "bee")
    held = shards(tmp_path / "both", label_key="kind", test_fraction=0.5)
    assert held.train.labels.tolist() == [
        1 - label for label in shards(tmp_path / "both", test_fraction=0.5).train.labels
    ]


def test_without_labels_all_images_are_one_class(tmp_path):
    write_tar(tmp_path / "a.tar", {f"{i}.jpg": encoded(i, "JPEG") for i in range(4)})
    data = shards(tmp_path, one_class=True)
    assert (data.class_names, len(data.train), len(data.test)) == (("all",), 3, 1)


def test_other_members_do_not_count(folder):
    before = shards(folder).fingerprint
    extra = {"00000002.txt": b"a caption", "00000002.seg.png": b"no image", "._x.png": b"", "__MACOSX/._y.png": b""}
    members = [(name, content) for name, content in samples(0, 4).items()]
    members[6:6] = extra.items()
    write_tar(folder / "train-000.tar", members)
    assert shards(folder, index="rebuild").fingerprint == before


# --- the index


def test_a_shard_that_changed_is_refused_until_the_index_is_rebuilt(folder):
    before = shards(folder).fingerprint
    members = samples(0, 4) | {"00000000.png": encoded(0)[:-1] + b"\x00"}  # of the same length
    members["00000000.cls"] = b"1"
    write_tar(folder / "train-000.tar", members)
    os.utime(folder / "train-000.tar", (1, 1))
    with pytest.raises(ValueError, match=r"train-000\.tar has changed since .*data\.index=rebuild"):
        shards(folder)
    write_tar(folder / "train-000.tar", samples(0, 4) | samples(50, 2))
    with pytest.raises(ValueError, match=r"train-000\.tar has \d+ bytes, and had .* replaced.*data\.index=rebuild"):
        shards(folder)
    assert len(shards(folder, index="rebuild").train) == 10
    assert shards(folder).fingerprint != before


@pytest.mark.parametrize("indexed", [True, False])
@pytest.mark.parametrize("share", [0.2, 0.55, 0.75])  # the end of a tar is empty
def test_a_truncated_shard_is_refused(folder, share, indexed):
    if indexed:
        shards(folder)
    path = folder / "train-001.tar"
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(ValueError, match=r"train-001\.tar.* truncated.*Copy it again"):
        shards(folder)


def test_a_shard_that_ends_between_two_images_is_truncated(folder):
    path = folder / "train-001.tar"
    path.write_bytes(path.read_bytes()[: 2 * 2048])  # after a member, where tar sees no damage
    with pytest.raises(ValueError, match=r"train-001\.tar is truncated"):
        shards(folder)


def test_a_shard_that_becomes_shorter_while_it_is_read_is_named(folder):
    data = shards(folder)
    path = folder / "train-001.tar"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(ValueError, match=r"train-001\.tar: 00000007\.png .*shorter"):
        data.train[7]
    path.unlink()
    with pytest.raises(OSError, match="train-001"):
        data.train[7]


@pytest.mark.parametrize(
    ("members", "message"),
    [
        (
            {"0.png": encoded(0), "0.cls": b"0", "1.png": encoded(1)},
            r"The image 1\.png in .*a\.tar has no label.*1\.cls",
        ),
        ({"0.png": encoded(0), "0.cls": b"-1"}, r"The label of .*a\.tar: 0\.png is '-1', and not a number from 0"),
        ({"0.png": encoded(0), "0.cls": b"99999999999999999999"}, r"is '99999999999999999999', and not a number"),
        ({"0.png": encoded(0), "0.cls": b""}, "has no label"),
        ({"0.cls": b"0"}, r"The key 0 in .*a\.tar has no image, but \.cls"),
        ({"0.png": encoded(0), "0.jpg": encoded(0, "JPEG"), "0.cls": b"0"}, "two images of the key 0"),
        ({"0.png": encoded(0), "0.json": b"{"}, r"0\.json in .*a\.tar is not valid JSON"),
        ({"0.png": encoded(0), "0.json": b'{"label": [1]}'}, r"The label in 0\.json in .* is \[1\]"),
        ({"0.png": encoded(0), "0.json": b'{"size": 1}'}, "has no label"),
        ({"0.png": encoded(0), "0.cls": b"\xff\xfe\x00"}, "is not UTF-8 text"),
    ],
)
def test_samples_that_do_not_fit_are_named(tmp_path, members, message):
    write_tar(tmp_path / "a.tar", members)
    with pytest.raises(ValueError, match=message):
        shards(tmp_path)


def test_a_label_beyond_the_class_names_is_named(folder):
    (folder / "classes.txt").write_text("cat\n")
    with pytest.raises(ValueError, match=r"The label of .*00000001\.png is '1', and not a number from 0 to 0"):
        shards(folder)
    (folder / "classes.json").write_text('{"a": 1}')
    with pytest.raises(ValueError, match=r"classes\.json is no list of class names"):
        shards(folder)


def test_keys_that_stand_twice_are_refused(folder):
    members = [*samples(0, 4).items(), ("00000001.png", encoded(9))]
    write_tar(folder / "train-000.tar", members)
    with pytest.raises(ValueError, match=r"train-000\.tar has the key 00000001 twice"):
        shards(folder)
    write_tar(folder / "train-000.tar", [("0.png", encoded(0)), ("0.png", encoded(1)), ("0.cls", b"0")])
    with pytest.raises(ValueError, match=r"train-000\.tar has 0\.png twice"):
        shards(folder)
    shutil.copy(folder / "train-001.tar", folder / "train-000.tar")
    with pytest.raises(ValueError, match=r"train-000\.tar and train-001\.tar in .* hold the same keys"):
        shards(folder)


def test_a_member_that_is_no_image_is_an_error_or_left_out(folder):
    write_tar(folder / "train-000.tar", samples(0, 4) | {"00000002.png": b"no image", "00000003.png": b""})
    with pytest.raises(ValueError, match=r"2 of 10 images in [^\0]*train-000\.tar: 00000002\.png: It is not an"):
        shards(folder)
    data = shards(folder, on_error="skip")
    assert (len(data.train), len(data.skipped)) == (6, 2)
    lazily = shards(folder, check="none", fingerprint="bytes")
    with pytest.raises(ValueError, match=r"Cannot read .*00000002\.png as an image: .*data\.check=decode"):
        lazily.train[2]


def test_skipping_all_images_of_a_class_is_refused(folder):
    broken = {f"{i:08d}.png": b"no image" for i in (1, 3)}
    write_tar(folder / "train-000.tar", samples(0, 4) | broken)
    (folder / "train-001.tar").unlink()
    with pytest.raises(ValueError, match="leaves the training split without any image of the class with label 1"):
        shards(folder, on_error="skip")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"check": "some"}, r"data\.check is 'some'"),
        ({"fingerprint": "auto"}, r"data\.fingerprint is 'auto'\. Choose content or bytes or sample"),
        ({"check": "none", "on_error": "skip"}, r"Set data\.check=decode"),
        ({"image_size": 0}, r"data\.image_size is 0"),
        ({"index": "none"}, r"data\.index is 'none'"),
        ({"test_shards": "val-*.tar"}, r"data\.test_shards=.* is set alone"),
        ({"train_shards": "*.tar", "test_shards": "val-*.tar"}, r"val-000\.tar is in both splits"),
        ({"label_key": "kind"}, "has no label"),
    ],
)
def test_settings_that_do_not_fit_are_refused(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        shards(folder, **changes)


def test_missing_shards_are_named(folder, tmp_path):
    with pytest.raises(FileNotFoundError, match="is not a folder"):
        shards(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"There are no \.tar files"):
        shards(tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match=r"train-002\.tar does not exist"):
        shards(folder / "train-{000..002}.tar")
    with pytest.raises(FileNotFoundError, match=r"There are no test-\*\.tar"):
        shards(folder, train_shards="train-*.tar", test_shards="test-*.tar")
    shutil.move(folder / "val-000.tar", folder / "other-000.tar")
    with pytest.raises(ValueError, match=r"these parts: other, train\. It is not clear .* held out"):
        shards(folder)
