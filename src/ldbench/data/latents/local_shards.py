"""The shards of a store in a folder, memory-mapped."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ldbench.data.latents.manifest import Manifest
from ldbench.data.latents.shards import MappedShard, map_shard


@dataclass(frozen=True)
class Mapped:
    """The tensors of a store: posteriors memory-mapped, labels in memory."""

    moments: list[np.ndarray]  # of each shard (rows, 1 or 2, N, C)
    labels: list[np.ndarray]  # of each shard (rows,) int64


class LocalShards:
    """The shards of a store in a folder. It can be pickled: each process maps the files on its first read."""

    def __init__(self, folder: Path, manifest: Manifest):
        self.folder = folder
        self.manifest = manifest
        self._mapped: Mapped | None = None

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_mapped": None}

    def map(self) -> Mapped:
        """Maps the files in this process.

        Raises ValueError for one whose dtype or shape differs from the manifest's.
        """
        if self._mapped is None:
            whole = [self._map(number) for number in range(len(self.manifest.shards))]
            self._mapped = Mapped([shard.moments for shard in whole], [np.array(shard.labels) for shard in whole])
        return self._mapped

    def copy(
        self,
        shard: np.ndarray,  # (B,)
        row: np.ndarray,  # (B,) in its shard
        out: np.ndarray,  # (B, 1 or 2, N, C) of NUMPY_DTYPES
    ) -> np.ndarray:  # (B,) labels
        """Copies the moments of rows to `out`, and returns their labels."""
        mapped, labels = self.map(), np.empty(len(shard), dtype=np.int64)
        order = np.lexsort((row, shard))  # files are read sequentially
        for position, s, i in zip(order.tolist(), shard[order].tolist(), row[order].tolist(), strict=True):
            out[position] = mapped.moments[s][i]
            labels[position] = mapped.labels[s][i]
        return labels

    def whole(self, number: int) -> MappedShard:
        """A whole shard."""
        mapped = self.map()
        return MappedShard(mapped.moments[number], mapped.labels[number])

    def labels(self) -> list[np.ndarray]:  # of each shard (rows,)
        """The labels of all rows."""
        return self.map().labels

    def _map(self, number: int) -> MappedShard:
        contents, path = self.manifest.contents, self.folder / self.manifest.shards[number].file
        mapped = map_shard(path, dtype=contents.dtype, shape=shard_shape(self.manifest, number))
        validate_labels(mapped.labels, contents.num_classes, where=str(path), store=str(self.folder))
        return mapped


def shard_shape(manifest: Manifest, number: int) -> tuple[int, int, int, int]:
    """The shape of a shard's moments, (rows, 1 or 2, N, C)."""
    rows = manifest.num_views * manifest.shards[number].num_images
    return rows, manifest.parts, manifest.latent.num_tokens, manifest.latent.channels


def validate_labels(labels: np.ndarray, num_classes: int, *, where: str, store: str) -> None:
    """Raises ValueError for labels of a shard that are no classes."""
    if len(labels) and not (labels.min() >= 0 and labels.max() < num_classes):
        raise ValueError(
            f"{where} has labels outside of the classes 0 to {num_classes - 1}. Remove {store} and encode again."
        )
