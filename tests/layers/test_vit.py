"""Attention and transformer blocks against formulas written out, and their symmetries."""

import math

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from ldbench.layers.attention import Attention
from ldbench.layers.feedforward import MLP
from ldbench.layers.vit import Block, Transformer, init_transformer


@pytest.fixture
def x():
    return torch.randn(2, 5, 12, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


@pytest.fixture(autouse=True)
def fixed_weights():
    torch.manual_seed(0)


def explicit_attention(layer: Attention, x: torch.Tensor) -> torch.Tensor:
    """Softmax attention, head by head."""
    width = x.shape[-1]
    size = width // layer.num_heads
    q, k, v = (
        x @ layer.qkv.weight[i * width : (i + 1) * width].T + layer.qkv.bias[i * width : (i + 1) * width]
        for i in range(3)
    )
    heads = []
    for head in range(layer.num_heads):
        part = slice(head * size, (head + 1) * size)
        scores = torch.einsum("bic,bjc->bij", q[..., part], k[..., part]) / math.sqrt(size)
        weights = scores.exp() / scores.exp().sum(dim=-1, keepdim=True)
        heads.append(torch.einsum("bij,bjc->bic", weights, v[..., part]))
    return torch.cat(heads, dim=-1) @ layer.proj.weight.T + layer.proj.bias


@pytest.mark.parametrize("num_heads", [1, 3, 12])
def test_attention_is_its_softmax_formula(x, num_heads):
    layer = Attention(width=12, num_heads=num_heads).double()
    assert torch.allclose(layer(x), explicit_attention(layer, x), rtol=1e-10, atol=1e-12)


def test_attention_of_one_token_is_its_value_projected(x):
    layer = Attention(width=12, num_heads=3).double()
    value = F.linear(x[:, :1], layer.qkv.weight[24:], layer.qkv.bias[24:])
    assert torch.allclose(layer(x[:, :1]), layer.proj(value))


def test_heads_that_do_not_divide_the_width_are_refused_with_those_that_do():
    with pytest.raises(ValueError, match=r"num_heads 5 does not divide width 12. Choose one of \[1, 2, 3, 4, 6, 12\]"):
        Attention(width=12, num_heads=5)


def test_the_mlp_is_two_linear_maps_around_the_exact_gelu(x):
    layer = MLP(width=12, hidden=20, out=7).double()
    inner = x @ layer.fc1.weight.T + layer.fc1.bias
    gelu = inner * 0.5 * (1 + torch.erf(inner / math.sqrt(2)))
    assert torch.allclose(layer(x), gelu @ layer.fc2.weight.T + layer.fc2.bias, rtol=1e-10)
    assert MLP(width=12, hidden=20)(x.float()).shape == x.shape


def test_a_block_adds_its_output_for_the_normalized_input(x):
    block = Block(width=12, num_heads=3, mlp_ratio=2.0).double()
    for norm in (block.norm1, block.norm2):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)

    def normal(norm, x):
        centered = x - x.mean(dim=-1, keepdim=True)
        return centered / (centered.square().mean(dim=-1, keepdim=True) + 1e-6).sqrt() * norm.weight + norm.bias

    middle = x + explicit_attention(block.attn, normal(block.norm1, x))
    assert torch.allclose(block(x), middle + block.mlp(normal(block.norm2, middle)), rtol=1e-10, atol=1e-12)


def test_the_epsilon_of_every_norm_is_one_millionth():
    norms = [
        module
        for module in Transformer(width=4, depth=2, num_heads=1, mlp_ratio=1.0).modules()
        if isinstance(module, nn.LayerNorm)
    ]
    assert [norm.eps for norm in norms] == [1e-6] * 5


def test_the_mlp_ratio_sets_the_hidden_width():
    assert Block(width=12, num_heads=3, mlp_ratio=2.5).mlp.fc1.out_features == 30


def test_permuted_tokens_come_out_permuted(x):
    stack = Transformer(width=12, depth=3, num_heads=3, mlp_ratio=2.0).double()
    order = torch.tensor([3, 0, 4, 1, 2])
    assert torch.allclose(stack(x[:, order]), stack(x)[:, order], rtol=1e-9, atol=1e-12)
    assert not torch.allclose(stack(x)[:, order], stack(x))


def test_images_do_not_see_each_other(x):
    stack = Transformer(width=12, depth=2, num_heads=3, mlp_ratio=2.0).double()
    changed = torch.cat([x[:1], x[1:] + 1])
    assert torch.equal(stack(changed)[0], stack(x)[0])


def test_a_stack_of_no_blocks_is_its_norm(x):
    stack = Transformer(width=12, depth=0, num_heads=1, mlp_ratio=1.0).double()
    assert torch.allclose(stack(x), F.layer_norm(x, (12,), eps=1e-6))


def test_the_initialisation_is_xavier_uniform_with_zero_biases():
    layer = nn.Linear(300, 100)
    init_transformer(layer)
    bound = math.sqrt(6 / 400)
    assert (layer.bias == 0).all()
    assert 0.99 * bound < layer.weight.abs().max() <= bound
    assert abs(layer.weight.std() / (bound / math.sqrt(3)) - 1) < 0.02
    norm = nn.LayerNorm(4)
    norm.weight.data.fill_(3)
    init_transformer(norm)
    assert (norm.weight == 3).all(), "only linear layers are touched"
