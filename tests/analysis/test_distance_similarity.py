"""Distance similarity: closed forms of constant, white and separable fields; shares that give the paper's cells."""

import math
from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from ldbench.analysis.distance_similarity import DistanceSimilarity, distance_similarity


def with_cosines(rows: Tensor, columns: Tensor) -> Tensor:
    """A map (1, H W, H, W) whose tokens have the cosines rows x columns, which have ones on their diagonals."""
    tokens = torch.linalg.cholesky(torch.kron(rows, columns))  # (H W, H W), rows of norm 1
    return tokens.T.reshape(1, -1, len(rows), len(columns))


def decaying(size: int, correlation: float) -> Tensor:
    positions = torch.arange(size, dtype=torch.float64)
    return correlation ** (positions[:, None] - positions[None]).abs()


def by_hand(maps: Tensor) -> list[Tensor]:
    """The cosines of all pairs of different positions, by distance."""
    tokens = F.normalize(maps.double(), dim=1)
    height, width = maps.shape[2:]
    cells = list(product(range(height), range(width)))
    found: list[list[Tensor]] = [[] for _ in range(height + width - 1)]
    for a, b in product(cells, cells):
        distance = abs(a[0] - b[0]) + abs(a[1] - b[1])
        found[distance].append((tokens[:, :, a[0], a[1]] * tokens[:, :, b[0], b[1]]).sum(dim=1))
    return [torch.stack(values).mean(dim=0) for values in found]


def test_cosines_are_those_of_all_pairs() -> None:
    maps = torch.randn(2, 3, 3, 5, generator=torch.Generator().manual_seed(0))
    found = distance_similarity(maps)
    torch.testing.assert_close(found.cosine, torch.stack(by_hand(maps), dim=1))
    assert found.pairs.sum() == 15**2
    assert found.farthest == 6


def test_a_constant_field_has_neither() -> None:
    found = distance_similarity(torch.tensor([1.0, -2.0, 3.0])[None, :, None, None].expand(1, 3, 16, 16))
    torch.testing.assert_close(found.cosine, torch.ones(1, 31, dtype=torch.float64))
    assert found.local(0.2).item() == pytest.approx(0, abs=1e-12)
    assert found.cross(0.27).item() == pytest.approx(0, abs=1e-12)


def test_white_noise_has_neither_on_average() -> None:
    maps = torch.randn(300, 4, 16, 16, generator=torch.Generator().manual_seed(0))
    found = distance_similarity(maps)
    assert abs(found.local(0.2).mean().item()) < 2e-3
    assert abs(found.cross(0.27).mean().item()) < 5e-4


def test_orthogonal_tokens_have_exactly_none() -> None:
    eye = torch.eye(4, dtype=torch.float64)
    found = distance_similarity(with_cosines(eye, eye))
    torch.testing.assert_close(found.cosine[0], F.one_hot(torch.tensor(0), 7).double())
    assert found.local(0.2).item() == pytest.approx(0, abs=1e-12)


def test_a_separable_correlation_falls_by_the_distance_alone() -> None:
    """Cosines of rho ** |dh| times rho ** |dw| are rho to the Manhattan distance."""
    rho, distance = 0.7, torch.arange(15, dtype=torch.float64)
    factor = decaying(8, rho)
    found = distance_similarity(with_cosines(factor, factor))
    torch.testing.assert_close(found.cosine[0], rho**distance)
    weights = found.pairs[3:]  # 0.2 * 14 = 2.8
    expected = rho - (weights @ rho ** distance[3:] / weights.sum()).item()
    assert found.local(0.2).item() == pytest.approx(expected, rel=1e-9)
    line = torch.tensor([1.0, 2, 3, 4], dtype=torch.float64)  # 0.27 * 14 = 3.78
    slope = ((line - 2.5) @ rho**line / (line - 2.5).square().sum()).item()
    assert found.cross(0.27).item() == pytest.approx(-slope, rel=1e-9)


def test_shares_are_the_cells_of_the_paper_on_its_grid_and_at_least_three_on_a_small_one() -> None:
    cosine = -torch.arange(31, dtype=torch.float64)[None].square()
    found = DistanceSimilarity(cosine=cosine, pairs=torch.ones(31, dtype=torch.float64))
    assert found.local(0.2).item() == pytest.approx(-1 + sum(d**2 for d in range(6, 31)) / 25)
    assert found.cross(0.27).item() == pytest.approx(9)  # the slope of d^2 over 1 to 8
    small = DistanceSimilarity(cosine=cosine[:, :7], pairs=torch.ones(7, dtype=torch.float64))  # 4 x 4
    assert small.local(0.2).item() == pytest.approx(-1 + sum(d**2 for d in range(2, 7)) / 5)
    assert small.cross(0.27).item() == pytest.approx(4)  # over 1 to 3


def test_a_grid_without_such_distances_has_none() -> None:
    square = distance_similarity(torch.ones(1, 1, 2, 2))
    assert square.local(0.2) is not None
    assert square.cross(0.27) is None
    assert distance_similarity(torch.ones(1, 1, 1, 2)).local(0.2) is None


def test_a_token_of_zeros_is_like_none() -> None:
    maps = torch.ones(1, 2, 2, 2)
    maps[:, :, 0, 0] = 0
    assert distance_similarity(maps).cosine[0].tolist() == pytest.approx([3 / 4, 1 / 2, 1 / 2])


def test_a_single_token_and_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="1x1 has no tokens at a distance"):
        distance_similarity(torch.ones(1, 3, 1, 1))
    with pytest.raises(ValueError, match="NaN or infinity"):
        distance_similarity(torch.full((1, 3, 2, 2), math.inf))
