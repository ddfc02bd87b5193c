"""Options on networks before any training."""

import torch
from torch import nn

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry


def untrained(group: str, name: str) -> nn.Module:
    """An option of a group on its network before any training."""
    node = Registry().option(group, name)
    data = instantiate(node.network.data)
    torch.manual_seed(0)
    network = instantiate(node.network.model, image_size=data.image_size, num_classes=data.num_classes)
    return instantiate({**node, "network": network})
