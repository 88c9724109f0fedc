"""What searches share: pixel sizes, angles and scales to try, which poses are distinct, and what stands out."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from modalign.geometry import Affine, Linear
from modalign.image import Image
from modalign.local_features.channels import projected
from modalign.registration import workspace
from modalign.registration.masked_ncc import Correlator, ncc, rank
from modalign.registration.poses import Level, Pose, warped
from modalign.registration.registrar import Status
from modalign.registration.sweeps import COARSE_SIDES

Array = np.ndarray

COARSE_CHANNELS = 4
"""At the coarsest level, images with more channels are compared along so many principal axes of their channels."""
DISTINCT = 0.1
"""Two poses are distinct if they move the corners apart, on average, by this fraction of the fixed image's width."""
RIVALS = 20
"""Local maxima of the correlation that a place is compared with."""

LEAST_SCORE = 0.05
"""A lower correlation is refused."""
LEAST_CONTRAST, TRUSTED_CONTRAST = 0.15, 0.25
"""By how much, as a fraction, the best place must outrank the next best elsewhere: not to be refused; to be trusted.

On photographs, micrographs and collagen images of 160 to 600 pixels at any rotation, none of 49 unrelated pairs
exceeded 0.15, and none of 46 pairs registered within 2 % of the width stayed below 0.26.
"""
LOCAL_CONTRAST = 0.35, 0.6
"""The same two limits where the other places differ by a shift only and were not refined, as the best one was.

On unrelated textures of 150 pixels in the plane and 30 in space, refined shifts and rotations stayed below 0.33 in 180
trials and refined affine transforms below 0.59 in 90; on related ones, with up to 1.5 times as much noise as signal,
all of 117 results, each within two pixels, stayed above 0.82.
"""


@dataclass(frozen=True)
class Pyramid:
    """Two images at pixel sizes from coarse to fine, the moving one as large as it is seen at some scale.

    Attributes:
        images: The fixed image and the moving one.
        spacings: Pixel sizes in the world of the fixed image, coarsest first.
        scale: Size of the moving image's world relative to the fixed one's.
    """

    images: tuple[Image, Image]
    spacings: tuple[float, ...]
    scale: float = 1.0

    @classmethod
    def of(
        cls, fixed: Image, moving: Image, max_side: int, scale: float = 1.0, coarse_side: int | None = None
    ) -> "Pyramid":
        """The pyramid with the pixel sizes of :func:`level_spacings`."""
        return cls((fixed, moving), tuple(level_spacings(fixed, moving, max_side, scale, coarse_side)), scale)

    def level(self, number: int) -> Level:
        """The images at one pixel size; the finest one for numbers beyond it."""
        return Level.of(*self.images, self.spacings[min(number, len(self.spacings) - 1)], self.scale)


def level_spacings(
    fixed: Image, moving: Image, max_side: int, scale: float = 1.0, coarse_side: int | None = None
) -> list[float]:
    """Pixel sizes from the coarsest level to the finest, each at most twice as large as the next.

    Args:
        fixed: The fixed image, in whose world the sizes are.
        moving: The moving image.
        max_side: Longest side at the finest level, in pixels; in 3D that of a cube with as many voxels as its square
            has pixels.
        scale: Size of the moving image's world relative to the fixed one's.
        coarse_side: Longest side at the coarsest level, in pixels; the smaller image keeps at least half of it. By
            default the one at which all rotations are tried.
    """
    coarse_side = coarse_side or COARSE_SIDES[fixed.ndim]
    seen = moving.with_grid(replace(moving.grid, spacing=tuple(s / scale for s in moving.grid.spacing)))
    finest = workspace.finest_spacing(fixed, seen, round(max_side ** (2 / fixed.ndim)))
    longest = [max(image.grid.extent) for image in (fixed, seen)]
    coarsest = max(finest, min(max(longest) / coarse_side, min(longest) / (coarse_side / 2)))
    steps = math.ceil(math.log2(coarsest / finest) - 1e-9)
    return [finest * (coarsest / finest) ** (k / steps) for k in range(steps, 0, -1)] + [finest]


def scales(smallest: float, largest: float, step: float) -> list[float]:
    """Scales from the smallest to the largest, their logarithms evenly spaced and at most ``step`` apart."""
    count = math.ceil(math.log(largest / smallest) / step - 1e-9)
    return [smallest * (largest / smallest) ** (k / count) for k in range(count + 1)] if count else [smallest]


def compressed(fixed: Image, moving: Image) -> tuple[Image, Image]:
    """Both images along their first few principal axes: the correlation hardly changes, the time does.

    The correlation is a sum of inner products over the channels, so rotating the channels leaves it as it is.
    """
    if len(fixed.data) <= COARSE_CHANNELS:
        return fixed, moving
    axes = workspace.joint_axes(fixed, moving)[:COARSE_CHANNELS]
    return projected(fixed, axes), projected(moving, axes)


def distinct(poses: Sequence[Pose], level: Level, count: int) -> list[Pose]:
    """The best poses, best first, leaving out those that say nearly the same as a better one.

    The corners of the fixed image are compared in its own world, as far as a scale makes the other one larger.
    """
    arms = level.fixed_grid.corners - level.fixed_grid.center
    ranked = sorted(poses, key=lambda pose: -pose.rank)
    places = np.array([pose.scale * arms @ pose.matrix.T + pose.shift for pose in ranked])
    separations = np.array([DISTINCT * max(level.fixed_grid.extent) * pose.scale for pose in ranked])
    kept: list[Pose] = []
    left = np.arange(len(ranked))
    while len(left) and len(kept) < count:
        best, left = left[0], left[1:]
        kept.append(ranked[best])
        left = left[np.linalg.norm(places[left] - places[best], axis=-1).mean(-1) > separations[left]]
    return kept


def contrast(level: Level, transform: Linear, min_overlap: float) -> float:
    """By what fraction a transform outranks the best distinct one that differs from it by a shift; not below −1.

    Only shifts at which the images overlap by ``min_overlap`` are compared.
    """
    stack = warped(level.moving, level.moving_grid, level.fixed_grid, transform)
    score, count = ncc(level.fixed, stack)
    here = rank(score, count / level.area)
    if here <= 0:
        return -1.0
    others = [rank(*place) for *place, is_distinct in _shifts(level, transform, min_overlap) if is_distinct]
    return max(-1.0, 1 - max(others, default=0.0) / here)


def _shifts(level: Level, transform: Linear, min_overlap: float) -> list[tuple[float, float, bool]]:
    """Score and overlap of the best shifts of a transform, and whether each is distinct from it."""
    centered = np.eye(transform.ndim + 1)
    centered[:-1, :-1] = transform.linear
    centered[:-1, -1] = level.moving_grid.center - transform.linear @ level.fixed_grid.center
    widest = np.linalg.norm(np.linalg.inv(transform.linear), 2)  # how large the moving image is seen at most
    diagonal = math.hypot(*level.moving_grid.extent) * widest / level.spacing
    grid = level.fixed_grid.centered((math.ceil(diagonal) + 1,) * transform.ndim)
    correlator = Correlator(level.fixed, grid.shape, level.area, min_overlap)
    stack = warped(level.moving, level.moving_grid, grid, Affine.from_matrix(centered))
    away = np.linalg.solve(transform.linear, transform.offset - centered[:-1, -1])
    place = (
        np.array(level.fixed_grid.direction).T @ away / level.spacing
        + (np.array(grid.shape) - level.fixed.shape[1:]) / 2
    )
    far = DISTINCT * max(level.fixed_grid.shape)
    return [
        (score, overlap / level.area, bool(np.linalg.norm(np.array(shift) - place) > far))
        for score, overlap, shift in correlator.peaks(correlator.spectra(stack), RIVALS)
    ]


def verdict(
    score: float, contrast: float, limits: tuple[float, float] = (LEAST_CONTRAST, TRUSTED_CONTRAST)
) -> tuple[Status, tuple[str, ...]]:
    """Status and reason by the correlation at the best place, and by how far it outranks the next best elsewhere.

    Args:
        score: Correlation at the best place.
        contrast: By what fraction it outranks the next best one.
        limits: Contrasts not to be refused, and to be trusted.
    """
    least, trusted = limits
    if score < LEAST_SCORE:
        reason = f"the images hardly correlate anywhere ({score:.2f}); use a representation in which they look alike"
        return "refused", (reason,)
    if contrast < least:
        reason = f"another place fits almost as well (contrast {contrast:.2f}, at least {least} is needed)"
        return "refused", (f"{reason}; use a larger field of view, a representation, or limit the rotation",)
    if contrast < trusted:
        return "unsure", (f"another place fits nearly as well (contrast {contrast:.2f}); look at the overlay",)
    return "accepted", (f"the best place stands out (correlation {score:.2f}, contrast {contrast:.2f})",)
