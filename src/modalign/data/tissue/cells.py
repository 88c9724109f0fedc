"""Nuclei, glands and red blood cells: where they are, how large, and how they lie."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from scipy.spatial import cKDTree

from modalign.data.tissue.canvas import Array, Canvas, Ellipses, Map, draw_ellipses, smooth_field

EPITHELIUM = 10.0
FAR = 1e3


@dataclass(frozen=True)
class Cells:
    """What all cells together leave on the raster; maps lie between 0 and 1 unless said otherwise.

    Attributes:
        centres: ``(nuclei, 2)``, pixel indices of the nuclei that lie on the raster.
        nuclei: Presence of a nucleus.
        chromatin: Amount of haematoxylin in the nuclei, about 1.
        lumen: Presence of the empty inside of a gland.
        epithelium: Presence of the ring of cells around a lumen.
        red_cells: Presence of a red blood cell.
    """

    centres: Float[Array, "nuclei 2"]
    nuclei: Map
    chromatin: Map
    lumen: Map
    epithelium: Map
    red_cells: Map


@dataclass(frozen=True)
class Gland:
    """A lumen with a wavy, elongated outline.

    Attributes:
        centre: Pixel index.
        radius: Mean radius of the lumen, in micrometers.
        waves: Amplitude and phase of the second and third harmonic of the outline.
    """

    centre: Float[Array, " 2"]
    radius: float
    waves: Float[Array, "2 2"]

    def outline(self, angle: Float[Array, "*n"]) -> Float[Array, "*n"]:
        """Radius of the lumen in a direction, in micrometers."""
        (a2, p2), (a3, p3) = self.waves
        radius: Array = self.radius * (1 + a2 * np.cos(2 * angle + p2) + a3 * np.cos(3 * angle + p3))
        return radius


def draw_glands(rng: np.random.Generator, canvas: Canvas, density: float) -> list[Gland]:
    """Glands at ``density`` a square millimeter."""
    centres = canvas.scatter(rng, density, margin=40.0)
    radii = rng.uniform(4.0, 11.0, len(centres))
    amplitudes = rng.uniform((0.05, 0.0), (0.3, 0.1), (len(centres), 2))
    waves = np.stack([amplitudes, rng.uniform(0, 2 * np.pi, amplitudes.shape)], axis=-1)
    return [Gland(*parts) for parts in zip(centres, radii, waves, strict=True)]


def distance_from_lumens(canvas: Canvas, glands: list[Gland]) -> Map:
    """Distance from the nearest lumen along the ray from its centre, in micrometers, negative inside."""
    distance = np.full(canvas.shape, FAR, np.float32)
    y, x = np.indices(canvas.shape, sparse=True)
    for gland in glands:
        dy, dx = y - gland.centre[0], x - gland.centre[1]
        radius = np.hypot(dy, dx) * canvas.pixel_size
        distance = np.minimum(distance, radius - gland.outline(np.arctan2(dy, dx)))
    return distance.astype(np.float32)


def epithelial_nuclei(rng: np.random.Generator, canvas: Canvas, gland: Gland) -> Ellipses:
    """A ring of nuclei that point away from the lumen."""
    ring = gland.radius + EPITHELIUM / 2
    count = int(2 * np.pi * ring / 5.5)
    angles = 2 * np.pi * (np.arange(count) + rng.uniform(-0.25, 0.25, count)) / count
    radius = gland.outline(angles) + EPITHELIUM / 2 + rng.normal(0, 0.9, count)
    outward = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    centres = gland.centre + outward * canvas.pixels(1.0) * radius[:, None]
    semi_axes = np.stack([rng.uniform(2.8, 4.0, count), rng.uniform(1.8, 2.5, count)], axis=-1)
    return Ellipses(centres, semi_axes, angles + rng.normal(0, 0.2, count))


def stromal_nuclei(
    rng: np.random.Generator, canvas: Canvas, orientation: Map, distance: Map, density: float
) -> Ellipses:
    """Clustered nuclei along the fibres, slender where they are few and round where they are many."""
    crowd = smooth_field(rng, canvas, 16.0)
    candidates = canvas.scatter(rng, 3 * density, margin=10.0)
    crowding = canvas.lookup(crowd, candidates)
    free = canvas.lookup(distance, candidates) > EPITHELIUM + 2.0
    chosen = (rng.uniform(size=len(candidates)) < np.exp(0.8 * crowding - 0.32) / 3) & free
    centres, crowding = candidates[chosen], crowding[chosen]
    slender = rng.uniform(size=len(centres)) < 0.55 - 0.35 * crowding
    long = np.where(slender, rng.uniform(3.6, 6.2, len(centres)), rng.uniform(2.3, 3.4, len(centres)))
    short = np.where(slender, rng.uniform(1.2, 1.9, len(centres)), long * rng.uniform(0.75, 1.0, len(centres)))
    angles = canvas.lookup(orientation, centres) + rng.normal(0, 0.25, len(centres))
    return Ellipses(centres, np.stack([long, short], axis=-1), angles)


def without_overlap(canvas: Canvas, cells: Ellipses) -> Ellipses:
    """Leave out cells whose centre lies inside, or nearly inside, an earlier one."""
    if len(cells.centres) < 2:
        return cells
    keep = np.ones(len(cells.centres), bool)
    for first, second in sorted(cKDTree(cells.centres).query_pairs(canvas.pixels(4.5))):
        keep[second] &= not keep[first]
    return cells[keep]


def draw_red_cells(rng: np.random.Generator, canvas: Canvas, orientation: Map, distance: Map) -> Map:
    """Small heaps of red blood cells, stretched along the fibres."""
    heaps = np.repeat(canvas.scatter(rng, 40.0, margin=20.0), 9, axis=0)
    angles = canvas.lookup(orientation, heaps)
    along = np.stack([np.sin(angles), np.cos(angles)], axis=-1)
    along_across = np.stack([along, along[:, ::-1] * (-1, 1)], axis=1)
    shift = rng.normal(0, canvas.pixels(1.0), (len(heaps), 2)) * (7.0, 2.5)
    centres = heaps + np.einsum("ni,nij->nj", shift, along_across)
    centres = centres[canvas.lookup(distance, centres) > EPITHELIUM]
    semi_axes = np.repeat(rng.uniform(2.4, 3.2, (len(centres), 1)), 2, axis=1)
    strength = rng.uniform(0.7, 1.0, len(centres))
    return draw_ellipses(canvas, Ellipses(centres, semi_axes, np.zeros(len(centres))), strength)


def draw_cells(
    rng: np.random.Generator, canvas: Canvas, orientation: Map, nuclei_density: float, gland_density: float
) -> Cells:
    """Populate a raster whose fibres run along ``orientation``; densities are per square millimeter."""
    glands = draw_glands(rng, canvas, gland_density)
    distance = distance_from_lumens(canvas, glands)
    nuclei = stromal_nuclei(rng, canvas, orientation, distance, nuclei_density)
    for gland in glands:
        nuclei = epithelial_nuclei(rng, canvas, gland) + nuclei
    nuclei = without_overlap(canvas, nuclei)
    presence = draw_ellipses(canvas, nuclei, np.ones(len(nuclei.angles)))
    lumen = np.clip(0.5 - canvas.pixels(1.0) * distance, 0, 1) * (presence < 0.5)
    ring = np.clip((EPITHELIUM - distance) / 1.5 + 0.5, 0, 1) * (1 - lumen)
    red_cells = draw_red_cells(rng, canvas, orientation, distance) * (1 - presence)
    return Cells(
        centres=nuclei.centres[canvas.contains(nuclei.centres)],
        nuclei=presence,
        chromatin=draw_ellipses(canvas, nuclei, rng.lognormal(0, 0.25, len(nuclei.angles))),
        lumen=lumen,
        epithelium=ring,
        red_cells=red_cells,
    )
