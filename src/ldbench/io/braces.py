"""Patterns of names in braces, as shells and WebDataset have them."""

import re
from itertools import product

BRACES = re.compile(r"\{([^{}]*)\}")
NUMBERS = re.compile(r"(\d+)\.\.(\d+)")
MAX_NAMES = 1_000_000  # that a pattern may stand for


def expand_braces(pattern: str) -> list[str]:
    """The names that `train-{000..127}.tar` or `{a,b}.tar` stand for, in order; the pattern itself without braces.

    Raises ValueError for braces that hold neither, and for more than a million names.
    """
    parts = BRACES.split(pattern)  # text and the inside of braces in turn
    choices: list[list[str]] = []
    for place, part in enumerate(parts):
        if place % 2 == 0:
            choices.append([part])
        elif numbers := NUMBERS.fullmatch(part):
            first, last = int(numbers[1]), int(numbers[2])
            if not 0 <= last - first < MAX_NAMES:
                raise ValueError(f"{{{part}}} in {pattern} stands for no names, or too many. Give FIRST..LAST.")
            choices.append([str(number).zfill(len(numbers[1])) for number in range(first, last + 1)])
        elif "," in part:
            choices.append(part.split(","))
        else:
            raise ValueError(f"{{{part}}} in {pattern} is neither {{FIRST..LAST}} nor {{A,B}}. Write one of them.")
    return ["".join(chosen) for chosen in product(*choices)]
