"""The check of a data set: whether it is laid out as it should be and can be read, and how much there is of it."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ldbench.checks.finding import Finding

if TYPE_CHECKING:
    from ldbench.core.interfaces import ImageData

CURES = (
    "Repair",
    "Set ",
    "Sort ",
    "Fill ",
    "Move ",
    "Remove ",
    "Restore ",
    "Choose ",
    "Give ",
    "Add ",
    "Lay ",
    "Unpack ",
    "Copy ",
    "Change ",
    "Name ",
)


def check_data(make: Callable[[], "ImageData"]) -> list[Finding]:
    """Whether a data set can be made, which decodes its images where data.check is decode."""
    try:
        data = make()
    except (ValueError, OSError) as error:
        what, cure = parted(" ".join(str(error).split()))
        return [Finding("broken", "data", what, cure)]
    told = f"{data.name}: {len(data.train)} training and {len(data.test)} test images of {data.num_classes} classes"
    skipped = getattr(data, "skipped", ())
    if skipped:
        cure = "Repair or remove them: every measurement counts the others alone."
        return [Finding("warning", "data", f"{told}; {len(skipped)} cannot be read (first: {skipped[0]})", cure)]
    return [Finding("ok", "data", told)]


def parted(said: str) -> tuple[str, str]:
    """What is wrong and what to do, of an error that says both: the last sentences, from the first that begins with a word of doing."""
    starts = [place for word in CURES if (place := said.find(f" {word}")) > 0]
    if not starts:
        return said, "Look at what this names, and say data=..., data.root=DIR as in a training."
    return said[: min(starts)].rstrip(), said[min(starts) + 1 :]
