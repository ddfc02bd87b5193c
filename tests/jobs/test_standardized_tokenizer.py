"""Standardized latents: conversion to standard deviations and back."""

import torch
from torch import nn

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.jobs._standardized_tokenizer import StandardizedTokenizer


class Flat(nn.Module):
    latent = LatentSpec(4, 3, (2, 2))

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def encode(self, images: torch.Tensor) -> Posterior:
        return Posterior(mean=self.weight * images.flatten(2).transpose(1, 2))

    def decode(self, z: torch.Tensor) -> torch.Tensor:
        return self.weight * z.transpose(1, 2).unflatten(2, (2, 2))


def test_latents_are_in_standard_deviations_and_invertible() -> None:
    codec = StandardizedTokenizer(Flat(), torch.tensor([2.0, 0.5, 0.0]), torch.device("cpu"))
    images = torch.randn(2, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    maps = codec.encode_map(images)
    torch.testing.assert_close(maps, images / torch.tensor([2.0, 0.5, 1.0])[:, None, None])
    torch.testing.assert_close(codec.decode_map(maps), images)
    assert not codec.decode_map(maps).requires_grad
