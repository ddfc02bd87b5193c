"""Attention: softmax by hand, with and without norms of queries and keys."""

from functools import partial

import pytest
import torch

from ldbench.layers.attention import Attention
from ldbench.layers.norm import head_norm


@pytest.mark.parametrize("kind", [None, "rms", "layer"])
def test_heads_attend_by_the_softmax_of_scaled_products(kind):
    torch.manual_seed(0)
    attention = Attention(width=8, num_heads=2, head_norm=kind and partial(head_norm, kind))
    for norm in (attention.q_norm, attention.k_norm):
        for parameter in norm.parameters():
            torch.nn.init.normal_(parameter, mean=1.0, std=0.1)
    x = torch.randn(3, 5, 8)
    q, k, v = attention.qkv(x).chunk(3, dim=-1)
    heads = []
    for head in range(2):
        mine = slice(4 * head, 4 * head + 4)
        weights = (attention.q_norm(q[..., mine]) @ attention.k_norm(k[..., mine]).transpose(1, 2) / 4**0.5).softmax(
            dim=-1
        )
        heads.append(weights @ v[..., mine])
    torch.testing.assert_close(attention(x), attention.proj(torch.cat(heads, dim=-1)))


def test_norms_add_nothing_to_the_state_unless_they_are_there():
    assert Attention(width=8, num_heads=2).state_dict().keys() == {"qkv.weight", "qkv.bias", "proj.weight", "proj.bias"}
    with pytest.raises(ValueError, match="num_heads 3 does not divide width 8"):
        Attention(width=8, num_heads=3)
