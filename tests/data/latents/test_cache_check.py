"""Caches in LightningDiT's layout: what is missing, scaled or of another tokenizer is refused."""

import logging
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from ldbench.core.latent import LatentSpec
from ldbench.core.posterior import Posterior
from ldbench.data.latents.cache_check import validate_cache

LATENT = LatentSpec(4, 2, (2, 2))
COUNT = 64


def encode(images: Tensor, factor: float = 1.0) -> Posterior:
    """Latents that are pixels, with a tenth of their deviation as noise."""
    mean = factor * images[:, :2].flatten(2).transpose(1, 2)
    return Posterior(mean, torch.full_like(mean, 0.01 * factor**2).log())


@pytest.fixture
def images() -> list[tuple[Tensor, int]]:
    pixels = torch.randn(COUNT, 3, 2, 2, generator=torch.Generator().manual_seed(0))
    return [(image, index % 7) for index, image in enumerate(pixels)]


@pytest.fixture
def cache(tmp_path: Path, images: list[tuple[Tensor, int]]) -> Callable[..., Path]:
    """Writes a cache as the official script does, in several ranks and files, the last images padded."""

    def write(*, ranks: int = 1, order: list[int] | None = None, scale: float = 1.0, dtype=torch.float32) -> Path:
        order = list(range(COUNT)) if order is None else order
        order = order + order[: -len(order) % ranks]
        x = torch.stack([images[index][0] for index in order])
        z = LATENT.to_map(encode(x).sample(torch.Generator().manual_seed(1))) * scale
        labels = torch.tensor([images[index][1] for index in order])
        for rank in range(ranks):
            for shard, rows in enumerate(torch.arange(rank, len(order), ranks).split(10)):
                tensors = {"latents": z[rows].to(dtype), "latents_flip": z[rows].to(dtype), "labels": labels[rows]}
                save_file(tensors, tmp_path / f"latents_rank{rank:02d}_shard{shard:03d}.safetensors")
        return tmp_path

    return write


@pytest.mark.parametrize("ranks", [1, 2, 5])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_cache_of_the_tokenizer_is_taken_and_its_count_is_logged(cache, images, ranks, dtype, caplog) -> None:
    with caplog.at_level(logging.INFO, logger="ldbench"):
        validate_cache(cache(ranks=ranks, dtype=dtype), images, latent=LATENT, encode=encode)
    assert f"of {-(-COUNT // ranks) * ranks} images; the training split has {COUNT}." in caplog.text


@pytest.mark.parametrize(("scale", "written"), [(0.18215, "0.18"), (5.0, r"(5|4\.9)"), (-1.0, r"-(1|0\.9)")])
def test_latents_of_another_scale_are_refused_with_the_factor(cache, images, scale, written) -> None:
    with pytest.raises(ValueError, match=rf"that are about {written}\S* times those of this tokenizer\. Store"):
        validate_cache(cache(scale=scale), images, latent=LATENT, encode=encode)


@pytest.mark.parametrize("count", [30, 63, 65])
def test_a_part_of_the_images_or_more_is_refused_with_both_counts(cache, images, count) -> None:
    order = [index % COUNT for index in range(count)]
    with pytest.raises(ValueError, match=rf"holds latents of {count} images, and the training split has {COUNT}"):
        validate_cache(cache(order=order), images, latent=LATENT, encode=encode)


def test_latents_of_another_tokenizer_are_refused(cache, images) -> None:
    with pytest.raises(ValueError, match="holds other latents than this tokenizer gives for the same images"):
        validate_cache(cache(), images, latent=LATENT, encode=lambda x: encode(x.flip(1)))


def test_in_another_order_the_scale_is_compared(cache, images, caplog) -> None:
    order = torch.randperm(COUNT, generator=torch.Generator().manual_seed(2)).tolist()
    folder = cache(order=order)
    validate_cache(folder, images, latent=LATENT, encode=encode)
    assert "was checked by their scale alone" in caplog.text
    with pytest.raises(ValueError, match="times as large"):
        validate_cache(folder, images, latent=LATENT, encode=lambda x: encode(x, 1 / 0.18215))


def test_points_are_compared_up_to_rounding(cache, images) -> None:
    folder = cache(dtype=torch.float16)
    with pytest.raises(ValueError, match="holds other latents"):  # the cache has noise
        validate_cache(folder, images, latent=LATENT, encode=lambda x: Posterior(encode(x).mean))
