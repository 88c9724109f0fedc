"""The images of a collection: all of a folder, or those of a table with what is known of them."""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import get_args

from modalign.errors import InvalidInputError, PairingError
from modalign.geometry.grid import Unit
from modalign.io import image_files
from modalign.io.tables import parse_table

OWN = ("image", "name", "side", "pixel_size", "unit")
"""Columns of a table of images that are not facts."""
SHOWN = 5
"""Problems named in one message."""


Fact = str | float
NUMBER = re.compile(r"[+-]?(0|[1-9]\d*)(\.\d+)?([eE][+-]?\d+)?")


def fact(text: str) -> Fact:
    """A number where a text is one, else the text; with zeros before it, as in numbers of cases, it is a text."""
    return float(text) if NUMBER.fullmatch(text) else text


@dataclass(frozen=True)
class Member:
    """An image of a collection.

    Attributes:
        name: No other one has it.
        path: Its file.
        side: Which modality of the model it belongs to, ``"fixed"`` or ``"moving"``; empty where nobody said.
        pixel_size: What replaces that of the file: one number, or one an axis; empty for none.
        unit: Its unit.
        facts: What else the table says, by the names of its columns; numbers where a column has nothing else.
    """

    name: str
    path: Path
    side: str = ""
    pixel_size: tuple[float, ...] = ()
    unit: str = "micrometer"
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.side not in ("", "fixed", "moving"):
            raise InvalidInputError(f"a side is fixed or moving, not {self.side!r}")
        if self.unit not in get_args(Unit):
            raise InvalidInputError(f"{self.unit!r} is no unit; there are {', '.join(get_args(Unit))}")
        if not all(0 < size < inf for size in self.pixel_size):
            raise InvalidInputError("a pixel size must be more than 0 and finite")


def find_members(collection: Path, check: Callable[[Collection[str]], None] = lambda _: None) -> list[Member]:
    """The images of a folder, also of the folders in it, or of a table; in order of their names.

    A table has a column ``image`` with paths relative to it; ``name``, ``side``, ``pixel_size`` and ``unit`` where
    wanted; all other columns are facts. Without a name an image is called by its path as the table, or the folder, has
    it.

    Args:
        collection: The folder or table.
        check: Raises an :class:`~modalign.errors.InvalidInputError` for names of facts that cannot be.

    Raises:
        PairingError: There is no image, two have one name, or the table makes no sense; the lines are named.
        UnreadableFileError: The folder or table does not exist or cannot be read.
    """
    found = _of_folder(collection, collection) if collection.is_dir() else _of_table(collection, check)
    if not found:
        raise PairingError(f"{collection} has no image that modalign can read")
    return sorted(found, key=lambda member: member.name)


def _of_folder(folder: Path, root: Path) -> list[Member]:
    images = image_files(folder)
    found = [Member(path.relative_to(root).as_posix(), path) for path in images]
    inner = (path for path in sorted(folder.iterdir()) if path.is_dir() and not path.name.startswith("."))
    for path in inner:
        if path not in images:
            found += _of_folder(path, root)
    return found


def _of_table(path: Path, check: Callable[[Collection[str]], None]) -> list[Member]:
    table = parse_table(path)
    numbers = {
        column
        for column in table.columns
        if all(isinstance(fact(row[column]), float) for _, row in table.rows if row[column])
    }
    if "image" not in table.columns:
        raise PairingError(f"{path}: a table of images needs a column 'image'; it has {', '.join(table.columns)}")
    try:
        check([column for column in table.columns if column not in OWN])
    except InvalidInputError as error:
        raise PairingError(f"{path}: {error}") from error
    members: dict[str, Member] = {}
    problems = []
    for line, row in table.rows:
        try:
            member = _of_row(path.parent, row, numbers)
        except ValueError as error:
            problems.append(f"line {line}: {error}")
            continue
        if member.name in members:
            problems.append(f"line {line}: there is an image {member.name!r} already")
        members[member.name] = member
    if problems:
        more = f" and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise PairingError(f"{path}: {'; '.join(problems[:SHOWN])}{more}")
    return list(members.values())


def _of_row(base: Path, row: Mapping[str, str], numbers: Collection[str]) -> Member:
    if not row["image"]:
        raise InvalidInputError("no image is named")
    try:
        size = tuple(float(number) for number in row.get("pixel_size", "").split())
    except ValueError as error:
        raise InvalidInputError(f"{row['pixel_size']!r} is no pixel size") from error
    told = {key: value for key, value in row.items() if key not in OWN and value}
    facts = {key: fact(value) if key in numbers else value for key, value in told.items()}
    name = row.get("name") or Path(row["image"]).as_posix()
    return Member(name, base / row["image"], row.get("side", ""), size, row.get("unit") or "micrometer", facts)
