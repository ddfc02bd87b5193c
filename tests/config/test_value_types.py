"""Which values are of which types, and how messages name them."""

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

import pytest
from pydantic import Field

from ldbench.config.value_types import LARGEST, Natural, expected, fits, is_plain, shown, validate_value


@pytest.mark.parametrize(
    ("annotation", "values", "others"),
    [
        (int, [0, -3, LARGEST], [True, 1.0, "1", None, LARGEST + 1, [1]]),
        (float, [0, 1.5, -2], [True, math.nan, math.inf, "1", None]),
        (bool, [True, False], [0, 1, "true", None]),
        (str, ["a"], ["", 1, None, ["a"]]),
        (float | None, [None, 1, 0.5], [False, "x"]),
        (Literal["a", "b"], ["a"], ["c", "", None, 1]),
        (Sequence[int], [[], [1, 2]], [1, "12", [1.5], [True], None, [LARGEST + 1]]),
        (str | Sequence[int], ["balanced", [3]], [3, [None]]),
        (Mapping[str, str | None], [{}, {"a": None}, {"a": "b"}], [{"a": 1}, [], None]),
        (Natural, [0, 4], [-1, 1.0, None]),
        (Annotated[float, Field(gt=0, le=1)], [1, 0.5], [0, 1.1, math.nan]),
    ],
)
def test_values_fit_strictly(annotation: Any, values: list[Any], others: list[Any]) -> None:
    assert is_plain(annotation)
    assert all(fits(value, annotation) for value in values)
    assert not any(fits(value, annotation) for value in others)


@pytest.mark.parametrize(
    ("annotation", "words"),
    [
        (int | None, "a whole number or null"),
        (None | float, "a number or null"),
        (Natural, "a whole number of at least 0"),
        (Annotated[float, Field(gt=0, le=1)], "a number above 0 and of at most 1"),
        (Literal["a", "b"] | None, "one of a, b or null"),
        (int | Sequence[int] | None, "a whole number or a list of whole numbers or null"),
        (Mapping[str, str], "a mapping"),
    ],
)
def test_types_are_named_in_words(annotation: Any, words: str) -> None:
    assert expected(annotation) == words


def test_values_are_shown_as_yaml_writes_them() -> None:
    assert [shown(value) for value in (None, True, False, 0, 1, "a")] == ["null", "true", "false", "0", "1", "'a'"]


def test_a_single_value_in_place_of_a_list_gets_the_list_as_advice() -> None:
    with pytest.raises(ValueError, match=r"^key must be a list of strings, got 'a'\. Set key=\['a'\]\.$"):
        validate_value("key", "a", Sequence[str])


def test_components_are_no_plain_values() -> None:
    assert not is_plain(test_components_are_no_plain_values.__class__)
    assert not is_plain(Any)
