"""Whitening: the basis has principal directions of variance 1, and the score in it depends on neither scale nor
rotation.
"""

from collections.abc import Callable, Iterator

import pytest
import torch
from torch import Tensor

from ldbench.analysis.gmm import whitening
from ldbench.analysis.gmm.curve import FitSettings, fit_mixture, fit_single_gaussian
from ldbench.analysis.gmm.points import PointsInMemory
from ldbench.analysis.gmm.whitening import Whitening, whiten


def pieces(x: Tensor, size: int = 64) -> Callable[[], Iterator[Tensor]]:
    return lambda: iter(x.split(size))


def whitening_of(x: Tensor, dim: int) -> Whitening:
    return whiten(pieces(x), dim=dim, rng=torch.Generator().manual_seed(0))


@pytest.fixture
def latents() -> Tensor:
    """600 points of 12 numbers: four clusters, in directions of very different width, off the origin."""
    rng = torch.Generator().manual_seed(0)
    widths = torch.logspace(0.5, -1.5, 12)
    clusters = 4 * torch.randn(4, 12, generator=rng)[torch.arange(600) % 4]
    turned = torch.linalg.qr(torch.randn(12, 12, generator=rng)).Q
    return (clusters + torch.randn(600, 12, generator=rng)) * widths @ turned + 3


def test_the_training_part_has_mean_zero_and_unit_covariance(latents: Tensor) -> None:
    white = whitening_of(latents, 5)(latents).double()
    torch.testing.assert_close(white.mean(dim=0), torch.zeros(5, dtype=torch.float64), atol=1e-4, rtol=0)
    torch.testing.assert_close(white.T.cov(correction=0), torch.eye(5, dtype=torch.float64), atol=1e-4, rtol=0)


def test_the_variance_kept_is_that_of_the_leading_directions(latents: Tensor) -> None:
    values = torch.linalg.eigvalsh(latents.double().T.cov(correction=0)).flip(0)
    found = whitening_of(latents, 3)
    assert found.variance_kept == pytest.approx((values[:3].sum() / values.sum()).item(), rel=1e-9)
    assert found.variance_share(pieces(latents)) == pytest.approx(found.variance_kept, rel=1e-9)
    assert whitening_of(latents, 12).variance_kept == pytest.approx(1)


def test_other_points_are_moved_by_the_training_part_alone(latents: Tensor) -> None:
    basis = whitening_of(latents[:400], 5)
    torch.testing.assert_close(basis(latents)[400:], basis(latents[400:]))
    assert basis(latents[400:] + 50).mean().abs() > 1


def test_subspace_iteration_gives_the_same_for_wide_points(latents: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    exact = whitening_of(latents, 4)
    monkeypatch.setattr(whitening, "EXACT", 8)
    monkeypatch.setattr(whitening, "OVERSAMPLING", 3)
    found = whitening_of(latents, 4)
    assert found.variance_kept == pytest.approx(exact.variance_kept, rel=1e-6)
    torch.testing.assert_close(found(latents), exact(latents), atol=1e-2, rtol=0)


def test_more_directions_than_exist_are_refused(latents: Tensor) -> None:
    with pytest.raises(ValueError, match="have 12 numbers each, and dim=13"):
        whitening_of(latents, 13)
    with pytest.raises(ValueError, match="vary in 3 directions only, and dim=4"):
        whitening_of(latents[:4], 4)
    with pytest.raises(ValueError, match="NaN or infinity"):
        whitening_of(torch.full((5, 2), torch.inf), 1)


def score(latents: Tensor, dim: int, kind: str = "diagonal") -> float:
    """The score of five components over the last third of some latents."""
    basis = whitening_of(latents[:400], dim)
    train, heldout = PointsInMemory(basis(latents[:400])), PointsInMemory(basis(latents[400:]))
    settings = FitSettings(kind=kind, num_restarts=2, max_iter=300, tolerance=1e-6, floor=1e-3)
    one = fit_single_gaussian(train, heldout, floor=1e-3).heldout_nll
    return (
        (one - fit_mixture(train, heldout, num_components=5, settings=settings, seed=0).heldout_nll).mean() / dim
    ).item()


@pytest.mark.parametrize("kind", ["diagonal", "full", "tied"])
def test_the_score_does_not_move_when_latents_are_scaled_or_shifted(latents: Tensor, kind: str) -> None:
    first = score(latents, 8, kind)
    assert first > 0.1  # there are clusters to be found
    for factor in (2.0**-10, 0.18215, 100.0):
        assert score(factor * latents, 8, kind) == pytest.approx(first, abs=1e-3)
    assert score(latents - 3, 8, kind) == pytest.approx(first, abs=1e-3)


@pytest.mark.parametrize("kind", ["diagonal", "full", "tied"])
def test_the_score_moves_within_tolerance_when_latents_are_rotated(latents: Tensor, kind: str) -> None:
    """Directions come out the same up to their sign, so that the same points seed the mixtures."""
    for seed in range(3):
        turn = torch.linalg.qr(torch.randn(12, 12, generator=torch.Generator().manual_seed(seed))).Q
        assert score(latents @ turn, 8, kind) == pytest.approx(score(latents, 8, kind), abs=2e-3)


def test_a_gaussian_has_no_score(latents: Tensor) -> None:
    noise = torch.randn(latents.shape, generator=torch.Generator().manual_seed(1)) @ torch.randn(
        12, 12, generator=torch.Generator().manual_seed(2)
    )
    assert score(noise, 8) < 0.02
