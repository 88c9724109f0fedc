"""Evidence for or against a transform, from the two images alone, whatever method has found it.

Each piece answers one question of a sceptical person: does it fit better here than anywhere else, do all parts of the
image agree, do the intensities know about each other, and is there enough to judge by?
"""

import math
from dataclasses import asdict, dataclass, replace
from itertools import pairwise, product

import numpy as np
from jaxtyping import Float, Integer

from modalign.geometry import (
    Grid,
    Linear,
    Transform,
    axis_rotations,
    corner_error,
    fit_rigid,
    identity,
    nearest_affine,
    rotation_matrix,
)
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.masked_ncc import Correlator, Stack, ncc, rank
from modalign.registration.poses import Level, linear_scale, warped
from modalign.registration.refinement import maximised
from modalign.registration.shared_information import affine, in_common, information, stretch, turned

Array = np.ndarray

SWEEP_SIDES = {2: 80, 3: 28}
"""Side, in pixels, of the square or cube with as many pixels as the images at which other places are tried."""
TURNS = {
    2: tuple(rotation_matrix(2, 15.0 * turn) for turn in range(24)),
    3: tuple(element.matrix for element in axis_rotations(3)),
}
"""Rotations tried, evenly over all and counted from the one to be judged: every 15°, or the 24 of the cube."""
NEAR = 0.1
"""Places within this fraction of the width belong to the one to be judged."""
ECHO_OVERLAP = 0.4
"""Shifted places with less overlap, as a fraction of the smaller image, may look alike by chance."""
TILE_SIDES = {2: 256, 3: 80}
"""The same for the images at which tiles are compared."""
TILES = {2: 48, 3: 20}
"""Side of a tile in those pixels."""
REACH = 0.08
"""Tiles are shifted by up to this fraction of the width."""
AGREES = 0.02
"""A tile agrees where it fits best within this fraction of the width: the tolerance of the CoMIR protocol."""
STRUCTURED = 0.15
"""A tile holds structure where its variance is at least this fraction of that of the whole image, in both images."""


@dataclass(frozen=True)
class Evidence:
    """What speaks for a transform. All numbers are finite.

    Attributes:
        similarity: Masked correlation under the transform.
        contrast: By what fraction this place outranks the best other one, over all rotations; negative if it does not.
        surprise: How far it stands above the best places of the other rotations, in their standard deviations.
        agreement: Share of the structured tiles that fit best where the transform puts them.
        tiles: Number of tiles with structure in both images.
        drift: Corner distance of a rigid motion fitted to what the tiles would rather have, fraction of the width.
        spread: Corner distance of two such motions, each from half of the tiles, fraction of the width.
        consistency: Corner distance between the transform and the inverse of its counterpart, refined from there with
            the images exchanged, fraction of the width.
        information: Mutual information under the transform, in standard deviations above random displacements.
        original_information: The same for the original images.
        overlap: Overlap of the valid areas, as a fraction of the smaller.
        structure: Share of the tiles in the overlap that hold structure.
        scale: Logarithm of the scale, as a distance from 1.
        shear: How far the transform is from a similarity: logarithm of the ratio of its extreme stretches.
        novelty: Distance of the representations from those of training, in units of what is usual; 0 without a model.
        echo: Correlation at the best shifted place, as a fraction of that here; about 1 on a periodic texture.
    """

    similarity: float
    contrast: float
    surprise: float
    agreement: float
    tiles: float
    drift: float
    spread: float
    consistency: float
    information: float
    original_information: float
    overlap: float
    structure: float
    scale: float
    shear: float
    novelty: float = 0.0
    echo: float = 0.0

    def to_dict(self) -> dict[str, float]:
        """The numbers by name."""
        return asdict(self)


def gather(
    fixed: Image,
    moving: Image,
    found: Transform,
    originals: tuple[Image, Image] | None = None,
    *,
    novelty: float = 0.0,
    seed: int = 0,
) -> Evidence:
    """The evidence for a transform between two images.

    Args:
        fixed: The fixed image, or its representation.
        moving: The moving one.
        found: Maps world points of ``fixed`` to those of ``moving``; of a deformation, the nearest affine transform is
            judged.
        originals: The images that the representations were made of; the given images by default.
        novelty: Distance of the representations from those of training, see :class:`Evidence`.
        seed: Seed of the random displacements.
    """
    fixed, moving = fixed.without_gaps(), moving.without_gaps()
    if originals is not None:
        originals = originals[0].without_gaps(), originals[1].without_gaps()
    matrix = nearest_affine(found, fixed.grid)
    space = workspace.harmonised(*workspace.comparable(fixed, moving))
    transform = in_common(space, matrix)
    numbers = {
        **_whole(space, transform),
        **_parts(space, transform),
        "information": information(fixed, moving, matrix, seed),
        **_shape(transform),
    }
    original = numbers["information"] if originals is None else information(*originals, matrix, seed)
    return Evidence(original_information=original, novelty=novelty, **numbers)


def _shape(transform: Linear) -> dict[str, float]:
    stretches = np.linalg.svd(transform.linear, compute_uv=False)
    return {
        "scale": float(abs(np.log(stretches).mean())),
        "shear": float(np.log(stretches.max() / stretches.min())),
    }


def _level(space: workspace.Workspace, transform: Linear, side: int) -> Level:
    """Both images with pixels that the transform makes equal, up to a scale of ``LARGEST_STRETCH``."""
    spacing = workspace.spacing_by_area(space.fixed, space.moving, side)
    return Level.of(space.fixed, space.moving, spacing, stretch(transform))


def _whole(space: workspace.Workspace, transform: Linear) -> dict[str, float]:
    """How the place compares with all others."""
    level = _level(space, transform, SWEEP_SIDES[transform.ndim])
    stack = warped(level.moving, level.moving_grid, level.fixed_grid, transform)
    score, count = ncc(level.fixed, stack)
    here, others, echo = _sweep(level, transform, rank(score, count / level.area))
    elsewhere, spread = float(max(others)), float(np.std(others[1:]))
    return {
        "similarity": score,
        "overlap": min(count / level.area, 1.0),
        "contrast": float(np.clip(1 - elsewhere / here, -1, 1)) if here > 0 else -1.0,
        "echo": min(echo / max(score, 0.01), 2.0),
        "surprise": float((here - np.mean(others[1:])) / max(spread, 0.01)),
    }


def _sweep(level: Level, transform: Linear, here: float) -> tuple[float, list[float], float]:
    """Rank of the place; of the best other places, with its own rotation, then with each of the others; its echo."""
    centered = _about_centers(level, transform)
    diagonal = min(
        math.hypot(*level.moving_grid.extent) / linear_scale(transform) / level.spacing, 8 * SWEEP_SIDES[transform.ndim]
    )
    side = math.ceil(diagonal) + 1
    box = tuple(side + (side - n) % 2 for n in level.fixed_grid.shape)  # the fixed image lies on whole pixels of it
    grid = level.fixed_grid.centered(box)
    correlator = Correlator(level.fixed, box, level.area, 0.3)
    place = _shift(level, transform, centered) + (np.array(box) - level.fixed_grid.shape) / 2
    near = NEAR * max(level.fixed_grid.shape)
    as_is = correlator.spectra(warped(level.moving, level.moving_grid, grid, transform))
    echo = correlator.echo(as_is, (np.array(box) - level.fixed_grid.shape) / 2, near, ECHO_OVERLAP * level.area)
    others: list[float] = []
    for number, rotation in enumerate(TURNS[transform.ndim]):
        trial = turned(centered, level.fixed_grid, rotation)
        spectra = correlator.spectra(warped(level.moving, level.moving_grid, grid, trial))
        best = 0.0
        for score, overlap, shift in correlator.peaks(spectra, 3 if number == 0 else 1):
            value = rank(score, overlap / level.area)
            if number == 0 and np.linalg.norm(np.array(shift) - place) < near:
                here = max(here, value)
            else:
                best = max(best, value)
        others.append(best)
    return here, others, echo


def _about_centers(level: Level, transform: Linear) -> Linear:
    """The transform without its shift: the centre of the fixed image goes to that of the moving one."""
    return affine(transform.linear, level.moving_grid.center - transform.linear @ level.fixed_grid.center)


def _shift(level: Level, transform: Linear, centered: Linear) -> Float[Array, " ndim"]:
    """The motion of the fixed image, in pixels, that makes one transform the other."""
    world = np.linalg.solve(transform.linear, transform.offset - centered.offset)
    return np.asarray(np.array(level.fixed_grid.direction).T @ world / level.spacing)


def _parts(space: workspace.Workspace, transform: Linear) -> dict[str, float]:
    """What the parts of the images say, and what the way back says."""
    level = _level(space, transform, TILE_SIDES[transform.ndim])
    return {**_tiles(level, transform), "consistency": _way_back(level, transform)}


def _way_back(level: Level, transform: Linear) -> float:
    """How far the transform is from the inverse of the one found with the images exchanged."""
    back = replace(
        level,
        fixed=level.moving,
        moving=level.fixed,
        fixed_grid=level.moving_grid,
        moving_grid=level.fixed_grid,
    )
    there = maximised(back, transform.inverse()).transform.inverse()
    size = linear_scale(transform) * max(level.fixed_grid.extent)
    return min(float(corner_error(level.fixed_grid, there, transform) / size), REACH)


def _tiles(level: Level, transform: Linear) -> dict[str, float]:
    """Where each tile of the fixed image would rather be."""
    grid, width = level.fixed_grid, math.prod(level.fixed_grid.shape) ** (1 / level.fixed_grid.ndim)
    reach = max(2, min(math.ceil(REACH * width), min(grid.shape) // 4))
    wider = grid.centered([n + 2 * reach for n in grid.shape])
    stack = warped(level.moving, level.moving_grid, wider, transform)
    centers, shifts, inside = [], [], 0
    for window in tile_windows(grid.shape):
        tile = level.fixed[(slice(None), *window)]
        around = stack[(slice(None), *(slice(w.start, w.stop + 2 * reach) for w in window))]
        inside += _is_seen(tile, around, reach)
        shift = _best_shift(tile, around)
        if shift is not None:
            centers.append([(w.start + w.stop - 1) / 2 for w in window])
            shifts.append(shift - reach)
    count = len(shifts)
    structure = count / inside if inside else 0.0
    if not count:
        return {"agreement": 0.0, "tiles": 0.0, "drift": REACH, "spread": REACH, "structure": structure}
    off = np.linalg.norm(shifts, axis=1)
    drift, spread = _motions(grid, np.array(centers), np.array(shifts, dtype=float), off < 2 * AGREES * width)
    return {
        "agreement": float((off <= max(AGREES * width, 1.5)).mean()),
        "tiles": float(count),
        "drift": min(drift / width, REACH),
        "spread": min(spread / width, REACH),
        "structure": structure,
    }


def tile_windows(shape: tuple[int, ...]) -> list[tuple[slice, ...]]:
    """Windows with sides of about :data:`TILES` that cover a shape without overlap."""
    cuts = [np.linspace(0, n, max(1, round(n / TILES[len(shape)])) + 1).astype(int) for n in shape]
    return [tuple(slice(int(a), int(b)) for a, b in window) for window in product(*(pairwise(c) for c in cuts))]


def _is_seen(tile: Stack, around: Stack, reach: int) -> bool:
    """Whether at least half of a tile is valid in both images."""
    middle = around[-1][tuple(slice(reach, n - reach) for n in around.shape[1:])]
    return bool((tile[-1] * middle).mean() >= 0.5)


def _variance(stack: Stack) -> float:
    count = max(float(stack[-1].sum()), 1.0)
    means = stack[:-2].reshape(len(stack) - 2, -1).sum(1) / count
    return float(stack[-2].sum() / count - np.square(means).sum())


def _best_shift(tile: Stack, around: Stack) -> Integer[Array, " ndim"] | None:
    """The shift at which a tile correlates best with its surroundings; ``None`` where either holds no structure."""
    area = math.prod(tile.shape[1:])
    if min(tile[-1].sum() / area, around[-1].mean()) < 0.5 or min(map(_variance, (tile, around))) < STRUCTURED:
        return None
    correlator = Correlator(tile, around.shape[1:], area, 0.5, coarsening=1)
    peaks = correlator.peaks(correlator.spectra(around), 1)
    return np.array(peaks[0][2]) if peaks else None


def _motions(
    grid: Grid, centers: Float[Array, "tiles ndim"], shifts: Float[Array, "tiles ndim"], near: Array
) -> tuple[float, float]:
    """Corner distance, in pixels, of the rigid motion of the near tiles; and between those of two halves of them."""
    limit = REACH * max(grid.shape)
    if near.sum() <= 2 * grid.ndim:
        return limit, limit
    pixels = Grid(grid.shape)
    places, goals = centers[near], (centers + shifts)[near]
    halves = [fit_rigid(places[k::2], goals[k::2]) for k in range(2)]
    whole = fit_rigid(places, goals)
    return corner_error(pixels, whole, identity(grid.ndim)), corner_error(pixels, *halves)
