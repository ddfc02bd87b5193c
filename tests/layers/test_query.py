"""The query decoder: modulation in closed form, kept latents at their own positions, and the grid's positions."""

import pytest
import torch
from torch.nn import functional as F

from ldbench.layers.query import ModulatedBlock, QueryDecoder, modulate


def decoder(**changes) -> QueryDecoder:
    torch.manual_seed(0)
    keywords = {
        "num_tokens": 6,
        "latent_channels": 3,
        "grid": (2, 3),
        "width": 8,
        "depth": 2,
        "num_heads": 2,
        "mlp_ratio": 2.0,
    }
    return QueryDecoder(
        **{
            **keywords,
            "rope_theta": 10.0,
            "class_token": True,
            "modulation_start": "identity",
            "linear_std": 0.02,
            "token_std": 0.02,
            **changes,
        }
    )


def test_modulation_scales_and_shifts_the_last_tokens_only():
    x, scale, shift = torch.randn(2, 5, 8), torch.randn(2, 2, 8), torch.randn(2, 2, 8)
    out = modulate(x, scale, shift)
    bare = F.layer_norm(x, (8,), eps=1e-6)
    assert torch.equal(out[:, :3], bare[:, :3])
    torch.testing.assert_close(out[:, 3:], bare[:, 3:] * scale + shift)


def test_a_block_starts_with_scale_one_or_zero():
    block = ModulatedBlock(width=8, num_heads=2, mlp_ratio=2.0, latent_channels=3)
    for how, value in (("zero", 0.0), ("identity", 1.0)):
        block.init_modulation(how)
        shift_attn, scale_attn, shift_mlp, scale_mlp = block.modulation(torch.randn(1, 3)).chunk(4, dim=-1)
        assert torch.equal(scale_attn, torch.full((1, 8), value))
        assert torch.equal(scale_mlp, torch.full((1, 8), value))
        assert not shift_attn.any()
        assert not shift_mlp.any()


def test_class_token_first_then_the_positions():
    z = torch.randn(2, 6, 3)
    assert decoder()(z).shape == (2, 7, 8)
    assert decoder(class_token=False)(z).shape == (2, 6, 8)
    assert decoder(grid=(0, 0))(z).shape == (2, 1, 8)
    assert decoder(rope_theta=None)(z).shape == (2, 7, 8)


def test_kept_latents_are_read_at_their_own_positions():
    query, z = decoder(), torch.randn(2, 6, 3)
    order = torch.tensor([[3, 0, 5, 1, 4, 2], [0, 1, 2, 3, 4, 5]])
    shuffled = z.gather(1, order[..., None].expand(-1, -1, 3))
    torch.testing.assert_close(query(shuffled, kept=order), query(z))
    assert not torch.allclose(query(shuffled), query(z), atol=1e-4)
    assert query(z[:, :2], kept=order[:, :2]).shape == (2, 7, 8)


def test_an_unknown_start_is_refused():
    with pytest.raises(ValueError, match="Choose zero or identity"):
        decoder(modulation_start="one")
