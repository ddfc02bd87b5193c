"""Curves: metrics that are points, named `<curve>/<variable>=<number>`, such as `gmm/nll_per_dim/k=50`."""

import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

POINT = re.compile(r"(?P<curve>.+)/(?P<variable>[A-Za-z_]\w*)=(?P<x>[-+]?(\d+\.?\d*|\.\d+)([eE][-+]?\d+)?)")


@dataclass(frozen=True)
class Point:
    """The position of a metric on a curve."""

    x: float
    metric: str


def is_point(metric: str) -> bool:
    """Whether a metric is a point of a curve."""
    return POINT.fullmatch(metric) is not None


def curves_of(metrics: Iterable[str]) -> dict[tuple[str, str], list[Point]]:
    """(curve, variable) -> its points from left to right."""
    curves: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for metric in metrics:
        if named := POINT.fullmatch(metric):
            curves[named["curve"], named["variable"]].append(Point(float(named["x"]), metric))
    return {key: sorted(points, key=lambda point: point.x) for key, points in curves.items()}
