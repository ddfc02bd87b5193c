"""Differentiable augmentation: each operation, its draws, and its gradients."""

import pytest
import torch

from ldbench.losses.augmentation import DiffAug, cut_out, jitter_color, offsets, shift

HALF = torch.full((4,), 0.5)


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 24, generator=torch.Generator().manual_seed(0)) * 2 - 1


def test_without_probability_images_are_unchanged(images):
    assert DiffAug(probability=0.0, cutout=0.5)(images) is images


def test_the_middle_of_every_range_changes_no_color(images):
    assert torch.allclose(jitter_color(images, HALF, HALF, HALF), images, atol=1e-6)


def test_brightness_adds_up_to_a_half(images):
    assert torch.allclose(jitter_color(images, torch.ones(4), HALF, HALF), images + 0.5, atol=1e-6)
    assert torch.allclose(jitter_color(images, torch.zeros(4), HALF, HALF), images - 0.5, atol=1e-6)


def test_saturation_goes_from_gray_to_twice_the_color(images):
    gray = images.mean(dim=1, keepdim=True)
    assert torch.allclose(jitter_color(images, HALF, torch.zeros(4), HALF), gray.expand_as(images), atol=1e-6)
    assert torch.allclose(jitter_color(images, HALF, torch.ones(4), HALF), 2 * images - gray, atol=1e-6)


def test_contrast_scales_the_distance_from_an_images_own_mean_by_a_half_to_one_and_a_half(images):
    level = images.mean(dim=(1, 2, 3), keepdim=True)
    assert torch.allclose(jitter_color(images, HALF, HALF, torch.zeros(4)), level + 0.5 * (images - level), atol=1e-6)
    assert torch.allclose(jitter_color(images, HALF, HALF, torch.ones(4)), level + 1.5 * (images - level), atol=1e-6)


def test_a_shift_moves_each_image_by_its_own_offset_and_zeros_come_in(images):
    moved = shift(images, torch.tensor([[2, -3, 0, 0], [1, 0, -4, 0]]))
    assert torch.equal(moved[0, :, 2:, 1:], images[0, :, :-2, :-1])
    assert not moved[0, :, :2].any()
    assert not moved[0, :, :, :1].any()
    assert torch.equal(moved[1, :, :-3], images[1, :, 3:])
    assert not moved[1, :, -3:].any()
    assert torch.equal(moved[2, :, :, :-4], images[2, :, :, 4:])
    assert torch.equal(moved[3], images[3])


def test_offsets_reach_an_eighth_of_each_side_in_both_directions():
    torch.manual_seed(0)
    down, right = offsets(torch.zeros(2000, 3, 16, 24), 1 / 8)
    assert set(down.tolist()) == set(range(-2, 3))
    assert set(right.tolist()) == set(range(-3, 4))


def test_the_box_has_the_size_asked_for_and_may_reach_over_the_edge(images):
    center = torch.tensor([[0.0, 0.5, 0.999, 0.5], [0.0, 0.5, 0.999, 0.999]])
    cut = (cut_out(images, 0.5, center) == 0).all(dim=1)  # 8 x 12 px of 16 x 24
    assert cut.sum(dim=(1, 2)).tolist() == [4 * 6, 8 * 12, 4 * 6, 8 * 6]
    assert cut[1, 4:12, 6:18].all()
    assert torch.equal(cut_out(images, 0.5, center).masked_select(~cut[:, None]), images.masked_select(~cut[:, None]))


def test_an_odd_box_stays_centered_on_a_pixel():
    cut = cut_out(torch.ones(2, 3, 5, 5), 0.6, torch.tensor([[0.0, 0.999], [0.5, 0.5]])) == 0  # 3 px of 5
    assert cut[0, 0, :, 2].tolist() == [True, True, False, False, False]
    assert cut[1, 0, :, 2].tolist() == [False, False, False, True, True]


def test_the_same_seed_gives_the_same_images_and_another_gives_others(images):
    augment = DiffAug(probability=1.0, cutout=0.2)

    def at(seed):
        torch.manual_seed(seed)
        return augment(images)

    assert torch.equal(at(3), at(3))
    assert not torch.equal(at(3), at(4))


def test_one_coin_decides_for_the_whole_batch_and_each_image_draws_its_own_strength():
    torch.manual_seed(0)
    images = torch.ones(6, 3, 8, 8)
    augment = DiffAug(probability=0.5, cutout=0.0)
    untouched = 0
    for _ in range(200):
        middle = augment(images)[:, 0, 4, 4]
        changed = middle != 1  # a uniform image shows its brightness alone, away from the edges
        assert changed.all() or not changed.any()
        assert not changed.any() or len(middle.unique()) == 6
        untouched += not changed.any()
    assert 70 <= untouched <= 130  # three deviations and more around a half


def test_shape_and_range_stay_about_the_same(images):
    torch.manual_seed(0)
    augmented = torch.stack([DiffAug(probability=1.0, cutout=0.5)(images) for _ in range(50)])
    assert augmented.shape[1:] == images.shape
    assert augmented.abs().max() < 6  # (1 + 0.5) * 2 * 1.5 and the means
    assert augmented.dtype == images.dtype


def test_gradients_pass_through_all_three(images):
    torch.manual_seed(1)
    images = images.double().requires_grad_()

    def always_alike(given):
        torch.manual_seed(1)
        return DiffAug(probability=1.0, cutout=0.2)(given)

    assert torch.autograd.gradcheck(lambda given: always_alike(given)[:1, :, ::5, ::5].sum(), (images,), fast_mode=True)
    always_alike(images).sum().backward()
    assert images.grad.abs().sum() > 0


@pytest.mark.parametrize(
    ("given", "name"),
    [({"probability": 1.5, "cutout": 0.2}, "probability"), ({"probability": 1.0, "cutout": -1.0}, "cutout")],
)
def test_numbers_outside_zero_to_one_are_refused(given, name):
    with pytest.raises(ValueError, match=rf"{name} must lie in \[0, 1\], got {given[name]}"):
        DiffAug(**given)
