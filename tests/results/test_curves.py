"""Curves: metrics that are points."""

import pytest

from ldbench.results.curves import Point, curves_of, is_point


def test_points_are_gathered_by_curve_and_stand_in_order():
    found = curves_of(["gmm/nll/k=50", "psnr", "gmm/nll/k=5", "smoothness/psnr/eps=1e-2", "gmm/score/k=5"])
    assert found == {
        ("gmm/nll", "k"): [Point(5.0, "gmm/nll/k=5"), Point(50.0, "gmm/nll/k=50")],
        ("smoothness/psnr", "eps"): [Point(0.01, "smoothness/psnr/eps=1e-2")],
        ("gmm/score", "k"): [Point(5.0, "gmm/score/k=5")],
    }


@pytest.mark.parametrize(
    "metric", ["psnr", "k=5", "a/k=", "a/k=five", "a/=5", "a/k=5x", "a/k=.", "a/k=nan", "a/k=1e999"]
)
def test_what_is_no_point_is_none(metric):
    assert not is_point(metric)
