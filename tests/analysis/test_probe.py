"""Linear probe: what is linear is found, what is not is chance, and the interval is Wilson's."""

import pytest
import torch

from ldbench.analysis.probe import linear_probe, wilson

SAID = {"penalty": 1.0, "max_iter": 1000}


def normal(count: int, width: int, seed: int) -> torch.Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_classes_on_the_two_sides_of_a_plane_are_told_apart() -> None:
    train, test = normal(300, 5, seed=0), normal(200, 5, seed=1)
    train_y, test_y = ((x @ torch.tensor([1.0, -2.0, 0.5, 0.0, 0.0]) > 0).long() for x in (train, test))
    found = linear_probe(train, train_y, test, test_y, **SAID)
    assert found.accuracy > 0.97
    assert found.low < found.accuracy < found.high <= 1


def test_a_ring_is_found_only_where_the_features_make_it_linear() -> None:
    train, test = normal(1000, 2, seed=0), normal(1000, 2, seed=1)
    train_y, test_y = ((x.square().sum(dim=1) > 1.386).long() for x in (train, test))  # half of each
    assert linear_probe(train, train_y, test, test_y, **SAID).accuracy < 0.7
    assert linear_probe(train.square(), train_y, test.square(), test_y, **SAID).accuracy > 0.97


def test_scale_and_place_of_a_feature_do_not_matter() -> None:
    train, test = normal(200, 4, seed=0), normal(150, 4, seed=1)
    train_y, test_y = ((x[:, 0] + 0.3 * x[:, 1].sign() > 0).long() for x in (train, test))
    scale, place = torch.tensor([1e-4, 1.0, 1e3, 7.0]), torch.tensor([0.0, 5.0, -3.0, 100.0])
    first = linear_probe(train, train_y, test, test_y, **SAID)
    second = linear_probe(train * scale + place, train_y, test * scale + place, test_y, **SAID)
    assert second.accuracy == pytest.approx(first.accuracy, abs=1 / 150 + 1e-9)


def test_a_feature_that_never_changes_tells_nothing_and_breaks_nothing() -> None:
    train, test = normal(100, 3, seed=0), normal(80, 3, seed=1)
    train_y, test_y = ((x[:, 0] > 0).long() for x in (train, test))
    constant = [torch.cat([x, torch.full((len(x), 1), 3.0)], dim=1) for x in (train, test)]
    assert linear_probe(constant[0], train_y, constant[1], test_y, **SAID) == linear_probe(
        train, train_y, test, test_y, **SAID
    )


def test_chance_is_the_held_out_share_of_the_most_frequent_training_class() -> None:
    train, test = normal(10, 2, seed=0), normal(4, 2, seed=1)
    found = linear_probe(train, torch.tensor([7] * 6 + [2] * 4), test, torch.tensor([7, 2, 2, 5]), **SAID)
    assert found.chance == 0.25


def test_it_draws_nothing() -> None:
    train, test = normal(100, 3, seed=0), normal(50, 3, seed=1)
    y = torch.arange(100) % 3
    before = torch.random.get_rng_state()
    assert linear_probe(train, y, test, y[:50], **SAID) == linear_probe(train, y, test, y[:50], **SAID)
    assert torch.equal(torch.random.get_rng_state(), before)


@pytest.mark.parametrize(
    ("hits", "trials", "expected"),
    [
        (8, 10, (0.4901625, 0.9433178)),
        (0, 10, (0.0, 0.2775328)),
        (360, 360, (0.9894421, 1.0)),
        (50, 100, (0.4038315, 0.5961685)),
    ],
)
def test_the_interval_is_wilsons(hits: int, trials: int, expected: tuple[float, float]) -> None:
    assert wilson(hits, trials) == pytest.approx(expected, abs=1e-6)


def test_one_class_and_latents_that_are_not_finite_are_refused() -> None:
    with pytest.raises(ValueError, match="two classes or more, got 4 items of 1"):
        linear_probe(torch.zeros(4, 2), torch.zeros(4), torch.zeros(1, 2), torch.zeros(1), **SAID)
    with pytest.raises(ValueError, match="not finite"):
        linear_probe(torch.full((4, 2), torch.inf), torch.arange(4), torch.zeros(1, 2), torch.zeros(1), **SAID)
