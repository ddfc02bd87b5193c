"""Pixel and divergence terms: closed forms, and what each averages over."""

import math

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.terms import KL, FreeMeanKL, PixelMSE

Y = torch.zeros(2, dtype=torch.long)
IMAGES = torch.zeros(2, 3, 4, 4)
# four patches of 2x2 px in each image, off by the number that stands in the patch
OFFSETS = torch.tensor([[1.0, 2, 3, 4], [5, 6, 7, 8]])


def reconstruction(*, images=IMAGES, posterior=None, mask=None) -> Reconstruction:
    posterior = posterior or Posterior(torch.zeros(2, 1, 1), torch.zeros(2, 1, 1))
    return Reconstruction(
        images=images, z=posterior.mean, posterior=posterior, mask=mask, patch_grid=None if mask is None else (2, 2)
    )


def off_by_patch() -> torch.Tensor:  # (2, 3, 4, 4)
    return OFFSETS.view(2, 1, 2, 2).repeat_interleave(2, dim=2).repeat_interleave(2, dim=3).expand(2, 3, 4, 4)


def pixel_mse(recon, visible_ratio) -> float:
    return PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=visible_ratio)(IMAGES, recon, Y).item()


def gaussian(rng_seed=0) -> Posterior:
    rng = torch.Generator().manual_seed(rng_seed)
    return Posterior(torch.randn(2, 6, 3, generator=rng), torch.randn(2, 6, 3, generator=rng))


def test_without_a_mask_the_error_is_the_plain_mean_for_any_ratio():
    for ratio in (0.0, 0.3, 1.0):
        assert pixel_mse(reconstruction(images=off_by_patch()), ratio) == OFFSETS.square().mean()


@pytest.mark.parametrize(
    ("ratio", "expected"),
    [(1.0, (1 + 4 + 25) / 3), (0.0, (9 + 16 + 36 + 49 + 64) / 5), (0.75, 0.75 * 10 + 0.25 * 34.8)],
)
def test_visible_and_hidden_patches_are_averaged_apart_over_the_whole_batch_and_then_weighed(ratio, expected):
    # 3 visible, 5 hidden, unevenly shared by the images
    mask = torch.tensor([[False, False, True, True], [False, True, True, True]])
    assert pixel_mse(reconstruction(images=off_by_patch(), mask=mask), ratio) == pytest.approx(expected, rel=1e-6)


def test_a_difference_in_one_channel_of_one_pixel_counts_for_its_patch_only():
    images = IMAGES.clone()
    images[0, 2, 1, 3] = 6.0  # patch 1 of image 0: 36 over its 12 values
    mask = torch.tensor([[True, False, True, True], [True, True, True, False]])
    assert pixel_mse(reconstruction(images=images, mask=mask), 1.0) == pytest.approx(36 / 12 / 2)
    assert pixel_mse(reconstruction(images=images, mask=mask), 0.0) == 0


@pytest.mark.parametrize("ratio", [-0.1, 1.5])
def test_a_visible_ratio_outside_zero_to_one_is_refused(ratio):
    with pytest.raises(ValueError, match=rf"\[0, 1\], got {ratio}"):
        PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=ratio)


def test_kl_is_the_divergence_from_the_standard_normal_for_each_kept_token():
    posterior = gaussian()
    whole = kl_divergence(Normal(posterior.mean, (0.5 * posterior.logvar).exp()), Normal(0.0, 1.0))
    value = KL(weight=1.0, start=0, warmup=0)(IMAGES, reconstruction(posterior=posterior), Y)
    assert value.shape == ()
    assert torch.allclose(value, whole.sum(dim=2).mean(), rtol=1e-5)  # nats of a token are summed over its channels


@pytest.mark.parametrize("std", [1e-3, 0.1, 1.0, 3.0])
def test_free_mean_kl_is_the_divergence_from_a_normal_of_the_same_mean(std):
    posterior = gaussian()
    whole = kl_divergence(Normal(0.0, (0.5 * posterior.logvar).exp()), Normal(0.0, std))
    value = FreeMeanKL(weight=1.0, start=0, warmup=0, std=std)(IMAGES, reconstruction(posterior=posterior), Y)
    assert value.shape == ()
    assert torch.allclose(value, whole.sum(dim=2).mean(), rtol=1e-4)


@pytest.mark.parametrize("std", [1e-3, 0.1, 1.0, 3.0])
def test_free_mean_kl_vanishes_at_the_requested_deviation_for_any_mean(std):
    posterior = Posterior(100 * torch.randn(2, 6, 3), torch.full((2, 6, 3), 2 * math.log(std)))
    assert (
        abs(FreeMeanKL(weight=1.0, start=0, warmup=0, std=std)(IMAGES, reconstruction(posterior=posterior), Y)) < 1e-5
    )
    wider = Posterior(posterior.mean, posterior.logvar + 0.1)
    narrower = Posterior(posterior.mean, posterior.logvar - 0.1)
    for other in (wider, narrower):
        assert FreeMeanKL(weight=1.0, start=0, warmup=0, std=std)(IMAGES, reconstruction(posterior=other), Y) > 0.005


def test_free_mean_kl_at_unit_deviation_is_kl_without_its_mean():
    posterior = gaussian()
    free = FreeMeanKL(weight=1.0, start=0, warmup=0, std=1.0)(IMAGES, reconstruction(posterior=posterior), Y)
    full = KL(weight=1.0, start=0, warmup=0)(IMAGES, reconstruction(posterior=posterior), Y)
    assert torch.allclose(full - free, 0.5 * posterior.mean.square().sum(dim=2).mean(), rtol=1e-5)


@pytest.mark.parametrize(
    "term", [KL(weight=1.0, start=0, warmup=0), FreeMeanKL(weight=1.0, start=0, warmup=0, std=0.5)]
)
def test_divergences_do_not_grow_with_tokens_or_images_but_with_channels(term):
    posterior = gaussian()
    value = term(IMAGES, reconstruction(posterior=posterior), Y)
    for repeats, factor in (((3, 1, 1), 1), ((1, 4, 1), 1), ((1, 1, 2), 2)):
        larger = Posterior(posterior.mean.repeat(repeats), posterior.logvar.repeat(repeats))
        assert torch.allclose(term(IMAGES, reconstruction(posterior=larger), Y), factor * value, rtol=1e-5)


def test_the_gradient_of_free_mean_kl_leaves_the_mean_alone():
    mean, logvar = torch.randn(2, 6, 3, requires_grad=True), torch.zeros(2, 6, 3, requires_grad=True)
    FreeMeanKL(weight=1.0, start=0, warmup=0, std=0.1)(
        IMAGES, reconstruction(posterior=Posterior(mean, logvar)), Y
    ).backward()
    assert mean.grad is None
    assert torch.allclose(logvar.grad, torch.full((2, 6, 3), 0.5 * (100 - 1) / 12))  # of the mean over 2 x 6 tokens


@pytest.mark.parametrize(
    "term", [KL(weight=1.0, start=0, warmup=0), FreeMeanKL(weight=1.0, start=0, warmup=0, std=1.0)]
)
def test_a_point_has_no_divergence(term):
    with pytest.raises(ValueError, match="point and has no variance"):
        term(IMAGES, reconstruction(posterior=Posterior(torch.zeros(2, 6, 3))), Y)


@pytest.mark.parametrize("std", [0.0, -1.0])
def test_a_deviation_that_is_not_positive_is_refused(std):
    with pytest.raises(ValueError, match=f"std must be positive, got {std}"):
        FreeMeanKL(weight=1.0, start=0, warmup=0, std=std)


def test_half_precision_is_measured_in_single():
    images = torch.full((2, 3, 4, 4), 300.0, dtype=torch.float16)  # its square overflows half precision
    assert pixel_mse(reconstruction(images=images), 0.5) == 90_000
    posterior = Posterior(torch.zeros(2, 6, 3, dtype=torch.float16), torch.zeros(2, 6, 3, dtype=torch.float16))
    value = FreeMeanKL(weight=1.0, start=0, warmup=0, std=1e-3)(IMAGES, reconstruction(posterior=posterior), Y)
    assert value.item() == pytest.approx(0.5 * 3 * (1e6 - 1 - math.log(1e6)), rel=1e-5)
