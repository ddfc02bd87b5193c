"""Standardised latents: units of deviations there and back, and noise that no batch shows in."""

import torch
from torch import nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.jobs._standardized_tokenizer import Standardised, drawn_noise


class Flat(nn.Module):
    latent = LatentSpec(4, 3, (2, 2))

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, images: torch.Tensor) -> Posterior:
        return Posterior(mean=self.weight * images.flatten(2).transpose(1, 2))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.weight * z.transpose(1, 2).unflatten(2, (2, 2))


def test_latents_are_in_deviations_and_come_back() -> None:
    codec = Standardised(Flat(), torch.tensor([2.0, 0.5, 0.0]), torch.device("cpu"))
    images = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    maps = codec.encode_map(images)
    torch.testing.assert_close(maps, images / torch.tensor([2.0, 0.5, 1.0])[:, None, None])
    torch.testing.assert_close(codec.decode_map(maps), images)
    assert not codec.decode_map(maps).requires_grad


def test_noise_depends_on_the_seed_and_the_place_alone() -> None:
    shape = torch.Size((3, 2))
    whole = drawn_noise(shape, seed=4, places=range(6))
    assert torch.equal(drawn_noise(shape, seed=4, places=range(2, 5)), whole[2:5])
    assert not torch.equal(drawn_noise(shape, seed=5, places=range(1)), whole[:1])
    assert abs(drawn_noise(torch.Size((10_000,)), seed=0, places=range(2)).std().item() - 1) < 0.02
