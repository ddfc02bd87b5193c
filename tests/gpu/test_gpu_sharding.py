"""A sharded generator on a GPU: one process alone, over NCCL, ends in the weights of an unsharded one."""

import copy
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import distributed
from torch.distributed.device_mesh import init_device_mesh

import ldbench
from ldbench.core import distributed as sharing
from ldbench.core.generator import Generator
from ldbench.core.latent import LatentSpec
from ldbench.core.normalizer import Normalizer
from ldbench.layers.batch_norm import SharedBatchNorm
from ldbench.pipeline.generator_plan import build_generator
from ldbench.training.fsdp import shard, unsharded


@pytest.fixture
def alone(tmp_path: Path) -> Iterator[None]:
    """A process group of this process."""
    torch.cuda.set_device(0)
    distributed.init_process_group("nccl", init_method=f"file://{tmp_path / 'meeting'}", rank=0, world_size=1)
    yield
    distributed.destroy_process_group()


def steps(generator: Generator, z: torch.Tensor, y: torch.Tensor) -> None:
    optimizer = torch.optim.AdamW(generator.parameters(), lr=1e-3, eps=1e-4)
    for _ in range(3):
        torch.manual_seed(0)
        torch.stack([term.mean() for term in generator.loss(z, y, step=0).values()]).sum().backward()
        optimizer.step()
        optimizer.zero_grad()


@pytest.mark.parametrize("name", ["dit", "sit", "lightningdit"])
def test_a_sharded_generator_learns_what_a_whole_one_learns(name: str, alone: None) -> None:
    torch.manual_seed(0)
    cfg = ldbench.compose("train", [f"generator={name}", "generator.backbone.depth=2"])
    whole = build_generator(cfg, LatentSpec(16, 4, (4, 4)), num_classes=10).cuda()
    whole.normaliser = Normalizer.from_scale(1.0, channels=4)
    whole.cuda()
    spread = copy.deepcopy(whole)
    shard(spread.backbone, init_device_mesh("cuda", (1,)))
    z, y = torch.randn(8, 16, 4, device="cuda"), torch.arange(8, device="cuda")
    steps(whole, z, y)
    steps(spread, z, y)
    states = whole.backbone.state_dict(), unsharded(spread.backbone.state_dict())
    assert states[0].keys() == states[1].keys()
    for key, value in states[0].items():
        torch.testing.assert_close(states[1][key], value, rtol=1e-4, atol=1e-6)


def test_what_is_shared_of_a_batch_goes_over_nccl(alone: None) -> None:
    x = torch.randn(6, 3, 4, 4, device="cuda", requires_grad=True)
    layer = SharedBatchNorm(3).cuda()
    plain = layer(x)
    with sharing.data_parallel(0, 1):
        assert torch.equal(sharing.mean_over_ranks(x), x)
        assert torch.equal(layer(x), plain)
    distributed.all_reduce(plain.detach())
