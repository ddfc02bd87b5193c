"""Writing a store shard by shard: what is finished is never done again, and any process may write any shard."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import MANIFEST, PLAN, Contents, Manifest, Shard, shard_name
from ldbench.data.latents.shards import DTYPES, write_shard
from ldbench.data.latents.statistics import Statistics, combined
from ldbench.io.files import discard, file_digest, read_json, write_json
from ldbench.io.safe_load import first_line


class StoreWriter:
    """A store that is being made. Shard i holds the images from i * shard_size on, and behind them the same images mirrored.

    A shard is finished when the note beside it says so; `kill -9` costs the shard that was under way. Only one shard is in memory at a time.
    Raises ValueError for a folder in which something else was begun.
    """

    def __init__(self, folder: Path, contents: Contents, *, latent: LatentSpec, num_images: int, shard_size: int):
        if num_images < 1 or shard_size < 1:
            raise ValueError(
                f"A store needs images and shards of at least 1, got {num_images} images in shards of {shard_size}."
            )
        self.folder = folder
        self.contents = contents
        self.latent = latent
        self.num_images = num_images
        self.shard_size = shard_size
        self.begin()

    def begin(self) -> None:
        """Notes how the images are cut, or holds it against what was noted before."""
        path = self.folder / PLAN
        plan = {
            "contents": asdict(self.contents),
            "latent": self.latent.to_dict(),
            "num_images": self.num_images,
            "shard_size": self.shard_size,
        }
        if path.is_file():
            noted = read_json(path)
            if not isinstance(noted, dict):
                raise ValueError(f"{path} is no plan of a store. Remove {self.folder} and encode again.")
            other = [key for key, value in plan.items() if noted.get(key) != value]
            if other:
                said = "; ".join(f"{key} was {noted.get(key)}, and now is {plan[key]}" for key in other)
                raise ValueError(
                    f"{self.folder} was begun otherwise: {said}. Go on as it was begun, or remove the folder."
                )
        else:
            write_json(path, plan)

    @property
    def num_shards(self) -> int:
        return -(-self.num_images // self.shard_size)

    def images_of(self, shard: int) -> range:
        """The images of a shard, by their place in the split."""
        return range(shard * self.shard_size, min(self.num_images, (shard + 1) * self.shard_size))

    def missing(self) -> list[int]:
        """The shards that are not finished."""
        return [shard for shard in range(self.num_shards) if not self.is_finished(shard)]

    def is_finished(self, shard: int) -> bool:
        """Whether a shard is there with its note."""
        note, path = self.note_of(shard), self.path_of(shard)
        return note.is_file() and path.is_file() and path.stat().st_size == self.noted(note).num_bytes

    def noted(self, note: Path) -> Shard:
        """What a note says of its shard. Raises ValueError, naming it, for one that says something else."""
        try:
            return Shard.from_dict(read_json(note))
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{note} is no note of a shard ({first_line(error)}). Remove it: the shard is encoded again."
            ) from error

    def write(
        self,
        shard: int,
        moments: Tensor,  # (views * images, 1 or 2, N, C) in the store's dtype
        labels: Tensor,  # (images,) int64
    ) -> None:
        """Writes a whole shard. Raises ValueError for shapes and labels that do not fit, and for numbers that are not finite in the dtype."""
        images = self.images_of(shard)
        views = 2 if self.contents.flips else 1
        shape = (views * len(images), moments.shape[1], self.latent.num_tokens, self.latent.channels)
        if tuple(moments.shape) != shape or moments.shape[1] not in (1, 2) or labels.shape != (len(images),):
            raise ValueError(
                f"Shard {shard} holds {views * len(images)} latents of {self.latent.num_tokens} tokens and {self.latent.channels} channels, "
                f"got moments {tuple(moments.shape)} and labels {tuple(labels.shape)}."
            )
        assert moments.dtype == DTYPES[self.contents.dtype]
        self.check_finite(moments, images)
        self.validate_labels(labels)
        path = self.path_of(shard)
        write_shard(path, moments, labels.repeat(views))
        facts = {"file": path.name, "first": images.start, "num_images": len(images), "parts": moments.shape[1]}
        sums = {"num_bytes": path.stat().st_size, "sha256": file_digest(path)}
        write_json(self.note_of(shard), Shard(**facts, **sums, statistics=Statistics.of(moments)).to_dict())

    def check_finite(self, moments: Tensor, images: range) -> None:
        """Raises ValueError naming an image whose latent is not finite."""
        for row, latent in enumerate(moments):
            if not torch.isfinite(latent).all():
                dtype = self.contents.dtype
                cure = (
                    "Say job.dtype=bf16, or look at the tokenizer."
                    if dtype == "fp16"
                    else "Look at the tokenizer that makes them."
                )
                raise ValueError(
                    f"The latent of image {images[row % len(images)]} holds numbers that are not finite in {dtype}. {cure}"
                )

    def validate_labels(self, labels: Tensor) -> None:
        """Raises ValueError for labels that are no class of the data."""
        if labels.min() < 0 or labels.max() >= self.contents.num_classes:
            found, classes = f"{int(labels.min())} to {int(labels.max())}", f"0 to {self.contents.num_classes - 1}"
            raise ValueError(
                f"These latents have the labels {found}, and {self.contents.data} has the classes {classes}. Name the data that they are of."
            )

    def finish(self) -> Manifest:
        """Makes the store complete: writes the manifest and clears the notes away. Raises ValueError where shards are missing."""
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.folder} lacks {len(missing)} shards (first: {missing[0]}). The same command again makes them."
            )
        notes = [self.note_of(shard) for shard in range(self.num_shards)]
        shards = [self.noted(note) for note in notes]
        if len({shard.parts for shard in shards}) != 1:
            raise ValueError(f"{self.folder} holds points as well as distributions. Remove it and encode again.")
        statistics = combined([shard.statistics for shard in shards])
        manifest = Manifest(self.contents, self.latent, self.num_images, self.shard_size, shards, statistics)
        write_json(self.folder / MANIFEST, manifest.to_dict())
        clear_notes(self.folder)
        return manifest

    def path_of(self, shard: int) -> Path:
        """The file of a shard."""
        return self.folder / shard_name(shard)

    def note_of(self, shard: int) -> Path:
        """The note that says a shard is finished."""
        return self.path_of(shard).with_suffix(".json")


def clear_notes(folder: Path) -> None:
    """Removes from a complete store what only its making needed, also what was left of a process that was stopped."""
    for path in leftovers(folder):
        discard(path)


def leftovers(folder: Path) -> Iterator[Path]:
    """The files of a complete store that only its making needed."""
    for pattern in ("shard-*.json", PLAN, ".*.tmp"):
        yield from folder.glob(pattern)
