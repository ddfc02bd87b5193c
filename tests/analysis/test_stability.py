"""Stability: of a linear encoder in closed form."""

import pytest
import torch

from ldbench.analysis.stability import stability


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_a_linear_tokenizer_moves_as_its_matrices_require() -> None:
    encoder, decoder, images, noise = (
        normal(6, 48),
        normal(48, 6, seed=1),
        normal(4, 3, 4, 4, seed=2),
        normal(4, 3, 4, 4, seed=3),
    )
    found = stability(
        lambda x: x.flatten(1) @ encoder.T,
        lambda z: (z @ decoder.T).unflatten(1, (3, 4, 4)),
        images,
        noise=noise,
        eps=0.05,
    )
    moved = 0.05 * (noise.flatten(1) @ encoder.T).square().mean(dim=1).sqrt()
    torch.testing.assert_close(found.moved, moved)
    torch.testing.assert_close(found.gain, moved / (0.05 * noise.square().mean(dim=(1, 2, 3)).sqrt()))
    again = images.flatten(1) @ encoder.T @ (encoder @ decoder - torch.eye(6, dtype=torch.float64)).T
    torch.testing.assert_close(found.round_trip, again.square().mean(dim=1).sqrt())


def test_the_identity_has_gain_one_and_no_round_trip_error() -> None:
    images, noise = normal(3, 3, 2, 2), normal(3, 3, 2, 2, seed=1)
    found = stability(lambda x: x, lambda z: z, images, noise=noise, eps=0.1)
    torch.testing.assert_close(found.gain, torch.ones(3, dtype=torch.float64))
    assert torch.equal(found.round_trip, torch.zeros(3, dtype=torch.float64))


def test_zero_noise_is_refused() -> None:
    with pytest.raises(ValueError, match="positive standard deviation, got eps 0"):
        stability(lambda x: x, lambda z: z, normal(1, 3, 2, 2), noise=normal(1, 3, 2, 2), eps=0.0)
