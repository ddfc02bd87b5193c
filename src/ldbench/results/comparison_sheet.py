"""A comparison of images as one PNG: titles above, names of images at the left, the scale of errors below.

Equal comparisons give equal bytes. Text is drawn by Pillow's own font, so that nothing of the machine is in it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy import ndarray
from PIL import Image, ImageDraw, ImageFont

from ldbench.io.files import atomic_write
from ldbench.results.image_comparison import ImageComparison
from ldbench.results.pixel_errors import scale_bar

CELL = 96  # px: smaller images are enlarged to about this
GAP, MARGIN = 2, 8  # px
FONT_SIZE, CELL_OF_FONT = 12, 14  # px: the smallest, and how many times as large as the text a cell is at most
LABELS = 9  # the width of the names of images, in units of the font's size
BAR = (13, 1)  # the width and height of the scale, likewise
LINE = 1.25  # the distance of lines, likewise
MOST_LINES = 3  # of a title, a name or a note; the rest is cut
INK, PAPER = (20, 20, 20), (255, 255, 255)


@dataclass(frozen=True)
class Lettering:
    """Text of one size."""

    size: int  # px

    @cached_property
    def font(self) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
        """Pillow's own font."""
        return ImageFont.load_default(self.size)

    @property
    def line(self) -> int:
        """The distance of lines in px."""
        return round(LINE * self.size)

    def write(self, draw: ImageDraw.ImageDraw, lines: Sequence[str], corner: tuple[int, int]) -> None:
        """Writes lines, one below the other."""
        for number, line in enumerate(lines):
            draw.text((corner[0], corner[1] + self.line * number), line, INK, self.font)

    def wrapped(self, text: str, width: int) -> list[str]:
        """A text in lines of at most a width in px, broken at spaces where possible; of many the first."""
        lines: list[str] = []
        for paragraph in text.split("\n"):
            line = ""
            for word in paragraph.split(" "):
                if line and self.font.getlength(f"{line} {word}") > width:
                    lines.append(line)
                    line = ""
                line = f"{line} {word}" if line else word
                while self.font.getlength(line) > width and len(line) > 1:
                    fits = next(
                        n for n in range(len(line) - 1, 0, -1) if n == 1 or self.font.getlength(line[:n]) <= width
                    )
                    lines.append(line[:fits])
                    line = line[fits:]
            lines.append(line)
        return lines if len(lines) <= MOST_LINES else [*lines[: MOST_LINES - 1], f"{lines[MOST_LINES - 1][:-3]}..."]


def write_sheet(comparison: ImageComparison, path: Path) -> None:
    """Writes a comparison as PNG, atomically."""
    picture = draw_sheet(comparison)
    with atomic_write(path) as scratch:
        picture.save(scratch, format="PNG")


def draw_sheet(comparison: ImageComparison) -> Image.Image:
    """The picture of a comparison."""
    size = max(max(column.images[0].shape[:2]) for column in comparison.columns)
    cell = max(CELL // size, 1) * size
    text = Lettering(max(FONT_SIZE, cell // CELL_OF_FONT))
    widths = [(cell + GAP) * (1 if column.errors is None else 2) for column in comparison.columns]
    titles = [
        text.wrapped("\n".join(filter(None, (column.title, column.note))), width - GAP)
        for column, width in zip(comparison.columns, widths, strict=True)
    ]
    top = MARGIN + text.line * max(map(len, titles)) + GAP
    left = MARGIN + LABELS * text.size
    width = max(left + sum(widths) + MARGIN, 3 * BAR[0] * text.size)
    notes = [line for note in comparison.notes for line in text.wrapped(note, width - 2 * MARGIN)]
    below = top + len(comparison.rows) * (cell + GAP) + MARGIN
    foot = below if comparison.scale is None else below + text.line + GAP  # where the notes begin
    picture = Image.new("RGB", (width, foot + text.line * len(notes) + MARGIN), PAPER)
    draw = ImageDraw.Draw(picture)
    place = left
    for column, title, wide in zip(comparison.columns, titles, widths, strict=True):
        text.write(draw, title, (place, top - GAP - text.line * len(title)))
        for offset, images in enumerate([column.images] if column.errors is None else [column.images, column.errors]):
            for row, image in enumerate(images):
                corner = (place + offset * (cell + GAP), top + row * (cell + GAP))
                picture.paste(Image.fromarray(fitted(image, cell)), corner)
        place += wide
    for row, name in enumerate(comparison.rows):
        text.write(draw, text.wrapped(name, left - 2 * MARGIN), (MARGIN, top + row * (cell + GAP)))
    if comparison.scale is not None:
        bar = Image.fromarray(scale_bar(BAR[0] * text.size, BAR[1] * text.size))
        picture.paste(bar, (MARGIN, below))
        ends = f"error 0 to {comparison.scale:.3g} of 255 levels, and more"
        text.write(draw, [ends], (2 * MARGIN + bar.width, below - 1))
    text.write(draw, notes, (MARGIN, foot))
    return picture


def fitted(image: ndarray, cell: int) -> ndarray:
    """An image enlarged by a whole factor, each pixel as a square, and in the middle of a cell."""
    factor = max(1, cell // max(image.shape[:2]))
    enlarged = image.repeat(factor, axis=0).repeat(factor, axis=1)
    height, width = enlarged.shape[:2]
    canvas = np.full((cell, cell, 3), 255, dtype=np.uint8)
    top, left = (cell - height) // 2, (cell - width) // 2
    canvas[top : top + height, left : left + width] = enlarged
    return canvas
