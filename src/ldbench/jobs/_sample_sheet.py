"""The sheet of a generator's samples: some of each class in a row."""

from pathlib import Path

import torch
from einops import rearrange
from PIL import Image
from torch import Tensor

from ldbench.core.pixels import from_uint8, sheet
from ldbench.data.samples import SampleParts
from ldbench.io.files import atomic_write

NUM_SHOWN = 10  # classes on the sheet, and samples of each


def write_sheet(
    parts: SampleParts,
    y: Tensor,  # (num_samples,)
    path: Path,
) -> None:
    """Writes a PNG of the first samples of the first classes, one class per row."""
    rows: dict[int, list[Tensor]] = {label: [] for label in list(dict.fromkeys(y.tolist()))[:NUM_SHOWN]}
    for indices, images in parts.read():
        for index, image in zip(indices, images, strict=True):
            row = rows.get(int(y[index]), [])
            if len(row) < NUM_SHOWN:
                row.append(image)
        if all(len(row) == NUM_SHOWN for row in rows.values()):
            break
    width = max(map(len, rows.values()))
    blank = torch.full_like(next(row[0] for row in rows.values() if row), 255)
    filled = [torch.stack(row + [blank] * (width - len(row))) for _, row in sorted(rows.items()) if row]
    picture = rearrange(sheet([from_uint8(row) for row in filled]), "c h w -> h w c")
    with atomic_write(path) as scratch:
        Image.fromarray(picture.numpy()).save(scratch, format="PNG")
