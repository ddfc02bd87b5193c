"""Latents in planes: every class has its color and its name; the picture is the same each time."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib import colormaps
from PIL import Image

from ldbench.results.planes_figure import MOST_CLASSES, colored_classes, draw_planes, name_of


def test_the_classes_with_the_most_points_have_colors() -> None:
    assert colored_classes([3, 1, 1]) == ([1, 3], frozenset())
    labels = [label for label in range(25) for _ in range(2 if label >= 10 else 1)]
    shown, rest = colored_classes(labels)
    assert shown == [0, 1, 2, 3, 4, *range(10, 25)]
    assert len(shown) == MOST_CLASSES
    assert rest == frozenset(range(5, 10))


def test_a_class_without_a_name_has_its_number() -> None:
    assert [name_of(label, ("cat", "_dog", "_")) for label in range(4)] == ["cat", "dog", "2", "3"]
    assert name_of(0, ("$x^2$",)) == r"\$x^2\$", "no formula"


@pytest.mark.curves
def test_points_of_each_class_are_drawn_in_its_color_and_equally_each_time(tmp_path: Path) -> None:
    points = [[0.0, 0.0], [1.0, 1.0], [0.0, 1.0], [1.0, 0.0]] * 5
    for name in ("one", "two"):
        draw_planes(
            {"a": points, "b": points}, [0, 1, 2, 1] * 5, ("x", "y", "z"), tmp_path / "new" / f"{name}.png", title="t"
        )
    assert (tmp_path / "new" / "one.png").read_bytes() == (tmp_path / "new" / "two.png").read_bytes()
    pixels = np.asarray(Image.open(tmp_path / "new" / "one.png").convert("RGB")).reshape(-1, 3)
    counts = [
        (pixels == np.round(255 * np.array(color)).astype(int)).all(axis=1).sum()
        for color in colormaps["tab10"].colors[:4]
    ]
    assert all(count > 20 for count in counts[:3])
    assert counts[3] == 0
