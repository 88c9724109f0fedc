"""A verb with the options of the engine that its arguments name."""

from collections.abc import Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from modalign.registration import ENGINES, Auto

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]

Verb = TypeVar("Verb")


def with_engine_options(verb: type[Verb], arguments: Sequence[str]) -> type[Verb]:
    """The verb with the options of the engine that the arguments name, and of no other: nine at once help nobody.

    Args:
        verb: A dataclass with the fields ``engine`` and ``method``.
        arguments: The arguments of the command line.
    """
    default = ENGINES.get(_engine_name(arguments), Auto())
    flat: Any = Annotated[type(default), tyro.conf.arg(name="")]
    fields: list[Any] = [("method", flat, field(default=default, kw_only=True))]
    chosen = make_dataclass(verb.__name__, fields, bases=(verb,), frozen=True)
    chosen.__doc__ = verb.__doc__
    return chosen


def _engine_name(arguments: Sequence[str]) -> str:
    """The value of the last ``--engine``; what else stands there is the parser's to judge."""
    name = "auto"
    for position, argument in enumerate(arguments):
        if argument.startswith("--engine="):
            name = argument.partition("=")[2]
        elif argument == "--engine" and position + 1 < len(arguments):
            name = arguments[position + 1]
    return name
