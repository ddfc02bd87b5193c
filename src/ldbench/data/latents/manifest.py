"""What a store is: what its latents are of and how they were made, its shards with their sums, its statistics.

A folder `<tokenizer>-<data>-<split>-<digest>` holds `shard-00000.safetensors`, ... and, written last, `manifest.json`. While it is being made
each finished shard has a note of its own beside it, and `plan.json` says how the images are cut.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.statistics import Statistics, combined
from ldbench.io.files import digest, file_digest, read_json
from ldbench.io.safe_load import first_line
from ldbench.runtime.device import PRECISIONS

SCHEMA = 1
REVISION = 1  # raise when encoding comes to other numbers
MANIFEST = "manifest.json"
PLAN = "plan.json"

DISPLAYED = ("tokenizer", "data", "num_classes")  # names for people, and what the data's fingerprint covers


@dataclass(frozen=True)
class Contents:
    """What latents are of, and how they are made: all that their numbers depend on. Raises ValueError for what does not exist."""

    tokenizer: str  # the name of its artifact
    tokenizer_digest: str
    data: str
    num_classes: int
    fingerprint: str  # of the data
    split: str  # train | test
    preprocessing: Mapping[str, Any]  # of the images, beyond what the data's fingerprint covers
    flips: bool  # whether each image stands in the store mirrored too
    dtype: str  # of the stored numbers: bf16 | fp16 | fp32
    precision: str  # that the tokenizer encoded in
    source: str | None = None  # sha256 of the files that the latents were taken from, where they were not encoded here

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
        """The sha256 of all that the numbers depend on: neither names nor places, batches, workers, processes or the size of shards."""
        said = {key: value for key, value in asdict(self).items() if key not in DISPLAYED}
        return digest({"kind": "latents", **said, "revision": REVISION})

    def folder(self, root: Path) -> Path:
        """Where their store is, or will be."""
        return (
            root / f"{self.tokenizer.rpartition('-')[0] or self.tokenizer}-{self.data}-{self.split}-{self.digest()[:8]}"
        )


@dataclass(frozen=True)
class Shard:
    """A finished shard: the images [first, first + num_images), their mirrored views behind them, and what was measured of both."""

    file: str
    first: int
    num_images: int
    num_bytes: int
    sha256: str
    parts: int  # 2: means and log-variances; 1: points
    statistics: Statistics

    def to_dict(self) -> dict[str, Any]:
        """Itself in plain numbers."""
        return {
            **{field.name: getattr(self, field.name) for field in fields(self)},
            "statistics": self.statistics.to_dict(),
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Shard":
        """The shard that `to_dict` told."""
        return cls(**{**numbers, "statistics": Statistics.from_dict(numbers["statistics"])})


@dataclass(frozen=True)
class Manifest:
    """A complete store in names and numbers."""

    contents: Contents
    latent: LatentSpec
    num_images: int
    shard_size: int  # images in each shard but the last
    shards: Sequence[Shard]
    statistics: Statistics  # over all rows, mirrored ones too where there are any

    @property
    def parts(self) -> int:
        """2: means and log-variances; 1: points."""
        return self.shards[0].parts

    @property
    def num_views(self) -> int:
        """2 where each image stands mirrored too."""
        return 2 if self.contents.flips else 1

    @property
    def num_bytes(self) -> int:
        return sum(shard.num_bytes for shard in self.shards)

    def to_dict(self) -> dict[str, Any]:
        """Itself as JSON, with what people look for said outright."""
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
            "statistics": {**self.statistics.to_dict(), **derived, "flips_count": self.contents.flips},
        }

    @classmethod
    def from_dict(cls, numbers: Mapping[str, Any]) -> "Manifest":
        """The manifest that `to_dict` told. Raises ValueError where its digest is of something else, or shards are not what they add up to."""
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
            raise ValueError("its shards are not all there")
        latent, statistics = LatentSpec.from_dict(numbers["latent"]), Statistics.from_dict(numbers["statistics"])
        if len(statistics.mean) != latent.channels:
            raise ValueError(
                f"its statistics are of {len(statistics.mean)} channels, and its latents have {latent.channels}"
            )
        summed = combined([shard.statistics for shard in shards])
        if summed.count != statistics.count or not (
            close(summed.mean, statistics.mean) and close(summed.std(), statistics.std())
        ):
            raise ValueError("its statistics are not those that its shards add up to")
        return cls(contents, latent, numbers["num_images"], numbers["shard_size"], shards, statistics)


def close(ours: Tensor, theirs: Tensor) -> bool:
    """Whether numbers are the same, but for what another processor may make of their last bits."""
    return ours.shape == theirs.shape and torch.allclose(ours, theirs, rtol=1e-9, atol=1e-12)


def shard_name(shard: int) -> str:
    """The file of a shard."""
    return f"shard-{shard:05d}.safetensors"


def is_complete(folder: Path) -> bool:
    """Whether a store is there: its manifest is written last."""
    return (folder / MANIFEST).is_file()


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a store. Raises ValueError, with what to do, for a folder without a readable one."""
    if not is_complete(folder):
        begun = len(list(folder.glob("shard-*.json")))
        state = f"it was interrupted after {begun} shards" if begun else "it has no manifest.json"
        raise ValueError(
            f"{folder} is no complete store of latents: {state}. "
            "The command that made it goes on with it: python -m ldbench.run job=encode, with the overrides that it had."
        )
    try:
        numbers = read_json(folder / MANIFEST)
        schema = numbers["schema"]
        if schema == SCHEMA:
            return Manifest.from_dict(numbers)
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, ArithmeticError, RuntimeError) as error:
        raise ValueError(
            f"{folder / MANIFEST} is no manifest of latents ({first_line(error)}). Remove {folder} and encode again, or copy it again."
        ) from error
    raise ValueError(
        f"{folder} has schema {schema}, and this version of ldbench reads {SCHEMA}. Use the version that made it, or a newer one."
    )


def check_sizes(folder: Path, manifest: Manifest) -> None:
    """Raises ValueError naming the first shard that is missing or cut short."""
    for shard in manifest.shards:
        path = folder / shard.file
        size = path.stat().st_size if path.is_file() else None
        if size != shard.num_bytes:
            state = "is missing" if size is None else f"has {size} bytes, and its manifest says {shard.num_bytes}"
            raise ValueError(f"{path} {state}. Remove {folder} and encode again, or copy it again.")


def check_sums(folder: Path, manifest: Manifest) -> None:
    """Raises ValueError naming the first shard whose bytes are not what the manifest says. Reads all of them."""
    for shard in manifest.shards:
        if file_digest(folder / shard.file) != shard.sha256:
            raise ValueError(
                f"{folder / shard.file} was altered: its sum is another. Remove {folder} and encode again, or copy it again."
            )
