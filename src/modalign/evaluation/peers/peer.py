"""What the peers share: a tool of others as a registration method, from where the centres of the images coincide."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib import import_module
from types import ModuleType
from typing import ClassVar, Literal

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Linear, Rigid, as_rows, rotation_matrix
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.information import Level, scored
from modalign.registration.registrar import Registration

Array = np.ndarray
Kind = Literal["rigid", "affine"]
KINDS: dict[Kind, type[Linear]] = {"rigid": Rigid, "affine": Affine}
"""What may change: rotation and shift, or everything linear."""
JUDGED_SIDE = 256
"""Pixels along the longest side of the images on which the results of several starts are compared."""


class PeerFailure(Exception):  # noqa: N818 - it never leaves this package: a failure is a value there
    """The tool found nothing, or gave up."""


class Peer(Engine):
    """Base of the peers: a frozen dataclass of options that implements :meth:`solve`.

    Both images become one channel each (luminance of colours), in one unit of length. The tool works on them as they
    are, with pixel size, origin and direction, from where their centres coincide, once for every starting rotation. It
    judges nothing, so neither does its peer: whatever it finds is ``unsure``.
    """

    package: ClassVar[str] = ""
    """What is to be installed beside modalign, as pip calls it; empty where nothing is."""
    module: ClassVar[str]
    """The module that the tool is imported as."""

    @property
    def starts(self) -> Sequence[float]:
        """Rotations to start from in degrees, in the plane of the last two axes."""
        return (0.0,)

    @abstractmethod
    def solve(self, fixed: Image, moving: Image) -> Linear:
        """The transform that the tool finds from fixed to moving world points, started from the identity.

        Args:
            fixed: One channel.
            moving: One channel, placed where the start has it.

        Raises:
            PeerFailure: The tool gave up.
        """

    def library(self) -> ModuleType:
        """The tool, imported: slow the first time, so that a fair timing calls this before.

        Raises:
            InvalidInputError: It is not installed.
        """
        try:
            return import_module(self.module)
        except ImportError as error:
            raise InvalidInputError(
                f"{self.name} needs the package {self.package or self.module}: pip install 'modalign[benchmark]'"
            ) from error

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform as the tool would for its users."""
        self.library()
        space = workspace.harmonised(fixed, moving)
        pair = workspace.pictures(space.fixed, space.moving)
        found: list[Linear] = []
        for degrees in self.starts:
            try:
                found.append(self._found(*pair, degrees))
            except PeerFailure as failure:
                reason = str(failure)
        if not found:
            advice = "the tool needs images that lie nearly on each other and share their looks"
            return Registration(self.name, "refused", None, (f"{self.name} gave up ({reason}); {advice}",))
        best = found[0] if len(found) == 1 else most_informative(*pair, found)
        return Registration(self.name, "unsure", space.to_world(best), (f"{self.name} gives no verdict of its own",))

    def _found(self, fixed: Image, moving: Image, degrees: float) -> Linear:
        """The transform found from one start, in a world with its origin at the centre of the fixed image.

        Some tools turn about the origin of the world; and theirs is a world of single precision.
        """
        back = Rigid(as_rows(np.eye(fixed.ndim)), tuple(fixed.grid.center.tolist()))
        start = Rigid.from_matrix(centred(fixed.grid, moving.grid, degrees).matrix @ back.matrix)
        found = self.solve(placed(fixed, back), placed(moving, start))
        return workspace.smallest_group(start.matrix @ found.matrix @ back.inverse().matrix)


def centred(fixed: Grid, moving: Grid, degrees: float = 0.0) -> Rigid:
    """The rigid transform between the centres of two grids with a rotation in the plane of the last two axes."""
    return Rigid.about(fixed.center, rotation_matrix(fixed.ndim, degrees), moving.center - fixed.center)


def placed(image: Image, start: Rigid) -> Image:
    """An image, its pixels untouched, in a world from which a start leads into its own."""
    back = start.inverse()
    origin = tuple(back.map_points(np.array(image.grid.origin)).tolist())
    return image.with_grid(replace(image.grid, origin=origin, direction=as_rows(back.linear @ image.grid.direction)))


def most_informative(fixed: Image, moving: Image, found: Sequence[Linear]) -> Linear:
    """Of several transforms, the one under which the overlap tells most: mutual information times overlap."""
    level = Level.of(fixed, moving, workspace.finest_spacing(fixed, moving, JUDGED_SIDE))
    return max(found, key=lambda transform: scored(level, transform, 0).rank)


def probed(apply: Callable[[list[float]], Sequence[float]], grid: Grid, kind: Kind) -> Linear:
    """The linear transform that a function of one (x, y, z) point computes, probed around the centre of a grid."""
    center, step = grid.center, max(grid.extent)

    def value(point: Float[Array, " ndim"]) -> Float[Array, " ndim"]:
        return np.array(apply(point[::-1].tolist()), dtype=float)[::-1]

    matrix = np.eye(grid.ndim + 1)
    steps = step * np.eye(grid.ndim)
    matrix[:-1, :-1] = np.stack([value(center + d) - value(center - d) for d in steps], axis=1) / (2 * step)
    matrix[:-1, -1] = value(center) - matrix[:-1, :-1] @ center
    return KINDS[kind].from_matrix(matrix)


def check_kind(kind: str) -> None:
    """Refuse a kind of transform that no peer has."""
    if kind not in KINDS:
        raise InvalidInputError(f"transform is one of {', '.join(KINDS)}, not {kind!r}")
