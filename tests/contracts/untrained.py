"""Options on networks before any training."""

import torch
from torch import nn

from ldbench.config import compose as config


def untrained(group: str, name: str) -> nn.Module:
    """An option of a group on its network before any training."""
    node = config.option(group, name)
    data = config.instantiate(node.network.data)
    torch.manual_seed(0)
    network = config.instantiate(node.network.model, image_size=data.image_size, num_classes=data.num_classes)
    return config.instantiate({**node, "network": network})
