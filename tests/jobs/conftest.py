"""Shared by the tests of jobs: images of random colors, and an extractor of mean colors."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from ldbench.metrics.feature_set import Features


class Colors(nn.Module):
    """The mean of each color in [0, 255], and of each line; classes by the brightest color.

    Counts the extracted images.
    """

    revision, provides = 1, frozenset({"features", "spatial", "logits"})

    def __init__(self, standard: bool = False) -> None:
        super().__init__()
        self.standard = standard
        self.num_extracted = 0

    def extract(self, images: Tensor) -> Features:
        assert images.dtype == torch.uint8
        self.num_extracted += len(images)
        means = images.float().mean(dim=(2, 3))
        return Features(means, spatial=images.float().mean(dim=3).flatten(1), logits=means)


@pytest.fixture
def data() -> Any:
    draw = [torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(count)) * 2 - 1 for count in (50, 30)]
    train, test = (TensorDataset(images, torch.arange(len(images)) % 3) for images in draw)
    return SimpleNamespace(name="colors", fingerprint="1", train=train, test=test)
