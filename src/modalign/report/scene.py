"""What the viewer of a report shows: sections of both images on one grid, before and after, as 8-bit pictures."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from jaxtyping import Bool, UInt8

from modalign.geometry import Grid, Linear, Transform
from modalign.geometry.grid import Unit
from modalign.image import Image
from modalign.registration.poses import linear_scale
from modalign.registration.workspace import isotropic
from modalign.report.comparison import Comparison
from modalign.report.content import AXES, ReportContent
from modalign.report.overlay import RGB, bounded, magenta_green, pictures, section

Array = np.ndarray
ROLES = ("fixed", "before", "after")
"""The pictures of a source, in the order in which they are made; the last is missing where there is no transform."""
WHITE = 255.0
RANGE_PIXELS = 50_000
"""Pixels that suffice to know how gray follows from colours."""
ANTIALIASED = 1.5
"""A moving image with pixels smaller than the shown ones by more than this is averaged before it is sampled."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture for the viewer, in colours and in the gray levels that overlays are made of.

    Attributes:
        colour: ``(y, x, 3)``.
        gray: ``(y, x)``; bright-field images are inverted, see :func:`modalign.report.magenta_green`.
        valid: ``(y, x)``, false where there is nothing to show.
        mixes: Whether the colours are mixtures of other channels, whose mean they do not tell.
    """

    colour: UInt8[Array, "y x 3"]
    gray: UInt8[Array, "y x"]
    valid: Bool[Array, "y x"]
    mixes: bool = False

    @property
    def range(self) -> tuple[float, float] | None:
        """The means of red, green and blue that are black and white in gray; ``None`` where the colours are mixtures.

        White is below black in inverted pictures.
        """
        if self.mixes:
            return None
        means, levels = self.colour.mean(axis=-1)[self.valid], self.gray[self.valid].astype(float)
        inner = (levels > 0) & (levels < WHITE)  # beyond, gray does not follow the colours
        means, levels = (values[inner][:: 1 + inner.sum() // RANGE_PIXELS] for values in (means, levels))
        if not len(levels) or np.ptp(levels) == 0:
            return 0.0, WHITE
        slope, black = np.polyfit(levels, means, 1)
        return float(black), float(black + WHITE * slope)


@dataclass(frozen=True, eq=False)
class Plane:
    """A section of both images, with square pixels.

    Attributes:
        title: Which section it is; empty for 2D images.
        pictures: By source (``originals``, ``representations``) and role (``fixed``, ``before``, ``after``).
        grid: Of the section in the world of the fixed image, with one voxel along the axes that it cuts.
        axes: Names of the two axes shown, the vertical one first.
    """

    title: str
    pictures: dict[tuple[str, str], Picture]
    grid: Grid
    axes: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """Height and width in shown pixels."""
        return next(iter(self.pictures.values())).gray.shape

    @property
    def spacing(self) -> float:
        """Size of a shown pixel, in ``unit``."""
        return self.grid.spacing[AXES[-self.grid.ndim :].index(self.axes[-1])]

    @property
    def unit(self) -> Unit:
        """Unit of lengths in the section."""
        return self.grid.unit


def scene(content: ReportContent, side: int) -> list[Plane]:
    """The sections of a report: the whole image in 2D, and the middle one across each axis of a volume.

    After is the aligned image itself, and where the registration was refused, the moving image under the rejected
    transform, if there is one. Before has the middles of both images on each other.

    Args:
        content: What to show.
        side: Most pixels along the longest side of a section; larger images are averaged.
    """
    content = _bounded(content)
    ndim = content.fixed.ndim
    cuts = combinations(range(ndim), max(ndim - len(("y", "x")), 0))
    return [_plane(content, cut, side) for cut in cuts]


def _bounded(content: ReportContent) -> ReportContent:
    """The content without numbers that overflow where they are averaged."""
    warped = None if content.warped is None else bounded(content.warped)
    seen = content.representations
    representations = None if seen is None else (bounded(seen[0]), bounded(seen[1]))
    bare = replace(content, warped=warped, representations=representations)
    return replace(bare, fixed=bounded(content.fixed), moving=bounded(content.moving))


def _plane(content: ReportContent, cut: tuple[int, ...], side: int) -> Plane:
    originals = Comparison.of(content.fixed, content.moving)
    names = AXES[-content.fixed.ndim :]
    shown = _Section.of(originals.fixed, cut, side)
    made = {"originals": _rendered(shown.of_fixed(originals.fixed), _moved(originals, content, shown, content.warped))}
    if content.representations is not None:
        representations = Comparison.of(*content.representations)
        moved = _moved(representations, content, shown, None)
        made["representations"] = _rendered(shown.of_fixed(representations.fixed), moved, one_scale=True)
    layers = {(source, role): picture for source, roles in made.items() for role, picture in roles.items()}
    title = ", ".join(f"across {names[a]}, slice {shown.start[a] + 1} of {content.fixed.grid.shape[a]}" for a in cut)
    return Plane(title, layers, shown.grid, tuple(name for axis, name in enumerate(names) if axis not in cut))


@dataclass(frozen=True)
class _Section:
    """Where a section lies: the voxels of the fixed image, and the grid of shown pixels."""

    cut: tuple[int, ...]
    start: tuple[int, ...]
    shape: tuple[int, ...]
    spacing: float
    grid: Grid

    @classmethod
    def of(cls, fixed: Image, cut: tuple[int, ...], side: int) -> "_Section":
        start = tuple(n // 2 if axis in cut else 0 for axis, n in enumerate(fixed.grid.shape))
        shape = tuple(1 if axis in cut else n for axis, n in enumerate(fixed.grid.shape))
        kept = [axis for axis in range(fixed.ndim) if axis not in cut]
        longest = max(fixed.grid.extent[axis] for axis in kept)
        spacing = max(min(fixed.grid.spacing[axis] for axis in kept), longest / side)
        sizes = [s if axis in cut else spacing for axis, s in enumerate(fixed.grid.spacing)]
        return cls(cut, start, shape, spacing, fixed.grid.cropped(start, shape).resized(sizes))

    def of_fixed(self, image: Image) -> Image:
        """This section of an image on the grid of the fixed one."""
        return self._flat(image.cropped(self.start, self.shape))

    def of_moving(self, moving: Image, fixed_to_moving: Transform) -> Image:
        """This section through the moving image under a transform."""
        return self._flat(averaged(moving, fixed_to_moving, self.spacing).resampled(self.grid, fixed_to_moving))

    def _flat(self, image: Image) -> Image:
        for axis in reversed(self.cut):
            image = section(image, axis)
        return isotropic(image, self.spacing)


def averaged(moving: Image, fixed_to_moving: Transform, spacing: float) -> Image:
    """The moving image in pixels as large as the shown ones, where its own are much smaller."""
    moving = replace(moving, data=moving.data.astype(np.float32))
    if isinstance(fixed_to_moving, Linear):
        spacing = spacing * linear_scale(fixed_to_moving)
    return isotropic(moving, spacing) if spacing > ANTIALIASED * max(moving.grid.spacing) else moving


def _moved(comparison: Comparison, content: ReportContent, shown: _Section, warped: Image | None) -> list[Image]:
    """The section of the moving image before and, where there is a transform or an aligned image, after."""
    before = shown.of_moving(comparison.moving, comparison.before)
    candidate = content.registration.candidate
    if warped is not None:
        return [before, shown.of_fixed(warped.without_alpha().with_grid(comparison.fixed.grid))]
    if candidate is None:
        return [before]
    return [before, shown.of_moving(comparison.moving, comparison.common(candidate))]


def _rendered(fixed: Image, moved: Sequence[Image], *, one_scale: bool = False) -> dict[str, Picture]:
    """The pictures of one source by role; those of the moving image share one scale of brightness.

    Colours of the fixed image are on that scale too where they mean the same, as in representations.
    """
    images = (fixed, *moved)
    colours = pictures(images) if one_scale else [*pictures([fixed]), *pictures(moved)]
    grays = [colour.data[0] for colour in colours] if one_scale and len(fixed.data) == 1 else None
    made = [
        Picture(np.moveaxis(colour.data, 0, -1), gray, image.valid, mixes=len(image.data) not in (1, len(RGB)))
        for colour, gray, image in zip(
            colours, grays or [*gray_levels([fixed]), *gray_levels(moved)], images, strict=True
        )
    ]
    return dict(zip(ROLES, made, strict=False))


def gray_levels(images: Sequence[Image]) -> list[UInt8[Array, "*spatial"]]:
    """Gray levels for overlays, of images of one shape on one scale."""
    data = np.concatenate([image.data for image in images], axis=-1)
    valid = np.concatenate([image.valid for image in images], axis=-1)
    joint = Image(data, Grid(data.shape[1:]), images[0].channels, valid)
    return np.split(magenta_green(joint, joint, longest=None).data[0], len(images), axis=-1)
