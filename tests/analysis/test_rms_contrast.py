"""Contrast: none for equal directions, all for opposite ones, whatever the norms."""

import pytest
import torch

from ldbench.analysis.rms_contrast import rms_contrast


def test_equal_directions_have_none_and_opposite_ones_cancel() -> None:
    direction = torch.tensor([3.0, -4.0])
    equal = torch.tensor([1.0, 2.0, 5.0, 0.1])[:, None] * direction
    opposite = torch.tensor([1.0, -2.0, 5.0, -0.1])[:, None] * direction
    assert rms_contrast(torch.stack([equal, opposite])).tolist() == pytest.approx([0, 1], abs=1e-7)


def test_two_directions_have_the_sine_of_half_their_angle() -> None:
    angle = torch.tensor(0.8)
    tokens = torch.stack([torch.tensor([1.0, 0.0]), torch.stack([angle.cos(), angle.sin()])])
    assert rms_contrast(tokens[None]).item() == pytest.approx((angle / 2).sin().item(), rel=1e-6)
