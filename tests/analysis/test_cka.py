"""CKA: 1 under rotation, scaling and shifts, about 0 for independent features of any width."""

import pytest
import torch

from ldbench.analysis.cka import linear_cka


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_rotated_scaled_and_shifted_features_are_the_same() -> None:
    x = normal(60, 7)
    turn = torch.linalg.qr(normal(7, 7, seed=1)).Q
    assert linear_cka(x, 13 * x @ turn + 5).cka == pytest.approx(1.0, abs=1e-12)
    assert linear_cka(x, x.reshape(60, 7, 1)).cka == pytest.approx(1.0, abs=1e-12)


def test_stretched_features_are_not() -> None:
    x = normal(2000, 2)
    stretched = x * torch.tensor([1.0, 3.0], dtype=torch.float64)
    # of covariances I and diag(1, 9)
    assert linear_cka(x, stretched).cka == pytest.approx((1 + 9) / (2 * (1 + 81)) ** 0.5, abs=0.03)


def test_independent_features_have_nothing_in_common_even_if_there_are_more_than_images() -> None:
    a, b = normal(50, 1000), normal(50, 1000, seed=1)
    assert abs(linear_cka(a, b).cka) < 0.1
    centered = [x - x.mean(dim=0) for x in (a, b)]
    k, m = (x @ x.T for x in centered)
    assert (k * m).sum() / (k.norm() * m.norm()) > 0.8, "which the biased estimate misses"


def test_it_is_symmetric_and_larger_for_more_similar_features() -> None:
    a, noise = normal(200, 5), normal(200, 5, seed=1)
    near, far = linear_cka(a, a + 0.3 * noise).cka, linear_cka(a, a + 3 * noise).cka
    assert 1 > near > far > 0
    assert linear_cka(a + 3 * noise, a).cka == pytest.approx(far, abs=1e-12)


def test_incomparable_features_are_refused() -> None:
    with pytest.raises(ValueError, match="at least four images each, got 3 and 3"):
        linear_cka(normal(3, 2), normal(3, 2))
    with pytest.raises(ValueError, match="got 5 and 6"):
        linear_cka(normal(5, 2), normal(6, 2))
    with pytest.raises(ValueError, match="is constant"):
        linear_cka(normal(5, 2), torch.full((5, 2), 0.3))
