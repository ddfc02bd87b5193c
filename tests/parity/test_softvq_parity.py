"""SoftVQ-VAE against the official code's numbers: encoding, decoding, and the entropy of the codebook's use."""

import pytest
import torch
from tests.parity.cases import each_case

import ldbench
from ldbench.core.tokenizer import Reconstruction
from ldbench.losses.codebook import CodeEntropy

pytestmark = pytest.mark.parity


@each_case("softvq_")
def test_encoding_decoding_and_entropy_give_the_official_numbers(case):
    softvq = ldbench.load_official("softvq", case.weights(), tau=case.config["tau"])
    assert softvq.image_size == case.config["image_size"]
    assert softvq.latent.num_tokens == case.config["tokens"]
    ratio = case.config["entropy_ratio"]
    term = CodeEntropy(weight=ratio, start=0, warmup=0, temperature=0.01, epsilon=1e-6)
    images = case.input("x")
    with torch.no_grad():
        case.check("before_quantiser", softvq.encoder.read(images))
        recon: Reconstruction = softvq(images)
        case.check("latent", recon.z)
        assert torch.equal(recon.z, softvq.encode(images).mean)
        case.check("reconstruction", softvq.decode(recon.z))
        case.check("entropy_term", term.weight * term(images, recon, torch.zeros(len(images))))
