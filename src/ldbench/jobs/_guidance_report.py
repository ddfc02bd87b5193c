"""What a guidance search found: the chosen setting as figures, and the surface for files and the picture."""

from collections.abc import Sequence
from typing import Any

from ldbench.core.estimate import Estimate
from ldbench.jobs._guidance_search import GuidancePoint, Rung


def describe_chosen(chosen: GuidancePoint, exported: float | None) -> dict[str, Estimate]:
    """The chosen setting as figures; what is not a number of the search is left out."""
    average = exported if chosen.average is None else chosen.average
    values = {
        "scale": chosen.scale,
        "low": chosen.low,
        "high": chosen.high,
        "steps": chosen.steps,
        "average": average,
    }
    return {f"guidance/chosen_{key}": Estimate(float(value)) for key, value in values.items() if value is not None}


def describe_surface(rungs: Sequence[Rung], *, target: str) -> dict[str, Any]:
    """All scores for JSON, each rung's best first."""

    def numbers(estimate: Estimate | None) -> dict[str, float | None] | None:
        return None if estimate is None else {key: getattr(estimate, key) for key in ("value", "low", "high")}

    return {
        "target": target,
        "rungs": [
            {
                "num_samples": rung.num_samples,
                "settings": [
                    {
                        **{key: getattr(found.point, key) for key in ("scale", "low", "high", "steps", "average")},
                        "score": numbers(found.score),
                        "behind_best": numbers(found.behind),
                    }
                    for found in rung.measured
                ],
            }
            for rung in rungs
        ],
    }


def rungs_for_figure(rungs: Sequence[Rung]) -> list[tuple[int, dict[str, list[tuple[float, Estimate]]]]]:
    """The samples of each rung, and its curves over scales by their names."""
    figures = []
    for rung in rungs:
        curves: dict[str, list[tuple[float, Estimate]]] = {}
        for found in rung.measured:
            curve, _, _ = found.point.name.rpartition("/")
            curves.setdefault(curve, []).append((found.point.scale, found.score))
        figures.append(
            (rung.num_samples, {name: sorted(points, key=lambda p: p[0]) for name, points in curves.items()})
        )
    return figures
