"""MAETok: its settings, masks, gradients, and sizes."""

import pytest
import torch

from ldbench.tokenizers.maetok import MAETok

TINY = {
    "image_size": 16,
    "patch_size": 4,
    "num_tokens": 5,
    "latent_channels": 3,
    "width": 16,
    "depth": 2,
    "num_heads": 2,
    "decoder_width": 24,
    "decoder_depth": 1,
    "decoder_num_heads": 3,
    "mlp_ratio": 2.0,
    "latent_head": "ae",
    "positions": "rope",
    "rope_theta": 10.0,
    "layer_scale": None,
    "modulation_start": "identity",
    "linear_std": 0.02,
    "token_std": 0.02,
    "decoder_class_token": False,
    "to_pixels": "linear",
}
BASE = {
    **TINY,
    "image_size": 256,
    "patch_size": 16,
    "num_tokens": 128,
    "latent_channels": 32,
    "width": 768,
    "depth": 12,
    "num_heads": 12,
}
BASE |= {
    "decoder_width": 768,
    "decoder_depth": 12,
    "decoder_num_heads": 12,
    "mlp_ratio": 4.0,
    "layer_scale": 1e-5,
    "modulation_start": "zero",
}


def tiny(**changes) -> MAETok:
    torch.manual_seed(0)
    return MAETok(**{**TINY, **changes})


@pytest.fixture
def images():
    return torch.rand(4, 3, 16, 16, generator=torch.Generator().manual_seed(0)) * 2 - 1


@pytest.mark.parametrize(
    ("size", "dead", "official"),
    [(256, 257 * 768 + 768 * 769 + 1536 * 33, 173_891_360), (512, 1025 * 768 + 768 * 769 + 1536 * 33, 175_071_008)],
)
def test_the_papers_size_has_the_official_count_less_what_no_output_depends_on(size, dead, official):
    with torch.device("meta"):
        maetok = MAETok(**{**BASE, "image_size": size})
    assert sum(p.numel() for p in maetok.parameters()) == official - dead


@pytest.mark.parametrize(
    "changes",
    [
        {"positions": "absolute"},
        {"positions": "absolute", "decoder_class_token": True},
        {"decoder_class_token": True},
        {"to_pixels": "conv"},
        {"latent_head": "kl"},
        {"layer_scale": 0.1},
        {"modulation_start": "zero"},
    ],
)
def test_every_variant_encodes_masks_and_decodes(images, changes):
    maetok = tiny(**changes)
    recon = maetok(images, mask_ratio=0.5)
    assert recon.images.shape == images.shape
    assert recon.z.shape == (4, 5, 3)
    assert (recon.posterior.logvar is None) == (changes.get("latent_head") != "kl")
    recon.images.square().mean().backward()
    assert torch.isfinite(torch.cat([p.grad.flatten() for p in maetok.parameters() if p.grad is not None])).all()


def test_a_mask_hides_what_the_encoder_could_see(images):
    maetok = tiny()
    noise = torch.rand(4, 16, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        recon = maetok(images, mask_ratio=0.5, mask_noise=noise)
        pixels = recon.mask.view(4, 1, 4, 4).repeat_interleave(4, 2).repeat_interleave(4, 3)
        other = maetok(torch.where(pixels, -images, images), mask_ratio=0.5, mask_noise=noise)
        seen = maetok(torch.where(pixels, images, -images), mask_ratio=0.5, mask_noise=noise)
    assert recon.mask.sum(dim=1).tolist() == [8] * 4
    assert torch.equal(recon.z, other.z)
    assert not torch.equal(recon.z, seen.z)


def test_ratios_for_each_image_hide_their_own_counts(images):
    maetok = tiny()
    recon = maetok(images, mask_ratio=torch.tensor([0.0, 0.1, 0.5, 1.0]))
    assert recon.mask.sum(dim=1).tolist() == [0, 2, 8, 16]  # ceil(16 r)
    with pytest.raises(ValueError, match="one for each of the 4 images"):
        maetok(images, mask_ratio=torch.tensor([0.5, 0.5]))


def test_the_encoder_runs_once_in_a_training_pass(images):
    maetok, calls = tiny(), []
    maetok.encoder.register_forward_hook(lambda *_: calls.append(1))
    maetok(images, mask_ratio=0.5)
    assert len(calls) == 1


def test_latents_hidden_at_the_first_step_give_the_encoder_no_gradient_and_shown_ones_do(images):
    def norms(start):
        maetok = tiny(modulation_start=start)
        maetok(images).images.square().mean().backward()
        return maetok.encoder.to_latent.weight.grad.norm().item(), maetok.decoder.query.blocks[
            0
        ].modulation.weight.grad.norm().item()

    encoder, modulation = norms("zero")
    assert encoder == 0
    assert modulation > 0
    assert norms("identity")[0] > 0


def test_images_move_with_rotary_positions_and_not_without_them(images):
    """Without the learned tables, exchanging patches changes nothing but for rotary positions."""
    maetok = tiny()
    with torch.no_grad():
        maetok.encoder.positions.zero_()
        turned = images.roll(4, dims=-1)  # by one patch
        assert not torch.allclose(maetok.encode(images).mean, maetok.encode(turned).mean, atol=1e-4)
        maetok.encoder.rotary.frequencies.zero_()
        torch.testing.assert_close(maetok.encode(images).mean, maetok.encode(turned).mean, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("positions", ["rope", "absolute"])
def test_another_size_keeps_the_latents_shape(positions):
    maetok = tiny(positions=positions)
    maetok.resize(24)
    images = torch.zeros(2, 3, 24, 24)
    assert maetok.patch_grid == (6, 6)
    assert maetok(images, mask_ratio=0.5).images.shape == images.shape
    assert maetok.encode(images).mean.shape == (2, 5, 3)


def test_what_cannot_be_is_refused_with_what_can():
    for changes, message in (
        ({"patch_size": 5}, "patch_size 5 does not divide"),
        ({"latent_head": "vq"}, "Choose ae or kl"),
        ({"positions": "sine"}, "Choose rope or absolute"),
        ({"to_pixels": "siren"}, "Choose linear or conv"),
        ({"num_tokens": 0}, "num_tokens must be positive"),
        ({"num_heads": 8}, "divisible by 4"),
        ({"image_size": 18, "patch_size": 3, "to_pixels": "conv"}, "2, 4, 8, 16, 32 or 64, got 3"),
        ({"modulation_start": "one"}, "Choose zero or identity"),
    ):
        with pytest.raises(ValueError, match=message):
            tiny(**changes)
    with pytest.raises(ValueError, match=r"latents \(B, 5, 3\) without a grid"):
        tiny().decode(torch.zeros(1, 5, 3), grid=(1, 5))
