"""Error messages of mistakes in image folders: what was given, what was expected, what to do."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ldbench
from ldbench.config.components import instantiate
from ldbench.pipeline.tokenizer_plan import build_data


def picture(size: tuple[int, int] = (40, 30), mode: str = "RGB") -> Image.Image:
    rng = np.random.default_rng(0)
    return Image.fromarray(rng.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)).convert(mode)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Two classes of four images each."""
    for label in ("cat", "dog"):
        (tmp_path / "pets" / label).mkdir(parents=True)
        for i in range(4):
            picture().save(tmp_path / "pets" / label / f"{i}.png")
    return tmp_path / "pets"


def opened(root: Path, *overrides: str):
    return build_data(ldbench.compose("train", ["data=folder", f"data.root={root}", *overrides]), [])


def truncate(path: Path) -> None:
    content = io.BytesIO()
    picture((200, 200)).save(content, format="JPEG")
    path.with_suffix(".jpg").write_bytes(content.getvalue()[: len(content.getvalue()) // 2])


def deep(path: Path) -> None:
    Image.fromarray(np.full((30, 40), 40000, dtype=np.uint16)).save(path)


def floating(path: Path) -> None:
    Image.fromarray(np.full((30, 40), 0.5, dtype=np.float32)).save(path.with_suffix(".tiff"))


SPOILED = [
    ("truncated JPEG", truncate, "x.jpg: It is truncated"),
    ("text named png", lambda path: path.write_text("no picture"), "x.png: It is not an image"),
    ("zero bytes", lambda path: path.write_bytes(b""), "x.png: It is empty, 0 bytes long"),
    ("16-bit grey", deep, "x.png: .*16"),
    ("float TIFF", floating, "x.tiff: .*[Ff]loat"),
    ("cut PNG", lambda path: (picture().save(path), path.write_bytes(path.read_bytes()[:200])), "x.png: It is"),
]


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_an_unreadable_image_is_named_in_one_error_before_work(
    root: Path, spoil: Callable[[Path], object], message: str
) -> None:
    spoil(root / "cat" / "x.png")
    with pytest.raises(ValueError, match=message) as error:
        opened(root)
    assert "1 of 9 images in" in str(error.value)
    assert "set data.on_error=skip to leave them out" in str(error.value)


@pytest.mark.parametrize(("spoil", "message"), [row[1:] for row in SPOILED], ids=[row[0] for row in SPOILED])
def test_unreadable_images_are_left_out_and_counted_if_set(
    root: Path, spoil: Callable[[Path], object], message: str, caplog: pytest.LogCaptureFixture
) -> None:
    whole = opened(root)
    spoil(root / "cat" / "x.png")
    data = opened(root, "data.on_error=skip")
    assert len(data.skipped) == 1
    assert "1 of 9 images" in caplog.text
    assert len(data.train) + len(data.test) == len(whole.train) + len(whole.test) == 8


def test_without_the_check_an_unreadable_image_is_named_where_it_is_met(root: Path) -> None:
    truncate(root / "cat" / "0.png")
    (root / "cat" / "0.png").unlink()
    data = opened(root, "data.check=none")
    split, index = next(
        (split, i) for split in (data.train, data.test) for i, name in enumerate(split.names) if name == "cat/0.jpg"
    )
    with pytest.raises(
        ValueError, match=r"Cannot read .*cat/0\.jpg as an image: It is truncated .*Repair or remove the file"
    ):
        split[index]


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1"])
def test_other_colour_modes_are_taken_as_rgb(root: Path, mode: str) -> None:
    picture(mode=mode).save(root / "cat" / ("0.jpg" if mode == "CMYK" else "0.png"))
    data = opened(root)
    assert all(split[index][0].shape == (3, 32, 32) for split in (data.train, data.test) for index in range(len(split)))


def empty(root: Path) -> None:
    for path in [*root.rglob("*.png")]:
        path.unlink()


def one_empty_class(root: Path) -> None:
    (root / "bird").mkdir()


def loose(root: Path) -> None:
    picture().save(root / "loose.png")


def strange_class(root: Path) -> None:
    for split, labels in (("train", ("cat", "dog")), ("val", ("cat", "emu"))):
        for label in labels:
            (root / split / label).mkdir(parents=True)
            picture().save(root / split / label / "0.png")
    for label in ("cat", "dog"):
        for path in (root / label).iterdir():
            path.unlink()
        (root / label).rmdir()


def only_val(root: Path) -> None:
    strange_class(root)
    for path in sorted((root / "train").rglob("*"), reverse=True):
        path.unlink() if path.is_file() else path.rmdir()
    (root / "train").rmdir()


FOLDERS = [
    ("no images", empty, [], "There are no images in .*Images end in one of"),
    (
        "an empty class",
        one_empty_class,
        [],
        "The class folders bird in .* have no images. Fill them, or remove them",
    ),
    ("loose images", loose, [], r"class folders and 1 images next to them \(loose\.png\)"),
    ("classes that train lacks", strange_class, [], "classes that its training split lacks: emu"),
    ("val without train", only_val, [], "has val/ but no train/"),
    (
        "unknown layout",
        None,
        ["data.layout=tree"],
        "data.layout is 'tree'. Choose one of auto, classes, flat, tinyimagenet",
    ),
    ("unknown check", None, ["data.check=maybe"], "data.check is 'maybe'. Choose decode or none"),
    ("unknown on_error", None, ["data.on_error=ignore"], "data.on_error is 'ignore'. Choose raise or skip"),
    ("skip without check", None, ["data.on_error=skip", "data.check=none"], "Set data.check=decode"),
    (
        "tinyimagenet without annotations",
        None,
        ["data.layout=tinyimagenet"],
        "is missing, which data.layout=tinyimagenet needs",
    ),
    (
        "list file that does not exist",
        None,
        ["data.subset=nowhere.txt"],
        "is the list file nowhere.txt, which does not exist",
    ),
    ("subset out of range", None, ["data.subset=0"], "Give a fraction in"),
    ("test fraction out of range", None, ["data.test_fraction=2"], "data.test_fraction is 2"),
    ("size of nothing", None, ["tokenizer.image_size=0"], "data.image_size is 0"),
]


@pytest.mark.parametrize(
    ("spoil", "overrides", "message"), [row[1:] for row in FOLDERS], ids=[row[0] for row in FOLDERS]
)
def test_an_invalid_folder_or_setting_is_reported(
    root: Path, spoil: Callable[[Path], None] | None, overrides: list[str], message: str
) -> None:
    if spoil is not None:
        spoil(root)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(root, *overrides)


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "is not a folder. Set it to the one that holds train/"), ("file", "is a file")]
)
def test_a_root_that_is_no_folder_is_reported(tmp_path: Path, name: str, message: str) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        opened(tmp_path / name)


def test_an_unsorted_imagenet_val_is_refused_with_instructions(tmp_path: Path) -> None:
    for label in ("n01440764", "n01443537"):
        (tmp_path / "train" / label).mkdir(parents=True)
        picture().save(tmp_path / "train" / label / "0.JPEG", format="JPEG")
    (tmp_path / "val").mkdir()
    picture().save(tmp_path / "val" / "ILSVRC2012_val_00000001.JPEG", format="JPEG")
    cfg = ldbench.compose("train", ["data=imagenet256", f"data.root={tmp_path}", "tokenizer.image_size=256"])
    with pytest.raises(ValueError, match=r"but .*val has 1 images and none\. Sort it"):
        instantiate(cfg.data)


def test_an_image_smaller_than_the_crop_is_enlarged(root: Path) -> None:
    picture((9, 7)).save(root / "cat" / "0.png")
    assert opened(root).train[0][0].shape == (3, 32, 32)
