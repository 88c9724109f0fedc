"""Values of a plan, checked against the types of the options that they are for."""

import math
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from modalign.errors import BatchError

WORDS: Mapping[Any, str] = {
    str: "a text",
    Path: "a path, written as a text",
    int: "a whole number",
    float: "a finite number",
    bool: "true or false",
}


def checked_values(what: str, kind: type, values: Mapping[str, Any], leave: tuple[str, ...] = ()) -> dict[str, Any]:
    """The values for the fields of a dataclass as these hold them: lists as tuples, paths as such.

    Args:
        what: What the values describe, for messages.
        kind: The dataclass.
        values: As TOML has them.
        leave: Fields that a plan cannot set.

    Raises:
        BatchError: There is no such field, or a value has another type than its field.
    """
    hints = get_type_hints(kind)
    names = [entry.name for entry in fields(kind) if entry.name not in leave]
    unknown = [key for key in values if key not in names]
    if unknown:
        raise BatchError(f"{what} has no {', '.join(unknown)}; known are {', '.join(names)}")
    for key, value in values.items():
        if not _fits(hints[key], value):
            raise BatchError(f"{what}: {key} is {_told(hints[key])}, not {value!r}")
    return {key: _held(hints[key], value) for key, value in values.items()}


def _fits(kind: Any, value: Any) -> bool:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_fits(part, value) for part in parts)
    if origin is Literal:
        return value in parts
    if origin is tuple:
        wanted = [parts[0]] * len(value) if isinstance(value, list) and parts[-1] is Ellipsis else list(parts)
        return isinstance(value, list) and len(value) == len(wanted) and all(map(_fits, wanted, value))
    if kind is float:  # bool is an int to Python, and no number to anybody else
        return type(value) in (int, float) and math.isfinite(value)
    return isinstance(value, dict) if origin else type(value) is (str if kind is Path else kind)


def _told(kind: Any) -> str:
    origin, parts = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return " or ".join(_told(part) for part in parts if part is not NoneType)
    if origin is Literal:
        return f"one of {', '.join(map(str, parts))}"
    if origin is tuple:
        number = "a list" if parts[-1] is Ellipsis else f"a list of {len(parts)} values"
        return f"{number}, each {_told(parts[0])}"
    return WORDS.get(kind, "a table")


def _held(kind: Any, value: Any) -> Any:
    if isinstance(value, list):
        return tuple(value)
    return Path(value) if kind is Path else value
