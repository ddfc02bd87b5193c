"""VA-VAE's training step against the official code's numbers, on its two-layer autoencoder.

The official loss is the sum over an image's pixels, ours the mean, so that its numbers are ours times the number of
pixels, including the bounds of adaptive weights.
"""

import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.parity.cases import Case, each_case
from torch import Tensor, nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Reconstruction, Tokenizer
from ldbench.losses.adversary import Adversarial
from ldbench.losses.alignment import Alignment
from ldbench.losses.discriminators import PatchGAN
from ldbench.losses.terms import KL, PixelL1
from ldbench.training.mask_schedules import Constant
from ldbench.training.optimizer import AdamW
from ldbench.training.stage_config import Stage
from ldbench.training.tokenizer_module import TokenizerModule

pytestmark = pytest.mark.parity

ENCODER, DECODER, PROJECTION = "encoder.conv_out", "decoder.conv_out", "linear_proj.weight"


class Toy(Tokenizer):
    """One convolution each way, filled by the case's recipe; the encoder's is as wide as its stride."""

    def __init__(self, case: Case):
        super().__init__()
        shapes = case.facts["weights"]["manifest"]["autoencoder"]
        (*_, self.image_size), (_, channels, *self.grid) = (
            case.facts["inputs"][name]["shape"] for name in ("x", "eps")
        )
        self.latent_spec = LatentSpec(self.grid[0] * self.grid[1], channels, tuple(self.grid))
        (*_, stride), (*_, kernel) = (shapes[f"{part}.weight"] for part in (ENCODER, DECODER))
        self.encoder = nn.Conv2d(3, 2 * channels, stride, stride=stride)
        self.decoder = nn.Conv2d(channels, 3, kernel, padding=kernel // 2)
        for part, key in ((self.encoder, ENCODER), (self.decoder, DECODER)):
            part.load_state_dict(
                {kind: case.fill(f"{key}.{kind}", shapes[f"{key}.{kind}"]) for kind in ("weight", "bias")}
            )

    @property
    def latent(self):
        return self.latent_spec

    @property
    def num_pixels(self):
        return 3 * self.image_size**2

    def encode(self, images):
        mean, logvar = self.encoder(images).flatten(2).transpose(1, 2).chunk(2, dim=-1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, z, grid=None):
        scale = float(self.encoder.stride[0])
        return self.decoder(nn.functional.interpolate(self.latent.to_map(z), scale_factor=scale, mode="nearest"))

    def forward(self, images, *, mask_ratio=0.0, mask_noise=None, eps=None):
        posterior = self.encode(images)
        z = posterior.sample(eps=eps)
        return Reconstruction(images=self.decode(z), z=z, posterior=posterior, patch_grid=self.latent.grid)

    def anchors(self):
        return {"encoder": self.encoder.weight, "decoder": self.decoder.weight}


class StandIn(nn.Module):
    """The perceptual term: 0.05 times the mean squared difference, as the case's text has it."""

    revision = 1
    reconstructs = True
    start = warmup = 0

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, images, recon, y):
        return 0.05 * (images - recon.images).square().mean()


class FeatureSet:
    """A teacher with fixed features."""

    def __init__(self, features):
        self.features = features.flatten(2).transpose(1, 2)

    def channels(self, image_size, grid):
        return self.features.shape[-1]

    def __call__(self, images, grid):
        return self.features


def discriminator_of(case: Case) -> PatchGAN:
    """The one whose manifest the case names, filled by its recipe; a stack of convolutions from the first width on."""
    manifest = case.read_manifest(f"manifests/{case.facts['weights']['manifest']['discriminator']}.json")
    convolutions = [shape for shape in manifest.values() if len(shape) == 4]
    # the first and the last are no layers of it
    network = PatchGAN(num_layers=len(convolutions) - 2, width=convolutions[0][0])
    assert {key: list(value.shape) for key, value in network.state_dict().items()} == manifest
    filled = {key: case.fill(key, shape) for key, shape in manifest.items()}
    network.load_state_dict({key: value for key, value in filled.items() if value is not None}, strict=False)
    return network


def terms_of(
    case: Case, tokenizer: Toy, variant: Mapping[str, Any], *, spread: float, summed: bool
) -> dict[str, nn.Module]:
    """The official terms as ours; `spread` is exp(-logvar), the weight of the terms of the official likelihood."""
    scale, latent = tokenizer.num_pixels if summed else 1, tokenizer.latent
    gan = Adversarial(
        weight=case.config["disc_weight"],
        start=0,
        warmup=0,
        discriminator=discriminator_of(case),
        objective="logistic" if variant.get("disc_loss") == "vanilla" else "hinge",
        generator_objective="linear",
        balancing="decoder",
        largest_balance=1e4 / scale,
        discriminator_weight=1.0,
        lecam_weight=0.0,
        lecam_decay=0.999,
        consistency_weight=0.0,
        consistency_cutout=0.5,
        augment_probability=0.0,
        augment_cutout=0.2,
    )
    alignment = Alignment(
        weight=variant["vf_weight"] / (1 if variant["adaptive_vf"] else scale),
        start=0,
        warmup=0,
        teacher=FeatureSet(case.input("features") + case.input("features_shift")),
        cosine_weight=variant.get("cos_weight", 1.0),
        cosine_margin=variant["cos_margin"],
        distance_weight=variant.get("distmat_weight", 1.0),
        distance_margin=variant["distmat_margin"],
        distances_of="projected",
        projection="latent_to_teacher",
        projection_frozen=False,
        teaches="tokenizer",
        balancing="encoder" if variant["adaptive_vf"] else "none",
        largest_balance=1e8 / scale,
        reader_width=8,
        reader_depth=1,
        reader_num_heads=2,
        latent=latent,
        patch_grid=latent.grid,
        image_size=tokenizer.image_size,
    )
    alignment.to_teacher.weight.data = case.fill(
        PROJECTION, case.facts["weights"]["manifest"]["autoencoder"][PROJECTION]
    )[..., 0, 0]
    return {
        "pixels": PixelL1(weight=spread, start=0, warmup=0),
        "perceptual": StandIn(spread * case.config["perceptual_weight"]),
        "kl": KL(weight=case.config["kl_weight"] * kl_scale(latent, summed=summed) / scale, start=0, warmup=0),
        "gan": gan,
        "alignment": alignment,
    }


def kl_scale(latent: LatentSpec, *, summed: bool) -> float:
    """The factor of the official divergence over ours per token: the sum over an image, or twice the mean."""
    return latent.num_tokens if summed else 2 / latent.channels


def task_of(tokenizer: Tokenizer, terms: dict) -> TokenizerModule:
    optimizer = AdamW(
        lr=1e-4,
        betas=(0.5, 0.9),
        eps=1e-8,
        weight_decay=0.0,
        schedule="constant",
        warmup_steps=0,
        warmup_lr=None,
        min_lr=0.0,
        clip_norm=None,
    )
    numbers = {
        "name": "s",
        "image_size": tokenizer.image_size,
        "max_steps": 10,
        "batch_size": 3,
        "accumulate": 1,
        "mask_ratio": Constant(0.0),
    }
    numbers |= {
        "latent": "sample",
        "crop": "area",
        "crop_scale": None,
        "flip": 0.0,
        "encoder": "trainable",
        "decoder": "trainable",
    }
    stage = Stage(**numbers, ema_decay=None, losses={}, optimizer=optimizer)
    words = {
        "seed": 0,
        "label_safe_flips": False,
        "log_every": 1,
        "first_step": 0,
        "folder": Path("unused"),
        "adaptive": "global",
    }
    return TokenizerModule(tokenizer=tokenizer, losses=terms, stage=stage, **words)


def logvar_of(case: Case, name: str) -> float:
    """The case's value for a variant: "0.0 in variant base, 0.3 in the others"."""
    first, variant, others = re.fullmatch(
        r"([-\d.]+) in variant (\w+), ([-\d.]+) in the others", case.config["logvar"]
    ).groups()
    return float(first if name == variant else others)


@each_case("vavae_losses")
def test_a_training_step_has_the_official_terms_weights_and_gradients(case):
    for name, variant in case.config["variants"].items():
        check_variant(case, name, variant)


def check_variant(case: Case, name: str, variant: Mapping[str, Any]) -> None:
    """Compares one training step before the discriminator's start, and one after it."""
    summed = not variant.get("pp_style", False)
    tokenizer = Toy(case)
    scale = tokenizer.num_pixels if summed else 1
    logvar = logvar_of(case, name) if summed else 0.0  # pp_style leaves it out
    spread = math.exp(-logvar)
    terms = terms_of(case, tokenizer, variant, spread=spread, summed=summed)
    task = task_of(tokenizer, terms)
    images, eps = case.input("x"), tokenizer.latent.from_map(case.input("eps"))
    y = torch.zeros(len(images), dtype=torch.long)

    def check(key: str, value: Tensor | float) -> None:
        case.check(f"{name}.{key}", torch.as_tensor(value, dtype=torch.float32).detach())

    recon = tokenizer(images, eps=eps)
    case.check("z", tokenizer.latent.to_map(recon.z))
    case.check("reconstruction", recon.images)
    case.check(
        "z_projected", terms["alignment"].to_teacher(recon.z).transpose(1, 2).unflatten(2, tokenizer.latent.grid)
    )
    for _, total, step in case.outputs(rf"{name}\.(total_step(\d+))"):
        terms["gan"].start = 0 if int(step) >= case.config["disc_start"] else 1  # the task stands at its step 0
        _, weighed = task.compute_losses(images, recon, y)
        check(total, scale * (weighed.value + logvar))
    terms["gan"].start = 0
    recon = tokenizer(images, eps=eps)
    task.set_discriminators_trainable(False)
    losses, weighed = task.compute_losses(images, recon, y)
    weighed.backward_loss.backward()
    check("rec_loss", losses["pixels"] + losses["perceptual"])
    check("nll_loss", scale * (spread * (losses["pixels"] + losses["perceptual"]) + logvar))
    check("kl_loss", losses["kl"] * kl_scale(tokenizer.latent, summed=summed))
    check("g_loss", losses["gan"])
    check("d_weight", scale * weighed.weights["gan"])
    check("vf_loss", losses["alignment"])
    check("vf_weight", scale * weighed.weights["alignment"])
    check("grad_encoder_out", scale * tokenizer.encoder.weight.grad)
    check("grad_decoder_out", scale * tokenizer.decoder.weight.grad)
    check("grad_linear_proj", scale * terms["alignment"].to_teacher.weight.grad[..., None, None])
    task.set_discriminators_trainable(True)
    (opposed,) = task.discriminator_losses(images, recon).values()
    check("disc_loss", opposed)
    with torch.no_grad():
        check("logits_real", terms["gan"].discriminator(images).mean())
        check("logits_fake", terms["gan"].discriminator(recon.images).mean())
