"""The last step of an alignment: refine it on the originals, where these tell it better.

A representation is as fine as the pixels of its model, and a search as fine as its grid. Where the intensities of the
originals know about each other at all, as those of T1 and T2 do, the maximum of their mutual information next to what
was found is more exact.
"""

from dataclasses import replace

import numpy as np

from modalign.geometry import Affine, Linear, as_rows, corner_error
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import emptiness, usable
from modalign.registration.information import Level, level_spacings
from modalign.registration.mattes import KINDS, Climb
from modalign.registration.registrar import Registration

MOST_MOVED = 0.05
"""Refinements that move the corners further than this fraction of the width have lost their way."""
TILES = 6
"""Tiles along each axis of the checkerboard whose colours are the two halves of an image."""
LEAST_PIXELS = 500
"""A half with fewer valid pixels tells nothing."""
FINEST_SIDE = 1024
"""Longest side, in pixels, at which the information is compared at most."""
NOTE = "refined by the mutual information of the originals"


def refined_on_originals(found: Registration, fixed: Image, moving: Image, climb: Climb = Climb()) -> Registration:  # noqa: B008
    """A registration after a climb to the next maximum of the mutual information of the originals.

    Two halves of the fixed image, a checkerboard, are climbed each for itself as well. Only where both end nearer to
    the result of the whole than to where it began is the result taken: chance, or one strange part of the image, would
    lead them apart.

    Args:
        found: What a method has found on representations, or on the originals themselves.
        fixed: The original fixed image; values that are not finite count as masked, here and in the other one.
        moving: The original moving image.
        climb: How to climb.

    Returns:
        The registration with another transform and a note; as it was where there is no linear transform, or where the
        originals do not tell more.
    """
    start, fixed, moving = found.candidate, usable(fixed), usable(moving)
    if not isinstance(start, Linear) or any(emptiness(image) for image in (fixed, moving)):
        return found
    flip = _flip(start)
    space = workspace.harmonised(fixed, _mapped(moving, flip))
    pictures = workspace.pictures(space.fixed, space.moving)
    level = Level.of(*pictures, level_spacings(*pictures, FINEST_SIDE)[-1])
    matrix = np.linalg.inv(space.to_moving.matrix) @ flip.matrix @ start.matrix @ np.linalg.inv(space.from_fixed.matrix)
    end = _refined(level, workspace.smallest_group(matrix), climb)
    if end is None:
        return found
    better = type(start).from_matrix(flip.inverse().matrix @ space.to_world(end).matrix)
    transform = {"rejected": better} if found.fixed_to_moving is None else {"fixed_to_moving": better}
    return replace(found, notes=(*found.notes, NOTE), **transform)  # type: ignore[arg-type]


def _refined(level: Level, start: Linear, climb: Climb) -> Linear | None:
    """The next maximum of the same kind of transform; ``None`` where it is not to be believed."""
    kind = next(kind for kind, group in KINDS.items() if isinstance(start, group))
    grid = level.fixed.grid
    end = climb.run(level, start, kind).fixed_to_moving
    if not 0 < corner_error(grid, end, start) <= MOST_MOVED * max(grid.extent):
        return None
    for half in _halves(level.fixed):
        if half.valid.sum() < LEAST_PIXELS:
            return None
        alone = climb.run(replace(level, fixed=half), start, kind).fixed_to_moving
        if corner_error(grid, alone, end) >= corner_error(grid, alone, start):
            return None
    return end


def _halves(image: Image) -> tuple[Image, Image]:
    """The tiles of either colour of a checkerboard."""
    axes = np.ix_(*(np.arange(n) * TILES // n for n in image.grid.shape))
    black = sum(axes) % 2 == 0
    return replace(image, mask=image.valid & black), replace(image, mask=image.valid & ~black)


def _flip(start: Linear) -> Linear:
    """A mirror of the moving world, where the start mirrors: ITK has no rigid transform that does."""
    signs = np.ones(start.ndim)
    signs[0] = np.sign(np.linalg.det(start.linear))
    return Affine.from_matrix(np.diag([*signs, 1.0]))


def _mapped(image: Image, mover: Linear) -> Image:
    """The same pixels elsewhere in the world."""
    direction = as_rows(mover.linear @ np.array(image.grid.direction))
    origin = tuple(mover.map_points(np.array(image.grid.origin)).tolist())
    return image.with_grid(replace(image.grid, origin=origin, direction=direction))
