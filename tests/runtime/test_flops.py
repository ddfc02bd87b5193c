"""Counting operations: by the formulas of products, and without an effect on what is compiled later."""

import torch
from torch import nn

from ldbench.runtime.flops import FlopCounter


class Layer(nn.Module):
    """A matrix product and an elementwise function."""

    def __init__(self) -> None:
        super().__init__()
        self.linear = nn.Linear(8, 6)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.gelu(self.linear(x))


def test_a_product_is_two_operations_for_each_multiplication_and_its_backward_pass_two_products_more() -> None:
    x = torch.randn(4, 8, requires_grad=True)
    with FlopCounter() as counted:
        out = Layer()(x)
        forward = counted.total
        out.sum().backward()
    assert forward == 2 * 4 * 8 * 6
    assert counted.total == 3 * forward


def test_what_is_compiled_is_counted_as_it_is_written_and_compiled_afterwards() -> None:
    layer, x, compiled = Layer(), torch.randn(4, 8), []

    def backend(graph, inputs):
        compiled.append(graph)
        return graph.forward

    layer.compile(backend=backend)
    with FlopCounter() as counted:
        layer(x)
    assert (counted.total, compiled) == (2 * 4 * 8 * 6, [])
    layer(x)
    assert len(compiled) == 1
