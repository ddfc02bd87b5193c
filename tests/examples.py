"""How many examples run: hypothesis tries a quarter by default and all in the profile `thorough` of `make test-all`."""

from collections.abc import Iterable
from itertools import product
from typing import Any

import pytest
from hypothesis import settings

settings.register_profile("default", deadline=None, max_examples=25)
settings.register_profile("thorough", deadline=None, max_examples=100)


def examples(most: int, **more: Any) -> settings:
    """Settings of so many examples at most."""
    thorough = settings.get_current_profile_name() == "thorough"
    return settings(deadline=None, max_examples=most if thorough else max(2, most // 4), **more)


def checkerboard(rows: Iterable[str], columns: Iterable[str]) -> list[Any]:
    """All pairs as a test's parameters; every second one is slow, so that each row and column keeps a fast one."""
    pairs = product(enumerate(rows), enumerate(columns))
    return [pytest.param(a, b, marks=pytest.mark.slow if (i + j) % 2 else ()) for (i, a), (j, b) in pairs]
