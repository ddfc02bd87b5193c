"""Conditions: the sinusoid of a time by hand, and where the label table starts."""

import math

import pytest
import torch

from ldbench.layers.condition import Condition, sinusoid


@pytest.mark.parametrize("t", [torch.tensor([0.25]), torch.tensor([731])])
def test_cosines_come_before_sines_and_time_is_not_scaled(t):
    features = sinusoid(t)
    assert features.shape == (1, 256)
    assert features.dtype == torch.float32
    for k in (0, 1, 77, 127):
        angle = t.item() * 10000 ** (-k / 128)
        assert features[0, k].item() == pytest.approx(math.cos(angle), abs=1e-4)
        assert features[0, 128 + k].item() == pytest.approx(math.sin(angle), abs=1e-4)


def test_time_and_label_add_up():
    torch.manual_seed(0)
    condition = Condition(width=8, num_labels=3, class_std=1.0)
    t, y = torch.tensor([0.1, 0.7]), torch.tensor([2, 0])
    torch.testing.assert_close(condition(t, y), condition.time(t) + condition.classes.weight[y])


def test_the_label_table_starts_at_its_deviation():
    torch.manual_seed(0)
    table = Condition(width=1000, num_labels=20, class_std=0.7).classes.weight
    assert table.std().item() == pytest.approx(0.7, rel=0.03)
    assert not Condition(width=8, num_labels=2, class_std=0.0).classes.weight.any()
    with pytest.raises(ValueError, match="class_std must not be negative, got -1"):
        Condition(width=8, num_labels=2, class_std=-1)
