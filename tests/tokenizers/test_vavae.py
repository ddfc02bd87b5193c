"""VA-VAE: its sizes, settings, and images that are not square."""

import pytest
import torch

from ldbench.tokenizers.vavae import VAVAE

TINY = {
    "image_size": 16,
    "widths": [8, 16, 16],
    "depth": 1,
    "attention": [2],
    "latent_channels": 3,
    "latent_head": "kl",
}
TINY |= {"channels_last": False, "checkpointing": False}
PAPER = {"image_size": 256, "widths": [128, 128, 256, 256, 512], "depth": 2, "attention": [4], "latent_head": "kl"}
PAPER |= {"channels_last": False, "checkpointing": False}


def tiny(**changes) -> VAVAE:
    torch.manual_seed(0)
    return VAVAE(**{**TINY, **changes})


@pytest.fixture
def images():
    return torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(("channels", "count"), [(16, 69_610_963), (32, 69_836_067), (64, 70_293_955)])
def test_the_papers_sizes_have_the_official_counts(channels, count):
    with torch.device("meta"):
        vavae = VAVAE(**PAPER, latent_channels=channels)
    assert sum(p.numel() for p in vavae.parameters()) == count
    assert vavae.latent.grid == (16, 16)
    assert vavae.factor == 16


def test_images_of_any_multiple_of_its_factor_are_taken(images):
    vavae = tiny()
    wide = torch.cat([images, images], dim=3)
    recon = vavae(wide, eps=torch.zeros(()))
    assert recon.images.shape == wide.shape
    assert recon.patch_grid == (4, 8)
    assert recon.z.shape == (2, 32, 3)
    with pytest.raises(ValueError, match="multiples of 4"):
        vavae.encode(images[:, :, :15])


@pytest.mark.parametrize("changes", [{"channels_last": True}, {"checkpointing": True}])
def test_layout_and_checkpointing_change_no_numbers(images, changes):
    plain, other = tiny(), tiny(**changes)
    grads = []
    for vavae in (plain, other):
        recon = vavae(images, eps=torch.ones(2, 16, 3))
        recon.images.square().mean().backward()
        grads.append(torch.cat([p.grad.flatten() for p in vavae.parameters()]))
    torch.testing.assert_close(grads[0], grads[1], rtol=1e-4, atol=1e-6)


def test_a_point_latent_has_no_variance(images):
    assert tiny(latent_head="ae").encode(images).logvar is None
    assert tiny().encode(images).logvar is not None


def test_what_cannot_be_is_refused_with_what_can(images):
    for changes, message in (
        ({"image_size": 18}, "not a multiple of 4"),
        ({"latent_head": "vq"}, "Choose kl or ae"),
        ({"attention": [3]}, "attention has resolution 3"),
        ({"widths": []}, "widths, depth and latent_channels must be positive"),
        ({"depth": 0}, "must be positive"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**changes)
    with pytest.raises(ValueError, match="does not support masks"):
        tiny()(images, mask_ratio=0.5)
    with pytest.raises(ValueError, match=r"decodes latents \(B, 16, 3\)"):
        tiny().decode(torch.zeros(1, 4, 3))
