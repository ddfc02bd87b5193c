"""Colored scenes of one large shape, drawn at any resolution from known factors. The class is the kind of the shape.

A scene is a color gradient, one or two small distractors and, in front of them, the shape. Every kind is symmetric
about an axis, so that a mirrored scene is another scene of the same class.
"""

import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.pixels import from_uint8
from ldbench.data.draws import Color, contrasting_colors, keyed_generator
from ldbench.data.subset import select_items

REVISION = 1  # raise when the images change

SCALE = (0.18, 0.36)  # circumscribed radius, in image sides
DISTRACTOR_SCALE = (0.04, 0.09)
CONTRAST = 0.3  # in luminance, between the shape and any point of the gradient


@dataclass(frozen=True)
class Shape:
    """One shape: center and circumscribed radius in image sides from the upper left corner, rotation in radians."""

    kind: int
    x: float
    y: float
    scale: float
    rotation: float
    color: Color


@dataclass(frozen=True)
class Scene:
    """A linear gradient from `start` to `end` along `angle` (radians), and shapes from back to front."""

    start: Color
    end: Color
    angle: float
    distractors: tuple[Shape, ...]
    shape: Shape


class Shapes:
    """Procedural scenes; classes alternate, so that they are balanced.

    Raises ValueError for images below 8 px and for splits with fewer images than classes.
    """

    label_safe_flips = True

    def __init__(
        self, *, name: str, image_size: int, num_train: int, num_test: int, subset: float | str | None, seed: int
    ):
        if image_size < 8:
            raise ValueError(f"data.image_size is {image_size}. Shapes need at least 8 px to be distinguishable.")
        if min(num_train, num_test) < len(KINDS):
            raise ValueError(
                f"data.num_train={num_train}, data.num_test={num_test}: "
                f"give at least one image for each of {len(KINDS)} kinds."
            )
        self.name = name
        self.image_size = image_size
        self.class_names = tuple(KINDS)
        self.num_classes = len(KINDS)
        kept = select_items(torch.arange(num_train) % len(KINDS), subset=subset, seed=seed)
        self.train = ShapesSplit("train", kept, image_size=image_size, seed=seed)
        self.test = ShapesSplit("test", torch.arange(num_test), image_size=image_size, seed=seed)
        facts = ["shapes", REVISION, image_size, seed, kept.tolist(), num_test]
        self.fingerprint = hashlib.sha256(json.dumps(facts).encode()).hexdigest()

    def factors(self, index: int, split: str) -> dict[str, float]:
        """The factors of item `index` of `split` ("train" or "test").

        Keys: `kind x y scale rotation red green blue`, the gradient's `angle start_* end_*`, `num_distractors`, and
        each distractor's factors as `distractor_<i>_*`.
        """
        scene = {"train": self.train, "test": self.test}[split].scene(index)
        return {
            **_shape_factors(scene.shape),
            "angle": scene.angle,
            **_color_factors(scene.start, prefix="start_"),
            **_color_factors(scene.end, prefix="end_"),
            "num_distractors": float(len(scene.distractors)),
            **{
                k: v
                for i, shape in enumerate(scene.distractors)
                for k, v in _shape_factors(shape, prefix=f"distractor_{i}_").items()
            },
        }


class ShapesSplit(Dataset):
    """Scenes rendered on access, each from (seed, split, index) alone."""

    def __init__(self, split: str, indices: Tensor, *, image_size: int, seed: int):
        self.split = split
        self.indices = indices  # in the whole split: a scene is the same in every subset
        self.labels = indices % len(KINDS)
        self.image_size = image_size
        self.seed = seed

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return from_uint8(render(self.scene(index), size=self.image_size)), int(self.labels[index])

    def scene(self, index: int) -> Scene:
        """The scene of an item."""
        rng = keyed_generator("shapes", self.seed, self.split, int(self.indices[index]))
        return draw_scene(int(self.labels[index]), rng=rng)


def draw_scene(kind: int, *, rng: torch.Generator) -> Scene:
    """A random scene with a shape of `kind`, which lies completely inside the image and contrasts with the gradient."""
    color, start, end = contrasting_colors(3, contrast=CONTRAST, rng=rng)
    shape = _draw_shape(kind, color=color, scales=SCALE, rng=rng)
    angle = 2 * math.pi * torch.rand((), generator=rng).item()
    num_distractors = int(torch.randint(1, 3, (), generator=rng))
    distractors = []
    for _ in range(num_distractors):
        other = int(torch.randint(len(KINDS), (), generator=rng))
        color = tuple(torch.rand(3, generator=rng).tolist())
        distractors.append(_draw_shape(other, color=color, scales=DISTRACTOR_SCALE, rng=rng))
    return Scene(start=start, end=end, angle=angle, distractors=tuple(distractors), shape=shape)


def render(scene: Scene, *, size: int) -> Tensor:
    """The scene as uint8 (3, size, size). Edge pixels are blended by coverage, so that sizes agree."""
    centers = (torch.arange(size) + 0.5) / size
    x, y = centers[None, :], centers[:, None]  # (1, W), (H, 1)
    cos, sin = math.cos(scene.angle), math.sin(scene.angle)
    along = 0.5 + ((x - 0.5) * cos + (y - 0.5) * sin) / (abs(cos) + abs(sin))  # (H, W), 0 and 1 in opposite corners
    image = torch.lerp(_pixel(scene.start), _pixel(scene.end), along)  # (3, H, W)
    for shape in (*scene.distractors, scene.shape):
        image = torch.lerp(image, _pixel(shape.color), _coverage(shape, x, y, size=size))
    return (255 * image).round().to(torch.uint8)


def _draw_shape(kind: int, *, color: Color, scales: tuple[float, float], rng: torch.Generator) -> Shape:
    u = torch.rand(4, generator=rng).tolist()
    scale = scales[0] + (scales[1] - scales[0]) * u[0]
    x, y = (scale + (1 - 2 * scale) * position for position in u[1:3])
    return Shape(kind=kind, x=x, y=y, scale=scale, rotation=2 * math.pi * u[3], color=color)


def _coverage(shape: Shape, x: Tensor, y: Tensor, *, size: int) -> Tensor:
    """How much of each pixel the shape covers, (H, W) in [0, 1]: exact for straight edges along the axes, close for
    others.
    """
    cos, sin = math.cos(shape.rotation) / shape.scale, math.sin(shape.rotation) / shape.scale
    x, y = x - shape.x, y - shape.y
    distance = list(KINDS.values())[shape.kind](cos * x + sin * y, cos * y - sin * x)  # in circumscribed radii
    return (0.5 - distance * shape.scale * size).clamp(0, 1)


def _pixel(color: Color) -> Tensor:
    return torch.tensor(color)[:, None, None]  # (3, 1, 1)


def _shape_factors(shape: Shape, prefix: str = "") -> dict[str, float]:
    placed = {prefix + key: float(getattr(shape, key)) for key in ("kind", "x", "y", "scale", "rotation")}
    return placed | _color_factors(shape.color, prefix=prefix)


def _color_factors(color: Color, *, prefix: str) -> dict[str, float]:
    return {prefix + key: value for key, value in zip(("red", "green", "blue"), color, strict=True)}


# Signed distances, negative inside, exact near straight and round edges. Each shape fits the unit circle and is
# symmetric in y -> -y.


def _circle(x: Tensor, y: Tensor) -> Tensor:
    return torch.hypot(x, y) - 1


def _ring(x: Tensor, y: Tensor) -> Tensor:
    return (torch.hypot(x, y) - 0.8).abs() - 0.2


def _crescent(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(torch.hypot(x, y) - 1, 0.8 - torch.hypot(x - 0.5, y))


def _bar(x: Tensor, y: Tensor) -> Tensor:
    return torch.maximum(x.abs() - 0.95, y.abs() - 0.3)


def _cross(x: Tensor, y: Tensor) -> Tensor:
    return torch.minimum(_bar(x, y), _bar(y, x))


def _star(x: Tensor, y: Tensor, *, points: int, notch: float) -> Tensor:
    """Tips at radius 1, notches at radius `notch`: folded onto the half sector between a tip and a notch, it is one
    straight edge.
    """
    half = math.pi / points
    radius = torch.hypot(x, y)
    folded = ((torch.atan2(y, x) + half).remainder(2 * half) - half).abs()  # angle from the nearest tip
    edge_x, edge_y = notch * math.cos(half) - 1, notch * math.sin(half)
    across = (radius * folded.cos() - 1) * edge_y - radius * folded.sin() * edge_x
    return across / math.hypot(edge_x, edge_y)


KINDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "bar": _bar,
    "circle": _circle,
    "crescent": _crescent,
    "cross": _cross,
    "ring": _ring,
    "square": partial(_star, points=4, notch=math.cos(math.pi / 4)),
    "star": partial(_star, points=5, notch=0.42),
    "triangle": partial(_star, points=3, notch=math.cos(math.pi / 3)),
}
