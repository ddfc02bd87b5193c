"""Reconstructions of several tokenizers side by side, with error maps on one scale; whole images or crops."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy import ndarray

from ldbench.results.image_comparison import (
    AUTO,
    RECONSTRUCTIONS,
    SMALLEST,
    Column,
    ImageComparison,
    SheetSettings,
    Subject,
    none_saved,
)
from ldbench.results.pixel_errors import QUANTILE, colored, disagreement, error_map, largest_window, scale_of
from ldbench.results.ranking_conditions import conditions_of
from ldbench.results.saved_images import SavedReconstructions, saved_reconstructions

FRAME = (255, 0, 200)  # the color around the part that is shown
PARTS = 4  # of a side: the size of a crop that is chosen here


@dataclass(frozen=True)
class Crop:
    """A square part of an image, in pixels."""

    top: int
    left: int
    size: int

    def of(self, image: ndarray) -> ndarray:
        """The part of an image or of a map."""
        return image[self.top : self.top + self.size, self.left : self.left + self.size]

    def framed(self, image: ndarray) -> ndarray:
        """A copy of the image with a frame around the part."""
        width = max(1, len(image) // 64)
        copy = image.copy()
        top, left = max(0, self.top - width), max(0, self.left - width)
        copy[top : self.top + self.size + width, left : self.left + self.size + width] = FRAME
        copy[self.top : self.top + self.size, self.left : self.left + self.size] = self.of(image)
        return copy


@dataclass(frozen=True)
class ImageRow:
    """An image as a row."""

    name: str
    crop: Crop | None  # None: the whole image is shown
    difference: float  # per pixel of what is shown


def compare_reconstructions(subjects: Sequence[Subject], folder: Path, settings: SheetSettings) -> ImageComparison:
    """The images on which tokenizers differ most: the original, and each reconstruction with its error map.

    Tokenizers differ at a pixel by the variance of their reconstructions, a single one by its squared error. Images are
    sorted by the mean of that over what is shown, the largest first. Raises ValueError without saved images, for images
    that are not of the same originals, and for a crop that is not in them.
    """
    saved = all_saved(subjects, folder)
    (comparison,) = comparisons_of(subjects, saved, [settings])
    return comparison


def compare_for_page(subjects: Sequence[Subject], folder: Path, settings: SheetSettings) -> list[ImageComparison]:
    """`compare_reconstructions` of whole images, and of automatic crops where images are large; reads each image once
    for both.
    """
    saved = all_saved(subjects, folder)
    whole, crops = replace(settings, crop=None), replace(settings, crop=AUTO)
    large = min(saved[0].original(common_names(subjects, saved)[0]).shape[:2]) >= SMALLEST
    return comparisons_of(subjects, saved, [whole, crops] if large else [whole])


def all_saved(subjects: Sequence[Subject], folder: Path) -> list[SavedReconstructions]:
    """The saved images of each model. Raises ValueError if there are no models, or none of one of them."""
    saved = [found for subject in subjects if (found := saved_reconstructions(folder, subject.record)) is not None]
    if not saved or len(saved) < len(subjects):
        raise none_saved(folder, "reconstruct")
    return saved


def comparisons_of(
    subjects: Sequence[Subject], saved: Sequence[SavedReconstructions], settings: Sequence[SheetSettings]
) -> list[ImageComparison]:
    """A comparison for each of some settings, which differ in their crops alone."""
    names = common_names(subjects, saved)
    candidates = evenly_spaced(names, settings[0].candidates)
    rows = [rows_of(name, saved, settings) for name in candidates]
    found = []
    for one, mine in zip(settings, zip(*rows, strict=True), strict=True):
        # sorting is stable: of images with the same difference the first is first
        shown = sorted(mine, key=lambda row: -row.difference)[: one.rows]
        chosen = notes(len(subjects), len(names), len(candidates), [row.crop for row in shown], one)
        found.append(comparison_of(subjects, saved, shown, chosen))
    return found


def comparison_of(
    subjects: Sequence[Subject], saved: Sequence[SavedReconstructions], rows: Sequence[ImageRow], chosen: Sequence[str]
) -> ImageComparison:
    """The comparison of some images."""
    originals = [common_original(subjects, saved, row.name) for row in rows]
    parts = [cropped(row, original) for row, original in zip(rows, originals, strict=True)]
    recons = [[cropped(row, one.recon(row.name)) for row in rows] for one in saved]
    maps = [[error_map(*pair) for pair in zip(parts, images, strict=True)] for images in recons]
    scale = scale_of([errors for column in maps for errors in column])
    columns = [
        Column(subject.title, images, [colored(errors, scale) for errors in column], subject.model)
        for subject, images, column in zip(subjects, recons, maps, strict=True)
    ]
    framed = [row.crop.framed(image) for row, image in zip(rows, originals, strict=True) if row.crop is not None]
    first = [Column("original", framed), Column("original, crop", parts)] if framed else [Column("original", parts)]
    return ImageComparison(
        RECONSTRUCTIONS,
        conditions_of(subjects[0].record),
        [row.name for row in rows],
        [*first, *columns],
        chosen,
        scale,
        crop=bool(framed),
    )


def cropped(row: ImageRow, image: ndarray) -> ndarray:
    """What is shown of an image."""
    return image if row.crop is None else row.crop.of(image)


def common_names(subjects: Sequence[Subject], saved: Sequence[SavedReconstructions]) -> list[str]:
    """The names of the images that all have. Raises ValueError if there are none."""
    common = set(saved[0].names).intersection(*(one.names for one in saved[1:]))
    if not common:
        raise ValueError(
            f"{' and '.join(f'{s.record.job}-{s.record.id}' for s in subjects)} have no saved image in common. Choose "
            "records of the same images: only=[A,B]."
        )
    return sorted(common)


def evenly_spaced(names: Sequence[str], count: int) -> list[str]:
    """At most `count` names, evenly spaced over all."""
    return list(names) if len(names) <= count else [names[i * len(names) // count] for i in range(count)]


def rows_of(name: str, saved: Sequence[SavedReconstructions], settings: Sequence[SheetSettings]) -> list[ImageRow]:
    """The row of an image under each of some settings."""
    original, recons = saved[0].original(name), [one.recon(name) for one in saved]
    for one, recon in zip(saved, recons, strict=True):
        if recon.shape != original.shape:
            raise ValueError(
                f"The reconstruction of {name} in {one.folder} has {recon.shape[1]} x {recon.shape[0]} px, and its "
                f"original in {saved[0].folder} {original.shape[1]} x {original.shape[0]} px. Choose records of the "
                "same images: only=[A,B]."
            )
    differences = disagreement(original, recons)
    rows = [ImageRow(name, crop_of(differences, one), 0.0) for one in settings]
    return [replace(row, difference=float(cropped(row, differences).mean())) for row in rows]


def crop_of(differences: ndarray, settings: SheetSettings) -> Crop | None:
    """The part of an image that is shown; None for all of it. Raises ValueError for a part that is not in the image."""
    if settings.crop is None:
        return None
    height, width = differences.shape
    if min(height, width) < SMALLEST:
        raise ValueError(
            f"crop enlarges a part of images of {SMALLEST} px and more, and these have {width} x {height} px. Leave it "
            "out: small images are enlarged as a whole."
        )
    if settings.crop == AUTO:
        size = min(height, width) // PARTS
        return Crop(*largest_window(differences, size), size)
    crop = Crop(*map(int, settings.crop))
    if crop.top + crop.size > height or crop.left + crop.size > width:
        raise ValueError(
            f"crop=[{crop.top},{crop.left},{crop.size}] ends at row {crop.top + crop.size} and column "
            f"{crop.left + crop.size}, and the images have {height} rows and {width} columns. Choose a smaller size, "
            "or crop=auto."
        )
    return crop


def common_original(subjects: Sequence[Subject], saved: Sequence[SavedReconstructions], name: str) -> ndarray:
    """An original. Raises ValueError unless it is the same for all."""
    first = saved[0].original(name)
    for subject, one in zip(subjects[1:], saved[1:], strict=True):
        if not np.array_equal(first, one.original(name)):
            records = " and ".join(f"{s.record.job}-{s.record.id}" for s in (subjects[0], subject))
            raise ValueError(
                f"{records} have different originals of the name {name}: they were measured on different images, or on "
                "images of different sizes. Choose records of the same images: only=[A,B]."
            )
    return first


def notes(
    num_tokenizers: int, num_images: int, num_candidates: int, crops: Sequence[Crop | None], settings: SheetSettings
) -> list[str]:
    """What is shown, and how it was chosen."""
    among = (
        f"of {num_images} images"
        if num_candidates == num_images
        else f"of {num_candidates} images, evenly spaced over {num_images}"
    )
    chosen = (
        f"The {len(crops)} {among} on which the reconstructions differ most (mean variance over tokenizers), the "
        "largest difference first."
        if num_tokenizers > 1
        else f"The {len(crops)} {among} with the largest mean squared errors, the largest first."
    )
    errors = (
        "Error maps: absolute error, averaged over colors. All share one scale, which ends at the "
        f"{100 * QUANTILE:.0f}th percentile of what is shown."
    )
    if crops[0] is None:
        return [chosen, errors]
    size = crops[0].size
    where = (
        f"where the {'reconstructions differ' if num_tokenizers > 1 else 'squared error is'} most"
        if settings.crop == AUTO
        else f"from row {crops[0].top} and column {crops[0].left} on"
    )
    return [chosen, f"Crops of {size} x {size} px, {where}; the frame shows them in the original.", errors]
