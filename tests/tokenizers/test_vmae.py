"""VMAE: sizes of the paper's variants, what masking may and may not touch, resizing, and refusals."""

import pytest
import torch

from ldbench.layers.position import resize_table, sincos_2d
from ldbench.tokenizers.vmae import VMAE

PAPER = {
    "image_size": 256,
    "patch_size": 8,
    "latent_channels": 16,
    "width": 192,
    "depth": 12,
    "num_heads": 12,
    "decoder_width": 192,
    "decoder_depth": 12,
    "decoder_num_heads": 12,
    "mlp_ratio": 4.0,
    "latent_head": "linear",
    "position_resize": "interpolate",
}
SMALL = PAPER | {
    "image_size": 16,
    "patch_size": 4,
    "latent_channels": 3,
    "width": 24,
    "depth": 2,
    "num_heads": 4,
    "decoder_width": 16,
    "decoder_depth": 2,
    "decoder_num_heads": 2,
}


@pytest.fixture
def vmae() -> VMAE:
    """Sixteen patches of 4x4 px, an encoder of another width than the decoder's."""
    torch.manual_seed(0)
    return VMAE(**SMALL).eval().requires_grad_(False)


@pytest.fixture
def images():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1)) * 2 - 1


@pytest.fixture
def mask_noise():
    return torch.rand(3, 16, generator=torch.Generator().manual_seed(2))


def num_values(**changed) -> int:
    """Everything an inference checkpoint stores: parameters and tables, without the mask token."""
    with torch.device("meta"):
        model = VMAE(**PAPER | changed)
    return sum(value.numel() for key, value in model.state_dict().items() if key != "decoder.mask_token")


def test_the_papers_model_holds_the_papers_number_of_values():
    assert num_values() == 11_191_412
    assert num_values(image_size=128) == 10_896_692 - 192


@pytest.mark.parametrize(
    ("changed", "millions"),
    [
        ({"width": 384, "num_heads": 16, "decoder_width": 384, "decoder_num_heads": 16}, 43.69),
        ({"width": 96, "num_heads": 8}, 7.05),
        ({"width": 96, "num_heads": 8, "decoder_width": 96, "decoder_num_heads": 8}, 2.93),
        ({"decoder_width": 384, "decoder_num_heads": 24, "latent_head": "mlp"}, 27.44),
    ],
    ids=["large", "asym_small", "small", "mlp_heads"],
)
def test_the_other_official_variants_hold_theirs(changed, millions):
    assert round(num_values(**changed) / 1e6, 2) == millions


def test_the_paper_trains_10_798_196_values_besides_the_mask_token():
    with torch.device("meta"):
        model = VMAE(**PAPER)
    trained = {name: p.numel() for name, p in model.named_parameters()}
    assert sum(trained.values()) - trained["decoder.mask_token"] == 10_798_196


def test_images_become_a_latent_map_and_images_again(vmae, images):
    assert (vmae.latent.num_tokens, vmae.latent.channels, vmae.latent.grid) == (16, 3, (4, 4))
    posterior = vmae.encode(images)
    assert posterior.mean.shape == posterior.logvar.shape == (3, 16, 3)
    assert vmae.decode(posterior.mean).shape == (3, 3, 16, 16)
    assert torch.equal(vmae.decode(posterior.mean, grid=(4, 4)), vmae.decode(posterior.mean))


def test_the_log_variance_is_clamped(vmae, images):
    vmae.encoder.to_latent.bias[3:] = torch.tensor([-100.0, 0.0, 100.0])
    logvar = vmae.encode(images).logvar
    assert (logvar[..., 0] == -30).all()
    assert (logvar[..., 2] == 20).all()
    assert (logvar[..., 1].abs() < 10).all()


def test_the_unmasked_pass_without_noise_decodes_the_mean(vmae, images):
    recon = vmae(images, mask_ratio=0.0, eps=torch.zeros(1))
    assert torch.equal(recon.images, vmae.decode(vmae.encode(images).mean))
    assert recon.mask is None
    assert recon.kept is None


def test_the_noise_handed_in_moves_the_latent_by_the_posteriors_deviation(vmae, images):
    eps = torch.randn(3, 16, 3, generator=torch.Generator().manual_seed(3))
    recon = vmae(images, eps=eps)
    assert torch.allclose(recon.z, recon.posterior.mean + (0.5 * recon.posterior.logvar).exp() * eps)
    assert torch.equal(recon.images, vmae.decode(recon.z))


@pytest.mark.parametrize(("mask_ratio", "num_kept"), [(0.25, 12), (0.6, 6), (0.01, 15), (0.9, 1)])
def test_the_mask_hides_the_patches_with_the_largest_noise(vmae, images, mask_noise, mask_ratio, num_kept):
    recon = vmae(images, mask_ratio=mask_ratio, mask_noise=mask_noise)
    assert recon.kept.shape == (3, num_kept)
    assert recon.z.shape == recon.posterior.mean.shape == (3, num_kept, 3)
    assert recon.mask.shape == (3, 16)
    assert recon.patch_grid == (4, 4)
    for noise, mask, kept in zip(mask_noise, recon.mask, recon.kept, strict=True):
        assert noise[~mask].max() < noise[mask].min()
        assert set(kept.tolist()) == set((~mask).nonzero().flatten().tolist())


def paint_over(images, mask):
    """The images with other colors in the patches of a mask (B, 16)."""
    by_pixel = mask.view(-1, 1, 4, 4).repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    return torch.where(by_pixel, -images + 0.5, images)


def test_hidden_pixels_cannot_influence_the_latent_or_the_reconstruction(vmae, images, mask_noise):
    drawn = {
        "mask_ratio": 0.5,
        "mask_noise": mask_noise,
        "eps": torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(3)),
    }
    recon = vmae(images, **drawn)
    other = vmae(paint_over(images, recon.mask), **drawn)
    assert torch.equal(other.z, recon.z)
    assert torch.equal(other.images, recon.images)


def test_every_visible_patch_influences_the_latent(vmae, images, mask_noise):
    recon = vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=torch.zeros(1))
    for position in range(8):
        one = torch.zeros(3, 16, dtype=torch.bool).scatter(1, recon.kept[:, position : position + 1], True)
        other = vmae(paint_over(images, one), mask_ratio=0.5, mask_noise=mask_noise, eps=torch.zeros(1))
        assert ((other.z - recon.z).abs().amax(dim=(1, 2)) > 1e-4).all()


def test_the_order_of_the_visible_patches_does_not_matter(vmae, images, mask_noise):
    recon = vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=torch.zeros(1))
    reversed_noise = torch.where(recon.mask, mask_noise, -mask_noise)  # the same patches, in the opposite order
    other = vmae(images, mask_ratio=0.5, mask_noise=reversed_noise, eps=torch.zeros(1))
    assert torch.equal(other.kept, recon.kept.flip(1))
    assert torch.equal(other.mask, recon.mask)
    assert torch.allclose(other.z.flip(1), recon.z, atol=1e-5)
    assert torch.allclose(other.images, recon.images, atol=1e-5)


def test_the_mask_token_shows_where_patches_are_hidden_and_nowhere_else(vmae, images, mask_noise):
    masked = vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=torch.zeros(1)).images
    unmasked = vmae(images, eps=torch.zeros(1)).images
    vmae.decoder.mask_token.add_(torch.randn(16, generator=torch.Generator().manual_seed(0)))
    assert not torch.allclose(vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=torch.zeros(1)).images, masked)
    assert torch.equal(vmae(images, eps=torch.zeros(1)).images, unmasked)


def test_mask_noise_and_eps_decide_everything(vmae, images, mask_noise):
    eps = torch.randn(3, 8, 3, generator=torch.Generator().manual_seed(3))
    torch.manual_seed(0)
    first = vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=eps)
    torch.manual_seed(1)
    second = vmae(images, mask_ratio=0.5, mask_noise=mask_noise, eps=eps)
    assert torch.equal(first.images, second.images)
    assert torch.equal(first.kept, second.kept)


def test_what_is_not_handed_in_is_drawn_from_the_global_stream(vmae, images):
    def drawn(seed):
        torch.manual_seed(seed)
        return vmae(images, mask_ratio=0.5)

    assert torch.equal(drawn(0).images, drawn(0).images)
    assert not torch.equal(drawn(0).kept, drawn(1).kept)
    kept = drawn(0).kept.sort(dim=1).values
    assert not torch.equal(kept[0], kept[1]), "every image has its own mask"


@pytest.mark.parametrize("image_size", [32, 8, 20])
def test_resizing_interpolates_both_tables(vmae, image_size):
    tables = vmae.encoder.positions.clone(), vmae.decoder.positions.clone()
    vmae.resize(image_size)
    side = image_size // 4
    assert torch.equal(vmae.encoder.positions, resize_table(tables[0], (4, 4), (side, side)))
    assert torch.equal(vmae.decoder.positions, resize_table(tables[1], (4, 4), (side, side)))


@pytest.mark.parametrize("image_size", [32, 8, 20])
def test_resizing_can_compute_both_tables_afresh(image_size):
    vmae = VMAE(**SMALL | {"position_resize": "fresh"})
    vmae.resize(image_size)
    side = image_size // 4
    assert torch.equal(vmae.encoder.positions, sincos_2d((side, side), width=24, dtype=torch.float32))
    assert torch.equal(vmae.decoder.positions, sincos_2d((side, side), width=16, dtype=torch.float32))
    assert vmae.state_dict().keys() == VMAE(**SMALL | {"image_size": image_size}).state_dict().keys()


def test_a_resized_model_takes_the_new_size_and_refuses_the_old(vmae, images):
    before = {key: value.clone() for key, value in vmae.state_dict().items() if "positions" not in key}
    vmae.resize(32)
    assert (vmae.image_size, vmae.grid, vmae.latent.grid) == (32, (8, 8), (8, 8))
    recon = vmae(torch.zeros(2, 3, 32, 32), mask_ratio=0.25)
    assert recon.images.shape == (2, 3, 32, 32)
    assert recon.z.shape == (2, 48, 3)
    assert recon.patch_grid == (8, 8)
    with pytest.raises(ValueError, match=r"takes images \(B, 3, 32, 32\), got \(3, 3, 16, 16\)"):
        vmae.encode(images)
    with pytest.raises(ValueError, match="call resize"):
        vmae.decode(torch.zeros(1, 16, 3))
    assert all(torch.equal(vmae.state_dict()[key], value) for key, value in before.items())


def test_resizing_to_the_same_size_changes_nothing(vmae, images):
    mean = vmae.encode(images).mean
    vmae.resize(16)
    assert torch.equal(vmae.encode(images).mean, mean)


def test_a_size_that_the_patches_do_not_divide_is_refused_and_leaves_the_model_as_it_was(vmae, images):
    with pytest.raises(
        ValueError, match=r"patch_size 4 does not divide the 18 px image. Choose one of \[1, 2, 3, 6, 9, 18\]"
    ):
        vmae.resize(18)
    assert vmae.encode(images).mean.shape == (3, 16, 3)


@pytest.mark.parametrize("shape", [(1, 3, 32, 32), (1, 1, 16, 16), (3, 16, 16), (1, 3, 16, 12)])
def test_images_of_another_shape_are_refused(vmae, shape):
    for call in (vmae.encode, vmae):
        with pytest.raises(ValueError, match=r"VMAE takes images \(B, 3, 16, 16\), got"):
            call(torch.zeros(shape))


@pytest.mark.parametrize(
    ("shape", "grid"), [((1, 64, 3), None), ((1, 64, 3), (8, 8)), ((1, 16, 3), (2, 8)), ((1, 16, 4), None)]
)
def test_latents_of_another_size_are_refused_with_a_way_out(vmae, shape, grid):
    with pytest.raises(
        ValueError, match=r"decodes latents \(B, 16, 3\) on a \(4, 4\) grid.*call resize\(image_size\) first"
    ):
        vmae.decode(torch.zeros(shape), grid=grid)


def test_a_ratio_for_each_image_is_refused(vmae, images):
    with pytest.raises(ValueError, match="mask_ratio must be one number"):
        vmae(images, mask_ratio=torch.tensor([0.1, 0.2, 0.3]))


def test_a_ratio_that_hides_every_patch_is_refused(vmae, images):
    with pytest.raises(ValueError, match=r"Cannot keep 0 of 16 tokens\. Lower the mask ratio"):
        vmae(images, mask_ratio=0.95)


@pytest.mark.parametrize("mask_ratio", [-0.5, 1.0])
def test_a_ratio_out_of_range_is_refused(vmae, images, mask_ratio):
    with pytest.raises(ValueError, match=r"mask_ratio must lie in \[0, 1\), got"):
        vmae(images, mask_ratio=mask_ratio)


@pytest.mark.parametrize("num_patches", [8, 32])
def test_mask_noise_for_another_number_of_patches_is_refused(vmae, images, num_patches):
    with pytest.raises(ValueError, match="mask_noise"):
        vmae(images, mask_ratio=0.5, mask_noise=torch.rand(3, num_patches, generator=torch.Generator().manual_seed(0)))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"patch_size": 5}, r"patch_size 5 does not divide the 16 px image. Choose one of \[1, 2, 4, 8, 16\]"),
        ({"num_heads": 5}, "num_heads 5 does not divide width 24"),
        ({"decoder_num_heads": 3}, "num_heads 3 does not divide width 16"),
        ({"width": 22, "num_heads": 2}, "divisible by 4, got 22"),
        ({"latent_head": "conv"}, "latent_head 'conv'. Choose linear or mlp"),
        ({"position_resize": "bicubic"}, "position_resize 'bicubic'. Choose interpolate or fresh"),
    ],
)
def test_impossible_sizes_are_refused_with_what_to_choose(changed, message):
    with pytest.raises(ValueError, match=message):
        VMAE(**SMALL | changed)


@pytest.mark.parametrize("latent_head", ["linear", "mlp"])
def test_both_heads_encode_and_every_weight_but_the_mask_token_gets_a_gradient(images, latent_head):
    torch.manual_seed(0)
    vmae = VMAE(**SMALL | {"latent_head": latent_head})
    vmae(images).images.square().mean().backward()
    without = [name for name, p in vmae.named_parameters() if p.grad is None or not p.grad.any()]
    assert without == ["decoder.mask_token"]


def test_anchors_are_the_last_weights_of_encoder_and_decoder(vmae):
    names = {id(p): name for name, p in vmae.named_parameters()}
    assert {key: names[id(p)] for key, p in vmae.anchors().items()} == {
        "encoder": "encoder.to_latent.weight",
        "decoder": "decoder.smooth.weight",
    }
    mlp = VMAE(**SMALL | {"latent_head": "mlp"})
    assert mlp.anchors()["encoder"] is mlp.encoder.to_latent.fc2.weight


def test_the_initialisation_is_mae_s():
    torch.manual_seed(0)
    vmae = VMAE(**SMALL | {"width": 192, "num_heads": 4})
    projection = vmae.encoder.patch_embed.proj.weight
    bound = (6 / (192 + 48)) ** 0.5  # Xavier-uniform of the 192 x 48 matrix
    assert 0.99 * bound < projection.abs().max() <= bound
    assert 0.01 < vmae.decoder.mask_token.std() < 0.03
    assert (vmae.encoder.to_latent.bias == 0).all()
    assert not any("positions" in name for name, _ in vmae.named_parameters()), "tables are fixed"
