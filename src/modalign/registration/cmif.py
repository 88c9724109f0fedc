"""Mutual information of two quantised images, at one place or at all whole-pixel shifts at once.

Each image is a set of planes, one a class, that add up to its mask. With C_ab the sum of the products of plane a of the
fixed and plane b of the moving image, C_a and C_b the sums over one index and N the sum over both,

    MI = Σ C_ab/N log (C_ab N / (C_a C_b))    in nats.

Source: Öfverstedt, Lindblad, Sladoje, Fast computation of mutual information in the frequency domain with applications
to global multimodal image alignment, Pattern Recognition Letters 159, 2022, equations 7–13. There all C_ab, C_a, C_b
and N are inverse transforms; here those of the last class of each image follow from the others.
"""

import math
from typing import Any

import numpy as np
from jaxtyping import Complex, Float, Integer
from scipy import fft

Array = np.ndarray
Planes = Float[Array, "_ ..."]
"""Memberships of the classes, which add up to the mask: ``(classes, *spatial)``, float32."""
Spectra = Complex[Array, "_ ..."]
"""Half spectra of all planes but the last, and of the mask."""

NEGLIGIBLE, ROUNDING = 1e-3, 0.5
"""Counts below the first are rounding errors of the transforms; sums of the mask are right within the second."""
PEAK_RADIUS = 3
"""Local maxima are more than so many pixels apart."""


def joint_counts(fixed: Planes, moving: Planes) -> Float[Array, "fixed_classes moving_classes"]:
    """C_ab of planes that lie on each other."""
    return np.asarray(fixed.reshape(len(fixed), -1) @ moving.reshape(len(moving), -1).T, dtype=np.float64)


def dependence(joint: Float[Array, "*poses a b"], normalised: bool = False) -> Float[Array, "*poses"]:
    """The dependence of two images on each other by their joint counts, see :func:`strength`."""
    by_fixed, by_moving = (_xlogx(joint.sum(axis)).sum(-1) for axis in (-1, -2))
    return np.asarray(strength(_xlogx(joint).sum((-2, -1)), by_fixed, by_moving, joint.sum((-2, -1)), normalised))


def strength(joint: Any, fixed: Any, moving: Any, count: Any, normalised: bool) -> Any:
    """The mutual information on the scale of a correlation, from the sums of C log C over C_ab, C_a and C_b.

    √(1 − exp(−2 MI)), the size of the correlation of normal variables with this mutual information, between 0 and 1.
    Normalised, √(2 MI / (H_fixed + H_moving)) with the entropies of the overlap.

    Source: Linfoot, An informational measure of correlation, Information and Control 1, 1957; Maes et al., IEEE TMI
    16(2), 1997, for the entropy correlation coefficient, the normalised mutual information on a scale from 0 to 1.
    """
    area = np.maximum(count, 1)
    information = np.maximum((joint - fixed - moving) / area + np.log(area), 0)
    if not normalised:
        return np.sqrt(-np.expm1(-2 * information))
    entropies = 2 * np.log(area) - (fixed + moving) / area
    return np.sqrt(np.clip(2 * information / np.maximum(entropies, 1e-6), 0, 1))


def _xlogx(counts: Array) -> Array:
    return np.asarray(counts * np.log(np.maximum(counts, NEGLIGIBLE)))


class Cmif:
    """The cross-mutual-information function: one fixed image against many moving ones of one size.

    Args:
        fixed: Planes of the fixed image.
        box: Shape of the moving planes to come.
        least: Overlaps of fewer pixels score 0.
        normalised: Whether the mutual information is normalised, see :func:`strength`.
    """

    def __init__(self, fixed: Planes, box: tuple[int, ...], least: float, normalised: bool = False) -> None:
        self._fixed_shape, self._box = fixed.shape[1:], box
        self._least, self._normalised = least, normalised
        self.period = _periods(self._fixed_shape, box, least)
        self._axes = tuple(range(1, fixed.ndim))
        self._spectra = np.conj(self.spectra(fixed))

    def spectra(self, planes: Planes) -> Spectra:
        """What :meth:`scores` needs of the moving planes."""
        rows = np.concatenate([planes[:-1], planes.sum(0)[None]])
        return np.asarray(fft.rfftn(rows, self.period, axes=self._axes))

    def scores(self, spectra: Spectra) -> tuple[Float[Array, "*shifts"], Float[Array, "*shifts"]]:
        """Strength of the dependence, and the overlap in pixels, at every shift.

        At shift d, pixel x of the fixed image meets pixel x + d of the moving one; negative shifts are stored from the
        end.
        """
        count = self._counts(self._spectra[-1], spectra[-1:])[0]
        scores = np.zeros_like(count)
        enough = np.flatnonzero(count >= self._least - ROUNDING)
        scores.flat[enough] = self._strengths(spectra, enough)
        return scores, count

    def _strengths(self, spectra: Spectra, shifts: Integer[Array, " shifts"]) -> Float[Array, " shifts"]:
        """Strength of the dependence at some shifts; the counts of the last classes are what the others leave."""
        rest = self._counts(self._spectra[-1], spectra, shifts)
        count, by_moving = rest[-1].copy(), _sum_xlogx(_completed(rest))
        joint, by_fixed = np.zeros_like(count), np.zeros_like(count)
        for row in (*self._spectra[:-1], None):
            counts = rest if row is None else self._counts(row, spectra, shifts)
            by_fixed += _xlogx(counts[-1])
            joint += _sum_xlogx(_completed(counts))
            rest = rest - counts
        return np.asarray(strength(joint, by_fixed, by_moving, count, self._normalised))

    def peaks(self, spectra: Spectra, number: int) -> list[tuple[float, float, tuple[int, ...]]]:
        """Score, overlap in pixels and shift of the highest local maxima of score × √overlap, highest first."""
        scores, count = self.scores(spectra)
        ranks = scores * np.sqrt(np.maximum(count, 0))
        found = []
        for _ in range(number):
            index = np.unravel_index(int(ranks.argmax()), ranks.shape)
            if ranks[index] <= 0:
                break
            found.append((float(scores[index]), float(count[index]), self._shift(index)))
            ranks[tuple(slice(max(0, k - PEAK_RADIUS), k + PEAK_RADIUS + 1) for k in index)] = -1
        return found

    def _shift(self, index: tuple[Any, ...]) -> tuple[int, ...]:
        return tuple(int(k) if k < n else int(k) - p for k, n, p in zip(index, self._box, self.period, strict=True))

    def _counts(
        self, row: Array, spectra: Spectra, shifts: Integer[Array, " shifts"] | slice = slice(None)
    ) -> Float[Array, "rows ..."]:
        """Sums of the products of one row of the fixed image with all rows of the moving one."""
        counts = np.asarray(fft.irfftn(row * spectra, self.period, axes=self._axes))
        return counts if isinstance(shifts, slice) else counts.reshape(len(counts), -1)[:, shifts]


def _completed(counts: Float[Array, "rows shifts"]) -> Float[Array, "classes shifts"]:
    """Counts of all classes, from those of all but the last and of the mask."""
    return np.concatenate([counts[:-1], (counts[-1] - counts[:-1].sum(0))[None]])


def _sum_xlogx(counts: Float[Array, "classes shifts"]) -> Float[Array, " shifts"]:
    return np.asarray(_xlogx(counts).sum(0))


def _periods(fixed: tuple[int, ...], box: tuple[int, ...], least: float) -> tuple[int, ...]:
    """Periods just long enough that shifts with enough overlap do not wrap around.

    An overlap of ``least`` pixels is at least so many pixels long along an axis as remain after division by the largest
    possible overlap of the other axes: shorter overlaps may wrap, for they are too small to count.
    """
    widths = [min(n, m) for n, m in zip(fixed, box, strict=True)]
    shortest = [int(least / (math.prod(widths) / width)) for width in widths]
    needed = [n + m - s for n, m, s in zip(fixed, box, shortest, strict=True)]
    return tuple(int(fft.next_fast_len(n, real=True)) for n in needed)
