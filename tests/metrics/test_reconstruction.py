"""Reconstruction metrics: closed forms, torchmetrics on one image, and equality over batches and order."""

import math
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchmetrics
from hypothesis import given
from hypothesis import strategies as st
from tests.examples import examples

from ldbench.metrics.reconstruction import ms_ssim, mse, psnr, ssim

CLOSE = {"rel": 1e-12, "abs": 1e-12}
METRICS = pytest.mark.parametrize("metric", [psnr, ssim, mse], ids=["psnr", "ssim", "mse"])


def noise(seed: int, num: int = 4, size: int = 16) -> torch.Tensor:
    return torch.randint(0, 256, (num, 3, size, size), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


@pytest.mark.parametrize("offset", [1, 10, 255])
def test_a_constant_offset_has_the_psnr_of_its_square(offset):
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    assert psnr(images, images + offset).tolist() == pytest.approx([20 * math.log10(255 / offset)] * 2, **CLOSE)
    assert psnr(images + offset, images).tolist() == pytest.approx([20 * math.log10(255 / offset)] * 2, **CLOSE)
    assert mse(images, images + offset).tolist() == pytest.approx([(offset / 255) ** 2] * 2, rel=1e-12)


def test_one_wrong_value_has_the_psnr_of_its_share():
    images = noise(0, num=1)
    recon = images.clone()
    recon[0, 1, 3, 3] = images[0, 1, 3, 3] ^ 64  # off by 64 in one of 768 values
    assert psnr(images, recon).item() == pytest.approx(10 * math.log10(255**2 / (64**2 / 768)), **CLOSE)


def test_differences_do_not_wrap_around_a_byte():
    black, white = torch.zeros(1, 3, 16, 16, dtype=torch.uint8), torch.full((1, 3, 16, 16), 255, dtype=torch.uint8)
    assert [psnr(black, white).item(), psnr(white, black).item()] == pytest.approx([0, 0], **CLOSE)
    assert mse(black, white).item() == 1


def test_equal_images_are_perfect_and_only_they():
    images = noise(0)
    recon = images.clone()
    recon[2] ^= 1
    best = 10 * math.log10(12 * 255**2)
    assert best == pytest.approx(58.92, abs=5e-3)
    assert psnr(images, recon).tolist() == pytest.approx([best, best, 20 * math.log10(255), best], rel=1e-12)
    recon[1, 0, 0, :3] ^= 1  # three of 768 levels: an error of less than 1/12
    assert psnr(images, recon)[1].item() == pytest.approx(best, rel=1e-12)
    assert torch.allclose(ssim(images, images), torch.ones(4, dtype=torch.float64), rtol=0, atol=1e-12)
    assert ssim(images, recon)[2] < 1 - 1e-8
    assert mse(images, images).tolist() == [0] * 4


def test_flat_images_have_the_ssim_of_their_luminance():
    a, b = 50.0, 90.0  # no variance: (2ab + c1) / (a^2 + b^2 + c1)
    c1 = (0.01 * 255) ** 2
    images = torch.full((1, 3, 16, 16), int(a), dtype=torch.uint8)
    recon = torch.full((1, 3, 16, 16), int(b), dtype=torch.uint8)
    assert ssim(images, recon).item() == pytest.approx((2 * a * b + c1) / (a**2 + b**2 + c1), rel=1e-9)


def test_an_inverted_image_has_a_negative_ssim():
    images = noise(0, num=1)
    assert ssim(images, 255 - images).item() < -0.9


def test_ssim_is_the_windowed_formula_at_every_pixel_of_the_reflected_image():
    images, recon = noise(1, num=1, size=13), noise(2, num=1, size=13)
    a, b = (F.pad(image.double(), (5, 5, 5, 5), mode="reflect")[0] for image in (images, recon))
    steps = torch.arange(-5, 6, dtype=torch.float64)
    line = (-(steps**2) / (2 * 1.5**2)).exp()
    window = torch.outer(line, line) / line.sum() ** 2
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    values = []
    for row in range(13):
        for column in range(13):
            x, y = (image[:, row : row + 11, column : column + 11] for image in (a, b))
            mean_x, mean_y = (x * window).sum(dim=(1, 2)), (y * window).sum(dim=(1, 2))
            var_x = (x**2 * window).sum(dim=(1, 2)) - mean_x**2
            var_y = (y**2 * window).sum(dim=(1, 2)) - mean_y**2
            cov = (x * y * window).sum(dim=(1, 2)) - mean_x * mean_y
            values.append(
                (2 * mean_x * mean_y + c1) * (2 * cov + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
            )
    assert ssim(images, recon).item() == pytest.approx(torch.stack(values).mean().item(), rel=1e-9)


def test_one_image_agrees_with_torchmetrics():
    images, recon = noise(3, num=1), noise(4, num=1)
    a, b = images.double(), recon.double()
    assert psnr(images, recon).item() == pytest.approx(
        torchmetrics.functional.image.peak_signal_noise_ratio(b, a, data_range=255.0).item(), rel=1e-6
    )


@pytest.mark.parametrize("size", [(6, 6), (9, 11), (32, 32), (40, 17)])
def test_ssim_is_torchmetrics_and_that_of_each_image_alone(size):
    rng = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (5, 3, *size), generator=rng, dtype=torch.uint8)
    recon = (images.double() + 20 * torch.randn(images.shape, generator=rng)).clamp(0, 255).to(torch.uint8)
    found = ssim(images, recon)
    by_torchmetrics = torchmetrics.functional.image.structural_similarity_index_measure
    expected = by_torchmetrics(recon.double(), images.double(), data_range=255.0, reduction="none")
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)
    assert torch.equal(found, torch.cat([ssim(images[i : i + 1], recon[i : i + 1]) for i in range(5)]))


def test_images_smaller_than_the_window_are_refused():
    with pytest.raises(
        ValueError, match=r"ssim needs images of at least 6 px for its window of 11 px, got 5\. Leave it out"
    ):
        ssim(noise(0, size=5), noise(1, size=5))


@METRICS
@examples(15)
@given(seed=st.integers(0, 1000), cuts=st.sets(st.integers(1, 5)), order=st.permutations(range(6)))
def test_no_value_depends_on_the_batch_or_the_order(metric, seed, cuts, order):
    images = noise(seed, num=6)
    recon = (images.int() + noise(seed + 1, num=6).int() % 41 - 20).clamp(0, 255).to(torch.uint8)
    whole = metric(images, recon)
    ends = [0, *sorted(cuts), 6]
    in_parts = torch.cat([metric(images[a:b], recon[a:b]) for a, b in pairwise(ends)])
    assert torch.allclose(in_parts, whole, rtol=1e-9, atol=0)
    assert torch.allclose(metric(images[list(order)], recon[list(order)]), whole[list(order)], rtol=1e-9, atol=0)


@METRICS
def test_every_image_has_its_own_double_precision_value(metric):
    values = metric(noise(0), noise(1))
    assert values.shape == (4,)
    assert values.dtype == torch.float64
    assert len(set(values.tolist())) == 4
    assert metric(noise(0, num=1), noise(1, num=1)).shape == (1,)


@METRICS
@pytest.mark.parametrize(
    "recon",
    [
        torch.zeros(4, 3, 16, 16),
        torch.zeros(4, 3, 16, 16, dtype=torch.int32),
        torch.zeros(2, 3, 16, 16, dtype=torch.uint8),
    ],
    ids=["float", "int32", "fewer"],
)
def test_other_types_and_shapes_are_refused_with_advice(metric, recon):
    with pytest.raises(
        ValueError, match=r"compare uint8 images of the same shape, got \(4, 3, 16, 16\) torch.uint8 and .*to_uint8"
    ):
        metric(noise(0), recon)
    with pytest.raises(ValueError, match="compare uint8 images"):
        metric(recon, recon.float())


@METRICS
def test_float_images_are_refused_even_when_both_are(metric):
    with pytest.raises(ValueError, match="compare uint8 images"):
        metric(noise(0).float(), noise(1).float())


def test_ms_ssim_is_torchmetrics_on_each_image():
    images = noise(5, num=2, size=181)
    recon = (images.int() + noise(6, num=2, size=181).int() % 41 - 20).clamp(0, 255).to(torch.uint8)
    found = ms_ssim(images, recon)
    expected = [
        torchmetrics.functional.image.multiscale_structural_similarity_index_measure(
            recon[i : i + 1].double(), images[i : i + 1].double(), data_range=255.0
        ).item()
        for i in range(2)
    ]
    assert found.tolist() == pytest.approx(expected, rel=1e-6)
    assert ms_ssim(images, images).tolist() == pytest.approx([1, 1], abs=1e-9)
    assert torch.allclose(ms_ssim(images[1:], recon[1:]), found[1:], rtol=1e-9, atol=0)
    inverted = ms_ssim(images, 255 - images)
    assert ((inverted >= 0) & (inverted < 0.5)).all(), "no power of a negative number"


def test_the_smallest_images_with_five_scales_have_an_ms_ssim():
    images = noise(5, num=1, size=161)
    recon = (images.int() + noise(6, num=1, size=161).int() % 41 - 20).clamp(0, 255).to(torch.uint8)
    assert 0.9 < ms_ssim(images, recon).item() < 1
    assert ms_ssim(images, images).item() == pytest.approx(1, abs=1e-9)


def test_ms_ssim_of_images_below_161_px_is_refused():
    with pytest.raises(ValueError, match=r"images of at least 161 px, got 160x160\. Leave it out"):
        ms_ssim(noise(0, num=1, size=160), noise(1, num=1, size=160))


@pytest.mark.parametrize("period", [2, 4, 8])
def test_a_known_blur_has_the_analytic_psnr(period):
    """A box of one period removes a wave completely: its mean remains, and the error is its variance."""
    levels = {2: [60, 140], 4: [100, 180, 100, 20], 8: [100, 156, 180, 156, 100, 44, 20, 44]}[period]
    wave = torch.tensor(levels, dtype=torch.uint8).repeat(32 // period)
    images = wave.expand(1, 3, 32, 32)
    cycle = torch.cat([images.float(), images.float()[..., : period - 1]], dim=-1)
    blurred = F.avg_pool2d(cycle, (1, period), stride=1).round().to(torch.uint8)
    variance = torch.tensor(levels).double().var(correction=0).item()
    assert psnr(images, blurred).item() == pytest.approx(10 * math.log10(255**2 / variance), **CLOSE)
    assert mse(images, blurred).item() == pytest.approx(variance / 255**2, rel=1e-9)
