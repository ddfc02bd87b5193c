"""Batch normalization of a shared batch: torch's own where one process has it all.

Two processes: tests/test_shared_trainings.py.
"""

import pytest
import torch
from torch import nn

from ldbench.layers.batch_norm import SharedBatchNorm


@pytest.mark.parametrize(("theirs", "shape"), [(nn.BatchNorm2d, (5, 3, 4, 4)), (nn.BatchNorm1d, (5, 3, 7))])
def test_one_process_normalizes_bit_identically_to_torch(theirs, shape) -> None:
    ours, known = SharedBatchNorm(3, eps=1e-6), theirs(3, eps=1e-6)
    assert ours.state_dict().keys() == known.state_dict().keys()
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    grads = []
    for layer in (ours, known):
        given = x.clone().requires_grad_()
        layer(given).pow(3).sum().backward()
        grads.append(given.grad)
    assert torch.equal(*grads)
    assert all(torch.equal(value, known.state_dict()[key]) for key, value in ours.state_dict().items())
    assert torch.equal(ours.eval()(x), known.eval()(x))


def test_what_has_no_channels_is_refused() -> None:
    with pytest.raises(ValueError, match=r"takes \(B, C, \.\.\.\), got \(3,\)"):
        SharedBatchNorm(3)(torch.ones(3))
