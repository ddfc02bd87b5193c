"""Representation alignment: closed forms of its distances, its projectors, and what it is refused for."""

from types import SimpleNamespace

import pytest
import torch
from torch import Tensor

from ldbench.core.backbone import InnerTokens
from ldbench.losses.representation_alignment import RepresentationAlignment, normalized_over_positions

GRID = (2, 3)
ONE_POSITION = SimpleNamespace(inner=InnerTokens(4, 5, (1, 1)))


class Given:
    """A teacher of given features."""

    def __init__(self, features: Tensor):
        self.features = features

    def channels(self, image_size: int, grid: tuple[int, int]) -> int:
        return self.features.shape[-1]

    def __call__(self, images: Tensor, grid: tuple[int, int]) -> Tensor:
        assert grid == GRID
        return self.features[: len(images)]


def alignment(features: Tensor, **changes) -> RepresentationAlignment:
    backbone = SimpleNamespace(inner=InnerTokens(depth=4, width=5, grid=GRID))
    settings = {
        **{"weight": 0.5, "block": 2, "projector": "linear", "projector_width": 8, "comparison": "cosine"},
        **{"normalize_positions": False, "backbone": backbone, "image_size": 8},
    }
    return RepresentationAlignment(teacher=Given(features), **{**settings, **changes})


@pytest.fixture
def tokens() -> Tensor:
    return torch.randn(2, 6, 5, generator=torch.Generator().manual_seed(0))


IMAGES = torch.zeros(2, 3, 8, 8)


def test_the_cosine_of_tokens_that_are_the_features_is_one(tokens):
    loss = alignment(3 * tokens)
    torch.nn.init.eye_(loss.projector.weight)
    torch.nn.init.zeros_(loss.projector.bias)
    torch.testing.assert_close(loss(tokens, IMAGES), -torch.ones(2))
    opposite = alignment(-3 * tokens)
    opposite.projector.load_state_dict(loss.projector.state_dict())
    torch.testing.assert_close(opposite(tokens, IMAGES), torch.ones(2))


def test_the_squared_error_is_the_mean_over_positions_and_features(tokens):
    loss = alignment(tokens + 2, comparison="mse")
    torch.nn.init.eye_(loss.projector.weight)
    torch.nn.init.zeros_(loss.projector.bias)
    torch.testing.assert_close(loss(tokens, IMAGES), torch.full((2,), 4.0))


def test_features_are_normalized_over_positions(tokens):
    found = normalized_over_positions(10 * tokens + 7)
    torch.testing.assert_close(found.mean(dim=1), torch.zeros(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(dim=1), torch.ones(2, 5), atol=1e-5, rtol=0)
    torch.testing.assert_close(found, normalized_over_positions(tokens), atol=1e-5, rtol=1e-4)
    assert not normalized_over_positions(torch.ones(1, 6, 5)).any(), "constant features have no direction"


@pytest.mark.parametrize("projector", ["mlp", "conv", "linear"])
def test_every_projector_learns_the_features(tokens, projector):
    torch.manual_seed(0)
    features = tokens @ torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    loss = alignment(features, projector=projector)
    optimizer = torch.optim.Adam(loss.parameters(), lr=1e-2)
    before = loss(tokens, IMAGES).mean()
    for _ in range(200):
        optimizer.zero_grad()
        loss(tokens, IMAGES).mean().backward()
        optimizer.step()
    assert loss(tokens, IMAGES).mean() < min(-0.9, before.item())


def test_a_convolution_sees_the_neighbors_on_the_grid_and_no_others(tokens):
    loss = alignment(torch.zeros(2, 6, 4), projector="conv")
    changed = tokens.clone()
    changed[:, 0] += 1  # the upper left corner of 2 x 3: neighbors are 1, 3 and 4
    moved = (loss.projector(changed) - loss.projector(tokens)).abs().amax(dim=(0, 2)) > 1e-6
    assert moved.tolist() == [True, True, False, True, True, False]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"projector": "deep"}, "Choose one of mlp, conv, linear"),
        ({"comparison": "l1"}, "Choose one of cosine, mse"),
        ({"weight": 0.0}, "weight must be above zero"),
        ({"block": 5}, "block must be 1 to 4"),
        ({"block": 0}, "block must be 1 to 4"),
        ({"backbone": SimpleNamespace(inner=None)}, "does not hand out the tokens"),
        ({"backbone": SimpleNamespace(inner=InnerTokens(4, 5, None))}, "these latents have no grid"),
        (
            {"backbone": ONE_POSITION, "normalize_positions": True},
            r"at one position alone\. Set normalize_positions=fal",
        ),
    ],
)
def test_what_cannot_be_is_refused(tokens, changes, message):
    with pytest.raises(ValueError, match=message):
        alignment(tokens, **changes)


def test_one_position_is_compared_where_nothing_is_normalized_over_it(tokens):
    assert alignment(tokens, backbone=ONE_POSITION).grid == (1, 1)
