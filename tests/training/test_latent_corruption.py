"""Corruptions of latents: their laws, and that none at zero strength changes a bit."""

import pytest
import torch

from ldbench.core.distributed import data_parallel
from ldbench.training.latent_corruption import LatentCorruption, LatentNoise, TokenMask


def test_no_strength_is_no_corruption() -> None:
    assert not LatentNoise(strength=0.0, kind="interpolative", scale=3.0).active
    assert not TokenMask(largest=0.0).active


@pytest.mark.parametrize("kind", ["interpolative", "additive"])
def test_the_energy_of_noisy_latents_is_that_of_the_facts(kind) -> None:
    torch.manual_seed(0)
    z = torch.full((4000, 16, 8), 2.0)
    noisy = LatentNoise(strength=1.0, kind=kind, scale=3.0)(z)
    # E s^2 = 1/3, E (1 - s)^2 = 1/3
    kept = 4 / 3 if kind == "interpolative" else 4.0
    assert noisy.square().mean().item() == pytest.approx(kept + 9 / 3, rel=0.02)


def test_each_image_has_one_strength() -> None:
    torch.manual_seed(0)
    noise = LatentNoise(strength=0.8)(torch.zeros(64, 100, 20))
    strengths = noise.flatten(1).std(dim=1)
    assert strengths.max() < 0.83
    assert strengths.min() < 0.1
    halves = noise[:, :50].flatten(1).std(dim=1), noise[:, 50:].flatten(1).std(dim=1)
    torch.testing.assert_close(*halves, rtol=0.1, atol=0)


def test_additive_noise_is_drawn_as_by_diffusers() -> None:
    """First a uniform strength for each image, then the noise: AutoencoderRAE's order."""
    z = torch.randn(3, 5, 2)
    torch.manual_seed(4)
    noisy = LatentNoise(strength=0.8)(z)
    torch.manual_seed(4)
    strength = 0.8 * torch.rand(3, 1, 1)
    torch.testing.assert_close(noisy, z + strength * torch.randn(3, 5, 2), rtol=0, atol=0)


def test_shares_of_masked_tokens_are_uniform_and_often_zero() -> None:
    torch.manual_seed(0)
    mask = TokenMask(largest=0.7, least=-0.1)
    shares = torch.tensor([mask.draw() for _ in range(4000)])
    assert (shares == 0).double().mean().item() == pytest.approx(1 / 8, abs=0.02)
    assert shares.max() < 0.7
    assert shares.mean().item() == pytest.approx(0.7**2 / 2 / 0.8, abs=0.01)


def test_hidden_tokens_are_the_vector_and_others_stay() -> None:
    torch.manual_seed(0)
    corruption = LatentCorruption(noise=LatentNoise(), mask=TokenMask(largest=0.5, least=0.5), channels=3)
    corruption.vector.data.copy_(torch.tensor([7.0, 8.0, 9.0]))
    z = torch.randn(6, 10, 3)
    changed = corruption(z)
    hidden = (changed == corruption.vector).all(dim=2)
    assert (hidden.sum(dim=1) == 5).all()
    assert torch.equal(changed[~hidden], z[~hidden])
    assert not torch.equal(hidden[0], hidden[1])  # another choice for each image
    changed.sum().backward()
    assert corruption.vector.grad.tolist() == [30.0] * 3


def test_the_vector_takes_part_also_where_nothing_is_hidden() -> None:
    """Otherwise several processes would wait for its gradient."""
    corruption = LatentCorruption(noise=LatentNoise(), mask=TokenMask(largest=0.1, least=-1e6), channels=2)
    z = torch.randn(2, 4, 2)
    changed = corruption(z)
    assert torch.equal(changed, z)
    changed.sum().backward()
    assert corruption.vector.grad.tolist() == [0.0, 0.0]


def test_two_processes_draw_what_one_draws() -> None:
    z = torch.randn(4, 6, 3)
    corruption = LatentCorruption(noise=LatentNoise(strength=0.8), mask=TokenMask(largest=0.7), channels=3)
    with torch.no_grad():
        torch.manual_seed(1)
        whole = corruption(z)
        for rank in (0, 1):
            torch.manual_seed(1)
            with data_parallel(rank, 2):
                assert torch.equal(corruption(z[rank::2]), whole[rank::2])


@pytest.mark.parametrize(
    ("build", "word"),
    [
        (lambda: LatentNoise(strength=-0.1), "latent_noise.strength"),
        (lambda: LatentNoise(strength=1.2, kind="interpolative"), "latent_noise.strength"),
        (lambda: LatentNoise(kind="multiplicative"), "latent_noise.kind"),
        (lambda: LatentNoise(scale=0.0), "latent_noise.scale"),
        (lambda: TokenMask(largest=1.0), "token_mask.largest"),
        (lambda: TokenMask(largest=0.2, least=0.3), "token_mask.least"),
    ],
)
def test_numbers_out_of_range_are_refused_by_name(build, word) -> None:
    with pytest.raises(ValueError, match=word):
        build()
