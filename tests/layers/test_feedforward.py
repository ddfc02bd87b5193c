"""Position-wise networks, by hand."""

import pytest
import torch
from torch.nn import functional as F

from ldbench.layers.feedforward import MLP, SwiGLU


def test_swiglu_gates_the_second_half_by_the_first():
    torch.manual_seed(0)
    layer, x = SwiGLU(width=4, hidden=3), torch.randn(2, 5, 4)
    a, b = x @ layer.fc1.weight[:3].T + layer.fc1.bias[:3], x @ layer.fc1.weight[3:].T + layer.fc1.bias[3:]
    torch.testing.assert_close(layer(x), (a * torch.sigmoid(a) * b) @ layer.fc2.weight.T + layer.fc2.bias)


@pytest.mark.slow
def test_swiglu_is_the_same_where_it_is_compiled():
    torch.manual_seed(0)
    layer, x = SwiGLU(width=4, hidden=3), torch.randn(2, 5, 4, requires_grad=True)
    found = []
    for call in (layer, torch.compile(layer, backend="aot_eager", fullgraph=True)):
        y = call(x)
        found.append([y, *torch.autograd.grad(y.square().sum(), [x, *layer.parameters()])])
    for plain, compiled in zip(*found, strict=True):
        torch.testing.assert_close(compiled, plain)


def test_the_gelu_is_exact_by_default():
    torch.manual_seed(0)
    layer, x = MLP(width=4, hidden=8), torch.randn(3, 4)
    by_tanh = MLP(width=4, hidden=8, approximate="tanh")
    by_tanh.load_state_dict(layer.state_dict())
    torch.testing.assert_close(layer(x), layer.fc2(F.gelu(layer.fc1(x))))
    torch.testing.assert_close(by_tanh(x), layer.fc2(F.gelu(layer.fc1(x), approximate="tanh")))
    assert not torch.equal(layer(x), by_tanh(x))
