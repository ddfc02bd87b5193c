"""Reading a store: posteriors mapped from its shards or held on a device, sampled and normalised a whole batch at a time."""

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
from ldbench.data.latents.manifest import Contents, Manifest, check_sizes, check_sums, read_manifest
from ldbench.data.latents.noise import keys_of, posterior_noise
from ldbench.data.latents.shards import DTYPES, map_shard
from ldbench.data.latents.statistics import Of
from ldbench.io.files import digest

BLOCK = 1 << 18  # numbers that are sampled at once on a CPU: what its cache holds


@dataclass(frozen=True)
class Mapped:
    """A store's numbers: posteriors in their files, labels in memory."""

    moments: list[np.ndarray]  # of each shard (rows, 1 or 2, N, C)
    labels: np.ndarray  # (rows,) int64 of the whole store


class Reader(Protocol):
    """Where stored posteriors are read from."""

    manifest: Manifest
    device: torch.device

    def read(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """What is stored of some rows: (B, 1 or 2, N, C) in the store's dtype, and labels (B,)."""
        ...


class LatentStore:
    """A complete store, mapped into memory. Row i is image i of its split; with flips, row i + num_images is that image mirrored.

    It may be handed to other processes: each maps the files for itself, when it first reads.
    """

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self.device = torch.device("cpu")
        self._mapped: Mapped | None = None

    @classmethod
    def open(cls, folder: str | Path, *, contents: Contents | None = None, verify: bool = True) -> "LatentStore":
        """The store in a folder. With `verify` all its bytes are held against their sums, about 1 GB a second; sizes always are.

        Raises ValueError, with what to do, for a store that is not complete, altered, of a newer schema, or of other `contents`.
        """
        folder = Path(folder).expanduser()
        manifest = read_manifest(folder)
        if contents is not None:
            check_contents(folder, manifest.contents, contents)
        check_sizes(folder, manifest)
        if verify:
            check_sums(folder, manifest)
        store = cls(folder, manifest)
        store.map()
        return store

    def __len__(self) -> int:
        return self.manifest.num_images * self.manifest.num_views

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_mapped": None}

    @property
    def latent(self) -> LatentSpec:
        return self.manifest.latent

    @property
    def labels(self) -> Tensor:  # (rows,) int64
        """The label of every row."""
        return torch.from_numpy(self.map().labels)

    def map(self) -> "Mapped":
        """The files as this process sees them. Raises ValueError for one that is not of the manifest's dtype and shape."""
        if self._mapped is None:
            told, latent = self.manifest, self.manifest.latent
            tail = (told.parts, latent.num_tokens, latent.channels)
            dtype, views = told.contents.dtype, told.num_views
            shards = [
                map_shard(self.folder / shard.file, dtype=dtype, shape=(views * shard.num_images, *tail))
                for shard in told.shards
            ]
            once = [mapped.labels[: shard.num_images] for mapped, shard in zip(shards, told.shards, strict=True)]
            for labels, shard in zip(once, told.shards, strict=True):
                if len(labels) and not (labels.min() >= 0 and labels.max() < told.contents.num_classes):
                    classes = f"the classes 0 to {told.contents.num_classes - 1}"
                    raise ValueError(
                        f"{self.folder / shard.file} has labels outside of {classes}. Remove {self.folder} and encode again."
                    )
            self._mapped = Mapped([shard.moments for shard in shards], np.tile(np.concatenate(once), views))
        return self._mapped

    def read(
        self,
        rows: Tensor,  # (B,) int64
    ) -> tuple[Tensor, Tensor]:  # (B, 1 or 2, N, C) in the store's dtype; (B,)
        """What is stored of some rows, copied once. Raises IndexError for rows that the store does not have."""
        mapped, told = self.map(), self.manifest
        places = rows.numpy()
        if len(places) and not (places.min() >= 0 and places.max() < len(self)):
            raise IndexError(f"{self.folder} has rows 0 to {len(self) - 1}, got {places.min()} to {places.max()}.")
        view, image = np.divmod(places, told.num_images)
        shard, local = np.divmod(image, told.shard_size)
        local += view * np.minimum(told.shard_size, told.num_images - shard * told.shard_size)
        moments = torch.empty(
            len(rows), told.parts, told.latent.num_tokens, told.latent.channels, dtype=DTYPES[told.contents.dtype]
        )
        into = moments.view(torch.int16 if moments.element_size() == 2 else torch.int32).numpy()
        order = np.lexsort((local, shard))  # files are read from their beginning to their end
        for place, s, i in zip(order.tolist(), shard[order].tolist(), local[order].tolist(), strict=True):
            into[place] = mapped.moments[s][i]
        return moments, torch.from_numpy(mapped.labels[places])

    def batch(
        self,
        rows: Tensor | Sequence[int],  # (B,)
        *,
        seed: int,
        step: Tensor | int,
        normaliser: Normalizer | None = None,
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
        """Latents sampled from their posteriors, and labels; normalised where a normaliser is given.

        A row's noise depends on (seed, step, row) alone, hence not on the rows beside it. `step`: whatever counts, one or (B,).
        """
        return sampled(self, torch.as_tensor(rows), seed=seed, step=step, normaliser=normaliser)

    def normaliser(self, *, per_channel: bool = True, of: Of = "samples") -> Normalizer:
        """The normaliser of the whole set's statistics: one for each channel, or the same for all."""
        found = self.manifest.statistics if per_channel else self.manifest.statistics.overall()
        return Normalizer.from_stats(found.mean, found.std(of), channels=self.latent.channels)

    def resident(self, device: torch.device) -> "ResidentStore":
        """The same store held on a device: the whole of it, so look at `manifest.num_bytes` first."""
        return ResidentStore(self, device)


class ResidentStore:
    """A store on a device. It gives the same noise as the mapped one, and reads nothing."""

    def __init__(self, store: LatentStore, device: torch.device):
        self.manifest = store.manifest
        self.device = device
        parts = [store.read(rows) for rows in torch.arange(len(store)).split(store.manifest.shard_size)]
        self.moments = torch.cat([moments.to(device) for moments, _ in parts])
        self.labels = torch.cat([labels.to(device) for _, labels in parts])

    def __len__(self) -> int:
        return len(self.labels)

    def read(
        self,
        rows: Tensor,  # (B,) int64
    ) -> tuple[Tensor, Tensor]:  # (B, 1 or 2, N, C) in the store's dtype; (B,)
        """What is stored of some rows."""
        rows = rows.to(self.device)
        return self.moments.index_select(0, rows), self.labels.index_select(0, rows)

    def batch(
        self,
        rows: Tensor | Sequence[int],  # (B,)
        *,
        seed: int,
        step: Tensor | int,
        normaliser: Normalizer | None = None,
    ) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
        """As `LatentStore.batch`, on the device."""
        return sampled(self, torch.as_tensor(rows), seed=seed, step=step, normaliser=normaliser)


class StoredLatents(Dataset):
    """The latents that a generator learns, sampled anew in each pass over them. Item i + k * len is row i in pass k.

    They are raw unless a normaliser is given: a generator holds its own.
    """

    def __init__(self, store: "LatentStore | ResidentStore", *, seed: int, normaliser: Normalizer | None = None):
        self.store = store
        self.seed = seed
        self.normaliser = normaliser
        told = store.manifest
        self.latent = told.latent
        self.num_classes = told.contents.num_classes
        self.mean = told.statistics.mean  # (C,) float64
        self.std = told.statistics.std()  # (C,) float64, of samples
        self.fingerprint = fingerprint_of(told.contents, seed)
        self.upstream = {"tokenizer": told.contents.tokenizer_digest, "data": told.contents.fingerprint}

    def __len__(self) -> int:
        return len(self.store)

    def __getitem__(self, item: int) -> tuple[Tensor, Tensor]:
        """One latent (N, C) and its label."""
        z, y = self.__getitems__([item])
        return z[0], y[0]

    def __getitems__(self, items: list[int]) -> tuple[Tensor, Tensor]:
        """z (B, N, C) and y (B,) of a batch, whole: a loader needs no other collation."""
        passes, rows = np.divmod(np.asarray(items, dtype=np.int64), len(self))
        return self.store.batch(
            torch.from_numpy(rows), seed=self.seed, step=torch.from_numpy(passes), normaliser=self.normaliser
        )

    def resident(self, device: torch.device) -> "StoredLatents":
        """The same latents from a store that is held on a device."""
        assert isinstance(self.store, LatentStore), "it is held already"
        return StoredLatents(self.store.resident(device), seed=self.seed, normaliser=self.normaliser)


def fingerprint_of(contents: Contents, seed: int) -> str:
    """The sha256 of all that the latents depend on which are sampled from a store by a seed."""
    return digest({"latents": contents.digest(), "seed": seed})


def sampled(
    reader: Reader,
    rows: Tensor,  # (B,) int64 of the CPU
    *,
    seed: int,
    step: Tensor | int,
    normaliser: Normalizer | None,
) -> tuple[Tensor, Tensor]:  # (B, N, C) float32, (B,)
    """Latents drawn from stored posteriors, on the device of what is read, in parts that a CPU's cache holds."""
    told, (num_tokens, channels) = reader.manifest, (reader.manifest.latent.num_tokens, reader.manifest.latent.channels)
    keys = keys_of(rows, seed=seed, step=step) if told.parts == 2 else torch.empty(len(rows), 0)
    many = max(1, BLOCK // (num_tokens * channels)) if reader.device.type == "cpu" else max(1, len(rows))
    z, labels = torch.empty(len(rows), num_tokens, channels, device=reader.device), []
    for out, part, key in zip(z.split(many), rows.split(many), keys.to(reader.device).split(many), strict=True):
        moments, y = reader.read(part)
        drawn = draw(moments, key)
        out.copy_(drawn if normaliser is None else normaliser.normalize(drawn))
        labels.append(y)
    return z, torch.cat(labels)


def draw(
    moments: Tensor,  # (B, 1 or 2, N, C)
    keys: Tensor,  # (B, 2) int32
) -> Tensor:  # (B, N, C) float32
    """A sample of each posterior with the noise of its key; points are themselves."""
    mean = moments[:, 0].float()
    if moments.shape[1] == 1:
        return mean
    return Posterior(mean, moments[:, 1].float()).sample(eps=posterior_noise(keys, tuple(mean.shape[1:])))


@dataclass(frozen=True)
class Mismatch:
    """What a store and whoever opens it say differently, in words."""

    what: str
    stored: str
    wanted: str


def check_contents(folder: Path, stored: Contents, wanted: Contents) -> None:
    """Raises ValueError, naming both parties and what to do, where a store is of another tokenizer, other data, or made otherwise."""
    found = []
    if stored.tokenizer_digest != wanted.tokenizer_digest:
        found.append(
            Mismatch(
                "the tokenizer",
                named(stored.tokenizer, stored.tokenizer_digest),
                named(wanted.tokenizer, wanted.tokenizer_digest),
            )
        )
    if stored.fingerprint != wanted.fingerprint:
        found.append(
            Mismatch("the data", named(stored.data, stored.fingerprint), named(wanted.data, wanted.fingerprint))
        )
    for key in ("split", "preprocessing", "flips", "dtype", "precision", "source"):
        if getattr(stored, key) != getattr(wanted, key):
            found.append(Mismatch(key, str(getattr(stored, key)), str(getattr(wanted, key))))
    if found:
        told = "; ".join(f"{fault.what} is {fault.stored} there, and {fault.wanted} here" for fault in found)
        raise ValueError(
            f"The latents in {folder} are others than these: {told}. "
            "Encode with what is here (python -m ldbench.run job=encode), or open them with what they were made with."
        )


def named(name: str, full: str) -> str:
    """A name with the beginning of its digest."""
    return name if name.endswith(full[:8]) else f"{name} ({full[:8]})"
