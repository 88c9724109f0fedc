"""Where histograms are kept, with what is known of their images: what every store does, whichever it is."""

import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from scipy import sparse

from modalign.errors import InvalidInputError

Fact = str | float
Relation = Literal["=", "!=", "<", "<=", ">", ">="]


def fact(text: str) -> Fact:
    """A number where a text is one, else the text."""
    try:
        return float(text)
    except ValueError:
        return text


@dataclass(frozen=True, eq=False)
class Entry:
    """An image as it is kept.

    Attributes:
        name: No other image of the store has it.
        histogram: ``(1, words)``, of unit length or all 0.
        facts: What searches may be limited by, such as modality, case, stain or date.
    """

    name: str
    histogram: sparse.csr_array = field(repr=False)
    facts: Mapping[str, Fact] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.name or self.name != self.name.strip() or "\0" in self.name:
            raise InvalidInputError(f"{self.name!r} is no name for an image: it is empty, or has spaces at its ends")
        odd = [key for key in self.facts if not KEY.fullmatch(key)]
        if odd:
            raise InvalidInputError(f"{odd[0]!r} is no name for a fact: use letters, digits and underscores")


@dataclass(frozen=True)
class Hit:
    """An image that was found.

    Attributes:
        name: Of the image.
        score: Cosine similarity of the histograms, 0 to 1.
        facts: What is known of it.
    """

    name: str
    score: float
    facts: Mapping[str, Fact] = field(default_factory=dict)


@dataclass(frozen=True)
class Condition:
    """What a fact must be. Texts are compared letter by letter, so dates as year-month-day; missing facts never fit."""

    key: str
    relation: Relation
    value: Fact

    @classmethod
    def parsed(cls, text: str) -> "Condition":
        """From a text such as ``stain=HE`` or ``date>=2020-01-31``.

        Raises:
            InvalidInputError: It is not of this form.
        """
        found = CONDITION.fullmatch(text.strip())
        if found is None:
            raise InvalidInputError(
                f"{text!r} is no condition; write for instance stain=HE, case!=7 or date>=2020-01-31"
            )
        key, relation, value = found.groups()
        return cls(key, relation, fact(value))  # type: ignore[arg-type]


KEY = re.compile(r"\w+")
CONDITION = re.compile(r"(\w+)\s*(!=|<=|>=|=|<|>)\s*(.+)")


@runtime_checkable
class Store(Protocol):
    """Keeps histograms and finds the nearest. What was added is there after any crash, and all of it or nothing."""

    def add(self, entries: Sequence[Entry]) -> None:
        """Keep images; those of a name that is there are replaced. All of them or, where it fails, none.

        Raises:
            SearchError: Histograms have another number of words than the store, or it cannot be written.
        """

    def remove(self, names: Collection[str]) -> int:
        """Forget images; returns how many of them were there."""

    def search(self, histogram: sparse.csr_array, count: int, where: Sequence[Condition] = ()) -> list[Hit]:
        """The images with the highest scores above 0, best first, those of one score by name.

        Exact: every image that the conditions allow is compared.
        """

    def names(self) -> list[str]:
        """All images, sorted."""

    def __len__(self) -> int:
        """Number of images."""
