"""The raster that a tissue is drawn on, and the brushes: random fields, lines and blobs.

Lengths are micrometers, positions are pixel indices ``(y, x)``, maps are float32 on the raster. Everything random is
stationary beyond the border, so that a larger image has the same statistics as a small one.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.ndimage import gaussian_filter, zoom

Array = np.ndarray
Map = Float[Array, "y x"]


@dataclass(frozen=True)
class Canvas:
    """A raster with a pixel size.

    Attributes:
        shape: Number of pixels along y and x.
        pixel_size: Edge of a pixel, in micrometers.
    """

    shape: tuple[int, int]
    pixel_size: float

    def pixels(self, micrometers: float) -> float:
        """A length in pixels."""
        return micrometers / self.pixel_size

    def scatter(self, rng: np.random.Generator, density: float, margin: float) -> Float[Array, "points 2"]:
        """A Poisson process of ``density`` points a square millimeter, on the raster and a ``margin`` around it."""
        pad = self.pixels(margin)
        extent = np.array(self.shape) + 2 * pad
        count = rng.poisson(density * 1e-6 * self.pixel_size**2 * extent.prod())
        return rng.uniform(size=(count, 2)) * extent - pad

    def contains(self, positions: Float[Array, "*points 2"]) -> Bool[Array, "*points"]:
        """True for positions whose nearest pixel exists."""
        nearest = np.rint(positions)
        inside: Array = ((nearest >= 0) & (nearest < self.shape)).all(axis=-1)
        return inside

    def lookup(self, values: Map, positions: Float[Array, "*points 2"]) -> Float[Array, "*points"]:
        """Values at the nearest pixels; positions outside read the border."""
        y, x = (np.clip(np.rint(positions[..., i]).astype(int), 0, n - 1) for i, n in enumerate(self.shape))
        found: Array = values[y, x]
        return found


def smooth_field(rng: np.random.Generator, canvas: Canvas, scale: float) -> Map:
    """A Gaussian random field of mean 0 and variance 1: white noise under a Gaussian filter of width ``scale``.

    The filter runs on a lattice of half the scale that is then enlarged: fast however large the scale.
    """
    step = max(1.0, canvas.pixels(scale) / 2)
    sigma = canvas.pixels(scale) / step
    pad = int(np.ceil(4 * sigma))
    shape = [int(np.ceil(n / step)) + 2 * pad + 2 for n in canvas.shape]
    coarse = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), sigma)[pad:-pad, pad:-pad]
    unit: Array = coarse * np.float32(2 * sigma * np.sqrt(np.pi))
    if step > 1:
        unit = zoom(unit, step, order=3)
    return unit[: canvas.shape[0], : canvas.shape[1]]


def draw_lines(
    canvas: Canvas, positions: Float[Array, "*points 2"], heights: Float[Array, "*points"], width: float
) -> Map:
    """Ridges of the given heights along points spaced one pixel; ``width`` is the sigma of their Gaussian profile."""
    keep = (heights != 0) & canvas.contains(positions - 0.5) & canvas.contains(positions + 0.5)
    base = np.floor(positions[keep]).astype(int)
    fraction = positions[keep] - base
    drawn = np.zeros(canvas.shape[0] * canvas.shape[1])
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        share = np.prod(np.where(corner, fraction, 1 - fraction), axis=-1)
        y, x = np.minimum(base + corner, np.array(canvas.shape) - 1).T
        drawn += np.bincount(y * canvas.shape[1] + x, share * heights[keep], minlength=drawn.size)
    sigma = max(canvas.pixels(width), 0.3)
    ridges: Array = gaussian_filter(drawn.reshape(canvas.shape).astype(np.float32), sigma)
    ridges *= np.float32(sigma * np.sqrt(2 * np.pi))
    return ridges


@dataclass(frozen=True)
class Ellipses:
    """Many ellipses.

    Attributes:
        centres: ``(n, 2)``, pixel indices.
        semi_axes: ``(n, 2)`` in micrometers, the one along ``angles`` first.
        angles: Direction from the x axis towards the y axis, in radians.
    """

    centres: Float[Array, "n 2"]
    semi_axes: Float[Array, "n 2"]
    angles: Float[Array, " n"]

    def __add__(self, other: "Ellipses") -> "Ellipses":
        return Ellipses(
            np.concatenate([self.centres, other.centres]),
            np.concatenate([self.semi_axes, other.semi_axes]),
            np.concatenate([self.angles, other.angles]),
        )

    def __getitem__(self, keep: Array) -> "Ellipses":
        return Ellipses(self.centres[keep], self.semi_axes[keep], self.angles[keep])


def draw_ellipses(canvas: Canvas, ellipses: Ellipses, heights: Float[Array, " n"]) -> Map:
    """Discs of the given heights with edges one pixel soft; where discs overlap the highest is seen."""
    drawn = np.zeros(canvas.shape, np.float32)
    if not len(heights):
        return drawn
    axes = np.maximum(ellipses.semi_axes / canvas.pixel_size, 1.0)
    reach = int(np.ceil(axes.max())) + 2
    window = np.moveaxis(np.mgrid[-reach : reach + 1, -reach : reach + 1], 0, -1)
    pixels = np.rint(ellipses.centres).astype(int)[:, None, None] + window
    offset = pixels - ellipses.centres[:, None, None]
    sine, cosine = np.sin(ellipses.angles)[:, None, None], np.cos(ellipses.angles)[:, None, None]
    along = offset[..., 0] * sine + offset[..., 1] * cosine
    across = offset[..., 0] * cosine - offset[..., 1] * sine
    radius = np.hypot(along / axes[:, None, None, 0], across / axes[:, None, None, 1])
    soft = np.clip((1 - radius) * axes.min(axis=1)[:, None, None] + 0.5, 0, 1) * heights[:, None, None]
    y, x = pixels[inside := canvas.contains(pixels.astype(float))].T
    np.maximum.at(drawn, (y, x), soft[inside].astype(np.float32))
    return drawn
