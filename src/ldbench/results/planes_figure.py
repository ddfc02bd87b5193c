"""The figure of latents in planes: a panel for each plane, points colored by class."""

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.figure import Figure

from ldbench.io.files import atomic_write

MOST_CLASSES = 20  # that have colors of their own
OTHERS = "#c8c8c8"  # the color of all others


def draw_planes(
    planes: Mapping[str, Sequence[Sequence[float]]],  # title -> n points
    labels: Sequence[int],  # of the n points
    class_names: Sequence[str],
    out: Path,
    *,
    title: str,
) -> None:
    """Draws points in planes, colored by class, and writes a PNG, atomically. Of more than 20 classes, those with the
    most points have colors; all others are gray.
    """
    shown, rest = colored_classes(labels)
    colormap = colormaps["tab10" if len(shown) <= 10 else "tab20"]
    colors = [colormap(place) for place in range(len(shown))]  # of a list of colors, by whole numbers
    figure = Figure(figsize=(5.2 * len(planes) + 1.6, 5.2), layout="constrained")
    axes = figure.subplots(1, len(planes), squeeze=False)
    for axis, (name, points) in zip(axes[0], planes.items(), strict=True):
        for members, color, label in [
            (rest, OTHERS, f"{len(rest)} others"),
            *((frozenset({one}), color, name_of(one, class_names)) for one, color in zip(shown, colors, strict=True)),
        ]:
            own = [point for point, y in zip(points, labels, strict=True) if y in members]
            if own:
                x, y = zip(*own, strict=True)
                axis.scatter(x, y, s=9, color=color, linewidths=0, label=label)
        axis.set_title(name)
        axis.set(xticks=[], yticks=[])
        axis.set_aspect("equal", adjustable="datalim")
    handles, names = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, names, title="class", loc="outside right upper", markerscale=2, frameon=False)
    figure.suptitle(title)
    with atomic_write(out) as scratch:
        figure.savefig(scratch, dpi=110, format="png")


def colored_classes(labels: Sequence[int]) -> tuple[list[int], frozenset[int]]:
    """The classes with colors, ascending, and the others: those with the most points, of equally many the first."""
    counts = Counter(labels)
    ranked = sorted(counts, key=lambda label: (-counts[label], label))
    return sorted(ranked[:MOST_CLASSES]), frozenset(ranked[MOST_CLASSES:])


def name_of(label: int, class_names: Sequence[str]) -> str:
    """The name of a class for the legend; its number if it has none.

    A legend leaves out names with an underscore in front, and would read dollars as formulas.
    """
    name = class_names[label] if label < len(class_names) else ""
    return name.lstrip("_").replace("$", r"\$") or str(label)
