"""Encoding a split: from images and a tokenizer to a complete store, with constant memory, in one process or several.

Processes take whole shards, so that no sum and no file depends on how many there are. What a process has finished stays.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor
from torch.utils.data import DataLoader

from ldbench.core.interfaces import ImageSet
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.manifest import Contents, Manifest
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.writing import StoreWriter
from ldbench.runtime.device import compute_precision
from ldbench.runtime.workers import run_parallel, split_evenly


def encode(
    folder: Path,
    contents: Contents,
    *,
    tokenizer: Tokenizer,
    images: ImageSet,  # as the tokenizer sees them: nothing is drawn
    shard_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    num_processes: int,
) -> Manifest:
    """Makes the store of a whole split, or goes on with it. Of two callers at once one must wait: hold a lock.

    Several processes share a machine, one for each CUDA device where there are any. Raises ValueError for latents that are not finite.
    """
    writer = StoreWriter(folder, contents, latent=tokenizer.latent, num_images=len(images), shard_size=shard_size)
    missing = writer.missing()
    shares = split_evenly(missing, num_processes)
    work = partial(
        encode_shards, writer, tokenizer=tokenizer.eval(), images=images, batch_size=batch_size, workers=workers
    )
    done = len(images) - sum(len(writer.images_of(shard)) for shard in missing)
    columns = (TextColumn("encoding"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), disable=not sys.stderr.isatty()) as bar:
        task = bar.add_task("encoding", total=len(images), completed=done)
        advance = partial(bar.advance, task)
        if len(shares) == 1:
            work(missing, device=device, advance=advance)
        else:
            run_parallel(work, shares, device=device, advance=advance)
    return writer.finish()


def encode_shards(
    writer: StoreWriter,
    shards: Sequence[int],
    *,
    tokenizer: Tokenizer,
    images: ImageSet,
    batch_size: int,
    workers: int,
    device: torch.device,
    advance: Callable[[int], None],  # told how many images were encoded
) -> None:
    """Encodes shards one after the other. Batches end where shards do, so that a shard is the same whoever makes it, and after whatever."""
    batches = [list(batch) for shard in shards for batch in in_batches(writer.images_of(shard), batch_size)]
    loader = iter(DataLoader(images, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda"))
    tokenizer = tokenizer.to(device).eval()
    for shard in shards:
        moments, labels = encode_shard(writer, shard, loader, tokenizer=tokenizer, device=device, advance=advance)
        writer.write(shard, moments, labels)


@torch.inference_mode()
def encode_shard(
    writer: StoreWriter,
    shard: int,
    loader: Iterator[tuple[Tensor, Tensor]],
    *,
    tokenizer: Tokenizer,
    device: torch.device,
    advance: Callable[[int], None],
) -> tuple[Tensor, Tensor]:  # (views * images, 1 or 2, N, C), (images,)
    """The posteriors of a shard's images from the loader's next batches, mirrored ones behind the others."""
    contents, latent, total = writer.contents, writer.latent, len(writer.images_of(shard))
    views = 2 if contents.flips else 1
    moments, labels, done = torch.empty(0), torch.empty(total, dtype=torch.int64), 0
    while done < total:
        batch, y = next(loader)
        batch = batch.to(device, non_blocking=True)
        for view in range(views):
            encoded = stacked(
                encode_batch(tokenizer, batch.flip(-1) if view else batch, contents.precision)
            )  # (B, 1 or 2, N, C)
            if not len(moments):
                moments = torch.empty(
                    views * total, encoded.shape[1], latent.num_tokens, latent.channels, dtype=DTYPES[contents.dtype]
                )
            place = view * total + done
            moments[place : place + len(batch)] = encoded.to("cpu", moments.dtype)
        labels[done : done + len(batch)] = y
        done += len(batch)
        advance(len(batch))
    return moments, labels


def encode_batch(
    tokenizer: Tokenizer,
    images: Tensor,  # (B, 3, H, W) in [-1, 1]
    precision: str,
) -> Posterior:
    """The posteriors of images, encoded in a precision."""
    with compute_precision(precision, images.device.type):
        return tokenizer.encode(images)


def stacked(posterior: Posterior) -> Tensor:  # (B, 1 or 2, N, C)
    """A posterior as the store keeps it."""
    parts = [posterior.mean] if posterior.logvar is None else [posterior.mean, posterior.logvar]
    return torch.stack([part.float() for part in parts], dim=1)


def in_batches(images: range, batch_size: int) -> Iterator[range]:
    """A shard's images, so many at a time."""
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))
