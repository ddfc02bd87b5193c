"""VA-VAE's training step against the official code's numbers, on its two-layer autoencoder: every term, both balances, all gradients.

The official loss is the sum over an image's pixels, ours the mean, so that its numbers are ours times the count of pixels; bounds of balances too.
"""

import math
from pathlib import Path

import pytest
import torch
from torch import nn

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

from .conftest import fill

pytestmark = pytest.mark.parity

PIXELS = 3 * 32 * 32
TOKENS, CHANNELS, FEATURES = 64, 4, 12
Y = torch.zeros(3, dtype=torch.long)


class Toy(Tokenizer):
    """One convolution each way."""

    def __init__(self):
        super().__init__()
        self.image_size = 32
        self.encoder = nn.Conv2d(3, 2 * CHANNELS, 4, stride=4)
        self.decoder = nn.Conv2d(CHANNELS, 3, 3, padding=1)

    @property
    def latent(self):
        return LatentSpec(TOKENS, CHANNELS, (8, 8))

    def encode(self, images):
        mean, logvar = self.encoder(images).flatten(2).transpose(1, 2).chunk(2, dim=-1)
        return Posterior(mean, logvar.clamp(-30, 20))

    def decode(self, z, grid=None):
        return self.decoder(nn.functional.interpolate(self.latent.to_map(z), scale_factor=4.0, mode="nearest"))

    def forward(self, images, *, mask_ratio=0.0, mask_noise=None, eps=None):
        posterior = self.encode(images)
        z = posterior.sample(eps=eps)
        return Reconstruction(images=self.decode(z), z=z, posterior=posterior, patch_grid=(8, 8))

    def anchors(self):
        return {"encoder": self.encoder.weight, "decoder": self.decoder.weight}


class StandIn(nn.Module):
    """The perceptual term: 0.05 times the mean squared difference."""

    revision = 1
    reconstructs = True
    start = warmup = 0

    def __init__(self, weight):
        super().__init__()
        self.weight = weight

    def forward(self, images, recon, y):
        return 0.05 * (images - recon.images).square().mean()


class FeatureSet:
    """A teacher of given features."""

    def __init__(self, features):
        self.features = features.flatten(2).transpose(1, 2)

    def channels(self, image_size, grid):
        return FEATURES

    def __call__(self, images, grid):
        return self.features


def terms_of(case, variant: dict, *, spread: float, summed: bool) -> dict[str, nn.Module]:
    """The official terms in ours; `spread` is exp(-logvar), which weighs what the official code sums into its likelihood."""
    scale = PIXELS if summed else 1
    disc = PatchGAN(num_layers=3, width=64)
    manifest = {key: tuple(value.shape) for key, value in disc.state_dict().items()}
    filled = {key: fill(key, shape, 0) for key, shape in manifest.items()}
    disc.load_state_dict({key: value for key, value in filled.items() if value is not None}, strict=False)
    gan = Adversarial(
        weight=case.facts["config"]["disc_weight"],
        start=0,
        warmup=0,
        discriminator=disc,
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
        latent=LatentSpec(TOKENS, CHANNELS, (8, 8)),
        patch_grid=(8, 8),
        image_size=32,
    )
    alignment.to_teacher.weight.data = fill("linear_proj.weight", (FEATURES, CHANNELS, 1, 1), 0)[..., 0, 0]
    kl_weight = case.facts["config"]["kl_weight"] * (
        TOKENS / scale if summed else 2 / CHANNELS
    )  # pp_style: the mean, without its half
    return {
        "pixels": PixelL1(weight=spread, start=0, warmup=0),
        "perceptual": StandIn(spread * case.facts["config"]["perceptual_weight"]),
        "kl": KL(weight=kl_weight, start=0, warmup=0),
        "gan": gan,
        "alignment": alignment,
    }


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
        "image_size": 32,
        "max_steps": 10,
        "batch_size": 3,
        "accumulate": 1,
        "mask_ratio": Constant(0.0),
        "latent": "sample",
    }
    numbers |= {
        "crop": "area",
        "crop_scale": None,
        "flip": 0.0,
        "encoder": "trainable",
        "decoder": "trainable",
        "ema_decay": None,
        "losses": {},
    }
    stage = Stage(**numbers, optimizer=optimizer)
    words = {
        "seed": 0,
        "label_safe_flips": False,
        "log_every": 1,
        "first_step": 0,
        "folder": Path("unused"),
        "adaptive": "global",
    }
    return TokenizerModule(tokenizer=tokenizer, losses=terms, stage=stage, **words)


@pytest.mark.parametrize("name", ["base", "margins", "fixed_weight", "mdms_only", "mcos_only", "vanilla_pp"])
def test_a_training_step_has_the_official_terms_weights_and_gradients(open_case, name):
    case = open_case("vavae_losses_toy")
    variant = case.facts["config"]["variants"][name]
    summed = not variant.get("pp_style", False)
    scale = PIXELS if summed else 1
    logvar = 0.0 if name == "base" or not summed else 0.3  # pp_style leaves it out
    spread = math.exp(-logvar)
    tokenizer = Toy()
    for part, key in ((tokenizer.encoder, "encoder.conv_out"), (tokenizer.decoder, "decoder.conv_out")):
        part.weight.data, part.bias.data = (
            fill(f"{key}.{kind}", tuple(getattr(part, kind).shape), 0) for kind in ("weight", "bias")
        )
    terms = terms_of(case, variant, spread=spread, summed=summed)
    task = task_of(tokenizer, terms)
    images, eps = case.input("x"), tokenizer.latent.from_map(case.input("eps"))
    check = lambda key, value: case.check(f"{name}.{key}", torch.as_tensor(value, dtype=torch.float32).detach())  # noqa: E731

    recon = tokenizer(images, eps=eps)
    case.check("z", tokenizer.latent.to_map(recon.z))
    case.check("reconstruction", recon.images)
    case.check("z_projected", terms["alignment"].to_teacher(recon.z).transpose(1, 2).unflatten(2, (8, 8)))
    late = task.terms["gan"]
    late.start = 1
    _, early = task.measure(images, recon, Y)
    check("total_step0", scale * (early.value + logvar))
    late.start = 0
    recon = tokenizer(images, eps=eps)
    task.let_discriminators_learn(False)
    told, weighed = task.measure(images, recon, Y)
    weighed.pulling.backward()
    check("total_step10", scale * (weighed.value + logvar))
    check("rec_loss", told["pixels"] + told["perceptual"])
    check("nll_loss", scale * (spread * (told["pixels"] + told["perceptual"]) + logvar))
    check("kl_loss", told["kl"] * (TOKENS if summed else 2 / CHANNELS))
    check("g_loss", told["gan"])
    check("d_weight", scale * weighed.weights["gan"])
    check("vf_loss", told["alignment"])
    check("vf_weight", scale * weighed.weights["alignment"])
    check("grad_encoder_out", scale * tokenizer.encoder.weight.grad)
    check("grad_decoder_out", scale * tokenizer.decoder.weight.grad)
    check("grad_linear_proj", scale * terms["alignment"].to_teacher.weight.grad[..., None, None])
    task.let_discriminators_learn(True)
    (opposed,) = task.oppose(images, recon).values()
    check("disc_loss", opposed)
    with torch.no_grad():
        check("logits_real", terms["gan"].discriminator(images).mean())
        check("logits_fake", terms["gan"].discriminator(recon.images).mean())
