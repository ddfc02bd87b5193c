"""Sharding of a network's weights, gradients and averages over the processes, and its unsharded state.

[0] Zhao et al., PyTorch FSDP: Experiences on Scaling Fully Sharded Data Parallel, 2023,
https://arxiv.org/abs/2304.11277
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor

from ldbench.core.backbone import Backbone


def shard(
    network: Backbone,
    mesh: Any,  # of the processes that share a batch
) -> None:
    """Shards a network over processes [0]: each of its blocks, which is unsharded only while it computes,
    and then the rest.
    """
    for part in (*network.blocks(), network):
        fully_shard(part, mesh=mesh, reshard_after_forward=True)


def shard_learned(
    term: nn.Module,
    mesh: Any,  # of the processes that share a batch
) -> None:
    """Shards the parts of a loss term that learn; its teacher stays whole in each process."""
    for part in term.children():
        if any(parameter.requires_grad for parameter in part.parameters()):
            fully_shard(part, mesh=mesh, reshard_after_forward=True)


def unsharded(state: Mapping[str, Any]) -> dict[str, Any]:
    """A state dict without shards. All processes must call this together if any tensor is sharded."""
    return {key: value.full_tensor() if isinstance(value, DTensor) else value for key, value in state.items()}


def unsharded_tensor(x: Tensor) -> Tensor:
    """A tensor without shards. All processes must call this together if it is sharded."""
    return x.full_tensor() if isinstance(x, DTensor) else x
