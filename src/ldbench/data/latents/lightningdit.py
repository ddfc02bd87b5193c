"""Converts LightningDiT's cached latents [0] to a store, and a store to its layout.

A cache folder holds `latents_rank%02d_shard%03d.safetensors` with `latents` and `latents_flip` (n, C, H, W) float32,
one sample of each posterior, and `labels` (n,) int64; and `latents_stats.pt`, a dict of `mean` and `std` (1, C, 1, 1).
One that we write has `ldbench-<digest>.json` too, written last: which latents these are.

[0] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents, Manifest
from ldbench.data.latents.places import Place
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter
from ldbench.io.files import atomic_write, digest, file_digest, write_json
from ldbench.io.safe_load import first_line, read_pickle, validated_tensors, write_pickle
from ldbench.io.safetensors_io import write_tensors

PATTERN = "latents_rank*_shard*.safetensors"
STATS = "latents_stats.pt"
VIEWS = ("latents", "latents_flip")


@dataclass(frozen=True)
class CacheFile:
    """One file of a cache, and the range of its images."""

    path: Path
    first: int
    num_images: int


def cache_checksum(folder: Path) -> str:
    """The sha256 of all latents in a cache; reads all files. Raises ValueError for a folder without any."""
    return digest({path.name: file_digest(path) for path in list_cache_paths(folder)})


def read_cache(
    folder: Path, store_place: Path | Place, contents: Contents, *, latent: LatentSpec, shard_size: int
) -> Manifest:
    """Builds a store from a cache, or resumes it; its samples become points.

    Mirrored views are dropped if `contents` has no flips.

    Images are ordered by rank: a cache does not record their indices in the dataset, nor which were encoded twice to
    fill a last batch. Raises ValueError for files with another layout or latent shape.
    """
    files = list_cache_files(folder, latent)
    num_images = sum(file.num_images for file in files)
    writer = StoreWriter(store_place, contents, latent=latent, num_images=num_images, shard_size=shard_size)
    for shard in writer.missing():
        images = writer.shard_images(shard)
        views = [read_slices(files, view, images) for view in VIEWS[: 2 if contents.flips else 1]]
        z = torch.cat([latent.from_map(part) for view in views for part in view])
        writer.write(shard, z[:, None].to(DTYPES[contents.dtype]), torch.cat([*read_slices(files, "labels", images)]))
    return writer.finish()


def write_cache(store: LatentStore, folder: Path, *, seed: int, images_per_file: int) -> Path:
    """Writes a store as a cache of one rank, then the statistics of the whole set, and last a note, whose path it
    returns.

    Each view is sampled once, from `seed`. If the store has no mirrored views, `latents_flip` holds a second sample of
    the same image. Raises ValueError for latents without a grid, and for a folder that holds anything else.
    """
    latent, manifest = store.latent, store.manifest
    if latent.grid is None:
        raise ValueError(
            f"LightningDiT stores maps, but {store.place} holds {latent.num_tokens} tokens without a grid. "
            "Train on the store itself."
        )
    validate_target(folder, manifest.contents, seed=seed, images_per_file=images_per_file)
    note, unfinished = note_paths(folder, manifest.contents, seed=seed, images_per_file=images_per_file)
    described = {"contents": asdict(manifest.contents), "seed": seed, "images_per_file": images_per_file}
    write_json(unfinished, described)
    note.unlink(missing_ok=True)
    flipped, step = (manifest.num_images, 0) if manifest.contents.flips else (0, 1)
    for number, images in enumerate(torch.arange(manifest.num_images).split(images_per_file)):
        z, y = store.batch(images, seed=seed, step=0)
        mirrored, _ = store.batch(images + flipped, seed=seed, step=step)
        tensors = {
            "latents": latent.to_map(z).contiguous(),
            "latents_flip": latent.to_map(mirrored).contiguous(),
            "labels": y,
        }
        metadata = {"total_size": str(len(y)), "dtype": str(z.dtype), "device": "cpu"}
        write_tensors(tensors, folder / f"latents_rank00_shard{number:03d}.safetensors", metadata=metadata)
    stats = {"mean": manifest.statistics.mean, "std": manifest.statistics.std()}
    with atomic_write(folder / STATS) as scratch:
        write_pickle({name: value.float().reshape(1, -1, 1, 1) for name, value in stats.items()}, scratch)
    write_json(note, described)
    unfinished.unlink()
    return note


def validate_target(folder: Path, contents: Contents, *, seed: int, images_per_file: int) -> None:
    """Raises ValueError where `write_cache` would write these latents among other files than those that it wrote of
    them before. Hidden files do not count.
    """
    held = [path for path in folder.iterdir() if not path.name.startswith(".")] if folder.is_dir() else []
    notes = note_paths(folder, contents, seed=seed, images_per_file=images_per_file)
    if held and not any(note in held for note in notes):
        raise ValueError(
            f"{folder} holds other files than the latents of {contents.tokenizer} and {contents.data} in "
            "LightningDiT's layout. Choose an empty folder with job.export=DIR, or remove what is there."
        )


def note_paths(folder: Path, contents: Contents, *, seed: int, images_per_file: int) -> tuple[Path, Path]:
    """The note in a cache of these latents, and the one in its place until the cache is whole."""
    exported = digest({"contents": contents.digest(), "seed": seed, "images_per_file": images_per_file})[:16]
    return folder / f"ldbench-{exported}.json", folder / f"ldbench-{exported}.unfinished.json"


def read_stats(path: Path) -> tuple[Tensor, Tensor]:
    """`mean` and `std`, (1, C, 1, 1), from a latents_stats.pt or the folder that holds it, read by torch's restricted
    loader.

    Raises ValueError for any other content, and FileNotFoundError if the file does not exist.
    """
    path = path / STATS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"{path} does not exist. Give a latents_stats.pt, or the folder that holds it.")
    try:
        stats = validated_tensors(read_pickle(path), path.stat().st_size)
        mean, std = stats["mean"], stats["std"]
        if mean.shape != std.shape or mean.shape != (1, mean.numel(), 1, 1):
            raise ValueError(f"shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if not (torch.isfinite(mean) & torch.isfinite(std) & (std > 0)).all():
            raise ValueError("a mean or standard deviation is not finite, or a standard deviation is not positive")
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise ValueError(
            f"{path} holds no latent statistics ({first_line(error)}). Expected a dict of mean and std, (1, C, 1, 1)."
        ) from error
    return mean, std


def list_cache_paths(folder: Path) -> list[Path]:
    """The latent files of a cache, by rank and shard. Raises ValueError for a folder without any."""
    paths = sorted(folder.glob(PATTERN))
    if not paths:
        raise ValueError(f"{folder} holds no latents in LightningDiT's layout: it has no {PATTERN}.")
    return paths


def list_cache_files(folder: Path, latent: LatentSpec) -> list[CacheFile]:
    """The files of a cache, with their shapes checked. Raises ValueError naming the first that does not fit."""
    if latent.grid is None:
        raise ValueError(
            f"LightningDiT stores maps, but this tokenizer has {latent.num_tokens} tokens without a grid: "
            f"{folder} cannot be its cache."
        )
    files: list[CacheFile] = []
    for path in list_cache_paths(folder):
        expected = (latent.channels, *latent.grid)
        try:
            with safe_open(path, "pt") as file:
                slices = {name: file.get_slice(name) for name in (*VIEWS, "labels")}
                shapes = {name: tuple(part.get_shape()) for name, part in slices.items()}
            if len(shapes["labels"]) != 1 or slices["labels"].get_dtype() != "I64":
                raise ValueError(f"its labels are {slices['labels'].get_dtype()} {shapes['labels']}, expected I64 (n,)")
            if any(slices[view].get_dtype() not in ("F32", "F16", "BF16") for view in VIEWS):
                raise ValueError(f"its latents are {slices['latents'].get_dtype()}, expected F32")
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(
                f"{path} is not a file of latents in LightningDiT's layout ({error}). Copy it again."
            ) from error
        (count,) = shapes["labels"]
        if any(shapes[view] != (count, *expected) for view in VIEWS):
            raise ValueError(
                f"{path} holds latents {shapes['latents']}, but this tokenizer has maps {expected}. "
                "Choose the tokenizer that encoded them."
            )
        files.append(CacheFile(path, files[-1].first + files[-1].num_images if files else 0, count))
    return files


def read_slices(files: list[CacheFile], name: str, images: range) -> Iterator[Tensor]:
    """The slices of one tensor that belong to a range of images, file by file."""
    for file in files:
        first, last = max(images.start, file.first), min(images.stop, file.first + file.num_images)
        if first < last:
            with safe_open(file.path, "pt") as opened:
                yield opened.get_slice(name)[first - file.first : last - file.first]
