"""RAE against diffusers' AutoencoderRAE from one state dict: encoding, decoding, training noise."""

from pathlib import Path

import pytest
import torch
from tests.parity.cases import REPORTED
from tests.tokenizers.diffusers_models import RAE_KINDS, rae_model
from torch import Tensor

import ldbench
from ldbench.training.latent_corruption import LatentCorruption, LatentNoise, TokenMask

pytestmark = pytest.mark.parity

ALLOWED = 1e-5


@pytest.mark.parametrize("kind", RAE_KINDS)
@pytest.mark.parametrize("scaling_factor", [1.0, 1.3])
def test_it_encodes_decodes_and_adds_noise_as_diffusers(
    kind: str, scaling_factor: float, tmp_path: Path, record_property
) -> None:
    theirs = rae_model(kind, scaling_factor=scaling_factor)
    theirs.save_pretrained(tmp_path)
    ours = ldbench.load_official("rae", tmp_path)
    noise = LatentCorruption(noise=LatentNoise(strength=0.8), mask=TokenMask(), channels=128)
    images = torch.rand(3, 3, 32, 32)

    def check(output: str, value: Tensor, expected: Tensor) -> None:
        error = ((value - expected).abs().max() / expected.abs().max()).item()
        record_property(f"{REPORTED}{output}", (f"rae_{kind}", error, ALLOWED, output))
        assert error < ALLOWED, output

    with torch.no_grad():
        z = theirs.encode(images).latent.flatten(2).transpose(1, 2)
        check("latent", ours.encode(images * 2 - 1).mean, z)
        check("reconstruction", (ours.decode(z) + 1) / 2, theirs.decode(theirs.encode(images).latent).sample)
        theirs.train()
        torch.manual_seed(1)
        noisy = theirs(images).sample
        torch.manual_seed(1)
        recon = ours(images * 2 - 1, corruption=noise)
        check("noisy reconstruction", (recon.images + 1) / 2, noisy)
        check("latent without noise", recon.z, z)
