"""The figures in docs/large-data.md are those of the formats. `-s` prints the table."""

import json
import re
from pathlib import Path

import pytest
import torch

from ldbench.core.latent import LatentSpec
from ldbench.data.latents.manifest import Shard, shard_name
from ldbench.data.latents.places import row_bytes
from ldbench.data.latents.statistics import Statistics
from ldbench.io.files import LARGEST_JSON

PAGE = (Path(__file__).parents[3] / "docs" / "large-data.md").read_text()
IMAGENET, MANY = 1_281_167, 100_000_000
LATENTS = {  # by the beginning of a line of the table
    "VA-VAE f16d32": (LatentSpec(256, 32, (16, 16)), 2),
    "MAETok": (LatentSpec(128, 32), 1),
}


@pytest.mark.parametrize("name", LATENTS)
def test_sizes_are_those_of_the_table(name: str) -> None:
    latent, parts = LATENTS[name]
    lines = PAGE.splitlines()
    first = next(number for number, line in enumerate(lines) if line.startswith(f"| {name}"))
    for line, dtype in zip(lines[first : first + 2], ("fp16", "fp32"), strict=True):
        size = row_bytes(dtype, parts, latent.num_tokens, latent.channels)
        sizes = [images * views * size / 1e9 for images in (IMAGENET, MANY) for views in (1, 2)]
        row = " | ".join([f"{size:,}".replace(",", " "), *(f"{gigabytes:.1f} GB" for gigabytes in sizes)])
        print(f"\n{dtype}: {row}", end="")
        assert f"{dtype} | {row} |" in line


def test_shards_are_as_many_and_as_large_as_the_page_says() -> None:
    size = row_bytes("fp16", 2, 256, 32)
    assert f"{-(-IMAGENET // 4096)} shards of {4096 * size / 1e6:.0f} MB" in PAGE
    assert f"{-(-MANY // 32768)} shards of {32768 * size / 1e9:.2f} GB" in PAGE
    statistics = Statistics.of(torch.randn(8, 2, 256, 32))
    shard = Shard(shard_name(9999), 9999 * 4096, 4096, 134_250_000, "a" * 64, 2, statistics, "b" * 64)
    length = len(json.dumps({"shards": [shard.to_dict()]}, indent=2, sort_keys=True))
    print(f"\n{length} bytes of the manifest for each shard", end="")
    assert length * (MANY // 4096) > LARGEST_JSON > 4 * length * (MANY // 32768)
    (said,) = re.findall(r"about (\d) KB each", PAGE)
    assert round(length / 1000) == int(said)
