"""Curves: a picture of every panel, also of what has no interval or is infinite."""

from pathlib import Path

import pytest
from PIL import Image

from ldbench.core.estimate import Estimate
from ldbench.results.panels import Curve, draw_curves


@pytest.mark.curves
def test_every_panel_is_drawn(tmp_path: Path) -> None:
    banded = Curve([0.0, 1.0], [Estimate(1.0, 0.5, 1.5), Estimate(2.0, 1.5, 2.5)])
    bare = Curve([0.0, 1.0], [Estimate(float("inf")), Estimate(2.0)])
    sizes = []
    for panels in ({"a": banded}, {str(i): bare for i in range(5)}):
        draw_curves(panels, tmp_path / "new" / "curves.png", xlabel="x")
        picture = Image.open(tmp_path / "new" / "curves.png").convert("L")
        assert picture.getextrema()[0] < 100, "there is something dark on it"
        sizes.append(picture.size)
    assert sizes[1] == (4 * sizes[0][0], 2 * sizes[0][1])
