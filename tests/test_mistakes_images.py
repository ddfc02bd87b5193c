"""Mistakes with whole image datasets: each error message names the culprit and what to do."""

import io
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.core.interfaces import ImageData

RNG = np.random.default_rng(0)


def picture(width: int = 12, height: int = 10) -> Image.Image:
    return Image.fromarray(RNG.integers(0, 256, (height, width, 3), dtype=np.uint8))


def write(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        picture().save(root / path)


def opened(name: str, root: Path, *overrides: str) -> ImageData:
    own = Registry().options("data")[name].get("image_size", 24)
    size = own if isinstance(own, int) else 24
    return instantiate(
        ldbench.compose("train", [f"data={name}", f"data.root={root}", f"tokenizer.image_size={size}", *overrides]).data
    )


def divided(root: Path) -> None:
    """Two classes in two splits."""
    write(
        root, *(f"{split}/{label}/{i}.png" for split in ("train", "val") for label in ("cat", "dog") for i in range(2))
    )


def tiny(root: Path) -> None:
    """Tiny ImageNet in small."""
    write(
        root,
        *(f"train/{label}/images/{label}_{i}.JPEG" for label in ("n1", "n2") for i in range(2)),
        *(f"val/images/{i}.JPEG" for i in range(2)),
    )
    (root / "val" / "val_annotations.txt").write_text("0.JPEG\tn1\t0\t0\t9\t9\n1.JPEG\tn2\t0\t0\t9\t9\n")


def annotated(text: str) -> Callable[[Path], None]:
    return lambda root: (tiny(root), (root / "val" / "val_annotations.txt").write_text(text))


def without(build: Callable[[Path], None], *parts: str) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        build(root)
        for part in parts:
            shutil.rmtree(root / part) if (root / part).is_dir() else (root / part).unlink()

    return do


def with_files(build: Callable[[Path], None], **contents: bytes) -> Callable[[Path], None]:
    def do(root: Path) -> None:
        build(root)
        for path, content in contents.items():
            (root / path).write_bytes(content)

    return do


def saved(image: Image.Image, kind: str, share: float = 1.0) -> bytes:
    content = io.BytesIO()
    image.save(content, format=kind)
    return content.getvalue()[: int(len(content.getvalue()) * share)]


def one_too_high(root: Path) -> None:
    divided(root / "pets")


def flat_and_sorted(root: Path) -> None:
    write(root, "train/0.png", "train/1.png", "val/cat/0.png")


def broken_link(root: Path) -> None:
    divided(root)
    (root / "train" / "cat" / "link.png").symlink_to(root / "gone.png")


def locked_file(root: Path) -> None:
    divided(root)
    (root / "train" / "cat" / "0.png").chmod(0)


def locked_folder(root: Path) -> None:
    divided(root)
    (root / "train" / "cat").chmod(0)


def listed(root: Path) -> None:
    divided(root)
    (root / "items.txt").write_text("train/cat/0.png\ntrain/cat/9.png\n")


def spoiled_class(root: Path) -> None:
    divided(root)
    for i in range(2):
        (root / "train" / "cat" / f"{i}.png").write_text("text")


def spoiled_split(root: Path) -> None:
    divided(root)
    for path in (root / "val").rglob("*.png"):
        path.write_bytes(b"")


def all_kinds(root: Path) -> None:
    deep, floating = (
        Image.fromarray(np.full((4, 4), 999, dtype=np.uint16)),
        Image.fromarray(np.full((4, 4), 0.5, dtype=np.float32)),
    )
    kinds = {"5.jpg": saved(picture(99, 99), "JPEG", 0.6), "6.png": b"text", "7.png": b"", "8.png": saved(deep, "PNG")}
    with_files(
        divided,
        **{f"train/dog/{name}": content for name, content in (kinds | {"9.tiff": saved(floating, "TIFF")}).items()},
    )(root)


as_user = pytest.mark.skipif(
    hasattr(os, "geteuid") and os.geteuid() == 0, reason="root may read everything: run this as another user"
)
SKIP, TINY = ["data.on_error=skip"], "tinyimagenet"

MISTAKES = {  # mistake: (data, how the folder was made, overrides, what the message names, what it advises)
    "root one level too high": (
        "folder",
        one_too_high,
        [],
        "has no folder but pets/, which holds train/",
        r"Set data\.root=.*/pets\.",
    ),
    "every kind of broken file": (
        "folder",
        all_kinds,
        [],
        r"5 of 13 images in .*\n"
        r"  train/dog/5\.jpg: It is truncated .*\n"
        r"  train/dog/6\.png: It is not an image that Pillow knows\.\n"
        r"  train/dog/7\.png: It is empty, 0 bytes long\.\n"
        r"  train/dog/8\.png: It has 16-bit grays .*\n"
        r"  train/dog/9\.tiff: It has floating point numbers .*",
        r"Repair or remove them, or set data\.on_error=skip",
    ),
    "nothing but broken files in a class": (
        "folder",
        spoiled_class,
        SKIP,
        r"training split without any image of class cat\. The first: train/cat/0\.png: It is not an image",
        "Repair these images, or remove the whole class",
    ),
    "nothing but broken files in a split": (
        "folder",
        spoiled_split,
        SKIP,
        r"test split without any image\. The first: val/cat/0\.png: It is empty",
        "Repair these images",
    ),
    "a link to nothing": (
        "folder",
        broken_link,
        [],
        r"train/cat/link\.png is a link to a file that does not exist",
        "Restore the file, or remove",
    ),
    "a file without permission": pytest.param(
        "folder",
        locked_file,
        [],
        r"train/cat/0\.png: There is no permission to read it",
        "Repair or remove",
        marks=as_user,
    ),
    "a folder without permission": pytest.param(
        "folder", locked_folder, [], "no permission to list .*/train/cat", "Change its permissions", marks=as_user
    ),
    "a list file with a file that does not exist": (
        "folder",
        listed,
        ["data.subset=${data.root}/items.txt"],
        r"Line 2 of .*items\.txt is 'train/cat/9\.png'",
        r"Expected .* a path relative to data\.root",
    ),
    "train flat, val sorted": (
        "folder",
        flat_and_sorted,
        [],
        "train has images without class folders",
        "or set data.layout=flat",
    ),
    "an empty val": (
        "folder",
        without(divided, "val/cat", "val/dog"),
        [],
        "no images in .*/val",
        "Fill the folders next to train/",
    ),
    "classes asked of a flat folder": (
        "folder",
        lambda root: write(root, "0.png", "1.png"),
        ["data.layout=classes"],
        "has 2 images and no",
        "Sort it",
    ),
    "ImageNet without val": (
        "imagenet256",
        without(divided, "val"),
        [],
        "has no train/ with a val/ next to it",
        r"or data\.test_fraction=0\.1",
    ),
    "ImageNet's train given as its root": (
        "imagenet512",
        lambda root: write(root, "n1/0.JPEG", "n2/0.JPEG"),
        [],
        "has no train/ with a val/",
        r"Set data\.root to the folder that holds both",
    ),
    "ImageNet's val and test as unpacked": (
        "imagenet256",
        lambda root: write(root, "train/n1/0.JPEG", "test/0.JPEG", "test/1.JPEG", "val/ILSVRC2012_val_00000001.JPEG"),
        [],
        "has class folders with images, but .*/val has 1 images",
        r"Sort it: move each image into a folder of its class\. For ImageNet, torchvision\.datasets\.ImageNet",
    ),
    "Tiny ImageNet without train": (
        TINY,
        without(tiny, "train"),
        [],
        "train is missing",
        r"Set data\.root to the unpacked tiny-imagenet-200/",
    ),
    "Tiny ImageNet without annotations": (
        TINY,
        without(tiny, "val/val_annotations.txt"),
        [],
        r"val/val_annotations\.txt is missing",
        r"If val/ is sorted into class folders, set data\.layout=classes",
    ),
    "Tiny ImageNet with an unknown class": (
        TINY,
        annotated("0.JPEG\tn1\n1.JPEG\tn9\n"),
        [],
        r"Line 2 of .*val_annotations\.txt assigns 1\.JPEG to class n9",
        "Add that folder, or remove the line",
    ),
    "Tiny ImageNet with half a line": (
        TINY,
        annotated("0.JPEG n1\n"),
        [],
        r"Line 1 of .*'0\.JPEG n1'",
        "Expected a file, its class and its box",
    ),
    "Tiny ImageNet with an absent image": (
        TINY,
        annotated("7.JPEG\tn1\n"),
        [],
        r"Line 1 of .* names 7\.JPEG",
        "Restore the image, or remove",
    ),
    "Tiny ImageNet with a line too many": (
        TINY,
        annotated("0.JPEG\tn1\n0.JPEG\tn2\n"),
        [],
        "an earlier line does too",
        "remove the line",
    ),
    "Tiny ImageNet with a line too few": (
        TINY,
        annotated("0.JPEG\tn1\n"),
        [],
        r"no line for 1 images, such as val/images/1\.JPEG",
        "Add their lines",
    ),
    "Tiny ImageNet's empty val": (
        TINY,
        without(annotated(""), "val/images/0.JPEG", "val/images/1.JPEG"),
        [],
        "is empty",
        "Unpack the archive",
    ),
    "Tiny ImageNet with no training images": (
        TINY,
        without(tiny, "train/n1", "train/n2"),
        [],
        "no images in .*train",
        "Unpack the archive",
    ),
}


@pytest.mark.parametrize(("name", "build", "overrides", "culprit", "cure"), MISTAKES.values(), ids=MISTAKES.keys())
def test_a_mistake_with_images_is_answered(
    tmp_path: Path, name: str, build: Callable[[Path], object], overrides: list[str], culprit: str, cure: str
) -> None:
    build(tmp_path)
    try:
        with pytest.raises((ValueError, FileNotFoundError), match=culprit) as answered:
            opened(name, tmp_path, *overrides)
    finally:
        for path in [*tmp_path.glob("train/*"), *tmp_path.glob("train/*/*")]:
            if not path.is_symlink():
                path.chmod(0o755)  # pytest removes them
    answered.match(cure)


FINE = {  # valid cases: (data, how the folder was made, overrides, training and test images, classes)
    "CelebA-HQ in one folder": (
        "celebahq256",
        lambda root: write(root, *(f"{i}.jpg" for i in range(10))),
        [],
        (9, 1),
        ("all",),
    ),
    "CelebA-HQ in two": (
        "celebahq256",
        lambda root: write(root, "train/0.png", "train/1.png", "val/0.png"),
        [],
        (2, 1),
        ("all",),
    ),
    "CelebA-HQ by class": ("celebahq256", divided, [], (4, 4), ("cat", "dog")),
    "CelebA-HQ by class, taken as one": ("celebahq256", divided, ["data.layout=flat"], (4, 4), ("all",)),
    "ImageNet with an unlabelled test": (
        "imagenet256",
        lambda root: (divided(root), write(root, "test/0.JPEG")),
        [],
        (4, 4),
        ("cat", "dog"),
    ),
    "Tiny ImageNet with its test": (
        TINY,
        lambda root: (tiny(root), write(root, "test/images/0.JPEG")),
        [],
        (4, 2),
        ("n1", "n2"),
    ),
    "Tiny ImageNet as a folder of one's own": ("folder", tiny, [], (4, 2), ("n1", "n2")),
    "broken files left out": ("folder", all_kinds, SKIP, (4, 4), ("cat", "dog")),
    "a broken file in an unchecked ImageNet": ("imagenet256", all_kinds, [], (9, 4), ("cat", "dog")),
}


@pytest.mark.parametrize(("name", "build", "overrides", "counts", "classes"), FINE.values(), ids=FINE.keys())
def test_what_is_no_mistake_is_read(
    tmp_path: Path,
    name: str,
    build: Callable[[Path], object],
    overrides: list[str],
    counts: tuple[int, int],
    classes: tuple[str, ...],
) -> None:
    build(tmp_path)
    data = opened(name, tmp_path, *overrides)
    assert (len(data.train), len(data.test)) == counts
    assert data.class_names == classes
    assert data.test[0][0].shape == (3, data.image_size, data.image_size)
