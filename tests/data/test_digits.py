"""Digits, plain and on colored backgrounds."""

import math
import re

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits
from sklearn.neighbors import KNeighborsClassifier
from torch.nn import functional as F
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageData
from ldbench.core.pixels import to_uint8
from ldbench.data.digits import Digits, DigitsColor, render_digit

WHITE, BLACK = (1.0, 1.0, 1.0), (0.0, 0.0, 0.0)


def _digits(**changes) -> Digits:
    return Digits(**{"name": "digits", "image_size": 32, "subset": None, "seed": 0, **changes})


def _color(**changes) -> DigitsColor:
    return DigitsColor(**{"name": "digits_color", "image_size": 32, "views": 1, "subset": None, "seed": 0, **changes})


@pytest.mark.parametrize("make", [_digits, _color])
def test_the_contract_is_met(make):
    data = make()
    assert isinstance(data, ImageData)
    assert (data.num_classes, len(data.class_names), data.label_safe_flips) == (10, 10, False)
    assert re.fullmatch("[0-9a-f]{64}", data.fingerprint)
    image, label = data.train[5]
    assert (image.shape, image.dtype, type(label)) == ((3, 32, 32), torch.float32, int)
    assert -1 <= image.min() < image.max() <= 1
    assert torch.equal(image, to_uint8(image).float() / 127.5 - 1)  # on the uint8 grid
    with pytest.raises(IndexError):
        data.train[len(data.train)]


def test_the_split_is_in_the_order_of_the_scans():
    data = _digits(image_size=8)
    assert (len(data.train), len(data.test)) == (1437, 360)
    together = torch.cat([data.train.images, data.test.images]).flatten(1)
    scans = (torch.from_numpy(load_digits().images).flatten(1) * (255 / 16)).round().byte()
    assert torch.equal(together, scans)
    shares = data.train.labels.bincount() / torch.cat([data.train.labels, data.test.labels]).bincount()
    assert (shares - 1437 / 1797).abs().max() < 0.011


def test_held_out_scans_have_fewer_neighbors_of_their_hand_than_shuffled_ones():
    x, y = load_digits(return_X_y=True)

    def accuracy(train, test) -> float:
        return KNeighborsClassifier(1).fit(x[train], y[train]).score(x[test], y[test])

    order = np.random.default_rng(0).permutation(len(y))
    by_writers, shuffled = (accuracy(indices[:1437], indices[1437:]) for indices in (np.arange(len(y)), order))
    assert by_writers == pytest.approx(0.956, abs=5e-4)
    assert shuffled > 0.98


def test_the_split_is_the_same_at_every_seed_and_in_both_data_sets():
    data = _digits()
    assert torch.equal(data.test.images, _digits(seed=7).test.images)
    assert torch.equal(data.train.images, _digits(seed=7).train.images)
    assert torch.equal(data.train.labels, _color().train.labels)
    assert torch.equal(data.test.labels, _color().test.labels)


def test_labels_belong_to_their_scans():
    data = _digits(image_size=8)
    bundled = load_digits()
    known = {
        tuple((scan.flatten() * (255 / 16)).round().astype(int)): label
        for scan, label in zip(bundled.images, bundled.target, strict=True)
    }
    assert all(
        known[tuple(image.flatten().tolist())] == label
        for image, label in zip(data.test.images, data.test.labels, strict=True)
    )


def test_a_scan_of_twice_the_size_mixes_neighbours_nine_to_three_to_three_to_one():
    small, large = (_digits(image_size=size).train.images[:, 0].float() for size in (8, 16))
    mixed = (9 * small[:, 2, 3] + 3 * small[:, 2, 4] + 3 * small[:, 3, 3] + small[:, 3, 4]) / 16
    assert (large[:, 5, 7] - mixed).abs().max() <= 1  # both are rounded


def test_channels_are_equal():
    image = _digits().train[3][0]
    assert torch.equal(image, image[:1].expand(3, -1, -1))


def test_sizes_that_are_no_multiple_of_eight_are_welcome_and_smaller_ones_refused():
    assert _digits(image_size=21).train[0][0].shape == (3, 21, 21)
    assert _color(image_size=21).train[0][0].shape == (3, 21, 21)
    for make in (_digits, _color):
        with pytest.raises(ValueError, match="image_size is 7"):
            make(image_size=7)


def test_a_subset_thins_the_training_split_only():
    for data in (_digits(subset=0.1), _color(subset=0.1)):
        assert len(data.test) == 360
        assert data.train.labels.bincount().tolist() == (_digits().train.labels.bincount() / 10 + 0.5).int().tolist()


def test_the_fingerprint_covers_what_the_images_depend_on_and_nothing_else(tmp_path):
    items = tmp_path / "items.txt"
    items.write_text("\n".join(map(str, range(1437))))
    plain = {
        _digits(**c).fingerprint for c in ({}, {"name": "mine"}, {"seed": 7}, {"subset": 1.0}, {"subset": str(items)})
    }
    assert len(plain) == 1
    changed = [
        _digits(**c).fingerprint
        for c in ({"image_size": 16}, {"subset": 0.5}, {"subset": 0.5, "seed": 1}, {"subset": 0.4})
    ]
    color = [_color(**c).fingerprint for c in ({}, {"seed": 1}, {"views": 2}, {"image_size": 16}, {"subset": 0.5})]
    assert len({*plain, *changed, *color}) == 1 + len(changed) + len(color)
    assert _color().fingerprint == _color(name="mine").fingerprint


def test_a_colored_item_is_the_same_in_any_order_worker_and_subset():
    data = _color()
    forward = [data.train[i][0] for i in range(32)]
    backward = [data.train[i][0] for i in reversed(range(32))][::-1]
    loaded = next(iter(DataLoader(data.train, batch_size=32, num_workers=2)))
    assert torch.equal(torch.stack(forward), torch.stack(backward))
    assert torch.equal(torch.stack(forward), loaded[0])
    thinned = _color(subset=0.2).train
    at = data.train.indices.tolist().index(thinned.indices[9].item())
    assert torch.equal(thinned[9][0], data.train[at][0])


def test_seeds_splits_and_views_draw_differently_and_views_share_their_scan():
    one, three = _color(), _color(views=3)
    assert (len(three.train), len(three.test)) == (3 * 1437, 360)
    assert torch.equal(three.train[6][0], one.train[2][0])  # the first view stays what it was
    assert not torch.equal(three.train[7][0], three.train[6][0])
    assert torch.equal(three.train[-1][0], three.train[len(three.train) - 1][0])
    assert {three.train[i][1] for i in (6, 7, 8)} == {one.train[2][1]}
    assert torch.equal(three.test[4][0], one.test[4][0])
    assert not torch.equal(_color(seed=1).train[2][0], one.train[2][0])
    with pytest.raises(ValueError, match=r"data\.views is 0"):
        _color(views=0)


def test_digit_and_background_differ_in_luminance():
    data = _color(image_size=64)
    luma = torch.tensor([0.299, 0.587, 0.114])
    for i in range(60):
        luminance = torch.einsum("c,chw->hw", luma, (data.train[i][0] + 1) / 2)
        assert luminance.max() - luminance.min() > 0.3


def test_an_upright_digit_of_full_size_is_the_bilinear_scan():
    scan = torch.from_numpy(load_digits().images[0]).float() / 16
    image = render_digit(scan, foreground=WHITE, background=BLACK, rotation=0.0, scale=1.0, shift=(0.0, 0.0), size=32)
    expected = F.interpolate(scan[None, None] * 255, size=32, mode="bilinear")[0].round()
    assert (image[:, 2:-2, 2:-2] - expected[:, 2:-2, 2:-2]).abs().max() <= 1  # at the rim ink fades out


def _center_of(image: torch.Tensor) -> tuple[float, float]:
    ink = image[0].double()
    centers = (torch.arange(len(ink)).double() + 0.5) / len(ink)
    return (ink.sum(0) @ centers / ink.sum()).item(), (ink.sum(1) @ centers / ink.sum()).item()


def test_a_dot_moves_where_scale_shift_and_rotation_say():
    dot = torch.zeros(8, 8)
    dot[3, 5] = 1  # center at (5.5, 3.5) / 8: (.1875, -.0625) from the middle

    def center_of_mass(rotation: float, scale: float, shift: tuple[float, float]) -> tuple[float, float]:
        return _center_of(
            render_digit(dot, foreground=WHITE, background=BLACK, rotation=rotation, scale=scale, shift=shift, size=128)
        )

    assert center_of_mass(0.0, 1.0, (0.0, 0.0)) == pytest.approx((0.6875, 0.4375), abs=2e-3)
    assert center_of_mass(0.0, 0.5, (0.1, -0.2)) == pytest.approx((0.5 + 0.09375 + 0.1, 0.5 - 0.03125 - 0.2), abs=2e-3)
    # right turns down: clockwise
    assert center_of_mass(math.pi / 2, 1.0, (0.0, 0.0)) == pytest.approx((0.5625, 0.6875), abs=2e-3)
    # moved after it is turned
    assert center_of_mass(math.pi / 2, 1.0, (0.1, -0.2)) == pytest.approx((0.6625, 0.4875), abs=2e-3)
