"""How fast random batches come from a store at an address, by latency and bandwidth. To see the figures:

python -m pytest -q -n0 -s -m slow tests/data/latents/test_remote_speed.py
"""

import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.throttled_server import throttled
from torch.utils.data import DataLoader

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.places import open_address
from ldbench.data.latents.store import LatentStore, StoredLatents
from ldbench.data.latents.writing import StoreWriter
from ldbench.training.batch_sampler import BatchStream
from ldbench.training.read_ahead import ReadAhead

NUM_LATENTS, SHARD = 2048, 256  # 67 MB of f16d32 in shards of 8.4 MB
BATCH, AHEAD = 32, 8
SECONDS = 1.5  # of each measurement
STEP = 0.05  # seconds that training on a batch takes


def rate(store: LatentStore, *, ahead: int, step: float = 0.0, skipped: int = AHEAD) -> float:
    """Latents a second in the order of a training, after `skipped` batches."""
    stream = BatchStream(
        **{"num_images": len(store), "batch_size": BATCH, "num_batches": 10_000, "seed": 0, "start": lambda: 0},
        **{"rank": 0, "world": 1, "overfit_batches": 0, "count_passes": True},
    )
    items: Any = StoredLatents(store, seed=0)
    reader = ReadAhead(items, batches=ahead) if ahead else None
    order: Any = stream if reader is None else reader.order(stream)
    count, began = 0, time.perf_counter()
    for number, (z, _) in enumerate(
        DataLoader(reader or items, batch_sampler=order, collate_fn=lambda batch: batch), start=1
    ):
        count += len(z)
        time.sleep(step)
        if number == skipped:
            count, began = 0, time.perf_counter()
        if number > skipped and time.perf_counter() - began > SECONDS:
            break
    seconds = time.perf_counter() - began
    if reader is not None:
        reader.close()
    return count / seconds


def wait_until_whole(store: LatentStore) -> None:
    while len(store.shards.reading.mapped) < len(store.manifest.shards):
        time.sleep(0.01)


@pytest.mark.slow
def test_latents_come_from_an_address(contents: Contents, tmp_path: Path) -> None:
    served = tmp_path / "served"
    settings: dict[str, Any] = {"retries": 2, "timeout": 60, "ahead": AHEAD}
    place = open_address(f"file://{served}", cache_dir=None, cache_size=0, **settings)
    latent = LatentSpec(256, 32, (16, 16))
    contents = replace(contents, dtype="fp16")
    writer = StoreWriter(place, contents, latent=latent, num_images=NUM_LATENTS, shard_size=SHARD)
    for shard in writer.missing():
        moments = torch.randn(SHARD, 2, 256, 32, generator=torch.Generator().manual_seed(shard)).half()
        writer.write(shard, moments, torch.zeros(SHARD, dtype=torch.int64))
    writer.finish()
    found: dict[str, dict[str, float]] = {}
    for latency, bandwidth in ((0.0, 1e12), (0.02, 1e12), (0.1, 1e12), (0.02, 10e6)):
        limit = "no limit" if bandwidth > 1e9 else f"{bandwidth / 1e6:.0f} MB/s"
        with throttled(served, latency=latency, bandwidth=bandwidth) as address:
            cache = tmp_path / f"cache-{latency}-{bandwidth}"
            rows = LatentStore.open(open_address(address, cache_dir=None, cache_size=0, **settings))
            figures = {
                "one by one": rate(rows, ahead=0),
                "ahead": rate(rows, ahead=AHEAD),
                "one by one, with steps": rate(rows, ahead=0, step=STEP),
                "ahead, with steps": rate(rows, ahead=AHEAD, step=STEP),
            }
            cold = LatentStore.open(open_address(address, cache_dir=cache, cache_size=1, **settings))
            began = time.perf_counter()
            figures["cold cache, ahead"] = rate(cold, ahead=AHEAD, skipped=0)
            wait_until_whole(cold)
            figures["seconds until whole, at most"] = time.perf_counter() - began
            warm = LatentStore.open(open_address(address, cache_dir=cache, cache_size=1, **settings))
            figures["warm cache"] = rate(warm, ahead=0)
        found[f"{latency * 1e3:.0f} ms, {limit}"] = figures
    for network, figures in found.items():
        print(f"\n{network:18s}", *(f"{name} {value:,.1f};" for name, value in figures.items()), end="")
    assert all(figures["ahead"] > figures["one by one"] for name, figures in found.items() if name.startswith("100"))
    assert all(figures["warm cache"] > 1000 for figures in found.values())
