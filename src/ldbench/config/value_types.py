"""Types of config values: whether a value is of one, and how a message names it.

Values are strict: a number with a point is no whole number, and neither is true. Numbers are finite, whole numbers have
at most 31 bits, which torch takes everywhere, and strings are not empty.
"""

import re
from collections.abc import Mapping, Sequence
from functools import cache
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError

Positive = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Share = Annotated[float, Field(ge=0, le=1)]

LARGEST = 2**31 - 1
NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a string", NoneType: "null"}
PLURALS = {int: "whole numbers", float: "numbers", bool: "true or false", str: "strings"}
BOUNDS = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}  # of pydantic.Field


def validate_value(key: str, value: Any, annotation: Any) -> None:
    """Raises ValueError, naming the key and what is expected, for a value that is not of a type."""
    if fits(value, annotation):
        return
    if isinstance(value, int) and abs(value) > LARGEST:
        raise ValueError(f"{key} must be a whole number of at most {LARGEST}, got {value}.")
    if value == "":
        raise ValueError(f"{key} must not be empty. Set it to {expected(annotation)}.")
    hint = ""
    if not isinstance(value, list | Mapping) and fits([value], annotation):
        hint = f" Set {key}=[{shown(value)}]."
    raise ValueError(f"{key} must be {expected(annotation)}, got {shown(value)}.{hint}")


def validate_folder_name(key: str, value: Any) -> None:
    """Raises ValueError for a value that cannot be the name of a folder."""
    if not isinstance(value, str) or not re.fullmatch(r"\w[\w.-]*", value):
        raise ValueError(f"{key} must be letters, digits, '_', '-' and '.', as a folder's name, got {value!r}.")


def fits(value: Any, annotation: Any) -> bool:
    """Whether a plain value (numbers, strings, null, and lists and mappings of these) is of a plain type."""
    try:
        adapter(annotation).validate_python(value)
    except ValidationError:
        return False
    return not _too_large(value)


@cache
def adapter(annotation: Any) -> TypeAdapter[Any]:
    """What checks values of a type."""
    return TypeAdapter(annotation, config=STRICT)


STRICT = ConfigDict(strict=True, allow_inf_nan=False, str_min_length=1)


def _too_large(value: Any) -> bool:
    if isinstance(value, Mapping):
        return any(map(_too_large, value.values()))
    if isinstance(value, list):
        return any(map(_too_large, value))
    return isinstance(value, int) and abs(value) > LARGEST


def is_plain(annotation: Any) -> bool:
    """Whether a type is of values that yaml can hold, and of no component."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return True
    if origin is Annotated:
        return is_plain(arguments[0])
    if origin in (Union, UnionType, Sequence, list, Mapping, dict):
        return all(map(is_plain, arguments))
    return annotation in NAMES


def plain_branches(annotation: Any) -> list[Any]:
    """The plain types among the alternatives of a type."""
    alternatives = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    return [alternative for alternative in alternatives if is_plain(alternative)]


def expected(annotation: Any) -> str:
    """How a message names a type, such as "a whole number of at least 1 or null"."""
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        limits = [
            f"{words} {getattr(limit, field):g}"
            for field, words in BOUNDS.items()
            for limit in arguments[1].metadata
            if hasattr(limit, field)
        ]
        return " ".join([expected(arguments[0]), " and ".join(limits)])
    if origin is Literal:
        return f"one of {', '.join(map(str, arguments))}"
    if origin in (Union, UnionType):
        return " or ".join(map(expected, sorted(arguments, key=lambda argument: argument is NoneType)))
    if origin in (Sequence, list):
        return f"a list of {PLURALS.get(arguments[0], 'values')}"
    if origin in (Mapping, dict):
        return "a mapping"
    return NAMES[annotation]


def shown(value: Any) -> str:
    """A value as yaml writes it."""
    if value is None:
        return "null"
    return str(value).lower() if isinstance(value, bool) else repr(value)
