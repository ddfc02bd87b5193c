"""Estimates that are the same for all models, such as those of real images: measured once, and kept in a file."""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path

from ldbench.core.estimate import Estimate
from ldbench.io.files import atomic_write, read_json
from ldbench.results.records import encode, read_estimate


def stored_estimates(path: Path, measure: Callable[[], Iterable[tuple[str, Estimate]]]) -> dict[str, Estimate]:
    """The estimates in a file, which is written if it is missing: numbers to the last bit.

    Raises ValueError, naming the file, if it cannot be read.
    """
    if not path.is_file():
        found = dict(measure())
        content = {name: {key: encode(value) for key, value in asdict(held).items()} for name, held in found.items()}
        with atomic_write(path) as scratch:
            scratch.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n", encoding="utf-8")
        return found
    try:
        return {name: read_estimate(numbers) for name, numbers in read_json(path).items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} contains no estimates ({error}). Remove it: it is then measured again.") from error
