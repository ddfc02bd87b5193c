"""The principal plane: planted directions are found, whatever the shape of the features."""

import pytest
import torch

from ldbench.analysis.principal_plane import principal_plane


@pytest.mark.parametrize("dim", [2, 7, 300])
def test_planted_directions_are_the_axes_in_the_order_of_their_variance(dim: int) -> None:
    rng = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(dim, dim, generator=rng, dtype=torch.float64)).Q[:, :2]
    planted = torch.randn(100, 2, generator=rng, dtype=torch.float64)
    planted = torch.linalg.qr(planted - planted.mean(dim=0)).Q * torch.tensor([5.0, 2.0])  # uncorrelated
    plane = principal_plane(planted @ axes.T + 3.0)
    for axis in range(2):
        sign = planted[:, axis][planted[:, axis].abs().argmax()].sign()
        torch.testing.assert_close(plane.points[:, axis], sign * planted[:, axis], atol=1e-9, rtol=0)
    assert plane.explained == pytest.approx((25 / 29, 4 / 29))


def test_the_largest_coordinate_is_positive() -> None:
    features = torch.randn(20, 5, generator=torch.Generator().manual_seed(1))
    one, other = principal_plane(features), principal_plane(-features)
    torch.testing.assert_close(one.points.abs(), other.points.abs())
    for plane in (one, other):
        assert (plane.points.gather(0, plane.points.abs().argmax(dim=0, keepdim=True)) > 0).all()


def test_features_of_one_number_or_without_variance_have_a_plane_too() -> None:
    line = principal_plane(torch.arange(4.0)[:, None])
    assert line.points.tolist() == [[1.5, 0.0], [0.5, 0.0], [-0.5, 0.0], [-1.5, 0.0]] or line.points[:, 1].eq(0).all()
    assert line.explained == pytest.approx((1.0, 0.0))
    constant = principal_plane(torch.ones(5, 3))
    assert constant.points.eq(0).all()
    assert constant.explained == (0.0, 0.0)


@pytest.mark.parametrize("features", [torch.zeros(2, 4), torch.full((5, 2), float("nan"))])
def test_too_few_and_infinite_items_are_refused(features: torch.Tensor) -> None:
    with pytest.raises(ValueError, match="at least three finite items"):
        principal_plane(features)
