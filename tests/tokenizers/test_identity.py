"""The identity is lossless, without masks and without parameters."""

import math

import pytest
import torch

import ldbench
from ldbench.config.components import instantiate
from ldbench.config.compose import Registry
from ldbench.metrics.feature_set import Features, gather
from ldbench.metrics.reconstruction import psnr
from ldbench.pipeline.tokenizer_plan import plan_tokenizer
from ldbench.tokenizers.identity import Identity


def distances(features: torch.Tensor) -> dict[str, float]:
    """Every distance of a set to itself."""
    needs = ("normal", "spatial", "features")
    seen, again = (gather(Features(features.clone(), spatial=features.clone()), needs) for _ in range(2))
    metrics = {
        name: instantiate(Registry().option("distribution", name)) for name in Registry().options("distribution")
    }
    return {name: metric(seen, again, paired=True).value for name, metric in metrics.items() if metric.is_distance}


@pytest.mark.parametrize("patch_size", [1, 2, 8])
@pytest.mark.parametrize("shape", [(16, 16), (16, 24)])
def test_images_are_reconstructed_bit_for_bit_for_any_patch_size(patch_size, shape):
    identity = Identity(image_size=16, patch_size=patch_size)
    images = torch.rand(2, 3, *shape) * 2 - 1
    recon = identity(images)
    assert torch.equal(recon.images, images)
    assert torch.equal(identity.decode(identity.encode(images).mean, recon.patch_grid), images)
    assert recon.z.shape == (2, recon.patch_grid[0] * recon.patch_grid[1], 3 * patch_size**2)
    assert recon.posterior.logvar is None


def test_a_token_is_a_patch_ordered_by_row_column_and_color():
    images = torch.arange(48.0).reshape(1, 3, 4, 4)
    z = Identity(image_size=4, patch_size=2).encode(images).mean
    assert torch.equal(z[0, 1], torch.stack([images[0, :, i, j] for i in (0, 1) for j in (2, 3)]).flatten())


def test_distances_are_zero_and_psnr_is_that_of_rounding():
    images = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert psnr(images, images).tolist() == pytest.approx(3 * [10 * math.log10(12 * 255**2)])
    assert distances(torch.randn(40, 8)) == dict.fromkeys(("fd", "sfd", "kid", "mind"), 0.0)


def test_what_it_cannot_do_is_refused_with_what_it_can(tmp_path):
    with pytest.raises(ValueError, match="patch_size 5 does not divide the 16 px image"):
        Identity(image_size=16, patch_size=5)
    identity = Identity(image_size=16, patch_size=4)
    with pytest.raises(ValueError, match="multiples of 4"):
        identity.encode(torch.zeros(1, 3, 18, 16))
    with pytest.raises(ValueError, match="does not support masks"):
        identity(torch.zeros(1, 3, 16, 16), mask_ratio=0.5)
    with pytest.raises(
        ValueError, match=r"nothing to train, and stage all has 5 steps. Say tokenizer\.stages\.all\.max_steps=0"
    ):
        plan_tokenizer(
            ldbench.compose(
                "train", ["tokenizer=identity", "tokenizer.stages.all.max_steps=5", f"paths.root={tmp_path}"]
            )
        )
