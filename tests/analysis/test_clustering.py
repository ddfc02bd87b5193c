"""Clustering: planted trees are found, and the score distinguishes one split from many."""

import itertools

import pytest
import torch
from sklearn.cluster import AgglomerativeClustering

from ldbench.analysis.clustering import hierarchy


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def corners(copies: int) -> torch.Tensor:
    """Each corner of a cube in five dimensions, some times."""
    return torch.tensor(list(itertools.product((-1.0, 1.0), repeat=5)), dtype=torch.float64).repeat(copies, 1)


def test_a_tree_of_equal_splits_scores_one() -> None:
    found = hierarchy(corners(4), doublings=5)
    assert found.score == pytest.approx(1.0, abs=1e-9)
    assert list(found.explained.values()) == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])


def test_a_single_split_scores_zero() -> None:
    two = torch.cat([torch.full((40, 3), -1.0), torch.full((40, 3), 1.0)]) + 1e-4 * normal(80, 3)
    found = hierarchy(two, doublings=5)
    assert found.explained[2] > 0.9999
    assert found.score < 0.001


def test_the_explained_variance_is_that_of_the_clusters() -> None:
    x = normal(150, 4) * torch.tensor([1.0, 2.0, 3.0, 0.1])
    unit = (x - x.mean(dim=0)) / x.std(dim=0, correction=0)
    found = hierarchy(x, doublings=4)
    for k in (2, 4, 8, 16):
        member = torch.from_numpy(AgglomerativeClustering(n_clusters=k, linkage="ward").fit_predict(unit.numpy()))
        within = sum((unit[member == one] - unit[member == one].mean(dim=0)).square().sum() for one in range(k))
        assert found.explained[k] == pytest.approx(1 - (within / unit.square().sum()).item(), abs=1e-9)


def test_scale_and_constant_features_do_not_matter() -> None:
    x = normal(100, 3)
    plain = hierarchy(x, doublings=3)
    other = hierarchy(torch.cat([1e3 * x + 5, torch.full((100, 1), 0.3)], dim=1), doublings=3)
    assert other.score == pytest.approx(plain.score, abs=1e-9)


def test_too_few_items_and_constant_features_are_refused() -> None:
    with pytest.raises(ValueError, match=r"8 clusters .* at least as many items, got 7"):
        hierarchy(normal(7, 2), doublings=3)
    with pytest.raises(ValueError, match="Constant features"):
        hierarchy(torch.full((20, 2), 0.3), doublings=2)
