"""Latents that are known by what they are of, before they are encoded: a generator that is there already needs no more of them."""

from collections.abc import Callable
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.store import LatentStore, StoredLatents, fingerprint_of


class AwaitedLatents(Dataset):
    """What a generator learns (a LatentSet). The store behind it is made, or found, when the first number of it is asked for."""

    def __init__(self, contents: Contents, *, latent: LatentSpec, seed: int, make: Callable[[], LatentStore]):
        self.latent = latent
        self.num_classes = contents.num_classes
        self.fingerprint = fingerprint_of(contents, seed)
        self.upstream = {"tokenizer": contents.tokenizer_digest, "data": contents.fingerprint}
        self.seed = seed
        self.make = make

    @cached_property
    def stored(self) -> StoredLatents:
        """The latents themselves."""
        found = StoredLatents(self.make(), seed=self.seed)
        assert (found.fingerprint, found.latent) == (self.fingerprint, self.latent), (
            "the store is of what it was asked for"
        )
        return found

    @property
    def mean(self) -> Tensor:  # (C,) float64
        return self.stored.mean

    @property
    def std(self) -> Tensor:  # (C,) float64
        return self.stored.std

    def __len__(self) -> int:
        return len(self.stored)

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor]:  # (B, N, C), (B,)
        return self.stored.__getitems__(items)

    def resident(self, device: torch.device) -> StoredLatents:
        """The latents from a store that is held on a device."""
        return self.stored.resident(device)
