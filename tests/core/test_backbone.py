"""Backbone: its labels, its outputs, and what it refuses."""

import pytest
import torch

from ldbench.core.backbone import Backbone
from ldbench.core.latent import LatentSpec


class Echo(Backbone):
    """Returns its input."""

    def forward(self, x, t, y):
        self.validate_inputs(x, t, y)
        return x


def echo(**changes) -> Echo:
    return Echo(
        **{
            "latent": LatentSpec(4, 3, (2, 2)),
            "num_classes": 5,
            "has_null_class": True,
            "learned_variance": False,
            **changes,
        }
    )


def test_the_null_class_comes_after_the_classes_or_is_not_there():
    assert (echo().null_class, echo().num_labels) == (5, 6)
    assert (echo(has_null_class=False).null_class, echo(has_null_class=False).num_labels) == (None, 5)
    with pytest.raises(ValueError, match="num_classes must be at least 1, got 0"):
        echo(num_classes=0)


def test_a_learned_variance_doubles_the_channels():
    assert echo().out_channels == 3
    assert echo(learned_variance=True).out_channels == 6


@pytest.mark.parametrize(
    ("x", "t", "y", "message"),
    [
        ((2, 5, 3), 2, 2, r"takes latents \(B, 4, 3\), got \(2, 5, 3\)"),
        ((2, 4, 2), 2, 2, r"got \(2, 4, 2\)"),
        ((4, 3), 4, 4, r"got \(4, 3\)"),
        ((2, 4, 3), 1, 2, r"2 latents need as many times and labels, \(2,\) each, got \(1,\) and \(2,\)"),
        ((2, 4, 3), 2, 3, r"got \(2,\) and \(3,\)"),
    ],
)
def test_other_shapes_are_refused_with_both(x, t, y, message):
    with pytest.raises(ValueError, match=message):
        echo()(torch.zeros(x), torch.zeros(t), torch.zeros(y, dtype=torch.long))


def test_labels_without_a_row_are_refused():
    x, t = torch.zeros(2, 4, 3), torch.zeros(2)
    assert torch.equal(echo()(x, t, torch.tensor([0, 5])), x)
    with pytest.raises(ValueError, match="no label 6: the 5 classes are 0 to 4, and the null class is 5"):
        echo()(x, t, torch.tensor([0, 6]))
    with pytest.raises(ValueError, match="no label 5: the 5 classes are 0 to 4, and it has no null class"):
        echo(has_null_class=False)(x, t, torch.tensor([5, 0]))
    with pytest.raises(ValueError, match="no label -1"):
        echo().validate_labels(torch.tensor([-1]))


class Stack(Echo):
    """Two layers of one kind."""

    def __init__(self, **facts):
        super().__init__(**facts)
        self.layers = torch.nn.ModuleList(torch.nn.Linear(3, 3) for _ in range(2))

    def forward(self, x, t, y):
        for layer in self.layers:
            x = layer(x)
        return x


def test_compiling_compiles_the_layers_of_a_stack_and_a_network_without_layers_whole():
    facts = {"latent": LatentSpec(4, 3, (2, 2)), "num_classes": 5, "has_null_class": True, "learned_variance": False}
    stack, plain, seen = Stack(**facts), Echo(**facts), []

    def backend(graph, inputs):
        seen.append(graph)
        return graph.forward

    x, t_and_y = 2 * torch.randn(2, 4, 3, requires_grad=True), (torch.zeros(2), torch.zeros(2, dtype=torch.long))
    before = stack(x, *t_and_y)
    stack.compile(backend=backend)
    torch.testing.assert_close(stack(x, *t_and_y), before)
    assert stack.blocks() == list(stack.layers)
    assert len(seen) == 1, "the layers are alike: one compilation does for both"
    plain.compile(backend=backend)
    assert torch.equal(plain(x, *t_and_y), x)
