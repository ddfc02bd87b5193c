"""Latents that are identified by their contents before they are encoded; a trained generator never encodes them."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.store import LatentStore, StoredLatents, latents_fingerprint


class AwaitedLatents(Dataset):
    """The training set of a generator (a LatentSet); its store is opened or built on the first access to numbers."""

    def __init__(self, contents: Contents, *, latent: LatentSpec, seed: int, make: Callable[[], LatentStore]):
        self.latent = latent
        self.num_classes = contents.num_classes
        self.fingerprint = latents_fingerprint(contents, seed)
        self.upstream = {"tokenizer": contents.tokenizer_digest, "data": contents.fingerprint}
        self.settings = contents.settings
        self.tokenizer_key: str | None = contents.tokenizer_key
        self.seed = seed
        self.make = make

    @cached_property
    def stored(self) -> StoredLatents:
        """The latents from the store."""
        stored = StoredLatents(self.make(), seed=self.seed)
        expected = (self.fingerprint, self.latent)
        assert (stored.fingerprint, stored.latent) == expected, "the store has other contents than requested"
        return stored

    @property
    def mean(self) -> Tensor:  # (C,) float64
        """The mean of each channel over the whole set."""
        return self.stored.mean

    @property
    def std(self) -> Tensor:  # (C,) float64
        """The standard deviation of each channel over the whole set."""
        return self.stored.std

    @property
    def ahead(self) -> int:
        """How many batches should be read before they are needed."""
        return self.stored.ahead

    def __getstate__(self) -> dict[str, Any]:
        """What a process that reads needs: the latents from the store, and not how they are made."""
        return {**vars(self), "stored": self.stored, "make": None}

    def __len__(self) -> int:
        return len(self.stored)

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor]:  # (B, N, C), (B,)
        return self.stored.__getitems__(items)

    def resident(self, device: torch.device) -> StoredLatents:
        """The same latents, held on a device."""
        return self.stored.resident(device)
