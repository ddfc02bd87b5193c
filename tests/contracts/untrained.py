"""Options on networks before any training."""

import torch
from omegaconf import DictConfig
from tests.small_datasets import FASHION_MNIST
from torch import nn

from ldbench.config.components import instantiate
from ldbench.config.compose import Registry


def option(group: str, name: str) -> DictConfig:
    """An option as it is in a run on the digits, whose feature network some take."""
    return Registry().compose(None, [f"+{group}={name}", "+data=digits"])[group]


def untrained(group: str, name: str) -> nn.Module:
    """An option of a group on its network before any training."""
    node = option(group, name)
    place = {"root": str(FASHION_MNIST)} if "root" in node.network.data else {}  # it may not be installed
    data = instantiate(node.network.data, **place)
    torch.manual_seed(0)
    network = instantiate(node.network.model, image_size=data.image_size, num_classes=data.num_classes)
    return instantiate({**node, "network": network})
