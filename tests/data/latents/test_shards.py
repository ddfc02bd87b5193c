"""A shard is a safetensors file like any other, and is read where it lies."""

import resource
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from ldbench.data.latents.shards import DTYPES, map_shard, write_shard


@pytest.mark.parametrize("dtype", ["bf16", "fp16", "fp32"])
def test_what_is_mapped_is_what_safetensors_reads(tmp_path: Path, dtype: str) -> None:
    path = tmp_path / "shard.safetensors"
    moments = torch.randn(5, 2, 4, 3).to(DTYPES[dtype])
    write_shard(path, moments, torch.arange(5))
    tensors = load_file(path)
    assert torch.equal(tensors["moments"], moments)
    assert torch.equal(tensors["labels"], torch.arange(5))
    mapped = map_shard(path, dtype=dtype, shape=(5, 2, 4, 3))
    assert np.array_equal(mapped.moments.reshape(-1).view(np.uint8), moments.flatten().view(torch.uint8).numpy())
    assert mapped.labels.tolist() == list(range(5))
    assert not mapped.moments.flags.writeable
    assert path.stat().st_mode & 0o444 == 0o444, "others may read it"
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"short",
        struct.pack("<Q", 2**60) + b"{",
        struct.pack("<Q", 2) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 3) + b"{,}",
    ],
)
def test_what_is_no_shard_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "shard.safetensors").write_bytes(content)
    with pytest.raises(ValueError, match=r"shard\.safetensors is not a shard of this store"):
        map_shard(tmp_path / "shard.safetensors", dtype="fp32", shape=(5, 2, 4, 3))


@pytest.mark.parametrize("shape", [(5, 1, 4, 3), (4, 2, 4, 3)])
def test_another_shape_or_dtype_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    save_file(
        {"moments": torch.zeros(5, 2, 4, 3), "labels": torch.zeros(5, dtype=torch.int64)},
        tmp_path / "shard.safetensors",
    )
    for dtype, expected in (("fp32", shape), ("fp16", (5, 2, 4, 3))):
        with pytest.raises(ValueError, match=r"it holds .*, expected"):
            map_shard(tmp_path / "shard.safetensors", dtype=dtype, shape=expected)


def test_a_full_disk_is_reported_with_what_to_do_and_no_scratch_is_left(tmp_path: Path) -> None:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        with pytest.raises(OSError, match=r"cannot be written .*Free some space, or choose another folder"):
            write_shard(tmp_path / "shard.safetensors", torch.zeros(1, 2, 4, 3), torch.zeros(1, dtype=torch.int64))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(tmp_path.iterdir()) == []
