"""scikit-learn's digits: 1797 real 8x8 scans in 10 classes, plain or on colored backgrounds.

Bundled, nothing is downloaded. Writers follow each other in the scans' order: the first 1437 train, and the last 360,
of other writers, are held out. In a shuffled split most held-out scans have a training scan of the same hand, and the
nearest one has their label in 0.983 of cases; here in 0.956 (tests/data/test_digits.py).

[0] Alpaydin and Kaynak, Optical Recognition of Handwritten Digits, 1998, https://doi.org/10.24432/C50P49
"""

import hashlib
import json
import math
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import Dataset

from ldbench.core.pixels import from_uint8
from ldbench.data.draws import Color, contrasting_colors, keyed_generator
from ldbench.data.subset import select_items

REVISION = 2  # raise when the images or the split change

NUM_TEST = 360
MAX_INK = 16  # a scan's pixels count 0 to 16 dots of ink

ROTATION = math.radians(15)
SCALE = (0.65, 1.05)
SHIFT = 0.2  # of the image side
CONTRAST = 0.35  # in luminance


class Digits:
    """Light gray digits on black: the scans, upsampled bilinearly and stored as uint8. A mirrored digit is not a digit.

    Raises ValueError for an image_size below the scans' 8 px.
    """

    num_classes = 10
    class_names = tuple("0123456789")
    label_safe_flips = False

    def __init__(self, *, name: str, image_size: int, subset: float | str | None, seed: int):
        _check_size(image_size)
        self.name = name
        self.image_size = image_size
        scans = _load()
        kept = scans.train[select_items(scans.labels[scans.train], subset=subset, seed=seed)]
        ink = scans.ink[:, None] * (255 / MAX_INK)
        ink = F.interpolate(ink, size=(image_size, image_size), mode="bilinear")
        images = ink.round().to(torch.uint8)  # (1797, 1, H, W)
        self.train = DigitsSplit(images[kept], scans.labels[kept])
        self.test = DigitsSplit(images[scans.test], scans.labels[scans.test])
        facts = ["digits", REVISION, image_size, scans.digest(), kept.tolist(), scans.test.tolist()]
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class DigitsSplit(Dataset):
    """Gray uint8 images in memory, returned with three equal channels."""

    def __init__(self, images: Tensor, labels: Tensor):
        self.images = images  # (n, 1, H, W) uint8
        self.labels = labels  # (n,)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return from_uint8(self.images[index].repeat(3, 1, 1)), int(self.labels[index])


class DigitsColor:
    """The same scans and split, each rotated, scaled, shifted and drawn in a color that contrasts with its background.

    A training scan has `views` consecutive items with different draws, a test scan one. `subset` counts scans.
    Raises ValueError for an image_size below the scans' 8 px and for views below 1.
    """

    num_classes = 10
    class_names = Digits.class_names
    label_safe_flips = False

    def __init__(self, *, name: str, image_size: int, views: int, subset: float | str | None, seed: int):
        _check_size(image_size)
        if views < 1:
            raise ValueError(f"data.views is {views}. Each scan needs at least 1 view.")
        self.name = name
        self.image_size = image_size
        scans = _load()
        kept = scans.train[select_items(scans.labels[scans.train], subset=subset, seed=seed)]
        self.train = DigitsColorSplit("train", kept, scans=scans, image_size=image_size, views=views, seed=seed)
        self.test = DigitsColorSplit("test", scans.test, scans=scans, image_size=image_size, views=1, seed=seed)
        facts = ["digits_color", REVISION, image_size, views, seed, scans.digest(), kept.tolist(), scans.test.tolist()]
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()


class DigitsColorSplit(Dataset):
    """Colored digits rendered on access, each from (seed, split, scan, view) alone."""

    def __init__(self, split: str, indices: Tensor, *, scans: "Scans", image_size: int, views: int, seed: int):
        self.split = split
        self.indices = indices.repeat_interleave(views)  # of the scans
        self.ink = scans.ink / MAX_INK
        self.labels = scans.labels[self.indices]
        self.image_size = image_size
        self.views = views
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        scan, view = int(self.indices[index]), index % len(self) % self.views
        rng = keyed_generator("digits_color", self.seed, self.split, scan, view)
        foreground, background = contrasting_colors(2, contrast=CONTRAST, rng=rng)
        u = torch.rand(4, generator=rng).tolist()
        image = render_digit(
            self.ink[scan],
            foreground=foreground,
            background=background,
            rotation=ROTATION * (2 * u[0] - 1),
            scale=SCALE[0] + (SCALE[1] - SCALE[0]) * u[1],
            shift=(SHIFT * (2 * u[2] - 1), SHIFT * (2 * u[3] - 1)),
            size=self.image_size,
        )
        return from_uint8(image), int(self.labels[index])


def render_digit(
    ink: Tensor,  # (8, 8) in [0, 1]
    *,
    foreground: Color,
    background: Color,
    rotation: float,
    scale: float,
    shift: tuple[float, float],
    size: int,
) -> Tensor:
    """One digit as uint8 (3, size, size).

    `rotation` in radians, clockwise; `scale` and `shift` (right, down) in image sides. Ink is interpolated bilinearly.
    """
    cos, sin = math.cos(rotation) / scale, math.sin(rotation) / scale
    right, down = 2 * shift[0], 2 * shift[1]  # an image side is 2 in the grid's coordinates
    to_scan = torch.tensor([[cos, sin, -cos * right - sin * down], [-sin, cos, sin * right - cos * down]])
    grid = F.affine_grid(to_scan[None], [1, 1, size, size], align_corners=False)
    amount = F.grid_sample(ink[None, None], grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    image = torch.lerp(torch.tensor(background)[:, None, None], torch.tensor(foreground)[:, None, None], amount[0])
    return (255 * image).round().to(torch.uint8)


@dataclass(frozen=True)
class Scans:
    """The bundled scans and their split by writers, which no setting changes."""

    ink: Tensor  # (1797, 8, 8), 0 to 16
    labels: Tensor  # (1797,)
    train: Tensor  # (1437,) indices, ascending
    test: Tensor  # (360,)

    def digest(self) -> str:
        """The sha256 of the scans and their labels."""
        return hashlib.sha256(bytes(self.ink.byte().flatten().tolist()) + bytes(self.labels.tolist())).hexdigest()


def _load() -> Scans:
    bundled = load_digits()
    first_test = len(bundled.target) - NUM_TEST
    return Scans(
        ink=torch.from_numpy(bundled.images).float(),
        labels=torch.from_numpy(bundled.target).long(),
        train=torch.arange(first_test),
        test=torch.arange(first_test, len(bundled.target)),
    )


def _check_size(image_size: int) -> None:
    if image_size < 8:
        raise ValueError(f"data.image_size is {image_size}, but the scans have 8 px a side. Choose 8 or more.")
