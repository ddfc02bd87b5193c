"""Writes a store shard by shard: finished shards are kept, and any process may write any shard."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import MANIFEST, PLAN, Contents, Manifest, Shard, shard_name
from ldbench.data.latents.shards import DTYPES, write_shard
from ldbench.data.latents.statistics import Statistics, combine
from ldbench.io.files import file_digest, read_json, remove_scratch, write_json
from ldbench.io.safe_load import first_line

DTYPE_KEYS = "latents.dtype of a generator, job.dtype of job=encode"
MOST_ROUNDING = 0.05  # of a channel's standard deviation, as rounding error (root mean square)
MANY = 256  # numbers of a channel from which its statistics are known well enough


class StoreWriter:
    """Builds a store. Shard i holds the images from i * shard_size on, followed by the same images mirrored.

    A shard is finished once its note exists; `kill -9` loses only the shard in progress. Only one shard is in memory at
    a time. Raises ValueError for a folder that was started with other contents or another shard size.
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
        self.start()

    def start(self) -> None:
        """Writes the plan of the store, or compares it with the one in the folder."""
        path = self.folder / PLAN
        plan = {
            "contents": asdict(self.contents),
            "latent": self.latent.to_dict(),
            "num_images": self.num_images,
            "shard_size": self.shard_size,
        }
        if path.is_file():
            existing = read_json(path)
            if not isinstance(existing, dict):
                raise ValueError(f"{path} is not a plan of a store. Remove {self.folder} and encode again.")
            changed = [key for key, value in plan.items() if existing.get(key) != value]
            if changed:
                details = "; ".join(f"{key} was {existing.get(key)}, and now is {plan[key]}" for key in changed)
                raise ValueError(
                    f"{self.folder} was started with other settings: {details}. "
                    "Resume with those, or remove the folder."
                )
        else:
            write_json(path, plan)

    @property
    def num_shards(self) -> int:
        """The number of shards."""
        return -(-self.num_images // self.shard_size)

    def shard_images(self, shard: int) -> range:
        """The images of a shard, as indices into the split."""
        return range(shard * self.shard_size, min(self.num_images, (shard + 1) * self.shard_size))

    def missing(self) -> list[int]:
        """The shards that are not finished."""
        return [shard for shard in range(self.num_shards) if not self.is_finished(shard)]

    def is_finished(self, shard: int) -> bool:
        """Whether a shard and its note exist."""
        note, path = self.note_path(shard), self.shard_path(shard)
        return note.is_file() and path.is_file() and path.stat().st_size == self.read_note(note).num_bytes

    def read_note(self, note: Path) -> Shard:
        """Reads the note of a shard. Raises ValueError, naming the file, if it is not one."""
        try:
            return Shard.from_dict(read_json(note))
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise ValueError(
                f"{note} is not a note of a shard ({first_line(error)}). Remove it to encode the shard again."
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
        path = self.shard_path(shard)
        write_shard(path, moments, labels.repeat(views))
        note = Shard(
            file=path.name,
            first=images.start,
            num_images=len(images),
            num_bytes=path.stat().st_size,
            sha256=file_digest(path),
            parts=moments.shape[1],
            statistics=statistics,
        )
        write_json(self.note_path(shard), note.to_dict())

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
                f"{self.folder} lacks {len(missing)} shards (first: {missing[0]}). "
                "Run the same command again to encode them."
            )
        notes = [self.note_path(shard) for shard in range(self.num_shards)]
        shards = [self.read_note(note) for note in notes]
        if len({shard.parts for shard in shards}) != 1:
            raise ValueError(f"{self.folder} mixes points and Gaussian posteriors. Remove it and encode again.")
        statistics = combine([shard.statistics for shard in shards])
        self.validate_rounding(statistics)
        manifest = Manifest(self.contents, self.latent, self.num_images, self.shard_size, shards, statistics)
        write_json(self.folder / MANIFEST, manifest.to_dict())
        remove_notes(self.folder)
        return manifest

    def shard_path(self, shard: int) -> Path:
        """The path of a shard."""
        return self.folder / shard_name(shard)

    def note_path(self, shard: int) -> Path:
        """The path of the note that marks a shard as finished."""
        return self.shard_path(shard).with_suffix(".json")


def remove_notes(folder: Path) -> None:
    """Removes the working files of a complete store, including those of a process that was killed."""
    for path in leftovers(folder):
        with suppress(PermissionError):  # another user's store
            remove_scratch(path)


def leftovers(folder: Path) -> Iterator[Path]:
    """The working files that a complete store does not need."""
    for pattern in ("shard-*.json", PLAN, ".*.tmp"):
        yield from folder.glob(pattern)
