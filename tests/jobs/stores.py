"""Latent stores of given means, for jobs that read latents."""

from pathlib import Path

import torch
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter


def stored(
    folder: Path,
    split: str,
    mean: Tensor,  # (n, N, C)
    y: Tensor,  # (n,) of three classes
    *,
    flips: bool = False,
    grid: tuple[int, int] | None = None,
) -> LatentStore:
    """A store of means with a wide posterior; flipped views are far off."""
    contents = Contents(
        tokenizer="formula-00112233",
        tokenizer_digest="00112233" * 8,
        tokenizer_key="00112233" * 8,
        data="clusters",
        num_classes=3,
        fingerprint="ab" * 32,
        split=split,
        preprocessing={"image_size": 8},
        flips=flips,
        dtype="fp32",
        precision="fp32",
    )
    writer = StoreWriter(
        folder, contents, latent=LatentSpec(*mean.shape[1:], grid), num_images=len(mean), shard_size=100
    )
    for shard in writer.missing():
        images = writer.shard_images(shard)
        part = mean[images.start : images.stop]
        part = torch.cat([part, part + 1e3]) if flips else part
        writer.write(shard, torch.stack([part, torch.ones_like(part)], dim=1), y[images.start : images.stop])
    writer.finish()
    return LatentStore.open(folder)
