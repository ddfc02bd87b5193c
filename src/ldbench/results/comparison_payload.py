"""Comparisons of images as the page holds them: each image as a small PNG in a data URL."""

import base64
import io
from collections.abc import Mapping
from typing import Any

from numpy import ndarray
from PIL import Image

from ldbench.results.image_comparison import ImageComparison
from ldbench.results.models import Model
from ldbench.results.pixel_errors import scale_bar

CELL = 128  # px: larger images are reduced to this, which bounds the size of the page
BAR = (128, 1)  # px, of the scale


def comparison_of(comparison: ImageComparison, name: str, indices: Mapping[Model, int]) -> dict[str, Any]:
    """A comparison, under the name of its leaderboard. `indices`: of the models in the page."""
    return {
        **{"kind": comparison.kind, "crop": comparison.crop, "data": comparison.conditions.data},
        **{"name": name, "rows": list(comparison.rows), "notes": list(comparison.notes)},
        "scale": None if comparison.scale is None else {"end": f"{comparison.scale:.3g}", "src": url(scale_bar(*BAR))},
        "columns": [
            {
                **{"title": column.title, "note": column.note},
                "subject": None if column.model is None else indices[column.model],
                "images": [url(image) for image in column.images],
                "errors": None if column.errors is None else [url(image) for image in column.errors],
            }
            for column in comparison.columns
        ],
    }


def url(image: ndarray) -> str:
    """An image as a data URL, reduced by a whole factor to at most `CELL` px."""
    picture = Image.fromarray(image)
    factor = -(-max(picture.size) // CELL)
    content = io.BytesIO()
    (picture.reduce(factor) if factor > 1 else picture).save(content, format="PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
