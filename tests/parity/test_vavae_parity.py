"""VA-VAE against the official code's numbers: encoding, sampling, divergence and decoding, at several sizes."""

import pytest
import torch
from tests.parity.cases import each_case
from tests.parity.layout import tokens

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.losses.alignment import marginal_cosine, marginal_distance

pytestmark = pytest.mark.parity


@each_case("vavae_")
def test_encoding_sampling_and_decoding_give_the_official_numbers(case):
    vavae = ldbench.load_official(case.official_name("vavae_f16d32"), case.weights())
    images, eps = case.input("x"), case.input("eps")
    grid = tuple(eps.shape[-2:])
    spec = LatentSpec(num_tokens=grid[0] * grid[1], channels=eps.shape[1], grid=grid)
    with torch.no_grad():
        posterior = vavae.encode(images)
        case.check("mean", spec.to_map(posterior.mean))
        case.check("logvar", spec.to_map(posterior.logvar))
        case.check("std", spec.to_map((0.5 * posterior.logvar).exp()))
        sample = posterior.sample(eps=spec.from_map(eps))
        case.check("sample", spec.to_map(sample))
        case.check("kl", posterior.kl())
        case.check("decode_of_sample", vavae.decode(sample, grid))
        case.check("decode_of_mean", vavae.decode(posterior.mean, grid))
        case.check("decode_of_z", vavae.decode(spec.from_map(case.input("z")), grid))


@each_case("vavae_vf_terms")
def test_the_alignment_terms_are_the_official_ones(case):
    shared = case.input("shared")
    # as the case's text has it
    z, features = (tokens(0.5 * case.input("z_raw") + 0.5 * shared), tokens(case.input("f_raw") + shared))
    for name, margin in case.outputs(r"mdms_distmargin([\d.]+)_cosmargin[\d.]+"):
        case.check(name, marginal_distance(z, features, margin=float(margin)))
    for name, margin in case.outputs(r"mcos_distmargin[\d.]+_cosmargin([\d.]+)"):
        case.check(name, marginal_cosine(z, features, margin=float(margin)))
