"""Job write_shards: what is written is read in the same order, in every format; interruption, refusals."""

import io
import json
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.small_containers import images, write

import ldbench
from ldbench import run
from ldbench.config.components import instantiate
from ldbench.core.interfaces import ImageData
from ldbench.data.digits import Digits
from ldbench.data.images import Folder
from ldbench.data.layouts import find_splits
from ldbench.data.original_images import png
from ldbench.data.subset import select_items
from ldbench.data.written import CLASSES, UNFINISHED
from ldbench.io.local_files import LocalFiles
from ldbench.jobs.write_shards import WriteShards

FORMATS = ("tar", "parquet", "folder")
DATA = {"tar": "shards", "parquet": "hf", "folder": "folder"}


def read(target: Path | str, kind: str, cache: Path, *overrides: str) -> ImageData:
    words = [f"data={DATA[kind]}", f"data.root={target}", "data.fingerprint=content", "tokenizer.image_size=8"]
    return instantiate(ldbench.compose("train", [*words, f"data.cache_dir={cache}", *overrides]).data)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_is_written_has_the_order_the_labels_and_the_pixels_of_the_source(kind, tmp_path):
    source = images()
    metrics = write(tmp_path / "out", kind, tmp_path / "record", data=source)
    assert {name: estimate.value for name, estimate in metrics.items()} == {"images/train": 9, "images/test": 4}
    data = read(tmp_path / "out", kind, tmp_path / "cache")
    assert data.class_names == ("zebra", "50 km/h", "ape")
    for ours, theirs in ((source.train, data.train), (source.test, data.test)):
        assert torch.equal(ours.labels, theirs.labels)
        for i in range(len(ours)):
            assert theirs.encoded(i) == (png(ours.original(i)), ".png")
            assert torch.equal(ours[i][0], theirs[i][0])


def test_all_formats_of_the_same_images_have_one_fingerprint(tmp_path):
    found = set()
    for kind in FORMATS:
        write(tmp_path / kind, kind, tmp_path / "record")
        found.add(read(tmp_path / kind, kind, tmp_path / "cache").fingerprint)
        found.add(read(tmp_path / kind, kind, tmp_path / "cache", "data.check=none").fingerprint)
    assert len(found) == 1


@pytest.mark.parametrize("kind", FORMATS)
def test_a_subset_is_of_the_same_images_in_every_format(kind, tmp_path):
    source = images(num_train=12)
    write(tmp_path / "out", kind, tmp_path / "record", data=source)
    data = read(tmp_path / "out", kind, tmp_path / "cache", "data.subset=0.5", "data.seed=3")
    chosen = select_items(source.train.labels, subset=0.5, seed=3).tolist()
    assert len(chosen) == len(data.train) == 6
    for i, place in enumerate(chosen):
        assert torch.equal(data.train[i][0], source.train[place][0])


def test_image_files_are_written_as_they_are(tmp_path):
    for split, count in (("train", 4), ("test", 2)):
        for i in range(count):
            path = tmp_path / "source" / split / "ab"[i % 2] / f"{i}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.full((9, 9, 3), 20 * i, dtype=np.uint8)).save(path, quality=50)
    source = read(tmp_path / "source", "folder", tmp_path / "cache")
    for kind in FORMATS:
        write(tmp_path / kind, kind, tmp_path / "record", data=source)
        data = read(tmp_path / kind, kind, tmp_path / "cache")
        assert data.fingerprint == source.fingerprint
        for i, name in enumerate(source.train.names):
            assert data.train.encoded(i) == ((tmp_path / "source" / name).read_bytes(), ".jpg")


def test_shards_of_a_set_in_memory_hold_its_items(tmp_path):
    cfg = ldbench.compose("train", ["data=digits", "data.subset=0.02"])
    digits = instantiate(cfg.data)
    assert isinstance(digits, Digits)
    write(tmp_path / "out", "tar", tmp_path / "record", data=digits, shard_size=100)
    data = read(tmp_path / "out", "tar", tmp_path / "cache", f"data.image_size={digits.image_size}")
    for i in (0, 7):
        image, label = digits.train[i]
        assert data.train[i][1] == label
        assert (data.train[i][0] - image).abs().max() <= 1 / 255 + 1e-6


def test_tar_shards_are_in_webdatasets_naming_and_the_same_bytes(tmp_path):
    for name in ("a", "b"):
        write(tmp_path / name, "tar", tmp_path / "record")
    names = sorted(path.name for path in (tmp_path / "a").iterdir())
    assert names == [CLASSES, "test-00000.tar", "train-00000.tar", "train-00001.tar", "train-00002.tar"]
    for name in names:
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()
    with tarfile.open(tmp_path / "a" / "train-00001.tar") as tar:
        assert tar.getnames()[:3] == ["00000004.png", "00000004.cls", "00000005.png"]
        assert tar.extractfile("00000004.cls").read() == b"0"
        assert Image.open(io.BytesIO(tar.extractfile("00000004.png").read())).size == (12, 10)


def test_a_folder_that_we_wrote_is_a_folder_of_classes_for_others(tmp_path):
    data = images()
    data.class_names = ("zebra", "lion", "ape")
    write(tmp_path / "out", "folder", tmp_path / "record", data=data)
    train, test = find_splits(tmp_path / "out", layout="classes", test_fraction=None)
    assert {file.label for file in train} == {"zebra", "lion", "ape"}
    assert (len(train), len(test)) == (9, 4)
    assert read(tmp_path / "out", "folder", tmp_path / "cache").class_names == ("zebra", "lion", "ape")


class Killed(BaseException):
    pass


@pytest.mark.parametrize("kind", FORMATS)
def test_an_interrupted_writing_goes_on_with_what_is_missing(kind, tmp_path, monkeypatch):
    whole = LocalFiles.write
    written: list[str] = []

    def write_some(self: LocalFiles, name: str, content: bytes) -> None:
        if len(written) == 3:
            raise Killed
        written.append(name)
        whole(self, name, content)

    monkeypatch.setattr(LocalFiles, "write", write_some)
    with pytest.raises(Killed):
        write(tmp_path / "out", kind, tmp_path / "record")
    with pytest.raises(ValueError, match=r"not all written.* job=write_shards again"):
        read(tmp_path / "out", kind, tmp_path / "cache")
    first, written[:] = list(written), []
    monkeypatch.setattr(
        LocalFiles, "write", lambda self, name, content: (written.append(name), whole(self, name, content))
    )
    write(tmp_path / "out", kind, tmp_path / "record")
    assert written
    assert not {*first} & {*written}
    write(tmp_path / "again", kind, tmp_path / "record")
    assert (
        read(tmp_path / "out", kind, tmp_path / "cache").fingerprint
        == read(tmp_path / "again", kind, tmp_path / "cache").fingerprint
    )
    assert not (tmp_path / "out" / UNFINISHED).exists()
    before = list(written)
    write(tmp_path / "out", kind, tmp_path / "record")  # complete
    assert written == before


def test_a_target_that_holds_anything_else_is_refused(tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("")
    with pytest.raises(ValueError, match=r"job\.target=.*/out holds other files"):
        write(tmp_path / "out", "tar", tmp_path / "record")
    write(tmp_path / "good", "tar", tmp_path / "record")
    with pytest.raises(ValueError, match="holds other files"):
        write(tmp_path / "good", "tar", tmp_path / "record", shard_size=5)
    with pytest.raises(ValueError, match="holds other files"):
        write(tmp_path / "good", "folder", tmp_path / "record")


def test_a_target_within_the_source_is_refused(tmp_path):
    write(tmp_path / "out", "folder", tmp_path / "record")
    source = read(tmp_path / "out", "folder", tmp_path / "cache")
    assert isinstance(source, Folder)
    with pytest.raises(ValueError, match=r"is in data\.root="):
        write(tmp_path / "out" / "more", "tar", tmp_path / "record", data=source)


@pytest.mark.parametrize("kind", FORMATS)
def test_a_missing_image_of_what_we_wrote_is_noticed(kind, tmp_path):
    write(tmp_path / "out", kind, tmp_path / "record")
    removed = next(
        path for path in sorted((tmp_path / "out").rglob("*train*/**/*.png" if kind == "folder" else "train-*"))
    )
    removed.unlink()
    if kind == "parquet":
        removed = next((tmp_path / "out" / "data").glob("train-*"))
    with pytest.raises(ValueError, match=r"classes\.json says 9 training and 4 test images, and there are"):
        read(tmp_path / "out", kind, tmp_path / "cache")


def test_a_damaged_note_of_the_classes_is_named(tmp_path):
    write(tmp_path / "out", "folder", tmp_path / "record")
    note = tmp_path / "out" / CLASSES
    content = json.loads(note.read_text())
    note.write_text(json.dumps({**content, "class_names": ["a"]}))
    with pytest.raises(ValueError, match=r"classes\.json is damaged"):
        read(tmp_path / "out", "folder", tmp_path / "cache")
    note.write_text('{"somebody": "elses"}')
    assert read(tmp_path / "out", "folder", tmp_path / "cache").class_names[0] == "class 00000"


def test_shards_may_be_written_to_an_address(tmp_path):
    write("memory://written", "tar", tmp_path / "record")
    data = read("memory://written", "tar", tmp_path / "cache")
    write(tmp_path / "out", "tar", tmp_path / "record")
    assert data.fingerprint == read(tmp_path / "out", "tar", tmp_path / "cache").fingerprint
    write("memory://written", "tar", tmp_path / "record")  # complete


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"format": "zip"}, r"job\.format must be one of tar, parquet, folder, got 'zip'"),
        ({"shard_size": 0}, r"job\.shard_size must be a whole number"),
        ({"target": " "}, r"job\.target must be a folder or an address"),
        ({"target": __file__}, "is a file"),
    ],
)
def test_settings_out_of_range_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        WriteShards.check({"format": "tar", "shard_size": 1, "target": "out", **settings})


def test_the_record_is_found_again_where_the_target_is_there(answer, tmp_path):
    words = ["job=write_shards", "data=digits", "data.subset=0.01", "job.shard_size=200"]
    first = answer(run, *words, "job.target=a", cwd=tmp_path)
    assert "Wrote 10 training and 360 test images" in first.stdout + first.stderr
    assert "measured already" in answer(run, *words, "job.target=a", cwd=tmp_path).stdout
    assert "Wrote" in answer(run, *words, "job.target=b", cwd=tmp_path).stdout
    (tmp_path / "a" / CLASSES).unlink()
    assert "holds other files" in (answer(run, *words, "job.target=a", cwd=tmp_path).stderr)
