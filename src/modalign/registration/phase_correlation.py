"""Phase correlation: the shift between two images from the phases of their spectra, to a small part of a pixel."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import ClassVar

import numpy as np
from jaxtyping import Bool, Complex, Float
from scipy import fft, ndimage

from modalign.errors import InvalidInputError
from modalign.geometry import Rigid, as_rows, corner_error, identity
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.masked_ncc import Stack, ncc, rank, standardised
from modalign.registration.poses import Candidate, Level
from modalign.registration.refinement import maximised
from modalign.registration.registrar import Registration, Status
from modalign.registration.search import LOCAL_CONTRAST, contrast, verdict

Array = np.ndarray

TAPER = 0.1
"""Width of the soft border of the windows, as a fraction of the shortest side."""
FLOOR = 1.0
"""Frequencies count less the further they lie below this multiple of the mean magnitude: there is more noise there."""
PEAKS = 8
"""Peaks of the phase correlation whose overlaps are compared."""
PEAK_RADIUS = 3
"""Peaks are at least so many pixels apart."""
JUDGED_PIXELS = 1 << 15
"""Pixels of the larger image at the level where the shift found is compared with other transforms."""
MOST_TURNED = 1.0
"""By how many pixels of that level a rotation may move the corners further, for a mere shift to be trusted."""
ROUNDS = 10
"""How often the window follows the shift; two or three times mostly suffice."""
REACH = 1.5
"""Pixels about the whole-pixel shift in which the rest of the shift is looked for."""
UPSAMPLING = (10, 200)
"""Places a pixel at which the correlation is computed around its peak, first and second round."""


@dataclass(frozen=True)
class PhaseCorrelation(Engine):
    """Find the shift between two images that are neither turned nor scaled: the classical baseline, and fast.

    Sources: Kuglin and Hines, IEEE Conference on Cybernetics and Society, 1975; sub-pixel peak by matrix products,
    Guizar-Sicairos, Thurman and Fienup, Optics Letters 33(2), 2008.
    """

    min_overlap: float = 0.3
    """Least overlap, as a fraction of the valid area of the smaller image."""
    max_pixels: int = 1 << 22
    """Work on at most so many pixels of the larger image."""

    name: ClassVar[str] = "phase-correlation"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not 0 < self.min_overlap <= 1:
            raise InvalidInputError(f"min_overlap is a fraction above 0 and at most 1, not {self.min_overlap}")
        if self.max_pixels < JUDGED_PIXELS:
            raise InvalidInputError(f"max_pixels is at least {JUDGED_PIXELS}, not {self.max_pixels}")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the shift of the world under which the phases of the spectra agree."""
        space = workspace.harmonised(*workspace.comparable(fixed, moving))
        spacing = workspace.finest_spacing(space.fixed, space.moving, _side(self.max_pixels, fixed.ndim))
        seen = workspace.isotropic(space.fixed, spacing)
        best = phase_correlation(seen, _parallel(workspace.isotropic(space.moving, spacing), seen), self.min_overlap)
        if best is None:
            return Registration(self.name, "refused", None, ("no shift brings the images together; use fft-search",))
        coarse = workspace.finest_spacing(space.fixed, space.moving, _side(JUDGED_PIXELS, fixed.ndim))
        level = Level.of(space.fixed, space.moving, coarse)
        stats = {
            "score": best.score,
            "overlap": best.overlap,
            "contrast": contrast(level, best.transform, self.min_overlap),
            "turned_pixels": _turned_pixels(level, best),
        }
        status, reasons = judged(stats)
        return Registration.judged(self.name, status, space.to_world(best.transform), reasons, stats)


def judged(stats: Mapping[str, float]) -> tuple[Status, tuple[str, ...]]:
    """Status and reasons: no other shift may fit nearly as well, and no rotation better."""
    status, reasons = verdict(stats["score"], stats["contrast"], LOCAL_CONTRAST)
    if status != "accepted" or stats["turned_pixels"] <= MOST_TURNED:
        return status, reasons
    return "unsure", (f"the images are also turned (by {stats['turned_pixels']:.1f} coarse pixels); use fft-search",)


def _turned_pixels(level: Level, shifted: Candidate) -> float:
    """By how many pixels a rigid refinement moves the corners away from where a shift takes them."""
    turned = maximised(level, shifted.transform)
    return corner_error(level.fixed_grid, turned.transform, shifted.transform) / level.spacing


def phase_correlation(fixed: Image, moving: Image, min_overlap: float = 0.3) -> Candidate | None:
    """The shift under which two images of equal pixels agree best, by the phases of their spectra.

    The spectra of the whole images propose shifts by whole pixels, and the masked correlation of the overlap decides
    between them. There, the same window on both images, the phases give the rest of the shift. Frequencies count by
    how far their power stands above the noise, channels are added.

    Args:
        fixed: The fixed image; what is masked does not count.
        moving: The moving image, with the same channels, pixel size and direction of the axes; shape and origin are
            free.
        min_overlap: Least overlap, as a fraction of the valid area of the smaller image.

    Returns:
        A translation with the correlation and overlap at the nearest whole pixel; ``None`` where no shift is proposed.

    Raises:
        InvalidInputError: The images differ in channels, pixel size or direction.

    Sources: see :class:`PhaseCorrelation`.
    """
    _check(fixed, moving)
    stacks = standardised(fixed), standardised(moving)
    area = float(min(stack[-1].sum() for stack in stacks))
    found = [_scored(*stacks, shift) for shift in _proposals(*stacks, min_overlap)]
    found = [(shift, score, count / area) for shift, score, count in found if count >= min_overlap * area]
    if not found:
        return None
    shift, score, overlap = max(found, key=lambda place: rank(*place[1:]))
    pixels = np.array(shift) + _rest(*_overlapping(*stacks, shift))
    offset = moving.grid.matrix[:-1] @ [*pixels, 1.0] - fixed.grid.origin
    return Candidate(Rigid(as_rows(np.eye(fixed.ndim)), tuple(offset.tolist())), score, overlap)


def _check(fixed: Image, moving: Image) -> None:
    same = len(fixed.data) == len(moving.data) and fixed.ndim == moving.ndim
    if not (same and np.allclose(fixed.grid.matrix[:-1, :-1], moving.grid.matrix[:-1, :-1], rtol=1e-6)):
        raise InvalidInputError(
            f"phase correlation needs the same channels, pixel size and axes in both images, not {fixed!r} and "
            f"{moving!r}; resample one on the pixels of the other"
        )


def _proposals(fixed: Stack, moving: Stack, min_overlap: float) -> list[tuple[int, ...]]:
    """Whole-pixel shifts at the highest peaks; pixel x of ``fixed`` meets pixel x + shift of ``moving``."""
    shapes = fixed.shape[1:], moving.shape[1:]
    periods = [fft.next_fast_len(n + m - 1, real=True) for n, m in zip(*shapes, strict=True)]
    axes = tuple(range(1, fixed.ndim))
    spectra = [fft.rfftn(_windowed(stack, _window(stack[-1] > 0)), periods, axes=axes) for stack in (fixed, moving)]
    heights = fft.irfftn(_whitened(*spectra), periods)
    least = min_overlap * min(math.prod(shape) for shape in shapes)
    heights = np.where(_overlaps(*shapes, periods) >= least, heights, -np.inf)
    return _highest(heights, shapes[1])


def _overlaps(fixed: tuple[int, ...], moving: tuple[int, ...], periods: list[int]) -> Float[Array, "*shifts"]:
    """Pixels in which two boxes overlap at every shift; negative shifts are stored from the end."""
    lengths = []
    for n, m, period in zip(fixed, moving, periods, strict=True):
        shifts = np.arange(period)
        shifts = np.where(shifts < m, shifts, shifts - period)
        lengths.append(np.clip(np.minimum(n, m - shifts) - np.maximum(0, -shifts), 0, None).astype(float))
    return np.asarray(reduce(np.multiply.outer, lengths))


def _highest(heights: Float[Array, "*shifts"], moving: tuple[int, ...]) -> list[tuple[int, ...]]:
    found = []
    for _ in range(PEAKS):
        index = np.unravel_index(int(heights.argmax()), heights.shape)
        if not heights[index] > 0:
            break
        found.append(
            tuple(int(k) if k < m else int(k) - p for k, m, p in zip(index, moving, heights.shape, strict=True))
        )
        heights[tuple(slice(max(0, k - PEAK_RADIUS), k + PEAK_RADIUS + 1) for k in index)] = -np.inf
    return found


def _overlapping(fixed: Stack, moving: Stack, shift: tuple[int, ...]) -> tuple[Stack, Stack]:
    """The parts of two stacks that meet after a shift by whole pixels."""
    windows = []
    for n, m, d in zip(fixed.shape[1:], moving.shape[1:], shift, strict=True):
        low, high = max(0, -d), min(n, m - d)
        windows.append((slice(low, high), slice(low + d, high + d)))
    ours, theirs = zip(*windows, strict=True)
    return fixed[(slice(None), *ours)], moving[(slice(None), *theirs)]


def _scored(fixed: Stack, moving: Stack, shift: tuple[int, ...]) -> tuple[tuple[int, ...], float, float]:
    return shift, *ncc(*_overlapping(fixed, moving, shift))


def _rest(fixed: Stack, moving: Stack) -> Float[Array, " ndim"]:
    """The shift of less than a pixel or so between two stacks of one shape.

    A window that stays while the image moves pulls the peak towards zero, so the moving window follows the shift.
    """
    window = _window((fixed[-1] > 0) & (moving[-1] > 0))
    axes = tuple(range(1, fixed.ndim))
    spectrum = fft.fftn(_windowed(fixed, window), axes=axes)
    shift = np.zeros(len(axes))
    for _ in range(ROUNDS):
        following = ndimage.shift(window, shift, order=1)
        before, shift = shift, _peak(_whitened(spectrum, fft.fftn(_windowed(moving, following), axes=axes)))
        if np.abs(shift - before).max() < 1 / UPSAMPLING[-1]:
            break
    return shift


def _peak(cross: Complex[Array, "*frequencies"]) -> Float[Array, " ndim"]:
    """Where, within about a pixel of zero, the inverse transform of a spectrum is largest."""
    best, reach = np.zeros(cross.ndim), REACH
    for upsampling in UPSAMPLING:
        count = round(reach * upsampling)
        offsets = np.arange(-count, count + 1) / upsampling
        heights = _upsampled(cross, [middle + offsets for middle in best])
        best = best + offsets[np.array(np.unravel_index(int(heights.argmax()), heights.shape))]
        reach = 1.5 / upsampling
    return best


def _upsampled(cross: Complex[Array, "*frequencies"], places: list[Float[Array, " places"]]) -> Float[Array, "*places"]:
    """The inverse transform of a spectrum at any places: one matrix product an axis."""
    values = cross
    for axis, (n, where) in enumerate(zip(cross.shape, places, strict=True)):
        waves = np.exp(2j * np.pi * np.outer(where, fft.fftfreq(n)))
        values = np.moveaxis(np.tensordot(waves, values, (1, axis)), 0, axis)
    return values.real


def _whitened(fixed: Array, moving: Array) -> Complex[Array, "*frequencies"]:
    """The cross spectrum, summed over the channels, with its magnitudes evened out as far as they exceed the noise."""
    cross = (np.conj(fixed) * moving).sum(0)
    size = np.abs(cross)
    return np.asarray(cross / np.maximum(size + FLOOR * size.mean(), np.finfo(np.float32).tiny))


def _windowed(stack: Stack, window: Float[Array, "*spatial"]) -> Float[Array, "channels *spatial"]:
    """The channels without their means under the window, times the window."""
    axes = tuple(range(1, stack.ndim))
    means = (stack[:-2] * window).sum(axes, keepdims=True) / max(float(window.sum()), 1e-30)
    return np.asarray((stack[:-2] - means) * window)


def _window(mask: Bool[Array, "*spatial"]) -> Float[Array, "*spatial"]:
    """One inside a mask, falling softly to zero at its border and at that of the image."""
    depth = ndimage.distance_transform_edt(np.pad(mask, 1))[(slice(1, -1),) * mask.ndim]
    share = np.minimum(depth / max(TAPER * min(mask.shape), 1.0), 1.0)
    return np.asarray(np.sin(np.pi / 2 * share) ** 2, dtype=np.float32)


def _side(pixels: int, ndim: int) -> int:
    side: int = round(pixels ** (1 / ndim))
    return side


def _parallel(moving: Image, fixed: Image) -> Image:
    """The moving image on a grid whose axes run along those of the fixed one."""
    if np.allclose(moving.grid.direction, fixed.grid.direction):
        return moving
    turn = np.abs(np.array(fixed.grid.direction).T @ np.array(moving.grid.direction))
    grid = replace(moving.grid, direction=fixed.grid.direction)
    half = np.array(moving.grid.center) - grid.center
    grid = replace(grid, origin=tuple((np.array(grid.origin) + half).tolist()))
    return moving.resampled(grid.centered(np.ceil(turn @ moving.grid.shape).astype(int).tolist()), identity(fixed.ndim))
