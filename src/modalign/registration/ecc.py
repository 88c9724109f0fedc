"""Local refinement by maximising the masked correlation: for images that look alike and nearly lie on each other."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, as_rows, identity
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.poses import Candidate, Level, linear_scale
from modalign.registration.refinement import GROUPS, MAX_PIXELS, Model, maximise_correlation
from modalign.registration.registrar import Registration
from modalign.registration.search import LOCAL_CONTRAST, contrast, verdict

JUDGED_PIXELS = 1 << 15
"""Pixels of the larger image at the level where the place found is compared with other places."""


@dataclass(frozen=True)
class Ecc(Engine):
    """Maximise the correlation by Gauss–Newton steps, coarse to fine, from where the images lie now.

    Two starts are tried, and the better result kept: the images as they lie in the world, and one centred on the
    other. Textures reach no further than their own size, so this is for small displacements: a few degrees, a few
    percent of the width, more where the images show large structures.

    Source: Evangelidis and Psarakis, Parametric image alignment using enhanced correlation coefficient maximization,
    IEEE TPAMI 30(10), 2008; here with masks, several channels, and in any number of dimensions.
    """

    transform: Model = "rigid"
    """What may change: rotation and shift; the scale as well; or everything linear."""
    min_overlap: float = 0.3
    """Least overlap of a result, as a fraction of the valid area of the smaller image."""
    coarse_side: int = 32
    """Longest side in pixels at the coarsest level. Smaller reaches further where the images show large structures."""
    max_pixels: int = MAX_PIXELS
    """Work on at most so many pixels of the larger image; the result is still exact to a part of a pixel."""

    name: ClassVar[str] = "ecc"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if self.transform not in GROUPS:
            raise InvalidInputError(f"transform is one of {', '.join(GROUPS)}, not {self.transform!r}")
        if not 0 < self.min_overlap <= 1:
            raise InvalidInputError(f"min_overlap is a fraction above 0 and at most 1, not {self.min_overlap}")
        if self.coarse_side < 16:
            raise InvalidInputError(f"coarse_side is at least 16 pixels, not {self.coarse_side}")
        if self.max_pixels < self.coarse_side**2:
            raise InvalidInputError(f"max_pixels is at least the square of coarse_side, not {self.max_pixels}")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the transform near the present one under which the overlap correlates best."""
        space = workspace.harmonised(*workspace.comparable(fixed, moving))
        found = [self._climbed(space, start) for start in starts(space.fixed.grid, space.moving.grid)]
        best = max(found, key=lambda candidate: candidate.rank)
        stats = {"score": best.score, "overlap": best.overlap, "contrast": self._contrast(space, best)}
        status, reasons = verdict(best.score, stats["contrast"], LOCAL_CONTRAST)
        if best.overlap < self.min_overlap:
            status, reasons = "refused", (f"the images drifted apart (overlap {best.overlap:.2f}); start closer",)
        return Registration.judged(self.name, status, space.to_world(best.transform), reasons, stats)

    def _climbed(self, space: workspace.Workspace, start: Rigid) -> Candidate:
        sizes = {"coarse_side": self.coarse_side, "max_pixels": self.max_pixels}
        return maximise_correlation(space.fixed, space.moving, start, self.transform, **sizes)

    def _contrast(self, space: workspace.Workspace, best: Candidate) -> float:
        side = round(min(self.max_pixels, JUDGED_PIXELS) ** (1 / space.fixed.ndim))
        spacing = workspace.finest_spacing(space.fixed, space.moving, side)
        level = Level.of(space.fixed, space.moving, spacing, linear_scale(best.transform))
        return contrast(level, best.transform, self.min_overlap)


def starts(fixed: Grid, moving: Grid) -> list[Rigid]:
    """The world as it is, where the grids meet there, and one grid centred on the other; once where they are the same.

    Starts less than a pixel of the fixed image apart count as the same.
    """
    shift = moving.center - fixed.center
    centered = Rigid(as_rows(np.eye(fixed.ndim)), tuple(shift.tolist()))
    reach = (np.linalg.norm(fixed.extent) + np.linalg.norm(moving.extent)) / 2
    if not min(fixed.spacing) <= np.linalg.norm(shift) < reach:
        return [centered]
    return [identity(fixed.ndim), centered]
