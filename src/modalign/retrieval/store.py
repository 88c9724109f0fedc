"""Where histograms are kept, with what is known of their images: what every store does, whichever it is."""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol, runtime_checkable

from scipy import sparse

from modalign.data.collection import Fact as Fact
from modalign.data.collection import fact as fact
from modalign.errors import InvalidInputError, SearchError
from modalign.retrieval.definition import Definition

Relation = Literal["=", "!=", "<", "<=", ">", ">="]


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
        check_keys(self.facts)


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
    """What a fact must be.

    Numbers are compared with numbers, and texts with texts, letter by letter, so dates as year-month-day. Between a
    number and a text only ``!=`` holds; a fact that an image does not have never fits.
    """

    key: str
    relation: Relation
    value: Fact

    def __post_init__(self) -> None:
        check_keys([self.key])

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


def check_keys(keys: Iterable[str]) -> None:
    """Refuse what is no name for a fact.

    Raises:
        InvalidInputError: One has other characters than letters, digits and underscores.
    """
    odd = [key for key in keys if not KEY.fullmatch(key)]
    if odd:
        raise InvalidInputError(f"{odd[0]!r} is no name for a fact: use letters, digits and underscores")


KEY = re.compile(r"\w+")
CONDITION = re.compile(r"(\w+)\s*(!=|<=|>=|=|<|>)\s*([^=<>!\s].*)")


@runtime_checkable
class Store(Protocol):
    """Keeps histograms and finds the nearest. What was added is there after any crash, and all of it or nothing.

    Laws: :class:`modalign.testing.retrieval.StoreLaws`.
    """

    @property
    def definition(self) -> Definition:
        """What all histograms here have in common; it never changes."""

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

        Raises:
            InvalidInputError: The histogram has another number of words than the store, or there is room for no hit.
            SearchError: The store cannot be read.
        """

    def facts(self, names: Collection[str]) -> dict[str, Mapping[str, Fact]]:
        """What is known of images, of those that are there."""

    def names(self) -> list[str]:
        """All images, sorted letter by letter."""

    def __len__(self) -> int:
        """Number of images."""

    def close(self) -> None:
        """Let go of files and connections."""


def latest(entries: Sequence[Entry], words: int) -> dict[str, Entry]:
    """The last entry of each name.

    Raises:
        SearchError: A histogram has another number of words.
    """
    odd = [entry.name for entry in entries if entry.histogram.shape != (1, words)]
    if odd:
        raise SearchError(f"the histogram of {odd[0]} is not one of the {words} words of this index")
    return {entry.name: entry for entry in entries}


def check_search(histogram: sparse.csr_array, count: int, words: int) -> None:
    """Refuse what cannot be searched for.

    Raises:
        InvalidInputError: The histogram has another number of words, or there is room for no hit.
    """
    if histogram.shape != (1, words) or count < 1:
        raise InvalidInputError(f"a search needs a histogram of {words} words, and room for at least one hit")


def ranked(hits: Iterable[Hit], count: int) -> list[Hit]:
    """The best hits, those of one score by name."""
    return sorted(hits, key=lambda hit: (-hit.score, hit.name))[:count]
