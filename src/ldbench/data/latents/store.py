"""Reads a store: posteriors memory-mapped, at an address, or held on a device, sampled and normalized in batches."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.core.posterior import Posterior
from ldbench.data.latents.local_shards import LocalShards
from ldbench.data.latents.manifest import Contents, Manifest, read_manifest, validate_checksums, validate_sizes
from ldbench.data.latents.noise import noise_keys, posterior_noise
from ldbench.data.latents.places import Address, Place, as_place
from ldbench.data.latents.remote_shards import RemoteShards
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.statistics import Of
from ldbench.io.files import digest

BLOCK = 1 << 18  # numbers that are sampled at once on a CPU: about the size of its cache


class Reader(Protocol):
    """A source of stored posteriors."""

    manifest: Manifest
    device: torch.device

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """The stored moments of rows, (B, 1 or 2, N, C) in the store's dtype, and labels (B,)."""
        ...


class LatentStore:
    """A complete store: in a folder, memory-mapped, or at an address.

    Row i is image i of its split; with flips, row i + num_images is that image mirrored.

    It can be pickled: each process opens the files on its first read.
    """

    def __init__(self, place: Place, manifest: Manifest, shards: LocalShards | RemoteShards):
        self.place = place
        self.manifest = manifest
        self.shards = shards
        self.device = torch.device("cpu")

    @classmethod
    def open(cls, where: str | Path | Place, *, contents: Contents | None = None, verify: bool = True) -> "LatentStore":
        """Opens the store in a folder or at an address.

        With `verify` all checksums of files on this machine are compared, at about 1 GB per second; those of what is
        read from an address are always compared, when it is read. Sizes always are.

        Raises ValueError, with what to do, for a store that is incomplete, altered, of a newer schema, or of other
        `contents`, and `Unreachable` where an address does not answer.
        """
        place = as_place(where)
        manifest = read_manifest(place)
        if contents is not None:
            validate_contents(place, manifest.contents, contents)
        validate_sizes(place, manifest)
        if isinstance(place, Address):
            return cls(place, manifest, RemoteShards(place, manifest, verify=verify))
        if verify:
            validate_checksums(place.path, manifest)
        shards = LocalShards(place.path, manifest)
        shards.map()
        return cls(place, manifest, shards)

    def __len__(self) -> int:
        return self.manifest.num_images * self.manifest.num_views

    @property
    def ahead(self) -> int:
        """How many batches should be read before they are needed."""
        return self.place.ahead if isinstance(self.place, Address) else 0

    @property
    def latent(self) -> LatentSpec:
        """The shape of the latents."""
        return self.manifest.latent

    @property
    def labels(self) -> Tensor:  # (rows,) int64
        """The label of every row."""
        once = [
            labels[: shard.num_images] for labels, shard in zip(self.shards.labels(), self.manifest.shards, strict=True)
        ]
        return torch.from_numpy(np.tile(np.concatenate(once), self.manifest.num_views))

    def read(
        self,
        rows: Tensor,  # (B,) int64
    ) -> tuple[Tensor, Tensor]:  # (B, 1 or 2, N, C) in the store's dtype; (B,)
        """The stored moments and labels of rows, copied once. Raises IndexError for rows out of range."""
        manifest, latent = self.manifest, self.manifest.latent
        indices = rows.numpy()
        if len(indices) and not (indices.min() >= 0 and indices.max() < len(self)):
            raise IndexError(f"{self.place} has rows 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}.")
        view, image = np.divmod(indices, manifest.num_images)
        shard, local = np.divmod(image, manifest.shard_size)
        local += view * np.minimum(manifest.shard_size, manifest.num_images - shard * manifest.shard_size)
        shape = (len(rows), manifest.parts, latent.num_tokens, latent.channels)
        moments = torch.empty(shape, dtype=DTYPES[manifest.contents.dtype])
        return moments, torch.from_numpy(self.shards.copy(shard, local, as_bits(moments)))

    def batch(
        self,
        rows: Tensor | Sequence[int],  # (B,)
        *,
        seed: int,
        step: Tensor | int,
        normalizer: Normalizer | None = None,
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
        """Latents sampled from their posteriors, and labels; normalized if a normalizer is given.

        A row's noise depends on (seed, step, row) alone, not on the rest of the batch. `step`: any counter, one or
        (B,).
        """
        return sample_rows(self, torch.as_tensor(rows), seed=seed, step=step, normalizer=normalizer)

    def normalizer(self, *, per_channel: bool = True, of: Of = "samples") -> Normalizer:
        """The normalizer with the whole set's statistics, per channel or the same for all."""
        statistics = self.manifest.statistics if per_channel else self.manifest.statistics.overall()
        return Normalizer.from_stats(statistics.mean, statistics.std(of), channels=self.latent.channels)

    def resident(self, device: torch.device) -> "ResidentStore":
        """The same store held on a device, completely: check `manifest.num_bytes` first."""
        return ResidentStore(self, device)


class ResidentStore:
    """A store on a device, with the same noise as the memory-mapped one."""

    def __init__(self, store: LatentStore, device: torch.device):
        manifest, latent = store.manifest, store.latent
        self.manifest = manifest
        self.device = device
        shape = (len(store), manifest.parts, latent.num_tokens, latent.channels)
        self.moments = torch.empty(shape, dtype=DTYPES[manifest.contents.dtype], device=device)
        self.labels = store.labels.to(device)
        for number, shard in enumerate(manifest.shards):
            whole = torch.tensor(store.shards.whole(number).moments).view(self.moments.dtype)  # a copy
            for view, part in enumerate(whole.split(shard.num_images)):
                first = view * manifest.num_images + shard.first
                self.moments[first : first + len(part)] = part.to(device)

    def __len__(self) -> int:
        return len(self.labels)

    def read(
        self,
        rows: Tensor,  # (B,) int64
    ) -> tuple[Tensor, Tensor]:  # (B, 1 or 2, N, C) in the store's dtype; (B,)
        """The stored moments and labels of rows."""
        rows = rows.to(self.device)
        return self.moments.index_select(0, rows), self.labels.index_select(0, rows)

    def batch(
        self,
        rows: Tensor | Sequence[int],  # (B,)
        *,
        seed: int,
        step: Tensor | int,
        normalizer: Normalizer | None = None,
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
        """As `LatentStore.batch`, on the device."""
        return sample_rows(self, torch.as_tensor(rows), seed=seed, step=step, normalizer=normalizer)


class StoredLatents(Dataset):
    """The training set of a generator, sampled again in each epoch. Item i + k * len is row i in epoch k.

    Latents are raw unless a normalizer is given: a generator holds its own.
    """

    def __init__(self, store: "LatentStore | ResidentStore", *, seed: int, normalizer: Normalizer | None = None):
        self.store = store
        self.seed = seed
        self.normalizer = normalizer
        manifest = store.manifest
        self.latent = manifest.latent
        self.num_classes = manifest.contents.num_classes
        self.mean = manifest.statistics.mean  # (C,) float64
        self.std = manifest.statistics.std()  # (C,) float64, of samples
        self.fingerprint = latents_fingerprint(manifest.contents, seed)
        self.upstream = {"tokenizer": manifest.contents.tokenizer_digest, "data": manifest.contents.fingerprint}
        self.settings = manifest.contents.settings
        self.tokenizer_key: str | None = manifest.contents.tokenizer_key
        self.ahead = store.ahead if isinstance(store, LatentStore) else 0

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """One latent (N, C) and its label."""
        z, y = self.__getitems__([item])
        return z[0], y[0]

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """z (B, N, C) and y (B,) of a batch, already collated."""
        epochs, rows = np.divmod(np.asarray(items, dtype=np.int64), len(self))
        return self.store.batch(
            torch.from_numpy(rows), seed=self.seed, step=torch.from_numpy(epochs), normalizer=self.normalizer
        )

    def resident(self, device: torch.device) -> "StoredLatents":
        """The same latents, held on a device."""
        assert isinstance(self.store, LatentStore), "the store is on a device already"
        return StoredLatents(self.store.resident(device), seed=self.seed, normalizer=self.normalizer)


def latents_fingerprint(contents: Contents, seed: int) -> str:
    """The sha256 of all that latents sampled from a store with a seed depend on."""
    return digest({"latents": contents.digest(), "seed": seed})


def sample_rows(
    reader: Reader,
    rows: Tensor,  # (B,) int64 on the CPU
    *,
    seed: int,
    step: Tensor | int,
    normalizer: Normalizer | None,
) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
    """Latents sampled from stored posteriors, on the reader's device, in blocks that fit into a CPU's cache."""
    manifest, latent = reader.manifest, reader.manifest.latent
    keys = noise_keys(rows, seed=seed, step=step) if manifest.parts == 2 else torch.empty(len(rows), 0)
    block = max(1, BLOCK // (latent.num_tokens * latent.channels)) if reader.device.type == "cpu" else max(1, len(rows))
    z, labels = torch.empty(len(rows), latent.num_tokens, latent.channels, device=reader.device), []
    for out, part, key in zip(z.split(block), rows.split(block), keys.to(reader.device).split(block), strict=True):
        moments, y = reader.read(part)
        samples = sample_posteriors(moments, key)
        out.copy_(samples if normalizer is None else normalizer.normalize(samples))
        labels.append(y)
    return z, torch.cat(labels)


def sample_posteriors(
    moments: Tensor,  # (B, 1 or 2, N, C)
    keys: Tensor,  # (B, 2) int32
) -> Tensor:  # (B, N, C) float32
    """A sample of each posterior with the noise of its key; points are returned unchanged."""
    mean = moments[:, 0].float()
    if moments.shape[1] == 1:
        return mean
    return Posterior(mean, moments[:, 1].float()).sample(eps=posterior_noise(keys, tuple(mean.shape[1:])))


@dataclass(frozen=True)
class Mismatch:
    """A property in which a store differs from what was requested."""

    name: str
    stored: str
    wanted: str


def as_bits(moments: Tensor) -> np.ndarray:
    """The moments as an array on the same memory: numpy has no bf16."""
    return moments.view(torch.int16 if moments.element_size() == 2 else torch.int32).numpy()


def validate_contents(place: Path | Place, stored: Contents, wanted: Contents) -> None:
    """Raises ValueError, naming both sides, if a store has another tokenizer, other data or other encoding settings."""
    mismatches = []
    if stored.tokenizer_digest != wanted.tokenizer_digest:
        tokenizers = [name_with_digest(side.tokenizer, side.tokenizer_digest) for side in (stored, wanted)]
        mismatches.append(Mismatch("the tokenizer", *tokenizers))
    elif stored.tokenizer_key != wanted.tokenizer_key:
        tokenizers = [f"{side.tokenizer} with content key {side.tokenizer_key[:16]}" for side in (stored, wanted)]
        mismatches.append(Mismatch("the tokenizer", *tokenizers))
    if stored.fingerprint != wanted.fingerprint:
        data = [name_with_digest(side.data, side.fingerprint) for side in (stored, wanted)]
        mismatches.append(Mismatch("the data", *data))
    for key in ("split", "preprocessing", "flips", "dtype", "precision", "source"):
        if getattr(stored, key) != getattr(wanted, key):
            mismatches.append(Mismatch(key, str(getattr(stored, key)), str(getattr(wanted, key))))
    if mismatches:
        details = "; ".join(f"{item.name} is {item.stored} there, and {item.wanted} here" for item in mismatches)
        raise ValueError(
            f"The latents in {place} are not those requested: {details}. "
            "Encode again with these settings (python -m ldbench.run job=encode), or open them with their own settings."
        )


def name_with_digest(name: str, digest: str) -> str:
    """A name with the first 8 characters of its digest."""
    return name if name.endswith(digest[:8]) else f"{name} ({digest[:8]})"
