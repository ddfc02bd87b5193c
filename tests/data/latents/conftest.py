"""Fixtures of the store's tests: a tokenizer with a closed form, and a small set of images."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils.data import TensorDataset

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.data.latents.encoding import encode
from ldbench.data.latents.manifest import Contents, Manifest
from ldbench.data.latents.store import LatentStore
from ldbench.tokenizers.identity import Identity

CONTENTS = Contents(
    tokenizer="formula-00112233",
    tokenizer_digest="00112233" * 8,
    tokenizer_key="00112233" * 8,
    data="noise",
    num_classes=7,
    fingerprint="ab" * 32,
    split="train",
    preprocessing={"image_size": 8},
    flips=False,
    dtype="fp32",
    precision="fp32",
)


class Formula(Identity):
    """Pixels as means, (B, 4, 48); log-variances where `variational`. Without a grid where `sequence`."""

    def __init__(self, *, variational: bool = True, sequence: bool = False):
        super().__init__(image_size=8, patch_size=4)
        self.variational = variational
        self.sequence = sequence

    @property
    def latent(self) -> LatentSpec:
        return replace(super().latent, grid=None) if self.sequence else super().latent

    def encode(self, images: Tensor) -> Posterior:
        mean = super().encode(images).mean
        return Posterior(mean, mean.abs() - 2 if self.variational else None)


@pytest.fixture
def contents() -> Contents:
    return CONTENTS


@pytest.fixture
def images() -> TensorDataset:
    """50 images of 8 px and labels."""
    rng = torch.Generator().manual_seed(0)
    return TensorDataset(torch.rand(50, 3, 8, 8, generator=rng) * 2 - 1, torch.arange(50) % 7)


@pytest.fixture
def make(images: TensorDataset) -> Callable[..., Manifest]:
    """Encodes the images into a folder; keywords change the contents or the arguments of `encode`."""

    def make(folder: Path, **changes: Any) -> Manifest:
        arguments = {
            "shard_size": 16,
            "batch_size": 5,
            "workers": 0,
            "num_processes": 1,
            "tokenizer": Formula(),
            "images": images,
        }
        arguments |= {key: changes.pop(key) for key in arguments.keys() & changes.keys()}
        return encode(folder, replace(CONTENTS, **changes), device=torch.device("cpu"), **arguments)

    return make


@pytest.fixture
def store(make: Callable[..., Manifest], tmp_path: Path) -> Callable[..., LatentStore]:
    """Encodes the images and opens the store."""

    def store(**changes: Any) -> LatentStore:
        folder = tmp_path / "store"
        make(folder, **changes)
        return LatentStore.open(folder)

    return store


@pytest.fixture
def formula() -> type[Formula]:
    return Formula
