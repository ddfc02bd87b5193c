"""Curves: metrics that are points, named `<curve>/<variable>=<number>`, such as `gmm/nll_per_dim/k=50`."""

import math
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
    """Whether a metric is a point of a curve, at a finite position."""
    return point_of(metric) is not None


def curves_of(metrics: Iterable[str]) -> dict[tuple[str, str], list[Point]]:
    """(curve, variable) -> its points from left to right."""
    curves: dict[tuple[str, str], list[Point]] = defaultdict(list)
    for metric in metrics:
        if named := point_of(metric):
            curves[named["curve"], named["variable"]].append(Point(float(named["x"]), metric))
    return {key: sorted(points, key=lambda point: point.x) for key, points in curves.items()}


def point_of(metric: str) -> re.Match[str] | None:
    """The parts of a point's name; None for other metrics."""
    named = POINT.fullmatch(metric)
    return named if named is not None and math.isfinite(float(named["x"])) else None
