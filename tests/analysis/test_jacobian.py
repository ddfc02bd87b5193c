"""Jacobians: a matrix has its singular values, in any batch, and through attention."""

import pytest
import torch
from torch.nn import functional as F

from ldbench.analysis.jacobian import stretch


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def measure(function, x: torch.Tensor, *, iterations: int = 200, num_probes: int = 4):
    start, *probes = normal(1 + num_probes, *x.shape, seed=9)
    return stretch(function, x, start=start, probes=probes, iterations=iterations)


def test_a_linear_decoder_has_its_exact_lipschitz_constant_everywhere() -> None:
    decoder = normal(40, 6)
    found = measure(lambda z: (z.flatten(1) @ decoder.T).unflatten(1, (2, 4, 5)), normal(3, 2, 3, seed=1))
    exact = torch.linalg.svdvals(decoder)[0]
    torch.testing.assert_close(found.largest, exact.expand(3))
    assert (found.change < 1e-10).all()


def test_all_signs_give_the_exact_total_of_a_diagonal_and_many_draws_that_of_any_matrix() -> None:
    scales = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=torch.float64)
    signs = [normal(2, 4, seed=seed).sign() for seed in range(2)]
    exact = stretch(lambda x: x * scales, normal(2, 4), start=normal(2, 4, seed=5), probes=signs, iterations=100)
    torch.testing.assert_close(exact.total, scales.norm().expand(2))
    torch.testing.assert_close(exact.largest, torch.full((2,), 4.0, dtype=torch.float64))
    matrix = normal(20, 5)
    many = measure(lambda x: x @ matrix.T, normal(1, 5), num_probes=1000)
    assert many.total.item() == pytest.approx(matrix.norm().item(), rel=0.06)


def test_it_is_local() -> None:
    x = torch.tensor([[0.5, 0.1], [0.1, -3.0]], dtype=torch.float64)
    torch.testing.assert_close(measure(torch.square, x).largest, torch.tensor([1.0, 6.0], dtype=torch.float64))


def test_a_constant_function_stretches_nothing() -> None:
    found = measure(lambda x: 0 * x + 1, normal(2, 3))
    assert torch.equal(found.largest, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(found.change, torch.zeros(2, dtype=torch.float64))
    assert torch.equal(found.total, torch.zeros(2, dtype=torch.float64))


def test_through_attention_it_agrees_with_the_full_jacobian() -> None:
    weights = normal(3, 4, 4, seed=3)

    def attend(x: torch.Tensor) -> torch.Tensor:  # (B, 5, 4)
        q, k, v = (x @ w for w in weights)
        return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]

    x = normal(2, 5, 4, seed=4)
    found = measure(attend, x, iterations=400, num_probes=500)
    for i in range(2):
        whole = torch.autograd.functional.jacobian(lambda one: attend(one[None])[0], x[i]).reshape(20, 20)
        assert found.largest[i].item() == pytest.approx(torch.linalg.svdvals(whole)[0].item(), rel=1e-4)
        assert found.total[i].item() == pytest.approx(whole.norm().item(), rel=0.07)


def test_an_item_does_not_depend_on_its_batch() -> None:
    x, start, probe = normal(3, 4), normal(3, 4, seed=1), normal(3, 4, seed=2)
    whole = stretch(torch.sin, x, start=start, probes=[probe], iterations=5)
    alone = stretch(torch.sin, x[1:2], start=start[1:2], probes=[probe[1:2]], iterations=5)
    torch.testing.assert_close(alone.largest, whole.largest[1:2])
    torch.testing.assert_close(alone.total, whole.total[1:2])


def test_too_few_iterations_and_no_probes_are_refused() -> None:
    x = normal(1, 2)
    with pytest.raises(ValueError, match="got 1 and 1"):
        stretch(torch.sin, x, start=x, probes=[x], iterations=1)
    with pytest.raises(ValueError, match="got 5 and 0"):
        stretch(torch.sin, x, start=x, probes=[], iterations=5)


class Permuted(torch.autograd.Function):
    """The identity, whose forward derivative is permuted, as torch's is of batch normalization before a flatten."""

    @staticmethod
    def forward(x: torch.Tensor) -> torch.Tensor:
        return x.clone()

    @staticmethod
    def setup_context(ctx, inputs, output) -> None:
        pass

    @staticmethod
    def backward(ctx, gradient: torch.Tensor) -> torch.Tensor:
        return gradient

    @staticmethod
    def jvp(ctx, tangent: torch.Tensor) -> torch.Tensor:
        return tangent.flip(1)


def test_a_forward_derivative_that_is_not_that_of_the_backward_one_is_refused() -> None:
    with pytest.raises(ValueError, match="forward and backward derivatives differ"):
        measure(Permuted.apply, normal(2, 30, seed=1))
