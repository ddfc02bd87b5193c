"""LightningDiT's cache of latents [0]: its folders become stores here, and stores become its folders.

A folder holds `latents_rank%02d_shard%03d.safetensors` with `latents` and `latents_flip` (n, C, H, W) float32, one sample of each posterior, and
`labels` (n,) int64; and `latents_stats.pt`, a dict of `mean` and `std` (1, C, 1, 1).

[0] Yao et al., Reconstruction vs. Generation, 2025, https://arxiv.org/abs/2501.01423
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents, Manifest
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter
from ldbench.io.files import atomic_write, digest, file_digest
from ldbench.io.safe_load import first_line, read_pickle, validated_tensors, write_pickle
from ldbench.io.safetensors_io import write_tensors

PATTERN = "latents_rank*_shard*.safetensors"
STATS = "latents_stats.pt"
VIEWS = ("latents", "latents_flip")


@dataclass(frozen=True)
class CacheFile:
    """One file of a cache, and the images that it holds."""

    path: Path
    first: int
    num_images: int


def sum_of_cache(folder: Path) -> str:
    """The sha256 of all of a cache's latents. Reads them all. Raises ValueError for a folder without any."""
    return digest({path.name: file_digest(path) for path in paths_of(folder)})


def read_cache(folder: Path, place: Path, contents: Contents, *, latent: LatentSpec, shard_size: int) -> Manifest:
    """Makes a store of a cache, or goes on with it; its samples are points. The mirrored ones are left out where `contents` has no flips.

    The images are those of the ranks one after the other: a cache does not say where in the data they were, nor which were encoded twice
    to fill up a last batch. Raises ValueError for files that are not of this layout and latent.
    """
    files = files_of(folder, latent)
    writer = StoreWriter(
        place, contents, latent=latent, num_images=sum(file.num_images for file in files), shard_size=shard_size
    )
    for shard in writer.missing():
        images = writer.images_of(shard)
        views = [from_files(files, view, images) for view in VIEWS[: 2 if contents.flips else 1]]
        z = torch.cat([latent.from_map(part) for view in views for part in view])
        writer.write(shard, z[:, None].to(DTYPES[contents.dtype]), torch.cat([*from_files(files, "labels", images)]))
    return writer.finish()


def write_cache(store: LatentStore, folder: Path, *, seed: int, images_per_file: int) -> None:
    """Writes a store as a cache of one rank, and the statistics of its whole set, last of all.

    Each view is sampled once, from `seed`. Where the store has no mirrored views, `latents_flip` holds another sample of the same one.
    Raises ValueError for latents that lie on no grid.
    """
    latent, told = store.latent, store.manifest
    if latent.grid is None:
        raise ValueError(
            f"LightningDiT keeps maps, and {store.folder} holds {latent.num_tokens} tokens on no grid. Train on the store itself."
        )
    folder.mkdir(parents=True, exist_ok=True)
    flipped, step = (told.num_images, 0) if told.contents.flips else (0, 1)
    for number, images in enumerate(torch.arange(told.num_images).split(images_per_file)):
        z, y = store.batch(images, seed=seed, step=0)
        mirrored, _ = store.batch(images + flipped, seed=seed, step=step)
        tensors = {
            "latents": latent.to_map(z).contiguous(),
            "latents_flip": latent.to_map(mirrored).contiguous(),
            "labels": y,
        }
        metadata = {"total_size": str(len(y)), "dtype": str(z.dtype), "device": "cpu"}
        write_tensors(tensors, folder / f"latents_rank00_shard{number:03d}.safetensors", metadata=metadata)
    stats = {"mean": told.statistics.mean, "std": told.statistics.std()}
    with atomic_write(folder / STATS) as scratch:
        write_pickle({name: value.float().reshape(1, -1, 1, 1) for name, value in stats.items()}, scratch)


def read_stats(path: Path) -> tuple[Tensor, Tensor]:
    """`mean` and `std`, (1, C, 1, 1), of a latents_stats.pt or of the folder that holds it, through torch's restricted loader.

    Raises ValueError for anything else, and FileNotFoundError where there is none.
    """
    path = path / STATS if path.is_dir() else path
    if not path.is_file():
        raise FileNotFoundError(f"There is no {path}. Give a latents_stats.pt, or the folder that holds it.")
    try:
        held = validated_tensors(read_pickle(path), path.stat().st_size)
        mean, std = held["mean"], held["std"]
        if mean.shape != std.shape or mean.shape != (1, mean.numel(), 1, 1):
            raise ValueError(f"shapes {tuple(mean.shape)} and {tuple(std.shape)}")
        if not (torch.isfinite(mean) & torch.isfinite(std) & (std > 0)).all():
            raise ValueError("a mean or a deviation is not finite, or a deviation not above zero")
    except Exception as error:  # a damaged or hostile file can fail in any way
        raise ValueError(
            f"{path} holds no statistics of latents ({first_line(error)}). Expected a dict of mean and std, (1, C, 1, 1)."
        ) from error
    return mean, std


def paths_of(folder: Path) -> list[Path]:
    """The latents of a cache, by rank and shard. Raises ValueError for a folder without any."""
    found = sorted(folder.glob(PATTERN))
    if not found:
        raise ValueError(f"{folder} holds no latents in LightningDiT's layout: there is no {PATTERN} in it.")
    return found


def files_of(folder: Path, latent: LatentSpec) -> list[CacheFile]:
    """The files of a cache, after a look at the shapes in them. Raises ValueError naming the first that does not fit."""
    if latent.grid is None:
        raise ValueError(
            f"LightningDiT keeps maps, and this tokenizer makes {latent.num_tokens} tokens on no grid: {folder} cannot be its cache."
        )
    files: list[CacheFile] = []
    for path in paths_of(folder):
        expected = (latent.channels, *latent.grid)
        try:
            with safe_open(path, "pt") as file:
                held = {name: file.get_slice(name) for name in (*VIEWS, "labels")}
                shapes = {name: tuple(part.get_shape()) for name, part in held.items()}
            if len(shapes["labels"]) != 1 or held["labels"].get_dtype() != "I64":
                raise ValueError(f"its labels are {held['labels'].get_dtype()} {shapes['labels']}, expected I64 (n,)")
            if any(held[view].get_dtype() not in ("F32", "F16", "BF16") for view in VIEWS):
                raise ValueError(f"its latents are {held['latents'].get_dtype()}, expected F32")
        except (SafetensorError, OSError, ValueError) as error:
            raise ValueError(
                f"{path} is no file of latents in LightningDiT's layout ({error}). Copy it again."
            ) from error
        (count,) = shapes["labels"]
        if any(shapes[view] != (count, *expected) for view in VIEWS):
            raise ValueError(
                f"{path} holds latents {shapes['latents']}, and this tokenizer makes maps {expected}. Name the tokenizer that they are of."
            )
        files.append(CacheFile(path, files[-1].first + files[-1].num_images if files else 0, count))
    return files


def from_files(files: list[CacheFile], name: str, images: range) -> Iterator[Tensor]:
    """One tensor's part for some images, file by file."""
    for file in files:
        first, last = max(images.start, file.first), min(images.stop, file.first + file.num_images)
        if first < last:
            with safe_open(file.path, "pt") as held:
                yield held.get_slice(name)[first - file.first : last - file.first]
