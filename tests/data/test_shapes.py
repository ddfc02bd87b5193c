"""Procedural scenes: areas in closed form, resolutions that agree, mirrored scenes, determinism."""

import math
import re
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import to_uint8
from ldbench.data.draws import contrasting_colors, keyed_generator
from ldbench.data.shapes import KINDS, Scene, Shape, Shapes, draw_scene, render

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)
AREAS = {  # of the unit shapes
    "bar": 4 * 0.95 * 0.3,
    "circle": math.pi,
    "cross": 8 * 0.95 * 0.3 - 4 * 0.3**2,
    "ring": math.pi * (1 - 0.6**2),
    "square": 2.0,
    "star": 5 * 0.42 * math.sin(math.pi / 5),
    "triangle": 3 * math.sqrt(3) / 4,
}


def _shapes(**changes) -> Shapes:
    return Shapes(
        **{"name": "shapes", "image_size": 32, "num_train": 64, "num_test": 16, "subset": None, "seed": 0, **changes}
    )


def _alone(kind: str, *, rotation: float = 0.3, scale: float = 0.3) -> Scene:
    shape = Shape(kind=list(KINDS).index(kind), x=0.5, y=0.5, scale=scale, rotation=rotation, color=WHITE)
    return Scene(start=BLACK, end=BLACK, angle=0.0, distractors=(), shape=shape)


def _scene(i: int) -> Scene:
    return draw_scene(i % len(KINDS), rng=keyed_generator("test", i))


def test_the_contract_is_met():
    data = _shapes()
    assert isinstance(data, ImageData)
    assert (data.num_classes, data.class_names, data.label_safe_flips) == (8, tuple(KINDS), True)
    assert (len(data.train), len(data.test)) == (64, 16)
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint)
    image, label = data.train[11]
    assert (image.shape, image.dtype, label, type(label)) == ((3, 32, 32), torch.float32, 3, int)
    assert -1 <= image.min() < image.max() <= 1
    assert torch.equal(image, to_uint8(image).float() / 127.5 - 1)  # on the uint8 grid
    with pytest.raises(IndexError):
        data.train[64]


@pytest.mark.parametrize("kind", AREAS)
def test_a_shape_covers_its_area(kind):
    covered = render(_alone(kind), size=128).double().mean() / 255
    assert covered.item() == pytest.approx(AREAS[kind] * 0.3**2, rel=0.01)


def test_a_crescent_is_a_disc_less_a_bite():
    a, r, d = 1.0, 0.8, 0.5  # two circles and the distance of their centers
    lens = (
        a**2 * math.acos((d**2 + a**2 - r**2) / (2 * d * a))
        + r**2 * math.acos((d**2 + r**2 - a**2) / (2 * d * r))
        - 0.5 * math.sqrt((-d + a + r) * (d + a - r) * (d - a + r) * (d + a + r))
    )
    covered = render(_alone("crescent"), size=128).double().mean() / 255
    assert covered.item() == pytest.approx((math.pi - lens) * 0.3**2, rel=0.01)


def test_every_shape_lies_in_its_circle():
    outside = (torch.cartesian_prod(torch.arange(64), torch.arange(64)) - 31.5).norm(dim=1).view(64, 64) > 0.3 * 64 + 1
    for kind in KINDS:
        assert render(_alone(kind), size=64)[:, outside].max() == 0


@pytest.mark.parametrize("size", [32, 48])
def test_a_scene_of_twice_the_size_downsampled_is_the_scene(size):
    for i in range(16):
        small = render(_scene(i), size=size).float()
        halved = F.avg_pool2d(render(_scene(i), size=2 * size).float(), 2)
        difference = (small - halved).abs().amax(dim=0)  # of 255 levels; hard edges reach a mean of 3 to 5
        assert difference.mean() < 1.3
        assert (
            difference > 16
        ).float().mean() < 0.02  # at corners, whose coverage is not linear in the distance; hard edges: 5 %


def test_a_mirrored_scene_is_a_scene_of_the_same_class():
    def mirrored(shape: Shape) -> Shape:
        return replace(shape, x=1 - shape.x, rotation=math.pi - shape.rotation)

    for i in range(16):
        scene = _scene(i)
        mirror = replace(
            scene,
            angle=math.pi - scene.angle,
            shape=mirrored(scene.shape),
            distractors=tuple(mirrored(shape) for shape in scene.distractors),
        )
        assert (render(mirror, size=32).int() - render(scene, size=32).flip(-1).int()).abs().max() <= 1


def test_kinds_differ_at_every_rotation():
    turns = torch.linspace(0, 2 * math.pi, 61)[:-1].tolist()
    # (8, 60, H, W)
    masks = torch.stack([torch.stack([render(_alone(k, rotation=r), size=32)[0] / 255 for r in turns]) for k in KINDS])
    halfway = [render(_alone(k, rotation=turns[1] / 2), size=32)[0] / 255 for k in KINDS]  # between two known rotations
    # (8 probes, 8 kinds)
    distances = torch.stack([(masks - probe).abs().mean(dim=(2, 3)).amin(dim=1) for probe in halfway])
    own = distances.diagonal()
    others = distances.masked_fill(torch.eye(len(KINDS), dtype=torch.bool), math.inf).amin(dim=1)
    assert (own < 0.5 * others).all()


def test_a_shape_stands_inside_the_image_and_before_its_gradient():
    luma = torch.tensor([0.299, 0.587, 0.114])
    for i in range(100):
        scene = _scene(i)
        for shape in (scene.shape, *scene.distractors):
            assert shape.scale <= min(shape.x, 1 - shape.x, shape.y, 1 - shape.y) + 1e-6
        color, start, end = (luma @ torch.tensor(c) for c in (scene.shape.color, scene.start, scene.end))
        assert color > max(start, end) + 0.29 or color < min(start, end) - 0.29
        assert len(scene.distractors) in (1, 2)


def test_contrasting_colors_are_not_all_lighter():
    pairs = torch.tensor(
        [contrasting_colors(2, contrast=0.35, rng=keyed_generator("test", i)) for i in range(60)]
    ).mean(dim=2)
    assert 10 < (pairs[:, 0] > pairs[:, 1]).sum() < 50


def test_factors_say_what_is_drawn():
    data = _shapes(image_size=128, num_train=32)
    for i in range(32):
        factors = data.factors(i, "train")
        image, label = data.train[i]
        assert factors["kind"] == label
        assert set(map(type, factors.values())) == {float}
        if data.class_names[label] in ("ring", "crescent"):  # these are hollow in the middle
            continue
        column, row = int(factors["x"] * 128), int(factors["y"] * 128)
        color = torch.tensor([factors[c] for c in ("red", "green", "blue")]) * 2 - 1
        assert torch.allclose(image[:, row, column], color, atol=1 / 127)
    assert data.factors(3, "train") != data.factors(3, "test")
    assert data.factors(3, "train") == _shapes(image_size=16).factors(3, "train")


def test_the_gradient_runs_from_corner_to_corner():
    scene = replace(_alone("circle", scale=0.1), start=(1.0, 0.0, 0.0), end=(0.0, 0.0, 1.0), angle=math.pi / 4)
    image = render(scene, size=64)
    assert image[:, 0, 0].tolist() == pytest.approx([255, 0, 0], abs=3)
    assert image[:, 63, 63].tolist() == pytest.approx([0, 0, 255], abs=3)


def test_an_item_is_the_same_in_any_order_worker_and_subset():
    data = _shapes()
    forward = torch.stack([data.train[i][0] for i in range(64)])
    backward = torch.stack([data.train[i][0] for i in reversed(range(64))]).flip(0)
    loaded = next(iter(DataLoader(data.train, batch_size=64, num_workers=2)))
    assert torch.equal(forward, backward)
    assert torch.equal(forward, loaded[0])
    assert torch.equal(data.train.labels, loaded[1])
    thinned = _shapes(subset=0.25)
    assert thinned.train.labels.bincount().tolist() == [2] * 8
    assert len(thinned.test) == 16
    assert torch.equal(thinned.train[5][0], data.train[int(thinned.train.indices[5])][0])


def test_the_fingerprint_covers_what_the_images_depend_on():
    assert _shapes().fingerprint == _shapes(name="mine").fingerprint == _shapes(subset=1.0).fingerprint
    changes = ({}, {"image_size": 16}, {"num_train": 72}, {"num_test": 24}, {"seed": 1}, {"subset": 0.5})
    assert len({_shapes(**change).fingerprint for change in changes}) == len(changes)


@pytest.mark.parametrize(
    ("change", "message"), [({"image_size": 4}, "image_size is 4"), ({"num_test": 7}, "num_test=7")]
)
def test_too_small_a_setting_is_refused(change, message):
    with pytest.raises(ValueError, match=message):
        _shapes(**change)
