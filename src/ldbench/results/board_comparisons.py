"""Which images the models of leaderboards are compared by: one comparison for each leaderboard with saved images."""

import logging
from collections.abc import Sequence
from pathlib import Path

from ldbench.results.image_comparison import (
    RECONSTRUCTIONS,
    SAMPLES,
    ImageComparison,
    SheetSettings,
    Subject,
    how_to_save,
    named_subjects,
    none_saved,
    subjects_of,
)
from ldbench.results.leaderboards import Leaderboard
from ldbench.results.reconstruction_comparison import compare_for_page, compare_reconstructions
from ldbench.results.records import Record
from ldbench.results.sample_comparison import compare_samples, of_one_seed
from ldbench.results.saved_images import saved_reconstructions, saved_samples

log = logging.getLogger(__name__)

KINDS = {RECONSTRUCTIONS: "reconstruct", SAMPLES: "generate"}  # -> the job whose images these are
COMPARE = {RECONSTRUCTIONS: compare_reconstructions, SAMPLES: compare_samples}
ON_PAGE = {RECONSTRUCTIONS: compare_for_page, SAMPLES: lambda *given: [compare_samples(*given)]}
FEWEST = {RECONSTRUCTIONS: 1, SAMPLES: 2}  # models on the page: samples of a single one are on its own sheet


def compare_boards(
    boards: Sequence[Leaderboard], folder: Path, kind: str, settings: SheetSettings
) -> list[ImageComparison]:
    """The comparison of each leaderboard of which models have saved images.

    Raises ValueError if there is none, and for images that cannot be compared.
    """
    found = [subjects for board in boards if (subjects := board_subjects(board, folder, kind))]
    if not found:
        raise none_saved(folder, KINDS[kind])
    return [COMPARE[kind](subjects, folder, settings) for subjects in found]


def compare_named(
    records: Sequence[Record], chosen: Sequence[Record], folder: Path, kind: str, settings: SheetSettings
) -> ImageComparison:
    """The comparison of the records that a command names. Raises ValueError for records of another job, for those
    without saved images, and for images that cannot be compared.
    """
    for record in chosen:
        name = f"{record.job}-{record.id}"
        if record.job != KINDS[kind]:
            raise ValueError(f"sheet={kind} shows images of job={KINDS[kind]}, and {name} is of job={record.job}.")
        if not has_images(record, folder):
            raise ValueError(f"{name} has no images beside it. {how_to_save(record.job)}")
    return COMPARE[kind](named_subjects(records, chosen), folder, settings)


def page_comparisons(
    boards: Sequence[Leaderboard], folder: Path, settings: SheetSettings
) -> list[tuple[Leaderboard, ImageComparison]]:
    """The comparisons of all leaderboards for the page: whole images, and for large ones the crops in which
    reconstructions differ most. What cannot be compared is left out, with a warning.
    """
    found = []
    for kind in KINDS:
        for board in boards:
            if len(subjects := board_subjects(board, folder, kind)) >= FEWEST[kind]:
                try:
                    found += [(board, one) for one in ON_PAGE[kind](subjects, folder, settings)]
                except ValueError as error:
                    log.warning("The page shows no %s of %s side by side: %s", kind, board.conditions.name, error)
    return found


def board_subjects(board: Leaderboard, folder: Path, kind: str) -> list[Subject]:
    """The models of a leaderboard with saved images of a kind; for samples, those of one seed."""
    if board.conditions.job != KINDS[kind]:
        return []
    shown = [record for row in board.rows for record in row.records if has_images(record, folder)]
    return subjects_of(board, of_one_seed(board, shown) if kind == SAMPLES else shown)


def has_images(record: Record, folder: Path) -> bool:
    """Whether the images of a record are beside it."""
    return saved_reconstructions(folder, record) is not None or saved_samples(folder, record) is not None
