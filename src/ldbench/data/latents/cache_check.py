"""Compares a cache in LightningDiT's layout with what the tokenizer gives: images are missing, or the scale is another.

A cache does not say which images it holds. The official script encodes them in order: image i is number i // W of rank
i % W of W ranks, and the last ranks repeat an image where they do not divide. Labels show whether that is so.
"""

import logging
import math
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import accumulate
from pathlib import Path

import torch
from safetensors import safe_open
from torch import Tensor

from ldbench.core.interfaces import ImageSet
from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.data.latents.lightningdit import CacheFile, list_cache_files

log = logging.getLogger(__name__)

NUM_COMPARED = 48  # images
FARTHEST = 3.0  # the mean squared difference of a sample from its mean is 1 in units of the posterior's variance
ROUNDING = 1e-3  # of the latents' variance: other devices and precisions
SCALES = 0.8, 1.25  # of a cache in another order, by its standard deviation


def validate_cache(
    folder: Path,
    images: ImageSet,
    *,
    latent: LatentSpec,
    encode: Callable[[Tensor], Posterior],  # (B, 3, H, W) -> of (B, N, C)
) -> None:
    """Compares a few dozen images with a cache of all of them.

    Raises ValueError where the cache has another number of images, or latents that the tokenizer does not give.
    """
    files = list_cache_files(folder, latent)
    ranks = by_rank(files)
    found, wanted = sum(file.num_images for file in files), len(images)
    padded = math.ceil(wanted / len(ranks)) * len(ranks)
    if found not in (wanted, padded):
        raise ValueError(
            f"{folder} holds latents of {found} images, and the training split has {wanted}. Encode all of them, or "
            "train on the images that it holds: data.subset=LIST."
        )
    log.info("The cache %s holds latents of %d images; the training split has %d.", folder, found, wanted)
    chosen = torch.linspace(0, wanted - 1, min(NUM_COMPARED, wanted)).long().tolist()
    pictures, labels = zip(*(images[index] for index in chosen), strict=True)
    posterior = encode(torch.stack(list(pictures)))
    stored, stored_labels = zip(*(read_image(ranks, index) for index in chosen), strict=True)
    z = latent.from_map(torch.stack(list(stored)).float())  # (n, N, C)
    compare(folder, z, posterior, in_order=list(stored_labels) == [int(label) for label in labels])


def compare(folder: Path, z: Tensor, posterior: Posterior, *, in_order: bool) -> None:
    """Raises ValueError unless latents (n, N, C) of a cache are samples of the posterior, or are of its scale where
    their order is not known.
    """
    mean = posterior.mean.float().cpu()
    variance = torch.zeros_like(mean) if posterior.logvar is None else posterior.logvar.float().cpu().exp()
    spread = mean.var() + variance.mean()
    ratio = (z.std() / spread.sqrt()).item()
    if in_order:
        far = ((z - mean).square().mean() / (FARTHEST * variance.mean() + ROUNDING * spread)).item()
        if far <= 1:
            return
        factor = (z * mean).sum() / mean.square().sum()  # unbiased for samples of the posterior, times a factor
        if factor != 0 and (z / factor - mean).square().mean() <= FARTHEST * variance.mean() + ROUNDING * spread:
            raise ValueError(
                f"{folder} holds latents that are about {factor.item():.3g} times those of this tokenizer. Store them "
                "as it gives them, or encode again: latents.cache=null. (0.18215 is the scale of Stable Diffusion's "
                "latents.)"
            )
    elif SCALES[0] <= ratio <= SCALES[1]:
        log.warning(
            "The labels of %s are in another order than the images: that its latents are of this tokenizer was checked "
            "by their scale alone.",
            folder,
        )
        return
    raise ValueError(
        f"{folder} holds other latents than this tokenizer gives for the same images (their standard deviation is "
        f"{ratio:.3g} times as large). Choose the tokenizer that encoded them, or encode again: latents.cache=null."
    )


def by_rank(files: Sequence[CacheFile]) -> list[list[CacheFile]]:
    """The files of each rank, in order."""
    ranks: dict[str, list[CacheFile]] = defaultdict(list)
    for file in files:
        match = re.match(r"latents_rank(\d+)_", file.path.name)
        ranks[match[1] if match else ""].append(file)
    return list(ranks.values())


def read_image(ranks: Sequence[Sequence[CacheFile]], index: int) -> tuple[Tensor, int]:
    """The latent (C, h, w) of an image and its label, by the order of the official script; the last one of a rank that
    has too few.
    """
    files = ranks[index % len(ranks)]
    ends = list(accumulate(file.num_images for file in files))
    place = min(index // len(ranks), ends[-1] - 1)
    number = next(number for number, end in enumerate(ends) if place < end)
    row = place - (ends[number] - files[number].num_images)
    with safe_open(files[number].path, "pt") as opened:
        return opened.get_slice("latents")[row], int(opened.get_slice("labels")[row : row + 1].item())
