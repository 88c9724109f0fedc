"""How the pairs of a benchmark come to be misaligned: by known displacements, or as they were taken."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import ClassVar

from modalign.data.displacement import DisplacementProtocol
from modalign.errors import BatchError

LEVELS = (1, 2, 3, 4)


@dataclass(frozen=True)
class Comir:
    """Random rotations and shifts: the protocol of Pielawski et al., NeurIPS 2020, and its wider variants."""

    max_rotation_degrees: float = 30.0
    """Rotations up to this angle to both sides."""
    draws: int = 1
    """Displacements of every pair."""
    mirror_fraction: float = 0.0
    """Share of the displacements that also mirror."""
    datasets: tuple[str, ...] = ("*",)
    """Names or patterns of the sets it is used on."""

    kind: ClassVar[str] = "comir"

    def __post_init__(self) -> None:
        _check_draws(self.draws)
        if not (0 <= self.max_rotation_degrees <= 180 and 0 <= self.mirror_fraction <= 1):
            raise BatchError(
                "rotations reach up to 0° to 180° and a share of 0 to 1 is mirrored, "
                f"not {self.max_rotation_degrees:g}° and {self.mirror_fraction:g}"
            )

    @property
    def name(self) -> str:
        """What the tables call it."""
        return f"±{self.max_rotation_degrees:g}°" + (", mirrored" if self.mirror_fraction else "")

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its kinds of displacements."""
        return (self.name,)

    def displacement(self, _label: str, width: int, ndim: int, seed: int) -> DisplacementProtocol:
        """The displacements of its only label."""
        return replace(
            DisplacementProtocol.comir(width, ndim),
            max_rotation_degrees=self.max_rotation_degrees,
            draws=self.draws,
            seed=seed,
            mirror_fraction=self.mirror_fraction,
        )


@dataclass(frozen=True)
class MultiRegEval:
    """Levels of growing displacement: the protocol of Lu et al., PLOS ONE 17(11), 2022."""

    levels: tuple[int, ...] = LEVELS
    """Which of the levels."""
    draws: int = 1
    """Displacements of every pair at every level."""
    datasets: tuple[str, ...] = ("*",)
    """Names or patterns of the sets it is used on."""

    kind: ClassVar[str] = "multiregeval"

    def __post_init__(self) -> None:
        _check_draws(self.draws)
        if not self.levels or not set(self.levels) <= set(LEVELS) or len(set(self.levels)) < len(self.levels):
            raise BatchError(f"levels are some of {', '.join(map(str, LEVELS))}, each once, not {list(self.levels)}")

    @property
    def name(self) -> str:
        """What the tables call it."""
        return "levels " + ", ".join(map(str, self.levels))

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of its kinds of displacements."""
        return tuple(f"level {level}" for level in self.levels)

    def displacement(self, label: str, width: int, ndim: int, seed: int) -> DisplacementProtocol:
        """The displacements of one of the labels."""
        level = self.levels[self.labels.index(label)]
        kinds: dict[int, Callable[[], DisplacementProtocol]] = {
            2: lambda: DisplacementProtocol.multiregeval(width, level),
            3: lambda: DisplacementProtocol.multiregeval_volume((width, width, width), level),
        }
        return replace(kinds[ndim](), draws=self.draws, seed=seed)


@dataclass(frozen=True)
class Natural:
    """The images as they were taken: the truth is a transform or are landmarks that the table of pairs names."""

    datasets: tuple[str, ...] = ("*",)
    """Names or patterns of the sets it is used on."""

    kind: ClassVar[str] = "natural"
    draws: ClassVar[int] = 1

    @property
    def name(self) -> str:
        """What the tables call it."""
        return "natural"

    @property
    def labels(self) -> tuple[str, ...]:
        """Its name: there is one kind."""
        return (self.name,)


Protocol = Comir | MultiRegEval | Natural
PROTOCOLS: dict[str, type[Protocol]] = {kind.kind: kind for kind in (Comir, MultiRegEval, Natural)}


def check_width(width: int | None, dataset: str) -> int:
    """The width of the patches, where displacements need one."""
    if width is None or width < 16:
        told = "" if width is None else f", not {width}"
        raise BatchError(f"the dataset {dataset!r} is displaced and needs a width of at least 16 pixels{told}")
    return width


def _check_draws(draws: int) -> None:
    if draws < 1:
        raise BatchError(f"draws must be at least 1, not {draws}")
