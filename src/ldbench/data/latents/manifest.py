"""The manifest of a store: the source of its latents, its shards with their checksums, its statistics.

A folder `<tokenizer>-<data>-<split>-<digest>` holds `shard-00000.safetensors`, ... and, written last, `manifest.json`.
While it is being built each finished shard has its own note next to it, and `plan.json` holds the shard size.
"""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.places import CONNECTIONS, Address, Place, as_place
from ldbench.data.latents.statistics import Statistics, combine
from ldbench.io.files import digest, file_digest
from ldbench.io.safe_load import first_line
from ldbench.runtime.device import PRECISIONS

SCHEMA = 2
REVISION = 2  # raise when encoding gives other numbers
MANIFEST = "manifest.json"
PLAN = "plan.json"

# not hashed: display names, and what the tokenizer's key and the data's fingerprint cover
DISPLAYED = ("tokenizer", "tokenizer_digest", "data", "num_classes")


@dataclass(frozen=True)
class Contents:
    """The source of latents: all that their numbers depend on.

    Raises ValueError for an unknown split, dtype or precision.
    """

    tokenizer: str  # the name of its artifact
    tokenizer_digest: str  # of its recipe
    tokenizer_key: str  # of its recipe and weights
    data: str
    num_classes: int
    fingerprint: str  # of the data
    split: str  # train | test
    preprocessing: Mapping[str, Any]  # of the images, in addition to the data's fingerprint
    flips: bool  # whether each image is also stored mirrored
    dtype: str  # of the stored numbers: bf16 | fp16 | fp32
    precision: str  # of the encoding
    source: str | None = None  # sha256 of the files that the latents were imported from

    def __post_init__(self) -> None:
        for key, choices in (
            ("split", ("train", "test")),
            ("dtype", ("bf16", "fp16", "fp32")),
            ("precision", PRECISIONS),
        ):
            if getattr(self, key) not in choices:
                raise ValueError(
                    f"The {key} of stored latents must be one of {', '.join(choices)}, got {getattr(self, key)!r}."
                )

    def digest(self) -> str:
        """The sha256 of all that the numbers depend on: no names, paths, batch sizes, workers, processes or shard
        sizes.
        """
        hashed = {key: value for key, value in asdict(self).items() if key not in DISPLAYED}
        return digest({"kind": "latents", **hashed, "revision": REVISION})

    @property
    def settings(self) -> dict[str, Any]:
        """How images are encoded, whatever the tokenizer and the data."""
        names = ("split", "preprocessing", "flips", "dtype", "precision", "source")
        return {**{name: getattr(self, name) for name in names}, "revision": REVISION}

    @property
    def name(self) -> str:
        """The name of their store."""
        tokenizer = self.tokenizer.rpartition("-")[0] or self.tokenizer
        return f"{tokenizer}-{self.data}-{self.split}-{self.digest()[:8]}"

    def folder(self, root: Path) -> Path:
        """The folder of their store below `root`."""
        return root / self.name


@dataclass(frozen=True)
class Shard:
    """A finished shard: the images [first, first + num_images) followed by their mirrored views, and the statistics of
    both.
    """

    file: str
    first: int
    num_images: int
    num_bytes: int
    sha256: str
    parts: int  # 2: means and log-variances; 1: points
    statistics: Statistics
    rows_sha256: str | None = None  # of the file of its rows, where it was written to an address

    def to_dict(self) -> dict[str, Any]:
        """The shard as JSON."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        if self.rows_sha256 is None:
            del values["rows_sha256"]
        return {**values, "statistics": self.statistics.to_dict()}

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Shard":
        """The shard from the output of `to_dict`."""
        return cls(**{**numbers, "statistics": Statistics.from_dict(numbers["statistics"])})


@dataclass(frozen=True)
class Manifest:
    """The description of a complete store."""

    contents: Contents
    latent: LatentSpec
    num_images: int
    shard_size: int  # images in each shard but the last
    shards: Sequence[Shard]
    statistics: Statistics  # over all images, without mirrored ones

    @property
    def parts(self) -> int:
        """2: means and log-variances; 1: points."""
        return self.shards[0].parts

    @property
    def num_views(self) -> int:
        """2 if each image is also stored mirrored, else 1."""
        return 2 if self.contents.flips else 1

    @property
    def num_bytes(self) -> int:
        """The size of all shards."""
        return sum(shard.num_bytes for shard in self.shards)

    def to_dict(self) -> dict[str, Any]:
        """The manifest as JSON, with derived statistics for readers."""
        overall = self.statistics.overall()
        scalar = {
            "mean": overall.mean.item(),
            "std_of_means": overall.std("means").item(),
            "std_of_samples": overall.std().item(),
        }
        derived = {
            "std_of_means": self.statistics.std("means").tolist(),
            "std_of_samples": self.statistics.std().tolist(),
            "scalar": scalar,
        }
        return {
            "schema": SCHEMA,
            "digest": self.contents.digest(),
            "contents": asdict(self.contents),
            "latent": self.latent.to_dict(),
            "posterior": "gaussian" if self.parts == 2 else "point",
            "num_images": self.num_images,
            "num_rows": self.num_images * self.num_views,
            "shard_size": self.shard_size,
            "shards": [shard.to_dict() for shard in self.shards],
            "statistics": {**self.statistics.to_dict(), **derived, "flips_count": False},
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Manifest":
        """The manifest from the output of `to_dict`.

        Raises ValueError for a wrong digest, missing shards or inconsistent statistics.
        """
        contents, shards = Contents(**numbers["contents"]), [Shard.from_dict(shard) for shard in numbers["shards"]]
        if numbers["digest"] != contents.digest():
            raise ValueError("its digest is not that of its contents")
        firsts = range(0, numbers["num_images"], numbers["shard_size"])
        if (
            not shards
            or len(shards) != len(firsts)
            or [(shard.file, shard.first) for shard in shards]
            != [(shard_name(i), first) for i, first in enumerate(firsts)]
        ):
            raise ValueError("some of its shards are missing")
        latent, statistics = LatentSpec.from_dict(numbers["latent"]), Statistics.from_dict(numbers["statistics"])
        if len(statistics.mean) != latent.channels:
            raise ValueError(
                f"its statistics have {len(statistics.mean)} channels, but its latents have {latent.channels}"
            )
        summed = combine([shard.statistics for shard in shards])
        if summed.count != statistics.count or not (
            nearly_equal(summed.mean, statistics.mean) and nearly_equal(summed.std(), statistics.std())
        ):
            raise ValueError("its statistics differ from the total of its shards")
        return cls(contents, latent, numbers["num_images"], numbers["shard_size"], shards, statistics)


def nearly_equal(ours: Tensor, theirs: Tensor) -> bool:
    """Whether two tensors are equal up to rounding differences between processors."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def shard_name(shard: int) -> str:
    """The file name of a shard."""
    return f"shard-{shard:05d}.safetensors"


def note_name(shard: int) -> str:
    """The file name of the note that marks a shard as finished."""
    return f"shard-{shard:05d}.json"


def is_complete(where: Path | Place) -> bool:
    """Whether a store is complete: its manifest is written last."""
    return as_place(where).size(MANIFEST) is not None


def read_manifest(where: Path | Place) -> Manifest:
    """Reads the manifest of a store. Raises ValueError, with what to do, where there is no valid one."""
    place = as_place(where)
    if not is_complete(place):
        finished = place.num_finished()
        state = f"it was interrupted after {finished} shards" if finished else "it has no manifest.json"
        raise ValueError(
            f"{place} is not a complete store of latents: {state}. "
            "Run the command that started it again to resume: "
            "python -m ldbench.run job=encode, with the same overrides."
        )
    try:
        numbers = place.read_json(MANIFEST)
        schema = numbers["schema"]
        if schema == SCHEMA:
            return Manifest.from_dict(numbers)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"{place}/{MANIFEST} is not a manifest of latents ({first_line(error)}). "
            f"Remove {place} and encode again, or copy it again."
        ) from error
    raise ValueError(
        f"{place} has schema {schema}, but this version of ldbench reads {SCHEMA}. "
        "Remove it and encode again, or use the version that wrote it."
    )


def validate_sizes(where: Path | Place, manifest: Manifest) -> None:
    """Raises ValueError naming the first shard that is missing or of the wrong size."""
    place = as_place(where)
    names = [shard.file for shard in manifest.shards]
    if isinstance(place, Address):  # an answer takes a while
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            sizes = list(pool.map(place.size, names))
    else:
        sizes = [place.size(name) for name in names]
    for shard, size in zip(manifest.shards, sizes, strict=True):
        if size != shard.num_bytes:
            state = "is missing" if size is None else f"has {size} bytes, but its manifest has {shard.num_bytes}"
            raise ValueError(f"{place}/{shard.file} {state}. Remove {place} and encode again, or copy it again.")


def validate_checksums(folder: Path, manifest: Manifest) -> None:
    """Raises ValueError naming the first shard whose checksum differs from the manifest's. Reads all files."""
    for shard in manifest.shards:
        if file_digest(folder / shard.file) != shard.sha256:
            raise ValueError(describe_altered(folder, shard.file))


def describe_altered(where: Path | Place, file: str) -> str:
    """The message about a file whose checksum differs."""
    return f"{where}/{file} was altered: its checksum differs. Remove {where} and encode again, or copy it again."
