"""How far a transform is from the truth: at the corners of the image, or at landmarks."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Transform, identity
from modalign.geometry.grid import Unit
from modalign.image import Points

Array = np.ndarray
Scale = Literal["world", "pixels", "relative"]


@dataclass(frozen=True)
class Length:
    """One distance on three scales.

    Attributes:
        world: In the world unit of the moving image.
        pixels: Length of the difference of the two positions as indices of the fixed grid, so that one pixel along any
            axis counts as 1, whatever its size.
        relative: ``world`` divided by the width of the fixed image, which is the mean of its extents along the axes.
    """

    world: float
    pixels: float
    relative: float


@dataclass(frozen=True)
class Tolerance:
    """A largest distance that still counts as success, on one of the scales of :class:`Length`."""

    value: float
    scale: Scale = "relative"

    def admits(self, distance: Length) -> bool:
        """Whether the distance is within the tolerance."""
        return bool(getattr(distance, self.scale) <= self.value)


TOLERANCES = (Tolerance(0.01), Tolerance(0.02), Tolerance(0.05))
"""1, 2 and 5 % of the width; 2 % is the success of the CoMIR and MultiRegEval protocols."""


@dataclass(frozen=True)
class CornerError:
    """Distances between where two transforms take the corner pixels of the fixed image: 4 in 2D, 8 in 3D."""

    mean: Length
    maximum: Length


@dataclass(frozen=True)
class LandmarkError:
    """Distances between mapped fixed landmarks and moving landmarks.

    Attributes:
        distances: One a landmark, world units of the moving image.
        median: Over the landmarks; ``mean`` and ``maximum`` likewise.
        mean: See ``median``.
        maximum: See ``median``.
        median_rtre: Median distance divided by the diagonal of the fixed image, the relative target registration error
            of Borovec et al., IEEE TMI 39(10), 2020 (ANHIR); ``mean_rtre`` and ``maximum_rtre`` likewise.
        mean_rtre: See ``median_rtre``.
        maximum_rtre: See ``median_rtre``.
    """

    distances: tuple[float, ...]
    median: Length
    mean: Length
    maximum: Length
    median_rtre: float
    mean_rtre: float
    maximum_rtre: float


@dataclass(frozen=True)
class Success:
    """What a tolerance says of one registration.

    Attributes:
        tolerance: The tolerated distance.
        reached: Whether the error (mean over the corners, or median over the landmarks) is within it.
        fraction: Share of the corners or landmarks within it.
    """

    tolerance: Tolerance
    reached: bool
    fraction: float


@dataclass(frozen=True)
class TruthEvaluation:
    """A transform judged by a known one.

    Attributes:
        error: What is left.
        initial_error: What was there before registration: the error of doing nothing.
        success: One entry a tolerance, on the mean over the corners.
        width: The length that relative errors are relative to: the mean of the extents of the fixed image, world units.
        unit: Unit of the world lengths.
    """

    error: CornerError
    initial_error: CornerError
    success: tuple[Success, ...]
    width: float
    unit: Unit


@dataclass(frozen=True)
class LandmarkEvaluation:
    """A transform judged by landmarks.

    Attributes:
        error: What is left.
        initial_error: What was there before registration: the error of doing nothing.
        success: One entry a tolerance, on the median over the landmarks.
        width: The length that relative errors are relative to: the mean of the extents of the fixed image, world units.
        diagonal: The length that the rTRE is relative to: the diagonal of the fixed image, world units.
        unit: Unit of the world lengths.
    """

    error: LandmarkError
    initial_error: LandmarkError
    success: tuple[Success, ...]
    width: float
    diagonal: float
    unit: Unit


def image_width(grid: Grid) -> float:
    """The mean of the extents of a grid, world units: what relative errors are relative to."""
    return float(np.mean(grid.extent))


def image_diagonal(grid: Grid) -> float:
    """The diagonal of the extents of a grid, world units: what the rTRE is relative to."""
    return float(np.linalg.norm(grid.extent))


def corner_error(found: Transform, truth: Transform, grid: Grid) -> CornerError:
    """How far apart two transforms take the corners of the fixed grid.

    The mean in world units is :func:`modalign.geometry.corner_error`.
    """
    return _corner_error(_corner_distances(found, truth, grid))


def landmark_error(found: Transform, fixed_points: Points, moving_points: Points, grid: Grid) -> LandmarkError:
    """How far the fixed landmarks, mapped by ``found``, are from the moving landmarks.

    Args:
        found: Maps world points of the fixed image to the moving one.
        fixed_points: Landmarks in the fixed image, world units.
        moving_points: Their counterparts in the moving image, row by row, world units.
        grid: Grid of the fixed image.

    Raises:
        InvalidInputError: The lists are empty, not equally long, named differently, not finite, or in another unit than
            the grid.
    """
    _check_landmarks(fixed_points, moving_points, grid)
    return _landmark_error(_landmark_distances(found, fixed_points, moving_points, grid), image_diagonal(grid))


def evaluate_against_truth(
    found: Transform, truth: Transform, grid: Grid, thresholds: Sequence[Tolerance] = TOLERANCES
) -> TruthEvaluation:
    """Judge a transform by the known one; both map world points of the fixed image, whose grid is given."""
    distances = _corner_distances(found, truth, grid)
    error = _corner_error(distances)
    success = tuple(_success(tolerance, error.mean, distances) for tolerance in thresholds)
    return TruthEvaluation(error, corner_error(identity(grid.ndim), truth, grid), success, image_width(grid), grid.unit)


def evaluate_landmarks(
    found: Transform,
    fixed_points: Points,
    moving_points: Points,
    grid: Grid,
    thresholds: Sequence[Tolerance] = TOLERANCES,
) -> LandmarkEvaluation:
    """Judge a transform by landmarks; arguments and errors as in :func:`landmark_error`."""
    error = landmark_error(found, fixed_points, moving_points, grid)
    initial = landmark_error(identity(grid.ndim), fixed_points, moving_points, grid)
    distances = _landmark_distances(found, fixed_points, moving_points, grid)
    success = tuple(_success(tolerance, error.median, distances) for tolerance in thresholds)
    return LandmarkEvaluation(error, initial, success, image_width(grid), image_diagonal(grid), grid.unit)


Distances = Float[Array, "3 points"]
"""Rows in the order of the fields of Length."""


def _corner_distances(found: Transform, truth: Transform, grid: Grid) -> Distances:
    return _distances(found.map_points(grid.corners), truth.map_points(grid.corners), grid)


def _landmark_distances(found: Transform, fixed: Points, moving: Points, grid: Grid) -> Distances:
    return _distances(found.map_points(fixed.coordinates), moving.coordinates, grid)


def _distances(mapped: Array, expected: Array, grid: Grid) -> Distances:
    world = np.linalg.norm(mapped - expected, axis=-1)
    pixels = np.linalg.norm(grid.world_to_index(mapped) - grid.world_to_index(expected), axis=-1)
    return np.stack([world, pixels, world / image_width(grid)])


def _length(values: Float[Array, "3"]) -> Length:
    return Length(*map(float, values))


def _corner_error(distances: Distances) -> CornerError:
    return CornerError(_length(distances.mean(1)), _length(distances.max(1)))


def _landmark_error(distances: Distances, diagonal: float) -> LandmarkError:
    median, mean, maximum = (_length(summary(distances, axis=1)) for summary in (np.median, np.mean, np.max))
    rtre = (length.world / diagonal for length in (median, mean, maximum))
    return LandmarkError(tuple(map(float, distances[0])), median, mean, maximum, *rtre)


def _success(tolerance: Tolerance, error: Length, distances: Distances) -> Success:
    within = [tolerance.admits(_length(distance)) for distance in distances.T]
    return Success(tolerance, tolerance.admits(error), sum(within) / len(within))


def _check_landmarks(fixed: Points, moving: Points, grid: Grid) -> None:
    if fixed.coordinates.shape != moving.coordinates.shape or not len(fixed.coordinates):
        raise InvalidInputError(
            f"{len(fixed.coordinates)} fixed landmarks cannot be compared with {len(moving.coordinates)} moving ones; "
            "each needs its counterpart in the same row"
        )
    if not {fixed.unit, moving.unit} == {grid.unit}:
        raise InvalidInputError(
            f"landmarks in {fixed.unit} and {moving.unit} cannot be measured on an image in {grid.unit}; "
            "bring them to one unit"
        )
    if fixed.names and moving.names and fixed.names != moving.names:
        pair = next(((f, m) for f, m in zip(fixed.names, moving.names, strict=False) if f != m), None)
        raise InvalidInputError(f"the landmarks do not correspond row by row: first different names {pair}")
    if not (np.all(np.isfinite(fixed.coordinates)) and np.all(np.isfinite(moving.coordinates))):
        raise InvalidInputError("landmarks must be finite numbers; remove those without a position from both lists")
