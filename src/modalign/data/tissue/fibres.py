"""Bundles of wavy strands along a smooth orientation field; some bundles are collagen."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import expit, ndtri

from modalign.data.tissue.canvas import Array, Canvas, Map, draw_lines, smooth_field

STRANDS = 6
BUNDLE_LENGTH = 60.0
BUNDLE_REACH = 36.0
STRAND_WIDTHS = (0.35, 0.7)
ANISOTROPY = 1.4
FLOOR = 0.2


@dataclass(frozen=True)
class Fibres:
    """What all strands together leave on the raster.

    Attributes:
        orientation: Mean direction, from the x axis towards the y axis in radians, modulo pi.
        coverage: Amount of strand material, collagen or not; a single strand has height 1.
        collagen: The same for collagen alone.
        relief: Each strand is a little denser or looser than its surroundings: signed, with mean zero.
        harmonic: Second-harmonic source: collagen, times brightness and orientation factor of its strand.
    """

    orientation: Map
    coverage: Map
    collagen: Map
    relief: Map
    harmonic: Map


def orientation_field(rng: np.random.Generator, canvas: Canvas, scale: float = 30.0) -> Map:
    """A smooth random direction: half the angle of a random vector field, so that it has no head or tail."""
    y, x = smooth_field(rng, canvas, scale), smooth_field(rng, canvas, scale)
    orientation: Array = np.arctan2(y, x) / 2
    return orientation


def trace(canvas: Canvas, orientation: Map, starts: Float[Array, "n 2"], steps: int) -> Float[Array, "n points 2"]:
    """Follow the orientation field from each start for ``steps`` pixels to both sides."""
    halves = []
    for side in (-1.0, 1.0):
        position, path = starts, [starts]
        angle = canvas.lookup(orientation, starts)
        heading = side * np.stack([np.sin(angle), np.cos(angle)], axis=-1)
        for _ in range(steps):
            position = position + heading
            angle = canvas.lookup(orientation, position)
            line = np.stack([np.sin(angle), np.cos(angle)], axis=-1)
            heading = np.where(np.sum(line * heading, axis=-1, keepdims=True) < 0, -line, line)
            path.append(position)
        halves.append(np.stack(path, axis=1))
    return np.concatenate([halves[0][:, :0:-1], halves[1]], axis=1)


def tangents(paths: Float[Array, "*n points 2"]) -> Float[Array, "*n points 2"]:
    """Unit vectors along paths."""
    step: Array = np.gradient(paths, axis=-2)
    step /= np.maximum(np.linalg.norm(step, axis=-1, keepdims=True), 1e-6)
    return step


def split_into_strands(
    rng: np.random.Generator, canvas: Canvas, lines: Float[Array, "n points 2"]
) -> Float[Array, "n strands points 2"]:
    """Strands that lie side by side along each centre line, splay at the ends and share a crimp."""
    bundles, points = lines.shape[:2]
    along = (np.arange(points) - points // 2) * canvas.pixel_size
    bundle, strand = (bundles, 1, 1), (bundles, STRANDS, 1)
    phase = 2 * np.pi * along / rng.uniform(12, 28, bundle)
    phase = phase + rng.uniform(0, 2 * np.pi, bundle) + rng.normal(0, 0.4, strand)
    crimp = rng.uniform(0.2, 1.3, bundle) * rng.uniform(0.6, 1.4, strand) * np.sin(phase)
    side = rng.uniform(1.0, 3.5, bundle) * rng.standard_normal(strand)
    offset = canvas.pixels(1.0) * (side + crimp + rng.normal(0, 0.03, strand) * along)
    normal = tangents(lines)[..., ::-1] * (-1, 1)
    strands: Array = lines[:, None] + offset[..., None] * normal[:, None]
    return strands


def harmonic_factor(angle: Float[Array, "*n"]) -> Float[Array, "*n"]:
    """Second-harmonic intensity of a fibril at ``angle`` to the laser polarisation, between ``FLOOR`` and 1.

    The field parallel to the polarisation is ``d33 cos³ + 3 d31 cos sin²`` for a fibril of cylindrical symmetry that
    obeys Kleinman symmetry (Williams, Zipfel and Webb, Biophysical Journal 88, 2005); its maximum, for
    ``d33 / d31 = ANISOTROPY``, is at ``cos² = 1 / (3 - ANISOTROPY)``. The floor stands for fibrils that leave the
    mean direction of their strand.
    """
    cosine, sine = np.cos(angle), np.sin(angle)
    field = ANISOTROPY * cosine**3 + 3 * cosine * sine**2
    peak = 2 / np.sqrt(3 - ANISOTROPY)
    factor: Array = FLOOR + (1 - FLOOR) * (field / peak) ** 2
    return factor


def choose_collagen(
    rng: np.random.Generator, canvas: Canvas, starts: Float[Array, "n 2"], fraction: float
) -> Bool[Array, " n"]:
    """Bundles in patches of tissue that are rich in collagen, ``fraction`` of all on average."""
    richness = canvas.lookup(smooth_field(rng, canvas, 18.0), starts)
    chance = expit((richness - ndtri(1 - fraction)) / 0.25)
    chosen: Array = rng.uniform(size=len(starts)) < chance
    return chosen


def draw_strands(
    canvas: Canvas, strands: Float[Array, "n s p 2"], heights: Float[Array, "n s p"], thick: Bool[Array, " n"]
) -> Map:
    """All strands on one map, thin bundles and thick ones."""
    drawn: Array = np.zeros(canvas.shape, np.float32)
    for part, width in zip((~thick, thick), STRAND_WIDTHS, strict=True):
        drawn += draw_lines(canvas, strands[part], heights[part], width)
    return drawn


def strand_presence(rng: np.random.Generator, bundles: int, points: int) -> Float[Array, "bundles strands points"]:
    """One along each strand, falling to zero at ends that differ from strand to strand."""
    along = np.abs(np.linspace(-BUNDLE_REACH, BUNDLE_REACH, points))
    half_length = BUNDLE_LENGTH / 2 * rng.uniform(0.75, 1.25, (bundles, STRANDS, 1))
    return np.clip((np.minimum(half_length, BUNDLE_REACH) - along) / 4.0 + 0.5, 0, 1)


def draw_fibres(
    rng: np.random.Generator, canvas: Canvas, density: float, fraction: float, polarisation_radians: float
) -> Fibres:
    """Grow ``density`` micrometers of strand a square micrometer, ``fraction`` of it collagen.

    Relief and brightness are drawn independently of each other, so that gray values in bright field say nothing about
    those in the second harmonic.
    """
    orientation = orientation_field(rng, canvas)
    starts = canvas.scatter(rng, 1e6 * density / (STRANDS * BUNDLE_LENGTH), BUNDLE_REACH)
    strands = split_into_strands(rng, canvas, trace(canvas, orientation, starts, int(canvas.pixels(BUNDLE_REACH))))
    bundle, strand = (len(starts), 1, 1), (len(starts), STRANDS, 1)
    presence = strand_presence(rng, len(starts), strands.shape[2])
    collagen = presence * choose_collagen(rng, canvas, starts, fraction)[:, None, None]
    relief = rng.normal(0, 0.5, bundle) + rng.normal(0, 1, strand)
    brightness = rng.lognormal(0, 0.4, bundle) * rng.lognormal(0, 0.5, strand)
    heading = tangents(strands)
    angle = np.arctan2(heading[..., 0], heading[..., 1]) - polarisation_radians
    heights = {
        "coverage": presence,
        "collagen": collagen,
        "relief": presence * relief,
        "harmonic": collagen * brightness * harmonic_factor(angle),
    }
    thick = rng.uniform(size=len(starts)) < 0.4
    maps = {name: draw_strands(canvas, strands, height, thick) for name, height in heights.items()}
    return Fibres(orientation, **maps)
