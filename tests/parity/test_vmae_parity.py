"""VMAE against the official code's numbers: encoding, decoding, training passes, position tables, optimizer groups."""

import math

import pytest
import torch
from einops import rearrange
from tests.parity.cases import Case, cases_of, each_case, explain_absence
from tests.parity.networks import build
from tests.parity.recipe import TABLES

from ldbench.analysis.smoothness import perturb
from ldbench.core.latent import LatentSpec
from ldbench.core.pixels import to_uint8
from ldbench.core.tokenizer import Reconstruction
from ldbench.layers.embed import patchify
from ldbench.layers.position import resize_table, sincos_2d
from ldbench.losses.terms import FreeMeanKL, PixelMSE
from ldbench.tokenizers.vmae import VMAE
from ldbench.training.optimizer import weight_decay_groups

pytestmark = pytest.mark.parity


def official(case: Case) -> VMAE:
    """The case's VMAE, with the case's number of heads, or the official one."""
    shapes = case.manifest
    side = math.isqrt(shapes["pos_embed"][1])
    tables = {key: sincos_2d((side, side), width=shapes[key][2], dtype=torch.float32) for key in TABLES}
    heads = {key: case.config["heads"] for key in ("num_heads", "decoder_num_heads") if "heads" in case.config}
    vmae = build(case.official_name("vmae_f8d16"), {**case.weights(), **tables}, **heads)
    assert vmae.image_size == case.config["image_size"]
    return vmae


@each_case("vmae_encode_decode")
def test_encoding_sampling_and_decoding_give_the_official_numbers(case):
    vmae = official(case)
    with torch.no_grad():
        posterior = vmae.encode(case.input("x"))
        to_map, from_map = vmae.latent.to_map, vmae.latent.from_map
        case.check("mean", to_map(posterior.mean))
        case.check("logvar", to_map(posterior.logvar))
        case.check("std", to_map((0.5 * posterior.logvar).exp()))
        case.check("sample", to_map(posterior.sample(eps=from_map(case.input("eps")))))
        case.check("decode_of_mean", vmae.decode(posterior.mean))
        case.check("decode_of_z", vmae.decode(from_map(case.input("z"))))


@each_case("vmae_stage1_forward")
def test_the_masked_pass_and_its_losses_give_the_official_numbers(case):
    vmae, facts = official(case), case.config
    images, eps = case.input("x"), rearrange(case.input("eps"), "b c n -> b n c")
    y = torch.zeros(len(images), dtype=torch.long)
    with torch.no_grad():
        recon = vmae(images, mask_ratio=facts["mask_ratio"], mask_noise=case.input("mask_noise"), eps=eps)
    assert recon.z.shape == eps.shape
    case.check("pred", patchify(recon.images, vmae.grid))
    case.check("mask", recon.mask.float())

    def pixels(share: float) -> torch.Tensor:
        return PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=share)(images, recon, y)

    case.check("visible_loss", pixels(1.0))
    case.check("masked_loss", pixels(0.0))
    for name, theirs in case.outputs(r"kl_fixedstd_(.+)"):
        # "none = 0.5*sum(var-1-logvar)": the case's text
        std = 1.0 if theirs == "none" else float(theirs.removeprefix("s"))
        kl = FreeMeanKL(weight=facts["kl_weight"], start=0, warmup=0, std=std)(images, recon, y)
        case.check(name, kl)
        for loss, share in case.outputs(rf"loss_fixedstd_{theirs}_visible(.+)"):
            case.check(loss, pixels(float(share)) + facts["kl_weight"] * kl)


@each_case("vmae_stage3_forward")
def test_tuning_on_the_posterior_mean_gives_the_official_numbers(case):
    vmae, images = official(case), case.input("x")
    with torch.no_grad():
        recon = vmae(images, mask_ratio=case.config["mask_ratio"], eps=torch.zeros(1))
    case.check("pred_image", recon.images)
    case.check("loss", PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=0.5)(images, recon, torch.zeros(1)))


@each_case("vmae_pos_embed")
def test_position_tables_and_their_resizing_are_the_official_ones(case):
    for name, size in case.outputs(r"sincos_(\d+)"):
        small = sincos_2d((int(size), int(size)), width=case.config["width"], dtype=torch.float32)
        case.check(name, small, bound=rounding(int(size)))
    for name, given, source, target in case.outputs(r"(\w+)_(\d+)_resized_(\d+)"):
        before, after = (int(source), int(source)), (int(target), int(target))
        if given == "sincos":
            table = sincos_2d(before, width=case.config["width"], dtype=torch.float32)
            case.check(name, resize_table(table, before, after), bound=rounding(int(source)))
        else:
            case.check(name, resize_table(case.input(given), before, after))


def rounding(side: int) -> float:
    """The error of a frequency's last bit at the last position: numpy's float32 powers depend on AVX-512."""
    return (side - 1) * torch.finfo(torch.float32).eps


def group_sizes(vmae: VMAE, weight_decay: float) -> dict[str, torch.Tensor]:
    """(number of tensors, number of scalars) of the group with weight decay and of the group without."""
    decay, no_decay = weight_decay_groups(vmae.parameters(), weight_decay)
    assert (decay["weight_decay"], no_decay["weight_decay"]) == (weight_decay, 0.0)
    named = {"decay": decay["params"], "no_decay": no_decay["params"]}
    return {
        name: torch.tensor([len(parameters), sum(p.numel() for p in parameters)]) for name, parameters in named.items()
    }


@each_case("vmae_weight_decay_groups", only=("stage1",))
def test_the_masked_stage_decays_the_official_tensors(case):
    for name, size in case.outputs(r"stage1_(\d+)\.decay"):
        sizes = group_sizes(vmae_of("vmae_stage1_forward", int(size)), case.config["weight_decay"])
        case.check(name, sizes["decay"])
        case.check(f"stage1_{size}.no_decay", sizes["no_decay"])


@each_case("vmae_weight_decay_groups", besides=("stage1",))
def test_the_tuning_stage_decays_the_official_tensors_and_the_mask_token_that_only_ours_still_has(case):
    for name, size in case.outputs(r"stage3_(\d+)\.decay"):
        vmae = vmae_of("vmae_stage3_forward", int(size))
        sizes = group_sizes(vmae, case.config["weight_decay"])
        case.check(name, sizes["decay"] - torch.tensor([1, vmae.decoder.mask_token.numel()]))
        case.check(f"stage3_{size}.no_decay", sizes["no_decay"])
        vmae.requires_grad_(False).decoder.mask_token.requires_grad_()
        recon = vmae(torch.zeros(1, 3, vmae.image_size, vmae.image_size), eps=torch.zeros(1)).images
        assert not recon.requires_grad, "an unmasked pass gives it no gradient, so AdamW leaves it alone, decay too"


def vmae_of(kind: str, image_size: int) -> VMAE:
    """The VMAE of the kind's case with this image size, or of its first: frozen position tables are in no group."""
    cases = sorted(cases_of(kind), key=lambda case: case.config["image_size"] != image_size)
    assert cases, explain_absence(kind)
    return official(cases[0])


@each_case("vmae_robustness", besides=("uint8",))
def test_perturbed_latents_are_the_official_ones(case):
    (_, channels, *grid) = case.input("latent_mean").shape
    latent = LatentSpec(num_tokens=math.prod(grid), channels=channels, grid=tuple(grid))
    mean, noise = (latent.from_map(case.input(name)) for name in ("latent_mean", "noise"))
    sigma = case.input("sigma_raw").abs().flatten() + 0.1  # the case's text
    for eps in case.config["eps"]:
        case.check(f"perturbed_{eps}", latent.to_map(perturb(mean, eps=eps, noise=noise, sigma=sigma)))


@each_case("vmae_robustness", only=("uint8",))
def test_truncation_to_bytes_is_the_official_one(case):
    case.check("uint8", to_uint8(0.8 * case.input("image_raw"), rule="truncate"))  # the case's text
    assert case.error("uint8", to_uint8(0.81 * case.input("image_raw"), rule="truncate")) > 0


@each_case("vmae_stage1_forward", only=())
def test_masked_reconstruction_is_a_different_number_when_visible_and_hidden_are_swapped(case):
    vmae, images = official(case), case.input("x")
    with torch.no_grad():
        recon = vmae(
            images, mask_ratio=case.config["mask_ratio"], mask_noise=case.input("mask_noise"), eps=torch.zeros(1)
        )
    swapped = Reconstruction(
        images=recon.images, z=recon.z, posterior=recon.posterior, mask=~recon.mask, patch_grid=recon.patch_grid
    )
    losses = [
        PixelMSE(weight=1.0, start=0, warmup=0, visible_ratio=0.75)(images, r, torch.zeros(len(images)))
        for r in (recon, swapped)
    ]
    assert abs(losses[0] - losses[1]) > 10 * case.tolerance * losses[0]
