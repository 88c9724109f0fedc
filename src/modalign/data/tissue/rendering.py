"""Two microscopes that look at one tissue: bright field after H&E staining, and second-harmonic generation."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from scipy.ndimage import gaussian_filter

from modalign.data.tissue.canvas import Array, Canvas, Map, smooth_field
from modalign.data.tissue.cells import Cells
from modalign.data.tissue.fibres import Fibres

HAEMATOXYLIN = (0.650, 0.704, 0.286)
"""Optical density of haematoxylin in red, green and blue (Ruifrok and Johnston, Analytical and Quantitative Cytology
and Histology 23, 2001)."""
EOSIN = (0.072, 0.990, 0.105)
"""Optical density of eosin (same source)."""
RED_CELL = (0.15, 0.85, 0.60)
"""Optical density of stained haemoglobin, which takes eosin and absorbs blue of its own."""
UNSTAINED = (0.01, 0.02, 0.06)
"""Optical density of the tissue itself, a little yellow."""
LUMA = (0.299, 0.587, 0.114)
"""Weights of red, green and blue in a gray picture (ITU-R BT.601)."""


@dataclass(frozen=True)
class Stains:
    """What the staining bath leaves behind.

    Attributes:
        haematoxylin: Optical density.
        eosin: Optical density.
        red_cells: Optical density of haemoglobin.
        collagen_hue: Change of transmitted light along :func:`isoluminant_hue`.
    """

    haematoxylin: Map
    eosin: Map
    red_cells: Map
    collagen_hue: Map


def stain(rng: np.random.Generator, canvas: Canvas, fibres: Fibres, cells: Cells) -> Stains:
    """Let the dyes bind.

    All fibres bind eosin alike, each strand a little more or less than its surroundings, so that gray values do not
    tell collagen from the rest. Collagen differs by a hue.
    """
    grain = 0.6 * smooth_field(rng, canvas, 0.5) + 0.5 * smooth_field(rng, canvas, 1.5)
    stroma = (1 - cells.nuclei) * (1 - cells.epithelium)
    solid = 1 - cells.lumen
    eosin = 0.24 + 0.06 * smooth_field(rng, canvas, 30.0) + 0.03 * grain
    eosin += stroma * (0.07 * np.tanh(fibres.relief / 1.5) + 0.03 * np.tanh(fibres.coverage))
    chromatin = cells.chromatin * (0.55 + 0.16 * smooth_field(rng, canvas, 0.8))
    haematoxylin = 0.07 + 0.02 * smooth_field(rng, canvas, 20.0) + 0.015 * smooth_field(rng, canvas, 0.8)
    haematoxylin += 0.10 * cells.epithelium + chromatin
    hue = 0.05 * stroma * (1 - np.exp(-fibres.collagen)) + 0.012 * smooth_field(rng, canvas, 20.0)
    pale = solid * (1 - 0.8 * cells.red_cells)
    return Stains(
        haematoxylin=np.maximum(haematoxylin, 0) * pale,
        eosin=np.maximum(eosin, 0.02) * pale,
        red_cells=0.55 * cells.red_cells * solid,
        collagen_hue=hue * solid,
    )


def isoluminant_hue() -> Float[Array, " 3"]:
    """The change of red, green and blue that alters neither their mean nor their luma: towards blue, away from red."""
    direction: Array = np.cross((1.0, 1.0, 1.0), LUMA)
    direction /= np.abs(direction).max()
    return direction


def dye_vectors(rng: np.random.Generator, variation: float) -> Float[Array, "3 3"]:
    """Unit optical densities of haematoxylin, eosin and red cells, varied as between staining runs."""
    nominal = np.array([HAEMATOXYLIN, EOSIN, RED_CELL])
    varied: Array = np.maximum(nominal + rng.normal(0, 0.3 * variation, nominal.shape), 0.01)
    varied /= np.linalg.norm(varied, axis=1, keepdims=True)
    return varied


def ramp(rng: np.random.Generator, canvas: Canvas, depth: float) -> Map:
    """Uneven illumination: about 1, falling by ``depth`` from one side to the other in a random direction."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = (np.linspace(-0.5, 0.5, n) for n in canvas.shape)
    light: Array = 1 + depth * (np.sin(angle) * y[:, None] + np.cos(angle) * x)
    return light.astype(np.float32)


def bright_field(
    rng: np.random.Generator, canvas: Canvas, fibres: Fibres, cells: Cells, variation: float
) -> UInt8[Array, "3 y x"]:
    """Render H&E by the law of Beer and Lambert: transmitted light is ten to the minus optical density."""
    stains = stain(rng, canvas, fibres, cells)
    amounts = np.stack([stains.haematoxylin, stains.eosin, stains.red_cells])
    amounts *= rng.lognormal(0, variation, 3).astype(np.float32)[:, None, None]
    density = np.einsum("d...,dc->c...", amounts, dye_vectors(rng, variation).astype(np.float32))
    density += np.array(UNSTAINED, np.float32)[:, None, None] * (1 - cells.lumen)
    light = 10**-density + stains.collagen_hue * isoluminant_hue()[:, None, None]
    light = gaussian_filter(light, (0, *(canvas.pixels(0.3),) * 2))
    white = rng.uniform(0.90, 0.97) * np.array([1.0, rng.uniform(0.97, 1.0), rng.uniform(0.97, 1.02)])
    light *= white[:, None, None] * ramp(rng, canvas, 0.08)
    light += rng.normal(0, 0.008, light.shape)
    picture: Array = np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8)
    return picture


def second_harmonic(
    rng: np.random.Generator, canvas: Canvas, fibres: Fibres, cells: Cells, photons: float
) -> UInt8[Array, "1 y x"]:
    """Render the second harmonic: collagen only, dim where it lies out of focus, counted photon by photon."""
    depth = np.exp(0.6 * smooth_field(rng, canvas, 15.0) - 0.18)
    shadow = gaussian_filter(cells.nuclei, canvas.pixels(0.8))
    seen = (1 - 0.75 * shadow) * (1 - cells.lumen) * (1 - cells.epithelium) * (1 - cells.red_cells)
    source = gaussian_filter(fibres.harmonic * depth * seen, canvas.pixels(0.4))
    expected = photons * (source * ramp(rng, canvas, 0.15) + 0.02)
    counts = rng.poisson(np.maximum(expected, 0)) + rng.normal(0, 0.5, canvas.shape)
    picture: Array = np.clip(np.rint(counts * (60.0 / photons) + 4), 0, 255).astype(np.uint8)
    return picture[None]
