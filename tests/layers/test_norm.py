"""Norms: the root mean square by hand, and which kind has parameters."""

import pytest
import torch

from ldbench.layers.norm import RMSNorm, head_norm, token_norm


def test_features_are_divided_by_their_root_mean_square_and_keep_their_mean():
    norm = RMSNorm(2, eps=0.0)
    with torch.no_grad():
        norm.weight.copy_(torch.tensor([1.0, 10.0]))
    torch.testing.assert_close(norm(torch.tensor([[3.0, 4.0]])), torch.tensor([[3.0, 40.0]]) / 12.5**0.5)


def test_half_precision_is_computed_in_single_and_given_back():
    norm, x = RMSNorm(64, eps=1e-6), 300 * torch.randn(3, 64, generator=torch.Generator().manual_seed(0))
    assert norm(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(norm(x.half()).float(), norm(x), rtol=2e-3, atol=2e-3)  # squares of 300 overflow float16


def test_only_layer_norms_of_tokens_have_no_parameters():
    assert not list(token_norm("layer", 8).parameters())
    assert [
        len(list(norm.parameters())) for norm in (token_norm("rms", 8), head_norm("rms", 8), head_norm("layer", 8))
    ] == [1, 1, 2]
    with pytest.raises(ValueError, match="Choose layer or rms"):
        token_norm("batch", 8)
