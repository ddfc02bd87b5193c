"""VMAE against the official code's numbers: encoding, decoding, both training passes, position tables, optimizer groups, perturbation."""

import pytest
import torch
from einops import rearrange

import ldbench
from ldbench.analysis.smoothness import perturb
from ldbench.core.latent import LatentSpec
from ldbench.core.pixels import to_uint8
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.embed import patchify
from ldbench.layers.position import resize_table, sincos_2d
from ldbench.losses.terms import FreeMeanKL, PixelMSE
from ldbench.training.optimizer import weight_decay_groups

pytestmark = pytest.mark.parity

STDS = {"s1e-3": 1e-3, "s0.1": 0.1, "none": 1.0}  # their names of a fixed std -> ours


def official(case):
    return ldbench.load_official("vmae_f8d16", case.vmae_weights())


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("size", [128, 256])
def test_encoding_sampling_and_decoding_give_the_official_numbers(open_case, size):
    case = open_case(f"vmae_encode_decode_{size}")
    vmae = official(case)
    assert vmae.image_size == size
    with torch.no_grad():
        posterior = vmae.encode(case.input("x"))
        to_map, from_map = vmae.latent.to_map, vmae.latent.from_map
        case.check("mean", to_map(posterior.mean))
        case.check("logvar", to_map(posterior.logvar))
        case.check("std", to_map((0.5 * posterior.logvar).exp()))
        case.check("sample", to_map(posterior.sample(eps=from_map(case.input("eps")))))
        case.check("decode_of_mean", vmae.decode(posterior.mean))
        case.check("decode_of_z", vmae.decode(from_map(case.input("z"))))


@pytest.mark.parametrize(("name", "ratio", "num_visible"), [("r25", 0.25, 192), ("r60", 0.6, 102)])
def test_the_masked_pass_and_its_losses_give_the_official_numbers(open_case, name, ratio, num_visible):
    case = open_case(f"vmae_stage1_forward_{name}")
    vmae = official(case)
    images, y = case.input("x"), torch.zeros(2, dtype=torch.long)
    eps = rearrange(case.input("eps"), "b c n -> b n c")
    with torch.no_grad():
        recon = vmae(images, mask_ratio=ratio, mask_noise=case.input("mask_noise"), eps=eps)
    assert recon.z.shape == (2, num_visible, 16)
    case.check("pred", patchify(recon.images, vmae.grid))
    case.check("mask", recon.mask.float())
    pixels = {
        share: PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=share)(images, recon, y)
        for share in (0.0, 0.5, 0.75, 1.0)
    }
    case.check("visible_loss", pixels[1.0])
    case.check("masked_loss", pixels[0.0])
    for theirs, std in STDS.items():
        kl = FreeMeanKL(weight=1e-6, start=0, warmup=0, std=std)(images, recon, y)
        case.check(f"kl_fixedstd_{theirs}", kl)
        for share in (0.5, 0.75):
            case.check(f"loss_fixedstd_{theirs}_visible{share}", pixels[share] + 1e-6 * kl)


def test_tuning_on_the_posterior_mean_gives_the_official_numbers(open_case):
    case = open_case("vmae_stage3_forward")
    vmae = official(case)
    images = case.input("x")
    with torch.no_grad():
        recon = vmae(images, mask_ratio=0.0, eps=torch.zeros(1))
    case.check("pred_image", recon.images)
    case.check("loss", PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=0.5)(images, recon, torch.zeros(1)))


def test_position_tables_and_their_resizing_are_the_official_ones(open_case):
    case = open_case("vmae_pos_embed")
    small, large = (sincos_2d((side, side), width=192, dtype=torch.float32) for side in (16, 32))
    case.check("sincos_16", small, bound=rounding(16))
    case.check("sincos_32", large, bound=rounding(32))
    case.check("sincos_16_resized_32", resize_table(small, (16, 16), (32, 32)), bound=rounding(16))
    case.check("table_16_resized_32", resize_table(case.input("table"), (16, 16), (32, 32)))
    case.check("table_16_resized_24", resize_table(case.input("table"), (16, 16), (24, 24)))
    case.check("table2_32_resized_16", resize_table(case.input("table2"), (32, 32), (16, 16)))


def rounding(side: int) -> float:
    """What the last bit of a frequency is at the last position: numpy's float32 powers differ by one between processors with AVX-512 and others."""
    return (side - 1) * torch.finfo(torch.float32).eps


def sizes(vmae) -> list[torch.Tensor]:
    """(number of tensors, number of scalars) of the group with weight decay and of the group without."""
    groups = weight_decay_groups(vmae.parameters(), 0.05)
    assert [group["weight_decay"] for group in groups] == [0.05, 0.0]
    return [torch.tensor([len(group["params"]), sum(p.numel() for p in group["params"])]) for group in groups]


def test_the_masked_stage_decays_the_official_tensors(open_case):
    case = open_case("vmae_weight_decay_groups")
    decay, no_decay = sizes(official(open_case("vmae_stage1_forward_r25")))
    case.check("stage1_128.decay", decay)
    case.check("stage1_128.no_decay", no_decay)


def test_the_tuning_stage_decays_the_official_tensors_and_the_mask_token_that_only_ours_still_has(open_case):
    case = open_case("vmae_weight_decay_groups")
    vmae = official(open_case("vmae_stage3_forward"))
    decay, no_decay = sizes(vmae)
    case.check("stage3_256.decay", decay - torch.tensor([1, vmae.decoder.mask_token.numel()]))
    case.check("stage3_256.no_decay", no_decay)
    vmae(torch.zeros(1, 3, 256, 256), eps=torch.zeros(1)).images.sum().backward()
    assert vmae.decoder.mask_token.grad is None, (
        "an unmasked pass gives it no gradient, so AdamW leaves it alone, decay included"
    )


def test_perturbed_latents_are_the_official_ones(open_case):
    case = open_case("vmae_robustness")
    latent = LatentSpec(num_tokens=64, channels=16, grid=(8, 8))
    mean, noise = (latent.from_map(case.input(name)) for name in ("latent_mean", "noise"))
    sigma = case.input("sigma_raw").abs().flatten() + 0.1
    for eps in case.facts["config"]["eps"]:
        case.check(f"perturbed_{eps}", latent.to_map(perturb(mean, eps=eps, noise=noise, sigma=sigma)))


def test_truncation_to_bytes_is_the_official_one(open_case):
    case = open_case("vmae_robustness")
    case.check("uint8", to_uint8(0.8 * case.input("image_raw"), rule="truncate"))


def test_an_error_above_the_tolerance_is_found(open_case):
    case = open_case("vmae_robustness")
    mean = case.input("latent_mean")
    nudged = mean.clone()
    nudged[1, 7, 3, 3] += 2e-6 * mean.abs().max()
    assert case.error("perturbed_0.0", mean) == 0
    assert case.error("perturbed_0.0", nudged) > case.facts["tolerance"]["rel"]
    assert case.error("uint8", to_uint8(0.81 * case.input("image_raw"), rule="truncate")) > 0
    with pytest.raises(AssertionError, match="has shape"):
        case.error("perturbed_0.0", mean.flatten(2))


def test_masked_reconstruction_is_a_different_number_when_visible_and_hidden_are_swapped(open_case):
    case = open_case("vmae_stage1_forward_r25")
    vmae, images = official(case), case.input("x")
    with torch.no_grad():
        recon = vmae(images, mask_ratio=0.25, mask_noise=case.input("mask_noise"), eps=torch.zeros(1))
    swapped = Reconstruction(
        images=recon.images, z=recon.z, posterior=recon.posterior, mask=~recon.mask, patch_grid=recon.patch_grid
    )
    losses = [
        PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=0.75)(images, r, torch.zeros(2)) for r in (recon, swapped)
    ]
    assert abs(losses[0] - losses[1]) > 1e-3
