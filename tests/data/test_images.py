"""Folders of images: pixels, random crops, the check, subsets, errors, fingerprints."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.data import image_files
from ldbench.data.checks import read_image
from ldbench.data.fingerprints import images_fingerprint, pixels_digest
from ldbench.data.images import Folder

SETTINGS = {
    "name": "folder",
    "layout": "auto",
    "image_size": 8,
    "test_fraction": 0.2,
    "train_folder": None,
    "test_folder": None,
    "fingerprint": "auto",
    "label_safe_flips": True,
    "check": "decode",
    "on_error": "raise",
    "subset": None,
    "seed": 0,
    "cache_dir": None,
}


def _folder(root: Path, **changes) -> Folder:
    return Folder(root=str(root), **{**SETTINGS, **changes})


def _write(root: Path, *paths: str) -> None:
    for i, path in enumerate(paths):
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        pixels = np.random.default_rng(i).integers(0, 256, (10, 12, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(root / path)


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


def test_the_contract_is_met(pets):
    data = _folder(pets, label_safe_flips=False)
    assert isinstance(data, ImageData)
    assert (data.num_classes, data.class_names, data.label_safe_flips) == (2, ("cat", "dog"), False)
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint)
    image, label = data.train[0]
    assert (image.shape, image.dtype, label, type(label)) == ((3, 8, 8), torch.float32, 0, int)
    assert -1 <= image.min() < image.max() <= 1


def test_pixels_are_those_of_the_file(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 11, 3), dtype=np.uint8)
    _write(tmp_path, "cat/0.png")
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"cat/{i}.png")
    image, _ = _folder(tmp_path).train[0]
    assert torch.equal(image, torch.from_numpy(pixels[:, 1:9].transpose(2, 0, 1).astype(np.float32)) / 127.5 - 1)


def test_other_files_and_hidden_ones_do_not_count(pets):
    before = _folder(pets)
    (pets / "cat" / "notes.txt").write_text("no image")
    _write(pets, "cat/.hidden.png", ".cache/0.png")
    (pets / "readme.md").write_text("no image")
    assert _folder(pets).fingerprint == before.fingerprint


def test_a_subset_is_a_fraction_or_a_list_of_paths(divided, tmp_path):
    data = _folder(divided, subset=0.5)
    assert (data.train.labels.bincount().tolist(), len(data.test)) == ([2, 2], 2)
    items = tmp_path / "items.txt"
    items.write_text("train/dog/3.png\ntrain/cat/0.png\n")
    data = _folder(divided, subset=str(items))
    assert (data.train.names, data.num_classes, len(data.test)) == (("train/cat/0.png", "train/dog/3.png"), 2, 2)
    items.write_text("val/dog/0.png\n")
    with pytest.raises(ValueError, match=r"Line 1 .*val/dog/0\.png.* path relative to data\.root"):
        _folder(divided, subset=str(items))


def test_workers_read_the_same_items(pets):
    data = _folder(pets)
    direct = [data.train[i] for i in range(len(data.train))]
    images, labels = next(iter(DataLoader(data.train, batch_size=len(direct), num_workers=2)))
    assert torch.equal(images, torch.stack([image for image, _ in direct]))
    assert labels.tolist() == [label for _, label in direct]


def test_the_fingerprint_moves_with_files_and_settings_and_not_with_the_root(pets, tmp_path):
    shutil.copytree(pets, tmp_path / "elsewhere" / "copy")
    fingerprint = _folder(pets).fingerprint
    assert (
        fingerprint
        == _folder(tmp_path / "elsewhere" / "copy", name="mine", seed=3, label_safe_flips=False, subset=1.0).fingerprint
    )
    changes = ({"image_size": 4}, {"test_fraction": 0.4}, {"subset": 0.5}, {"subset": 0.5, "seed": 1})
    changed = [_folder(pets, **change).fingerprint for change in changes]
    (pets / "cat/0.png").write_bytes((pets / "cat/0.png").read_bytes() + b"\0")
    changed.append(_folder(pets).fingerprint)
    (pets / "cat/0.png").rename(pets / "cat/00.png")
    changed.append(_folder(pets).fingerprint)
    assert len({fingerprint, *changed}) == 1 + len(changed)


def write_bmp(path: Path, color: tuple[int, int, int], *, corner: tuple[int, int, int] | None = None, side: int = 8):
    """A file whose length tells nothing; `corner`: of one pixel in its middle."""
    pixels = np.full((side, side, 3), color, dtype=np.uint8)
    pixels[side // 2, side // 3] = corner or color
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.mark.parametrize("check", ["decode", "none"])
@pytest.mark.parametrize("ending", ["bmp", "ppm", "tif", "tga"])
def test_other_images_of_the_same_names_and_lengths_are_other_data(tmp_path, ending, check):
    for place, color in (("a", (10, 20, 30)), ("b", (30, 20, 10)), ("c", (10, 20, 30))):
        for index in range(10):
            write_bmp(tmp_path / place / f"{index}.{ending}", (index, *color[1:]) if index else color)
    first, other, same = (_folder(tmp_path / place, check=check).fingerprint for place in "abc")
    assert other != first
    assert same == first


@pytest.mark.parametrize(
    ("settings", "noticed"),
    [
        ({"check": "decode"}, True),
        ({"check": "none"}, False),
        ({"check": "none", "fingerprint": "content"}, True),
        ({"check": "decode", "fingerprint": "content"}, True),
        ({"check": "none", "fingerprint": "bytes"}, True),
        ({"check": "decode", "fingerprint": "bytes"}, True),
        ({"check": "decode", "fingerprint": "sample"}, False),
    ],
)
def test_of_large_files_every_byte_counts_where_all_are_read(tmp_path, settings, noticed):
    for place in ("a", "b"):
        for index in range(4):
            write_bmp(tmp_path / place / f"{index}.bmp", (9, 9, 9), side=200)
    changed = bytearray((tmp_path / "b" / "2.bmp").read_bytes())
    changed[5000] ^= 1  # between the first two pieces
    (tmp_path / "b" / "2.bmp").write_bytes(changed)
    assert len(changed) > 16 * 4096
    first, second = (_folder(tmp_path / place, **settings).fingerprint for place in "ab")
    assert (first != second) == noticed
    changed[-1] ^= 1
    (tmp_path / "b" / "2.bmp").write_bytes(changed)
    assert _folder(tmp_path / "b", **settings).fingerprint != first


def test_of_many_files_a_sample_is_read(tmp_path, monkeypatch):
    monkeypatch.setattr("ldbench.data.fingerprints.MAX_SAMPLED", 5)
    for index in range(20):
        write_bmp(tmp_path / f"{index:02}.bmp", (9, 9, 9))
    sampled, whole = (_folder(tmp_path, check=check).fingerprint for check in ("none", "decode"))
    write_bmp(tmp_path / "01.bmp", (8, 8, 8))
    assert _folder(tmp_path, check="none").fingerprint == sampled
    assert _folder(tmp_path).fingerprint != whole
    for index in (0, 19):  # the first and the last of them are in it
        write_bmp(tmp_path / f"{index:02}.bmp", (8, 8, 8))
        assert _folder(tmp_path, check="none").fingerprint != sampled
        write_bmp(tmp_path / f"{index:02}.bmp", (9, 9, 9))


def test_a_file_that_cannot_be_read_is_named_without_the_check_too(pets, monkeypatch):
    def refuse(path: str) -> str:
        raise PermissionError(13, "Permission denied", path)

    monkeypatch.setattr("ldbench.data.fingerprints.sample_digest", refuse)
    with pytest.raises(ValueError, match=r"Cannot read .*cat/0\.png \(Permission denied\)"):
        _folder(pets, check="none")


@pytest.mark.parametrize("root", ["", None])
def test_a_root_must_be_given(root):
    with pytest.raises(ValueError, match=r"Set data\.root=DIR"):
        Folder(root=root, **SETTINGS)


def test_a_root_must_exist(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"data\.root=.*nowhere is not a folder"):
        _folder(tmp_path / "nowhere")


@pytest.mark.parametrize("content", ["nothing", "text", "half"])
def test_an_unreadable_file_is_named_on_access(pets, content):
    data = _folder(pets)
    broken = pets / data.train.names[2]
    whole = broken.read_bytes()
    broken.write_bytes({"nothing": b"", "text": b"no image", "half": whole[: len(whole) // 2]}[content])
    with pytest.raises(ValueError, match=f"Cannot read {re.escape(str(broken))} as an image"):
        data.train[2]
    broken.unlink()
    with pytest.raises(ValueError, match=re.escape(str(broken))):
        data.train[2]


@pytest.mark.parametrize("setting", ["none", "decode"])
def test_a_split_names_its_files(divided, setting):
    data = _folder(divided, check=setting)
    assert data.test.names == ("val/cat/0.png", "val/dog/0.png")
    assert len(data.train.names) == len(data.train) == 8
    assert data.skipped == ()


def test_a_draw_is_a_random_crop_of_its_generators_alone(pets):
    split = _folder(pets).train
    assert split.crops
    before = torch.random.get_rng_state()
    draws = [
        split.draw(3, scale=(0.2, 1.0), ratio=(0.75, 4 / 3), rng=torch.Generator().manual_seed(seed))
        for seed in (1, 1, 2)
    ]
    assert torch.equal(before, torch.random.get_rng_state())
    (first, label), (again, _), (other, _) = draws
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert (first.shape, first.dtype, label) == ((3, 8, 8), torch.float32, split[3][1])


def test_a_draw_of_everything_is_the_whole_picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    _write(tmp_path, "cat/0.png", "cat/1.png")
    for i in range(2):
        Image.fromarray(pixels).save(tmp_path / f"cat/{i}.png")
    image, label = _folder(tmp_path).train.draw(0, scale=(1.0, 1.0), ratio=(1.0, 1.0), rng=torch.Generator())
    assert torch.equal(image, torch.from_numpy(pixels.transpose(2, 0, 1).astype(np.float32)) / 127.5 - 1)
    assert label == 0


def test_leaving_a_file_out_moves_no_other_to_another_split(pets, caplog):
    whole = _folder(pets)
    broken = [whole.train.names[2], whole.test.names[1]]
    for name in broken:
        (pets / name).write_bytes(b"")
    before = _folder(pets, check="none").fingerprint
    data = _folder(pets, on_error="skip")
    assert data.skipped == tuple(broken)
    assert data.train.names == tuple(name for name in whole.train.names if name not in broken)
    assert data.test.names == tuple(name for name in whole.test.names if name not in broken)
    assert len(data.train.labels) == len(data.train)
    assert len({before, whole.fingerprint, data.fingerprint}) == 3
    assert data.fingerprint == _folder(pets, on_error="skip").fingerprint
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert (
        warnings[0] == f"2 of 30 images in {pets} cannot be read and are left out. "
        f"The first: {broken[0]}: It is empty, 0 bytes long."
    )


def test_the_fingerprint_of_sound_files_is_the_same_with_and_without_the_check(pets):
    assert (
        len(
            {
                _folder(pets, check="none").fingerprint,
                _folder(pets).fingerprint,
                _folder(pets, on_error="skip").fingerprint,
            }
        )
        == 1
    )


def test_only_what_a_subset_leaves_is_checked(divided, tmp_path):
    (divided / "train/cat/3.png").write_bytes(b"")
    items = tmp_path / "items.txt"
    items.write_text("train/dog/3.png\ntrain/cat/0.png\n")
    assert len(_folder(divided, subset=str(items)).train) == 2
    with pytest.raises(ValueError, match=r"1 of 10 images .*\n  train/cat/3\.png: It is empty"):
        _folder(divided)


def test_the_fingerprint_of_images_is_of_pixels_labels_and_order() -> None:
    from PIL import Image

    from ldbench.data import fingerprints

    red, tall = Image.new("RGB", (4, 2), (255, 0, 0)), Image.new("RGB", (2, 4), (255, 0, 0))
    first, second = fingerprints.pixels_digest(red), fingerprints.pixels_digest(tall)
    assert first != second  # of equal bytes, but not of equal size

    def whole(train: list[tuple[int, str]], test: list[tuple[int, str]], *, size: int = 32, classes: int = 2) -> str:
        return fingerprints.images_fingerprint(train, test, image_size=size, num_classes=classes)

    splits = [(0, first), (1, second)], [(0, first)]
    assert whole(*splits) == whole(*splits)
    others = [
        whole([(1, second), (0, first)], splits[1]),  # another order
        whole([(1, first), (0, second)], splits[1]),  # other labels
        whole(splits[0][:1], [(1, second), *splits[1]]),  # another split
        whole(*splits, size=28),
        whole(*splits, classes=3),
    ]
    assert len({whole(*splits), *others}) == 1 + len(others)


def test_by_content_the_container_of_the_pixels_does_not_count(pets, tmp_path):
    reference = _folder(pets, fingerprint="content")
    again = tmp_path / "again"
    for path in pets.rglob("*"):
        if path.is_file():  # other bytes, other names, the same pixels in the same order
            target = again / path.relative_to(pets).with_suffix(".bmp")
            target.parent.mkdir(parents=True, exist_ok=True)
            with Image.open(path) as image:
                image.save(target)
    assert _folder(again, fingerprint="content").fingerprint == reference.fingerprint
    assert _folder(again, fingerprint="bytes").fingerprint != _folder(pets, fingerprint="bytes").fingerprint
    expected = images_fingerprint(
        *(
            [(int(split.labels[i]), pixels_digest(split.original(i))) for i in range(len(split))]
            for split in (reference.train, reference.test)
        ),
        image_size=8,
        num_classes=2,
    )
    assert reference.fingerprint == expected


@pytest.mark.parametrize("check", ["decode", "none"])
def test_by_content_pixels_labels_order_and_size_count(pets, check):
    before = _folder(pets, fingerprint="content", check=check)
    changed = [_folder(pets, fingerprint="content", check=check, image_size=4).fingerprint]
    with Image.open(pets / "cat/0.png") as image:
        pixels = np.array(image)
    pixels[3, 4, 1] ^= 1
    Image.fromarray(pixels).save(pets / "cat/0.png")
    changed.append(_folder(pets, fingerprint="content", check=check).fingerprint)
    (pets / "cat/0.png").rename(pets / "cat/99.png")
    changed.append(_folder(pets, fingerprint="content", check=check).fingerprint)
    (pets / "cat").rename(pets / "fox")  # after the dogs: other labels
    changed.append(_folder(pets, fingerprint="content", check=check).fingerprint)
    assert len({before.fingerprint, *changed}) == 5


def test_by_content_files_are_decoded_once(pets, tmp_path, monkeypatch):
    settings = {"fingerprint": "content", "cache_dir": str(tmp_path / "cache")}
    decoded = []

    def counted(path: str, content: bytes | None = None) -> Image.Image:
        decoded.append(path)
        return read_image(path, content)

    monkeypatch.setattr(image_files, "read_image", counted)
    before = _folder(pets, **settings)
    assert len(decoded) == 30
    assert _folder(pets, **settings).fingerprint == before.fingerprint
    assert len(decoded) == 30
    Image.new("RGB", (9, 9)).save(pets / "cat/0.png")
    assert _folder(pets, **settings).fingerprint != before.fingerprint
    assert len(decoded) == 31
    (cache,) = (tmp_path / "cache").glob("pixels-*.txt")
    for damaged in (b"", b"no digests\n", cache.read_bytes()[:-30]):
        cache.write_bytes(damaged)
        assert _folder(pets, **settings).fingerprint == _folder(pets, fingerprint="content").fingerprint


@pytest.mark.parametrize("check", ["decode", "none"])
def test_by_content_an_unreadable_file_is_an_error_or_left_out(pets, check, tmp_path):
    whole = _folder(pets, fingerprint="content", cache_dir=str(tmp_path / "cache")).fingerprint
    (pets / "cat/0.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"1 of 30 images in .*\n  cat/0\.png: It is not an image"):
        _folder(pets, fingerprint="content", check=check)
    if check == "decode":
        data = _folder(pets, fingerprint="content", on_error="skip")
        assert data.skipped == ("cat/0.png",)
        assert data.fingerprint != whole


def test_a_split_gives_its_images_as_they_are_stored(pets):
    split = _folder(pets).train
    content, extension = split.encoded(len(split) - 1)
    assert (content, extension) == ((pets / split.names[-1]).read_bytes(), ".png")
    (pets / split.names[0]).unlink()
    with pytest.raises(ValueError, match=r"Cannot read .*\.png"):
        split.encoded(0)
