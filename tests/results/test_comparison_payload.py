"""Comparisons in the page: small PNGs of their pixels; large images are reduced, which bounds the page."""

import base64
import io

import numpy as np
from PIL import Image
from tests.made_records import make_record

from ldbench.results.comparison_payload import CELL, comparison_of, url
from ldbench.results.image_comparison import RECONSTRUCTIONS, Column, ImageComparison
from ldbench.results.models import models_of
from ldbench.results.ranking_conditions import conditions_of


def decoded(source: str) -> np.ndarray:
    kind, _, content = source.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))))


def test_small_images_are_kept_pixel_by_pixel_and_large_ones_averaged() -> None:
    image = np.random.default_rng(0).integers(0, 256, (CELL, CELL, 3), dtype=np.uint8)
    assert (decoded(url(image)) == image).all()
    large = image.repeat(2, axis=0).repeat(2, axis=1)
    assert (decoded(url(large)) == image).all(), "blocks of equal pixels: their mean is their color"
    assert decoded(url(np.zeros((500, 500, 3), dtype=np.uint8))).shape == (125, 125, 3)


def test_a_column_names_its_model_and_the_originals_none() -> None:
    record = make_record()
    model = models_of([record])[record.id]
    dark, light = (np.full((2, 2, 3), level, dtype=np.uint8) for level in (9, 200))
    columns = [Column("original", [dark]), Column("vmae", [light], [dark], model, "a note")]
    comparison = ImageComparison(
        RECONSTRUCTIONS, conditions_of(record), ["7"], columns, ["How it was chosen."], 12.5, crop=True
    )
    found = comparison_of(comparison, "digits 1234", {model: 4})
    assert (found["kind"], found["crop"], found["data"], found["name"]) == (
        "reconstructions",
        True,
        "digits",
        "digits 1234",
    )
    assert (found["rows"], found["notes"], found["scale"]["end"]) == (["7"], ["How it was chosen."], "12.5")
    original, vmae = found["columns"]
    assert (original["subject"], original["errors"]) == (None, None)
    assert (vmae["subject"], vmae["title"], vmae["note"]) == (4, "vmae", "a note")
    assert (decoded(vmae["images"][0]) == light).all()
    assert (decoded(vmae["errors"][0]) == dark).all()
