"""A verb with the options of the engine, or of another replaceable part, that its arguments name."""

from collections.abc import Mapping, Sequence
from dataclasses import field, make_dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import tyro

from modalign.registration import ENGINES

if TYPE_CHECKING:
    EngineName = str
else:
    EngineName = Literal[tuple(ENGINES)]

Verb = TypeVar("Verb")


def with_engine_options(verb: type[Verb], arguments: Sequence[str], usual: str = "auto") -> type[Verb]:
    """The verb with the options of the engine that the arguments name, and of no other: nine at once help nobody.

    Args:
        verb: A dataclass with the fields ``engine`` and ``method``.
        arguments: The arguments of the command line.
        usual: The engine where they name none.
    """
    return with_options(verb, arguments, "engine", "method", ENGINES, usual)


def with_options(
    verb: type[Verb], arguments: Sequence[str], option: str, name: str, parts: Mapping[str, Any], usual: str
) -> type[Verb]:
    """The verb with the options of the part that the arguments name.

    Args:
        verb: A dataclass with a field for the option.
        arguments: The arguments of the command line.
        option: Names a part.
        name: The field that holds the part with its options.
        parts: Each with its usual options.
        usual: The part where the arguments name none.
    """
    default = parts.get(_named(arguments, option, usual), parts[usual])
    flat: Any = Annotated[type(default), tyro.conf.arg(name="")]
    fields: list[Any] = [(name, flat, field(default=default, kw_only=True))]
    chosen = make_dataclass(verb.__name__, fields, bases=(verb,), frozen=True)
    chosen.__doc__ = verb.__doc__
    return chosen


def _named(arguments: Sequence[str], option: str, usual: str) -> str:
    """The last value of an option; what else stands there is the parser's to judge."""
    name = usual
    for position, argument in enumerate(arguments):
        if argument.startswith(f"--{option}="):
            name = argument.partition("=")[2]
        elif argument == f"--{option}" and position + 1 < len(arguments):
            name = arguments[position + 1]
    return name
