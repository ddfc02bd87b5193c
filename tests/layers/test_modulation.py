"""The modulated transformer: by hand, at its start, and what it refuses."""

import pytest
import torch
from torch.nn import functional as F

from ldbench.layers.modulation import ConditionedBlock, ConditionedHead, ConditionedTransformer, modulate, swiglu_hidden

SHAPE = {
    "width": 8,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "norm": "layer",
    "feedforward": "gelu",
    "qk_norm": False,
    "shifts": True,
}


def transformer(**changes) -> ConditionedTransformer:
    torch.manual_seed(0)
    return ConditionedTransformer(**{**SHAPE, "depth": 2, "out_features": 3, "checkpointing": False, **changes})


def test_a_scale_is_added_to_one_and_a_shift_may_be_absent():
    x, scale, shift = torch.full((1, 1, 2), 3.0), torch.full((1, 1, 2), 0.5), torch.full((1, 1, 2), 7.0)
    assert modulate(x, scale, None).tolist() == [[[4.5, 4.5]]]
    assert modulate(x, scale, shift).tolist() == [[[11.5, 11.5]]]


@pytest.mark.parametrize("shifts", [True, False])
def test_a_block_is_its_equation_with_the_official_order_of_chunks(shifts):
    torch.manual_seed(0)
    block, x, condition = ConditionedBlock(**{**SHAPE, "shifts": shifts}), torch.randn(2, 5, 8), torch.randn(2, 8)
    chunks = [chunk.unsqueeze(1) for chunk in block.modulation(condition).split(8, dim=-1)]
    shift1, scale1, gate1, shift2, scale2, gate2 = chunks if shifts else (0, *chunks[:2], 0, *chunks[2:])
    norm = lambda x: F.layer_norm(x, (8,), eps=1e-6)  # noqa: E731
    expected = x + gate1 * block.attn(norm(x) * (1 + scale1) + shift1)
    expected = expected + gate2 * block.mlp(norm(expected) * (1 + scale2) + shift2)
    torch.testing.assert_close(block(x, condition, None), expected)


def test_the_head_shifts_first_and_then_scales():
    torch.manual_seed(0)
    head, x, condition = ConditionedHead(width=8, out_features=3, norm="layer"), torch.randn(2, 5, 8), torch.randn(2, 8)
    shift, scale = head.modulation(condition).unsqueeze(1).split(8, dim=-1)
    torch.testing.assert_close(head(x, condition), head.linear(F.layer_norm(x, (8,), eps=1e-6) * (1 + scale) + shift))


def test_at_its_start_every_block_passes_its_input_on_and_the_output_is_zero():
    network, x, condition = transformer(), torch.randn(2, 5, 8), torch.randn(2, 8)
    assert torch.equal(network.blocks[0](x, condition, None), x)
    assert not network(x, condition).any()
    assert network.blocks[0].attn.qkv.weight.abs().max() <= (6 / (8 + 24)) ** 0.5  # Xavier of the fused matrix
    assert not network.blocks[0].attn.qkv.bias.any()


def test_swiglu_has_two_thirds_of_the_hidden_units():
    assert [swiglu_hidden(4 * width) for width in (768, 1024, 1152, 1536, 1792)] == [2048, 2730, 3072, 4096, 4778]
    assert transformer(feedforward="swiglu").blocks[0].mlp.fc2.in_features == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"depth": 0}, "depth must be positive, got 0"),
        ({"mlp_ratio": -1.0}, "mlp_ratio must be positive"),
        ({"num_heads": 3}, "num_heads 3 does not divide width 8"),
        ({"norm": "batch"}, "Choose layer or rms"),
        ({"feedforward": "relu"}, "Unknown feedforward 'relu'. Choose gelu or swiglu"),
    ],
)
def test_invalid_settings_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        transformer(**changes)
