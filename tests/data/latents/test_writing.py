"""A store is written in any order by anyone, and is complete when every shard is there."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents, is_complete, shard_name
from ldbench.data.latents.shards import DTYPES
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter

LATENT = LatentSpec(2, 3)


def writer(folder: Path, contents: Contents) -> StoreWriter:
    return StoreWriter(folder, contents, latent=LATENT, num_images=7, shard_size=3)


def moments(count: int, parts: int = 2) -> torch.Tensor:
    return torch.randn(count, parts, 2, 3, generator=torch.Generator().manual_seed(count))


def labels(count: int) -> torch.Tensor:
    return torch.arange(count) % 7


def test_shards_may_come_in_any_order_and_from_any_writer(tmp_path: Path, contents: Contents) -> None:
    for shard in (2, 0, 1):
        one = writer(tmp_path, contents)
        assert shard in one.missing()
        one.write(shard, moments(len(one.shard_images(shard))), labels(len(one.shard_images(shard))))
        assert not is_complete(tmp_path)
    assert writer(tmp_path, contents).missing() == []
    manifest = writer(tmp_path, contents).finish()
    assert [shard.num_images for shard in manifest.shards] == [3, 3, 1]
    assert len(LatentStore.open(tmp_path)) == 7


def test_it_is_not_finished_while_shards_are_missing(tmp_path: Path, contents: Contents) -> None:
    one = writer(tmp_path, contents)
    one.write(1, moments(3), labels(3))
    with pytest.raises(ValueError, match=r"lacks 2 shards \(first: 0\)\. Run the same command again to encode them"):
        one.finish()


def test_a_shard_that_was_cut_after_its_note_is_missing(tmp_path: Path, contents: Contents) -> None:
    one = writer(tmp_path, contents)
    one.write(1, moments(3), labels(3))
    path = tmp_path / shard_name(1)
    path.write_bytes(path.read_bytes()[:-1])
    assert one.missing() == [0, 1, 2]


@pytest.mark.parametrize(
    "arguments",
    [
        (moments(2), labels(2)),
        (moments(3)[..., :2], labels(3)),
        (moments(3, parts=3), labels(3)),
        (moments(3), labels(2)),
    ],
)
def test_what_does_not_fit_a_shard_is_refused(
    tmp_path: Path, contents: Contents, arguments: tuple[torch.Tensor, torch.Tensor]
) -> None:
    with pytest.raises(ValueError, match=r"Shard 0 needs 3 latents of 2 tokens and 3 channels, got moments"):
        writer(tmp_path, contents).write(0, *arguments)


def test_points_and_distributions_do_not_stand_in_one_store(tmp_path: Path, contents: Contents) -> None:
    one = writer(tmp_path, contents)
    for shard, parts in ((0, 2), (1, 1), (2, 2)):
        count = len(one.shard_images(shard))
        one.write(shard, moments(count, parts), labels(count))
    with pytest.raises(ValueError, match="mixes points and Gaussian posteriors"):
        one.finish()


@pytest.mark.parametrize(
    ("dtype", "mean", "lost"),
    [("fp16", 2000, True), ("fp16", 50, False), ("bf16", 200, True), ("bf16", 5, False), ("fp32", 2000, False)],
)
@pytest.mark.parametrize("shard_size", [200, 10])
def test_a_signal_that_rounding_would_take_is_refused_and_the_channel_named(
    tmp_path: Path, contents: Contents, dtype: str, mean: float, lost: bool, shard_size: int
) -> None:
    one = StoreWriter(tmp_path, replace(contents, dtype=dtype), latent=LATENT, num_images=200, shard_size=shard_size)
    raw = torch.randn(200, 1, 2, 3, generator=torch.Generator().manual_seed(0))
    raw[..., 1] += mean
    rounded = raw.to(DTYPES[dtype])
    if lost:
        noise = (rounded.double() - raw.double())[..., 1].square().mean().sqrt()
        assert noise > 0.05, "of a standard deviation of 1"

    def fill() -> None:
        for shard in one.missing():
            rows = one.shard_images(shard)
            one.write(shard, rounded[rows.start : rows.stop], labels(len(rows)))
        one.finish()

    if lost:
        with pytest.raises(ValueError, match=rf"In {dtype}, channel 1 .* its signal is lost. Set dtype=fp32"):
            fill()
        assert len(one.missing()) == (one.num_shards if shard_size == 200 else 0), "a large shard is refused at once"
    else:
        fill()


@pytest.mark.parametrize(("num_images", "shard_size"), [(0, 3), (3, 0)])
def test_a_store_of_nothing_is_refused(tmp_path: Path, contents: Contents, num_images: int, shard_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        StoreWriter(tmp_path, contents, latent=LATENT, num_images=num_images, shard_size=shard_size)
