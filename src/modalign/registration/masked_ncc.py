"""Masked normalised cross-correlation of images with any number of channels, at one shift or at all of them.

Within the overlap of the two masks, with per-channel means taken over the overlap,

    ncc = Σ_c Σ_x (f_c − f̄_c)(g_c − ḡ_c) / √(Σ_c Σ_x (f_c − f̄_c)² · Σ_c Σ_x (g_c − ḡ_c)²).

Source: Padfield, Masked object registration in the Fourier domain, IEEE TIP 21(5), 2012. There it is for one channel;
here the sums over the channels are added before the division, and neither sum of squares counts as less than
``VARIANCE_FLOOR`` times what the whole image would give, so that flat overlaps cannot win.
"""

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
from jaxtyping import Complex, Float
from scipy import fft, ndimage

from modalign.image import Image

Array = np.ndarray
Stack = Float[Array, "_ ..."]
"""Masked channels, then the sum of their squares, then the mask (0 or 1): ``(channels + 2, *spatial)``, float32."""
Spectra = Complex[Array, "_ ..."]
"""Half spectra of a stack."""

VARIANCE_FLOOR = 0.1
"""Smallest variance of an overlap, as a fraction of that of the whole image, that the correlation divides by."""
COARSENING = 4
"""The sums that only normalise are smooth, for one factor is a mask: they are computed at every 4th shift."""

PEAK_RADIUS = 5
"""Local maxima are at least so many pixels apart."""


def standardised(image: Image) -> Stack:
    """The stack of an image whose channels have zero mean and, together, unit variance over the mask."""
    mask = image.valid.astype(np.float32)
    count = float(mask.sum(dtype=np.float64))
    data = np.where(image.valid, image.data, 0).astype(np.float32)
    means = data.reshape(len(data), -1).sum(1, dtype=np.float64) / count
    data = (data - means.astype(np.float32).reshape(-1, *(1,) * image.ndim)) * mask
    deviation = math.sqrt(sum(float(np.vdot(channel, channel)) for channel in data) / count)
    return stacked(data / np.float32(max(deviation, 1e-30)), mask)


def rank(score: float, overlap: float) -> float:
    """What decides between places: the score times the root of the overlap, a fraction of the smaller image.

    The correlation of unrelated images has a standard deviation of one over the root of the overlap, so without this
    factor the smallest overlap allowed would win by chance.
    """
    return score * math.sqrt(max(overlap, 0.0))


def stacked(data: Float[Array, "channels *spatial"], mask: Float[Array, "*spatial"]) -> Stack:
    """Masked channels, the sum of their squares, and the mask, in one array."""
    masked = data * mask
    return np.concatenate([masked, np.square(masked).sum(0)[None], mask[None]])


def ncc(fixed: Stack, moving: Stack) -> tuple[float, float]:
    """Correlation of two standardised stacks that lie on each other, and the number of pixels in their overlap."""
    return _rows_ncc(fixed.reshape(len(fixed), -1), moving.reshape(len(moving), -1))


def shifted_ncc(fixed: Stack, moving: Stack) -> list[tuple[tuple[int, ...], float, float]]:
    """:func:`ncc` at all shifts of up to one pixel: offset of ``moving``, correlation and overlap, no shift first.

    Args:
        fixed: Stack, ``(rows, *n)``.
        moving: Stack with a margin of one pixel to all sides, ``(rows, *(n + 2))``.
    """
    # in a frame of zeros a shift is an offset in memory, and pixels that wrap around meet zeros: no copies
    framed = np.pad(fixed, [(0, 0), *[(1, 1)] * (fixed.ndim - 1)]).reshape(len(fixed), -1)
    strides = np.array([math.prod(moving.shape[axis + 1 :]) for axis in range(1, moving.ndim)])
    rows, reach = moving.reshape(len(moving), -1), int(strides.sum())
    inner = framed[:, reach:-reach]
    found = []
    for offset in product((0, -1, 1), repeat=len(strides)):
        start = reach + int(strides @ offset)
        found.append((offset, *_rows_ncc(inner, rows[:, start : start + inner.shape[1]])))
    return found


def _rows_ncc(fixed: Float[Array, "rows n"], moving: Float[Array, "rows n"]) -> tuple[float, float]:
    against_mask, mask_against = fixed @ moving[-1], moving @ fixed[-1]
    count = against_mask[-1]
    scale, offset = _normalisation(against_mask[:-2], mask_against[:-2], against_mask[-2], mask_against[-2], count)
    products = sum(np.dot(f, m) for f, m in zip(fixed[:-2], moving[:-2], strict=True))
    return float(products * scale - offset), float(count)


def _normalisation(fixed: Array, moving: Array, squares_f: Any, squares_m: Any, count: Any) -> tuple[Any, Any]:
    """Factor and offset that turn the sum of products into the correlation; ``fixed`` and ``moving`` sum a channel."""
    area = np.maximum(count, 1)
    floor = VARIANCE_FLOOR * area  # standardised stacks have unit variance
    variance_f = np.maximum(squares_f - np.square(fixed).sum(0) / area, floor)
    variance_m = np.maximum(squares_m - np.square(moving).sum(0) / area, floor)
    scale = 1 / np.sqrt(variance_f * variance_m)
    return scale, (fixed * moving).sum(0) / area * scale


class Correlator:
    """Correlates one fixed image with many moving ones of one size at all whole-pixel shifts, by FFT.

    Args:
        fixed: Standardised stack.
        box: Shape of the moving stacks to come.
        area: Valid pixels of the smaller image.
        min_overlap: Overlaps below this fraction of the area score −1.
        coarsening: Distance between the shifts at which the normalisation is computed; 1 is exact.
    """

    def __init__(
        self, fixed: Stack, box: tuple[int, ...], area: float, min_overlap: float, coarsening: int = COARSENING
    ) -> None:
        self._box, self._least, self._coarsening = box, min_overlap * area, coarsening
        self._axes = tuple(range(1, fixed.ndim))
        self._small = _periods(fixed.shape[1:], box, self._least, coarsening)
        self.period = tuple(n * coarsening for n in self._small)
        self._spectra = np.conj(self.spectra(fixed))
        self._low = self._lowest(self._spectra)

    def spectra(self, moving: Stack) -> Spectra:
        """What :meth:`scores` needs of a moving stack."""
        return np.asarray(fft.rfftn(moving, self.period, axes=self._axes))

    def scores(self, spectra: Spectra) -> tuple[Float[Array, "*shifts"], Float[Array, "*coarse"]]:
        """Correlation at every shift, and the overlap in pixels at every ``coarsening``-th shift.

        At shift d, pixel x of ``fixed`` meets pixel x + d of ``moving``; negative shifts are stored from the end.
        """
        cross, scale, offset, count = self._terms(spectra)
        return cross * spread(scale, self._coarsening) - spread(offset, self._coarsening), count

    def _terms(self, spectra: Spectra) -> tuple[Array, Array, Array, Array]:
        """Sums of products at every shift; at every ``coarsening``-th, what makes scores of them, and the overlap."""
        cross = self._summed((self._spectra[:-2] * spectra[:-2]).sum(0)[None], self.period)[0]
        low = self._lowest(spectra)
        against_mask = self._summed(self._low * low[-1], self._small)
        mask_against = self._summed(self._low[-1] * low[:-1], self._small)
        count = against_mask[-1]
        scale, offset = _normalisation(against_mask[:-2], mask_against[:-1], against_mask[-2], mask_against[-1], count)
        allowed = count >= self._least
        return cross, np.where(allowed, scale, 0), np.where(allowed, offset, 1), count

    def peaks(self, spectra: Spectra, number: int) -> list[tuple[float, float, tuple[int, ...]]]:
        """Score, overlap in pixels and shift of the highest local maxima of the rank, highest first."""
        cross, scale, offset, count = self._terms(spectra)
        weight = np.sqrt(np.maximum(count, 0))
        ranks = _RANKS.get(len(self.period), _ranks)(cross, scale, offset, weight, self._coarsening)
        found = []
        for _ in range(number):
            index = np.unravel_index(int(ranks.argmax()), ranks.shape)
            if ranks[index] <= 0:
                break
            overlap = _between(weight, index, self._coarsening) ** 2
            found.append((float(ranks[index] / math.sqrt(overlap)), overlap, self._shift(index)))
            ranks[tuple(slice(max(0, k - PEAK_RADIUS), k + PEAK_RADIUS + 1) for k in index)] = -1
        return found

    def echo(self, spectra: Spectra, place: Float[Array, " ndim"], near: float, least_overlap: float) -> float:
        """The highest local maximum of the correlation itself that is further than ``near`` pixels from a place.

        Unlike the rank, it does not fall with the overlap: the shifts of a periodic texture are all as good. Overlaps
        below ``least_overlap`` pixels do not count; 0 where there is no such maximum.
        """
        scores, count = self.scores(spectra)
        axes = np.ix_(*(np.arange(p) for p in self.period))
        shifts = [np.where(k < n, k, k - p) for k, n, p in zip(axes, self._box, self.period, strict=True)]
        distance = sum(np.square(shift - x) for shift, x in zip(shifts, place, strict=True))
        peaks = scores == ndimage.maximum_filter(scores, 3, mode="wrap")
        counted = peaks & (np.asarray(distance) > near**2) & (spread(count, self._coarsening) >= least_overlap)
        return max(float(scores[counted].max(initial=0.0)), 0.0)

    def _shift(self, index: tuple[Any, ...]) -> tuple[int, ...]:
        """The shift at an index of the scores: negative shifts are stored from the end."""
        return tuple(int(k) if k < n else int(k) - p for k, n, p in zip(index, self._box, self.period, strict=True))

    def _summed(self, spectra: Spectra, shape: tuple[int, ...]) -> Float[Array, "rows *n"]:
        scale = math.prod(shape) / math.prod(self.period)
        return np.asarray(fft.irfftn(spectra, shape, axes=self._axes)) * np.float32(scale)

    def _lowest(self, spectra: Spectra) -> Spectra:
        """The part of half spectra that a transform of the small shape has."""
        for axis, n in zip(self._axes[:-1], self._small[:-1], strict=True):
            kept = np.r_[0 : (n + 1) // 2, spectra.shape[axis] - n // 2 : spectra.shape[axis]]
            spectra = np.take(spectra, kept, axis)
        return spectra[..., : self._small[-1] // 2 + 1]


def spread(coarse: Float[Array, "*coarse"], step: int) -> Float[Array, "*shifts"]:
    """Linear interpolation of a periodic field known at every ``step``-th shift.

    Elementwise on purpose: matrix products of this size start the threads of BLAS for nothing.
    """
    share = np.arange(step, dtype=np.float32) / np.float32(step)
    for axis in range(coarse.ndim):
        ahead = np.roll(coarse, -1, axis) - coarse
        fine = np.empty((*coarse.shape[: axis + 1], step, *coarse.shape[axis + 1 :]), np.float32)
        for k, part in enumerate(share):
            window = (slice(None),) * (axis + 1) + (k,)
            np.multiply(ahead, part, out=fine[window])
            fine[window] += coarse
        coarse = fine.reshape(*coarse.shape[:axis], -1, *coarse.shape[axis + 1 :])
    return coarse


def _between(coarse: Float[Array, "*coarse"], index: tuple[Any, ...], step: int) -> float:
    """One value of :func:`spread`."""
    corners = coarse[np.ix_(*((k // step, (k // step + 1) % n) for k, n in zip(index, coarse.shape, strict=True)))]
    for k in index:
        share = (k % step) / step
        corners = (1 - share) * corners[0] + share * corners[1]
    return float(corners)


def _ranks(cross: Array, scale: Array, offset: Array, weight: Array, step: int) -> Float[Array, "*shifts"]:
    """Score times the root of the overlap at every shift."""
    return np.asarray((cross * spread(scale, step) - spread(offset, step)) * spread(weight, step))


def _volume_ranks(cross: Array, scale: Array, offset: Array, weight: Array, step: int) -> Float[Array, "*shifts"]:
    from modalign.registration.volume_kernels import rank_shifts

    coarse = np.stack([scale, offset, weight], axis=2).astype(np.float32)
    ranks = np.empty(cross.shape, np.float32)
    rank_shifts(np.ascontiguousarray(cross, np.float32), coarse, step, ranks)
    return ranks


_RANKS: dict[int, Callable[[Array, Array, Array, Array, int], Array]] = {3: _volume_ranks}
"""Faster ways than the general one, by the number of dimensions."""


def _periods(fixed: tuple[int, ...], box: tuple[int, ...], least: float, coarsening: int) -> tuple[int, ...]:
    """Coarse periods just long enough that shifts with enough overlap do not wrap around.

    An overlap of ``least`` pixels is at least so many pixels long along an axis as remain after division by the largest
    possible overlap of the other axes: shorter overlaps may wrap, for they are too small to count.
    """
    widths = [min(n, m) for n, m in zip(fixed, box, strict=True)]
    shortest = [int(least / (math.prod(widths) / width)) for width in widths]
    needed = [n + m - s for n, m, s in zip(fixed, box, shortest, strict=True)]
    return tuple(int(fft.next_fast_len(math.ceil(n / coarsening), real=True)) for n in needed)
