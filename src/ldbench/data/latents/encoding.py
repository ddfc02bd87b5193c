"""Encodes a split with a tokenizer into a complete store, with constant memory, in one process or several.

Each process encodes whole shards, so that no checksum or file depends on their number. Finished shards are kept.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import cast

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from ldbench.core.interfaces import ImageSet
from ldbench.core.posterior import Posterior
from ldbench.core.tokenizer import Tokenizer
from ldbench.data.latents.manifest import Contents, Manifest
from ldbench.data.latents.places import Place
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.writing import StoreWriter
from ldbench.runtime.device import compute_precision
from ldbench.runtime.progress import progress
from ldbench.runtime.workers import run_parallel, split_evenly


def encode(
    where: Path | Place,
    contents: Contents,
    *,
    tokenizer: Tokenizer,
    images: ImageSet,  # without augmentation
    shard_size: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    num_processes: int,
) -> Manifest:
    """Builds the store of a whole split, or resumes an interrupted one. Callers must hold a lock on its place.

    With several processes each uses its own CUDA device where there are any. Raises ValueError for latents that are not
    finite.
    """
    writer = StoreWriter(where, contents, latent=tokenizer.latent, num_images=len(images), shard_size=shard_size)
    missing = writer.missing()
    shares = split_evenly(missing, num_processes)
    work = partial(
        encode_shards, writer, tokenizer=tokenizer.eval(), images=images, batch_size=batch_size, workers=workers
    )
    done = len(images) - sum(len(writer.shard_images(shard)) for shard in missing)
    with progress("encoding", total=len(images), done=done) as advance:
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
    advance: Callable[[int], None],  # called with the number of images encoded
) -> None:
    """Encodes shards one after the other.

    No batch spans two shards, so that a shard does not depend on process or order.
    """
    batches = [list(batch) for shard in shards for batch in split_batches(writer.shard_images(shard), batch_size)]
    dataset = cast("Dataset[tuple[Tensor, int]]", images)
    loader = iter(DataLoader(dataset, batch_sampler=batches, num_workers=workers, pin_memory=device.type == "cuda"))
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
    """The posteriors of a shard's images from the loader's next batches; those of mirrored images follow the others."""
    contents, latent, total = writer.contents, writer.latent, len(writer.shard_images(shard))
    views = 2 if contents.flips else 1
    moments, labels, done = torch.empty(0), torch.empty(total, dtype=torch.int64), 0
    while done < total:
        batch, y = next(loader)
        batch = batch.to(device, non_blocking=True)
        for view in range(views):
            posterior = encode_batch(tokenizer, batch.flip(-1) if view else batch, contents.precision)
            encoded = stack_moments(posterior)  # (B, 1 or 2, N, C)
            if not len(moments):
                moments = torch.empty(
                    views * total, encoded.shape[1], latent.num_tokens, latent.channels, dtype=DTYPES[contents.dtype]
                )
            start = view * total + done
            moments[start : start + len(batch)] = encoded.to("cpu", moments.dtype)
        labels[done : done + len(batch)] = y
        done += len(batch)
        advance(len(batch))
    return moments, labels


def encode_batch(
    tokenizer: Tokenizer,
    images: Tensor,  # (B, 3, H, W) in [-1, 1]
    precision: str,
) -> Posterior:
    """The posteriors of images, encoded at a precision."""
    with compute_precision(precision, images.device.type):
        return tokenizer.encode(images)


def stack_moments(posterior: Posterior) -> Tensor:  # (B, 1 or 2, N, C)
    """A posterior as stored: its mean and log-variance in one tensor."""
    parts = [posterior.mean] if posterior.logvar is None else [posterior.mean, posterior.logvar]
    return torch.stack([part.float() for part in parts], dim=1)


def split_batches(images: range, batch_size: int) -> Iterator[range]:
    """Splits the images of a shard into batches."""
    return (images[start : start + batch_size] for start in range(0, len(images), batch_size))
