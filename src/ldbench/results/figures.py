"""Figures from logs and records."""

import csv
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from einops import rearrange
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import LogFormatter
from torch import Tensor

from ldbench.io.files import atomic_write

LOGARITHMIC = ("loss", "pixels", "kl", "lr", "grad_norm")
COUNTERS = ("images_seen", "batch")


def read_logs(logs: Sequence[Path]) -> dict[str, dict[int, float]]:
    """Metric name -> step -> value, over the CSV logs of all starts of a run; the latest counts.

    A last line without a newline, left by a start that was killed while writing, is ignored.
    """
    curves: dict[str, dict[int, float]] = defaultdict(dict)
    for log in logs:
        with log.open(newline="", encoding="utf-8") as file:
            complete = (line for line in file if line.endswith("\n"))
            for row in csv.DictReader(complete):
                for name, value in row.items():
                    if name != "step" and value:
                        curves[name][int(row["step"])] = float(value)
    return dict(curves)


def learning_curves(logs: Sequence[Path], out: Path) -> None:
    """Draws each value that training logs, except counters, over optimizer steps, and writes a PNG."""
    curves = {
        name.removeprefix("train/"): points for name, points in read_logs(logs).items() if name.startswith("train/")
    }
    shown = [name for name in curves if name not in COUNTERS]
    if not shown:
        return
    columns = min(3, len(shown))
    rows = -(-len(shown) // columns)
    figure = Figure(figsize=(4.2 * columns, 2.8 * rows))
    axes = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(
        left=0.25 / columns, right=1 - 0.05 / columns, bottom=0.22 / rows, top=1 - 0.13 / rows, wspace=0.3, hspace=0.4
    )
    for axis, name in zip(axes.flat, shown, strict=False):
        steps = sorted(curves[name])
        values = [curves[name][step] for step in steps]
        axis.plot(steps, values, linewidth=1, color="#3465a4")
        axis.set_title(name)
        axis.grid(alpha=0.3)
        if name in LOGARITHMIC and min(values) > 0:
            axis.set_yscale("log")
            for side, formatter in (("major", LogFormatter()), ("minor", LogFormatter(minor_thresholds=(1, 0.4)))):
                getattr(axis.yaxis, f"set_{side}_formatter")(formatter)  # plain text: typeset labels take a second
    for axis in axes.flat[len(shown) :]:
        axis.set_visible(False)
    figure.supxlabel("optimizer step")
    with atomic_write(out) as scratch:
        figure.savefig(scratch, dpi=110, format="png")


def latents(
    z: Tensor,  # (K, N, C)
) -> Tensor:  # (3, H, W) uint8
    """An image of latents as they are: a scatter plot of tokens with two channels, else a color map."""
    figure = Figure(figsize=(5, 5), layout="constrained")
    axis = figure.subplots()
    if z.shape[-1] == 2:
        x, y = z.flatten(0, 1).T.tolist()
        axis.scatter(x, y, s=6, color="#3465a4")
        axis.set_aspect("equal")
    else:
        axis.imshow(z.flatten(1).numpy(), aspect="auto", cmap="RdBu", interpolation="nearest")
        axis.set(xlabel="component", ylabel="latent")
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    pixels = torch.from_numpy(np.array(canvas.buffer_rgba()))  # (H, W, 4)
    return rearrange(pixels[..., :3], "h w c -> c h w")
