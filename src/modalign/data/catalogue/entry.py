"""What the catalogue knows of a public set."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from modalign.data.displacement import DisplacedPair
from modalign.data.pairs import Pair
from modalign.errors import InvalidInputError


class Split(NamedTuple):
    """Aligned pairs to train on, and those that take no part in it."""

    train: list[Pair]
    test: list[Pair]


Loader = Callable[[Path, int], Split]
"""Reads the pairs of a folder, split for one fold; folds are counted from 1."""
Displacements = Callable[[Path, int, int], list[DisplacedPair]]
"""Reads the published displaced test pairs of a folder, a fold and a level, both counted from 1."""


@dataclass(frozen=True)
class Entry:
    """A public set of image pairs.

    Attributes:
        name: What it is called here.
        title: What it shows.
        fixed: Modality of the fixed images.
        moving: Modality of the moving images.
        record: Number of its record at Zenodo, which lists files, sizes, checksums and the licence.
        doi: Digital object identifier of the record.
        wanted: Patterns of the names of the files to fetch; an archive whose name fits none of them is left out.
        citation: What its authors ask to be cited.
        contents: What is in it, and how it is split.
        load: Reads its pairs.
        displaced: Reads its displaced test pairs, where it publishes some.
        folds: Number of folds of the cross-validation; 1 where the split is fixed.
        levels: Number of levels of displacement; 0 where none are published.
        by_hand: What the user has to bring, and from where; empty where nothing is.
    """

    name: str
    title: str
    fixed: str
    moving: str
    record: int
    doi: str
    wanted: tuple[str, ...]
    citation: str
    contents: str
    load: Loader
    displaced: Displacements | None = None
    folds: int = 1
    levels: int = 0
    by_hand: str = ""

    @property
    def page(self) -> str:
        """Where a person reads about it, the licence included."""
        return f"https://doi.org/{self.doi}"

    def pairs(self, folder: str | Path, fold: int = 1) -> Split:
        """The aligned pairs in a folder of this set, split as published.

        Raises:
            InvalidInputError: There is no such fold.
            UnreadableFileError: The folder does not hold what was published.
            PairingError: Images are missing or do not fit together.
        """
        self._check("fold", fold, self.folds)
        return self.load(Path(folder), fold)

    def displaced_pairs(self, folder: str | Path, level: int, fold: int = 1) -> list[DisplacedPair]:
        """The published displaced test pairs of a level, with their truth; errors as :meth:`pairs`."""
        self._check("fold", fold, self.folds)
        if self.displaced is None:
            raise InvalidInputError(f"{self.name} publishes no displaced pairs; displace its pairs by a protocol")
        self._check("level", level, self.levels)
        return self.displaced(Path(folder), fold, level)

    def _check(self, what: str, number: int, most: int) -> None:
        if not 1 <= number <= most:
            raise InvalidInputError(f"{self.name} has {what} 1 to {most}, not {number}")
