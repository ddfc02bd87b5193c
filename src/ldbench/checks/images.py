"""The check of a dataset: its layout, whether it can be read, and its size."""

from collections.abc import Callable
from typing import TYPE_CHECKING

from ldbench.checks.finding import Finding

if TYPE_CHECKING:
    from ldbench.core.interfaces import ImageData

CURES = (  # the first words of a sentence about what to do
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
    "Check ",
    "Run ",
    "Run: ",
    "Write ",
    "Use ",
)


def check_data(build: Callable[[], "ImageData"]) -> list[Finding]:
    """Builds a dataset, which decodes its images if data.check is decode."""
    try:
        data = build()
    except (ValueError, OSError) as error:
        what, cure = split_cure(" ".join(str(error).split()))
        return [Finding("broken", "data", what, cure)]
    classes = f"{data.num_classes} class{'es' if data.num_classes > 1 else ''}"
    described = f"{data.name}: {len(data.train)} training and {len(data.test)} test images of {classes}"
    skipped = getattr(data, "skipped", ())
    if skipped:
        cure = "Repair or remove them: every measurement uses the others only."
        return [Finding("warning", "data", f"{described}; {len(skipped)} cannot be read (first: {skipped[0]})", cure)]
    return [Finding("ok", "data", described)]


def split_cure(message: str) -> tuple[str, str]:
    """What is wrong and what to do, from an error message: the second starts at the first word of `CURES`."""
    starts = [start for verb in CURES if (start := message.find(f" {verb}")) > 0]
    if not starts:
        return message, "Check what this names, and set data=..., data.root=DIR as in a training."
    return message[: min(starts)].rstrip(), message[min(starts) + 1 :]
