"""Writes a store shard by shard: finished shards are kept, and any process may write any shard."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import (
    MANIFEST,
    PLAN,
    Contents,
    Manifest,
    Shard,
    note_name,
    read_manifest,
    shard_name,
)
from ldbench.data.latents.places import CONNECTIONS, Address, Place, as_place
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.statistics import Statistics, combine
from ldbench.io.files import remove_scratch
from ldbench.io.safe_load import first_line

DTYPE_KEYS = "latents.dtype of a generator, job.dtype of job=encode"
MOST_ROUNDING = 0.05  # of a channel's standard deviation, as rounding error (root mean square)
MANY = 256  # numbers of a channel from which its statistics are known well enough


class StoreWriter:
    """Builds a store. Shard i holds the images from i * shard_size on, followed by the same images mirrored.

    A shard is finished once its note exists; `kill -9` loses only the shard in progress. Only one shard is in memory at
    a time. Raises ValueError for a folder that was started with other contents or another shard size.
    """

    def __init__(
        self, where: Path | Place, contents: Contents, *, latent: LatentSpec, num_images: int, shard_size: int
    ):
        if num_images < 1 or shard_size < 1:
            raise ValueError(
                f"A store needs images and shards of at least 1, got {num_images} images in shards of {shard_size}."
            )
        self.place = as_place(where)
        self.contents = contents
        self.latent = latent
        self.num_images = num_images
        self.shard_size = shard_size
        self.start()

    def start(self) -> None:
        """Writes the plan of the store, or compares it with the one in the folder."""
        plan = {
            "contents": asdict(self.contents),
            "latent": self.latent.to_dict(),
            "num_images": self.num_images,
            "shard_size": self.shard_size,
        }
        if self.place.size(PLAN) is not None:
            existing = self.place.read_json(PLAN)
            if not isinstance(existing, dict):
                raise ValueError(f"{self.place}/{PLAN} is not a plan of a store. Remove {self.place} and encode again.")
            changed = [key for key, value in plan.items() if existing.get(key) != value]
            if changed:
                details = "; ".join(f"{key} was {existing.get(key)}, and now is {plan[key]}" for key in changed)
                raise ValueError(
                    f"{self.place} was started with other settings: {details}. Resume with those, or remove the folder."
                )
        else:
            self.place.write_json(PLAN, plan)

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        return -(-self.num_images // self.shard_size)

    def shard_images(self, shard: int) -> range:
        """The images of a shard, as indices into the split."""
        return range(shard * self.shard_size, min(self.num_images, (shard + 1) * self.shard_size))

    def missing(self) -> list[int]:
        """The shards that are not finished."""
        shards = range(self.num_shards)
        if isinstance(self.place, Address):  # an answer takes a while
            with ThreadPoolExecutor(CONNECTIONS) as pool:
                finished = list(pool.map(self.is_finished, shards))
        else:
            finished = [self.is_finished(shard) for shard in shards]
        return [shard for shard in shards if not finished[shard]]

    def is_finished(self, shard: int) -> bool:
        """Whether a shard and its note exist."""
        if self.place.size(note_name(shard)) is None:
            return False
        size = self.place.size(shard_name(shard))
        return size is not None and size == self.read_note(shard).num_bytes

    def read_note(self, shard: int) -> Shard:
        """Reads the note of a shard. Raises ValueError, naming the file, if it is not one."""
        try:
            return Shard.from_dict(self.place.read_json(note_name(shard)))
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{self.place}/{note_name(shard)} is not a note of a shard ({first_line(error)}). Remove it to "
                "encode the shard again."
            ) from error

    def write(
        self,
        shard: int,
        moments: Tensor,  # (views * images, 1 or 2, N, C) in the store's dtype
        labels: Tensor,  # (images,) int64
    ) -> None:
        """Writes a whole shard.

        Raises ValueError for mismatched shapes, labels out of range and numbers not finite in the dtype.
        """
        images = self.shard_images(shard)
        views = 2 if self.contents.flips else 1
        shape = (views * len(images), moments.shape[1], self.latent.num_tokens, self.latent.channels)
        if tuple(moments.shape) != shape or moments.shape[1] not in (1, 2) or labels.shape != (len(images),):
            raise ValueError(
                f"Shard {shard} needs {views * len(images)} latents of {self.latent.num_tokens} tokens and "
                f"{self.latent.channels} channels, got moments {tuple(moments.shape)} and labels {tuple(labels.shape)}."
            )
        assert moments.dtype == DTYPES[self.contents.dtype]
        self.validate_finite(moments, images)
        self.validate_labels(labels)
        statistics = Statistics.of(moments[: len(images)])  # as in the papers, without mirrored images
        if statistics.count >= MANY:  # so that it is known at the first shard, and not after the last
            self.validate_rounding(statistics)
        name = shard_name(shard)
        written = self.place.write_shard(name, moments, labels.repeat(views))
        note = Shard(
            file=name,
            first=images.start,
            num_images=len(images),
            num_bytes=written.num_bytes,
            sha256=written.sha256,
            parts=moments.shape[1],
            statistics=statistics,
            rows_sha256=written.rows_sha256,
        )
        self.place.write_json(note_name(shard), note.to_dict())

    def validate_finite(self, moments: Tensor, images: range) -> None:
        """Raises ValueError naming an image whose latent is not finite."""
        for row, latent in enumerate(moments):
            if not torch.isfinite(latent).all():
                dtype = self.contents.dtype
                cure = f"Set dtype=bf16 ({DTYPE_KEYS}), or check the tokenizer."
                cure = cure if dtype == "fp16" else "Check the tokenizer."
                raise ValueError(
                    f"The latent of image {images[row % len(images)]} holds numbers that are not finite in {dtype}. "
                    f"{cure}"
                )

    def validate_rounding(self, statistics: Statistics) -> None:
        """Raises ValueError for channels whose mean is so far from zero that their signal is lost in rounding."""
        dtype = self.contents.dtype
        if dtype == "fp32":  # as the tokenizer gave them
            return
        step = statistics.mean.abs() * torch.finfo(DTYPES[dtype]).eps  # between neighboring numbers
        lost = (step / 12**0.5 > MOST_ROUNDING * statistics.std()).nonzero().flatten().tolist()
        if lost:
            channel = lost[0]
            raise ValueError(
                f"In {dtype}, channel {channel} of these latents is rounded to steps of {step[channel]:.2g} at its "
                f"mean {statistics.mean[channel]:.4g}, and its standard deviation is {statistics.std()[channel]:.2g}"
                f"{f' ({len(lost)} such channels)' if len(lost) > 1 else ''}: its signal is lost. Set dtype=fp32 "
                f"({DTYPE_KEYS})."
            )

    def validate_labels(self, labels: Tensor) -> None:
        """Raises ValueError for labels that are not classes of the data."""
        if labels.min() < 0 or labels.max() >= self.contents.num_classes:
            raise ValueError(
                f"These latents have the labels {int(labels.min())} to {int(labels.max())}, but {self.contents.data} "
                f"has the classes 0 to {self.contents.num_classes - 1}. Choose the data that they were encoded from."
            )

    def finish(self) -> Manifest:
        """Completes the store: writes the manifest and removes the notes. Raises ValueError if shards are missing."""
        missing = self.missing()
        if missing:
            raise ValueError(
                f"{self.place} lacks {len(missing)} shards (first: {missing[0]}). "
                "Run the same command again to encode them."
            )
        shards = [self.read_note(shard) for shard in range(self.num_shards)]
        if len({shard.parts for shard in shards}) != 1:
            raise ValueError(f"{self.place} mixes points and Gaussian posteriors. Remove it and encode again.")
        statistics = combine([shard.statistics for shard in shards])
        self.validate_rounding(statistics)
        manifest = Manifest(self.contents, self.latent, self.num_images, self.shard_size, shards, statistics)
        self.place.write_json(MANIFEST, manifest.to_dict())
        remove_notes(self.place)
        return manifest


def remove_notes(where: Path | Place) -> None:
    """Removes the working files of a complete store, including those of a process that was killed."""
    place = as_place(where)
    if isinstance(place, Address):
        remove_notes_at(place)
        return
    for path in leftovers(place.path):
        with suppress(PermissionError):  # another user's store
            remove_scratch(path)


def remove_notes_at(place: Address) -> None:
    """Removes the notes and the plan of a complete store at an address, where it allows that; the plan last."""
    if place.size(PLAN) is None:
        return
    notes = [note_name(shard) for shard in range(len(read_manifest(place).shards))]
    if place.remove(notes[0]):
        with ThreadPoolExecutor(CONNECTIONS) as pool:
            list(pool.map(place.remove, notes[1:]))
        place.remove(PLAN)


def leftovers(folder: Path) -> Iterator[Path]:
    """The working files that a complete store does not need."""
    for pattern in ("shard-*.json", PLAN, ".*.tmp"):
        yield from folder.glob(pattern)
