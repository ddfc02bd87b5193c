"""VA-VAE against the official code's numbers: encoding, sampling, divergence and decoding, at square and other sizes."""

import pytest
import torch

import ldbench
from ldbench.core.latent import LatentSpec
from ldbench.losses.alignment import marginal_cosine, marginal_distance

pytestmark = pytest.mark.parity


@pytest.mark.parametrize(
    ("case_name", "name"),
    [
        ("vavae_f16d16_64x64", "vavae_f16d16"),
        ("vavae_f16d32_64x96", "vavae_f16d32"),
        ("vavae_f16d32_256x256", "vavae_f16d32"),
    ],
)
def test_encoding_sampling_and_decoding_give_the_official_numbers(open_case, case_name, name):
    case = open_case(case_name)
    vavae = ldbench.load_official(name, case.weights())
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


def test_the_alignment_terms_are_the_official_ones(open_case):
    case = open_case("vavae_vf_terms")
    shared = case.input("shared")
    tokens = lambda x: x.flatten(2).transpose(1, 2)  # noqa: E731
    z, features = tokens(0.5 * case.input("z_raw") + 0.5 * shared), tokens(case.input("f_raw") + shared)
    for distance, cosine in (("0", "0"), ("0.25", "0.5"), ("0.1", "0.3")):
        name = f"distmargin{distance}_cosmargin{cosine}"
        case.check(f"mdms_{name}", marginal_distance(z, features, margin=float(distance)))
        case.check(f"mcos_{name}", marginal_cosine(z, features, margin=float(cosine)))
