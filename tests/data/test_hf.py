"""Datasets of Hugging Face: folders of parquet files and of save_to_disk, the hub; columns, splits, labels, faults."""

import pickle
import sys
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.hf_datasets import INT, datasets, of_columns, parquet, png, rows
from tests.small_containers import encoded, pixels
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.data import hf_loading
from ldbench.data.fingerprints import images_fingerprint, pixels_digest


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
