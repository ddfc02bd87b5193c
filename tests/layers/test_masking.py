"""Masking: which tokens stay, in which order, and how they come back."""

import pytest
import torch

from ldbench.layers.masking import gather_tokens, keep_lowest, scatter_tokens


def test_the_tokens_with_the_smallest_noise_stay_in_the_order_of_their_noise():
    kept, mask = keep_lowest(torch.tensor([[0.9, 0.1, 0.5, 0.3], [0.2, 0.4, 0.1, 0.8]]), 2)
    assert kept.tolist() == [[1, 3], [2, 0]]
    assert mask.tolist() == [[True, False, True, False], [False, True, False, True]]
    assert mask.dtype == torch.bool


def test_among_equals_the_first_stay():
    kept, _ = keep_lowest(torch.zeros(1, 100), 40)
    assert kept.tolist() == [list(range(40))]


def test_keeping_all_hides_none():
    kept, mask = keep_lowest(torch.rand(3, 7, generator=torch.Generator().manual_seed(0)), 7)
    assert not mask.any()
    assert (kept.sort(dim=1).values == torch.arange(7)).all()


@pytest.mark.parametrize("num_kept", [0, -1, 8])
def test_keeping_none_or_more_than_there_are_is_refused(num_kept):
    with pytest.raises(ValueError, match=f"Cannot keep {num_kept} of 7 tokens. Lower the mask ratio"):
        keep_lowest(torch.zeros(1, 7), num_kept)


def test_take_gathers_whole_tokens():
    x = torch.arange(24.0).view(2, 4, 3)
    kept = torch.tensor([[3, 0], [1, 2]])
    assert torch.equal(gather_tokens(x, kept), torch.stack([x[0, [3, 0]], x[1, [1, 2]]]))


def test_kept_tokens_return_to_their_positions_and_the_filler_fills_all_others():
    rng = torch.Generator().manual_seed(0)
    x = torch.randn(5, 12, 3, generator=rng)
    filler = torch.full((1, 1, 3), 9.0)
    kept, mask = keep_lowest(torch.rand(5, 12, generator=rng), 5)
    full = scatter_tokens(gather_tokens(x, kept), kept, filler, 12)
    assert torch.equal(full, torch.where(mask.unsqueeze(-1), filler, x))


def test_the_filler_is_left_as_it_was_and_gets_a_gradient_for_each_hidden_token():
    filler = torch.zeros(1, 1, 2, requires_grad=True)
    full = scatter_tokens(torch.ones(3, 2, 2), torch.tensor([[0, 1], [2, 3], [4, 0]]), filler, 5)
    full.sum().backward()
    assert torch.equal(filler.grad, torch.full((1, 1, 2), 9.0))  # 3 images of 3 hidden tokens
    assert torch.equal(filler.detach(), torch.zeros(1, 1, 2))
