"""How fast random batches come from a store in the page cache, in one process and one thread. To see the figures:

python -m pytest -q -n0 -s -m slow tests/data/latents/test_speed.py
"""

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Contents
from ldbench.data.latents.noise import noise_keys, posterior_noise
from ldbench.data.latents.store import LatentStore
from ldbench.data.latents.writing import StoreWriter

NUM_LATENTS = 16_384  # half a GB of f16d32 moments: far more than a CPU's cache
BATCH = 256


def rate(work: Callable[[torch.Tensor], object], repeats: int) -> float:
    """Latents a second, over batches of random rows; the best of the repeats, which others on the machine disturbed
    least.
    """
    rng = torch.Generator().manual_seed(0)
    seconds = []
    for _ in range(repeats):
        rows = torch.randint(NUM_LATENTS, (BATCH,), generator=rng)
        began = time.perf_counter()
        work(rows)
        seconds.append(time.perf_counter() - began)
    return BATCH / min(seconds)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["bf16", "fp16"])
def test_random_batches_come_fast(contents: Contents, tmp_path: Path, dtype: str) -> None:
    contents = replace(contents, dtype=dtype)
    writer = StoreWriter(
        tmp_path, contents, latent=LatentSpec(256, 32, (16, 16)), num_images=NUM_LATENTS, shard_size=2048
    )
    for shard in writer.missing():
        moments = torch.randn(2048, 2, 256, 32, generator=torch.Generator().manual_seed(shard))
        writer.write(
            shard,
            moments.to({"bf16": torch.bfloat16, "fp16": torch.float16}[dtype]),
            torch.zeros(2048, dtype=torch.int64),
        )
    writer.finish()
    store = LatentStore.open(tmp_path)
    normalizer, z = store.normalizer(), torch.randn(BATCH, 256, 32)
    store.read(torch.arange(NUM_LATENTS))
    rates = {
        "read moments": rate(store.read, 200),
        "draw noise": rate(
            lambda rows: [posterior_noise(keys, (256, 32)) for keys in noise_keys(rows, seed=0, step=0).split(32)], 40
        ),
        "normalize": rate(lambda _: [normalizer.normalize(part) for part in z.split(32)], 40),
        "read and sample": rate(lambda rows: store.batch(rows, seed=0, step=0), 40),
        "read, sample and normalize": rate(lambda rows: store.batch(rows, seed=0, step=0, normalizer=normalizer), 40),
    }
    for name, value in rates.items():
        print(f"\n{dtype}  {name:27s} {value:9,.0f} latents/s", end="")
    assert rates["read moments"] > 50_000, "the aim is 100 thousand on a machine with nothing else to do"
    assert rates["read, sample and normalize"] > 5_000
