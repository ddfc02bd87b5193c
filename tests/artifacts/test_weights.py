"""Weights from outside; malformed files are in tests/hostile, names on the hub in tests/artifacts/test_hub.py."""

import torch

from ldbench.artifacts import weights


def test_a_checkpoint_is_opened_at_its_averaged_weights_only_if_they_are_requested():
    checkpoint = {"model": {"w": torch.zeros(1)}, "ema": {"w": torch.ones(1)}}
    assert weights.read_weights(checkpoint)["w"] == 0
    assert weights.read_weights(checkpoint, averaged=True)["w"] == 1
    assert weights.read_weights({"model": {"w": torch.zeros(1)}}, averaged=True)["w"] == 0
