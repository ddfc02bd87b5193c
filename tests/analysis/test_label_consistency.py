"""Label consistency: 1 for clusters that are apart, the share of the class for random labels."""

import pytest
import torch

from ldbench.analysis.label_consistency import label_consistency


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def test_classes_that_are_apart_are_consistent() -> None:
    y, other = torch.arange(90) % 3, torch.arange(30) % 3
    train, test = normal(90, 2) + 50 * y[:, None], normal(30, 2, seed=1) + 50 * other[:, None]
    assert label_consistency(train, y, test, other, k=30).tolist() == [1] * 30
    assert label_consistency(train, y, test, (other + 1) % 3, k=30).tolist() == [0] * 30


def test_random_labels_have_the_share_of_the_class() -> None:
    y = (torch.arange(1000) % 10 < 3).long()  # three tenths of class 1
    train, test = normal(1000, 4), normal(2000, 4, seed=1)
    for label, share in ((0, 0.7), (1, 0.3)):
        found = label_consistency(train, y, test, torch.full((2000,), label), k=20)
        assert found.mean().item() == pytest.approx(share, abs=0.02)
    assert label_consistency(train, y, test, torch.ones(2000, dtype=torch.long), k=1000).unique().tolist() == [0.3]


def test_the_nearest_are_counted() -> None:
    train, y = torch.tensor([[0.0], [1.0], [5.0], [6.0]]), torch.tensor([0, 1, 0, 0])
    assert label_consistency(train, y, torch.tensor([[0.4], [5.4]]), torch.tensor([0, 0]), k=2).tolist() == [0.5, 1]


def test_too_many_neighbors_and_numbers_that_are_not_finite_are_refused() -> None:
    x, y = normal(3, 2), torch.arange(3)
    with pytest.raises(ValueError, match="Choose k from 1 to 3"):
        label_consistency(x, y, x, y, k=4)
    with pytest.raises(ValueError, match="NaN or infinity"):
        label_consistency(x, y, torch.full((3, 2), torch.nan), y, k=1)
