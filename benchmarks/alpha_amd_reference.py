"""The engine ``alpha-amd`` beside a slow, literal version with the published settings: error and CPU time.

``python benchmarks/alpha_amd_reference.py`` registers one modality of 834² pixels, displaced by 18° and 6 % of the
width, from three starts, with both. The literal version follows the description of the method (Öfverstedt, Lindblad and
Sladoje, IEEE TIP 28(7), 2019) in NumPy and SciPy, in float64, with the settings of Lu et al., PLOS ONE 17(11):e0276196,
2022: stored gradients of every distance transform, samples of 1 % drawn with replacement, plain gradient descent with
linearly annealed steps, and the start with the lowest last sampled distance. Compiling the engine's loops, which
happens once per machine, is not counted.
"""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from scipy import ndimage

from modalign.data.tissue import TissueOptions, tissue
from modalign.geometry import Grid, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration.alpha_amd import AlphaAmd

Array = np.ndarray
Result = TypeVar("Result")

LEVELS = 7
SAMPLING = 0.01
PYRAMID = ((4, 12.0), (2, 5.0), (1, 1.0))
"""Factor and smoothing, in pixels of the original."""
ITERATIONS = (3000, 1000, 200)
STEPS = ((2.0, 2.0), (2.0, 2.0), (2.0, 0.2))
"""Length of the first and of the last step of each level."""
STARTS = (0.0, -0.4, 0.4)
"""Radians."""
LEAST_GRADIENT = 1e-4
SIDE, DEGREES, SHIFT = 834, 18.0, 0.06


@dataclass
class LiteralSet:
    """An image as a fuzzy set: points by level, and tables of gradient and distance for points of each level."""

    center: Array
    pixel: float
    points: list[Array]
    frequencies: Array
    tables: list[Array]
    count: int

    @classmethod
    def of(cls, values: Array, pixel: float) -> "LiteralSet":
        """The set of an image whose pixels have a size."""
        stretched = (values - values.min()) / (values.max() - values.min())
        levels = (1 + np.floor(stretched * LEVELS - 0.5)).astype(int)
        center = pixel * (np.array(values.shape) - 1) / 2
        places = np.moveaxis(np.indices(values.shape), 0, -1) * pixel - center
        points = [places[levels == q] for q in range(LEVELS + 1)]
        limit = math.hypot(*values.shape) * pixel
        up = cumulative([levels >= i for i in range(1, LEVELS + 1)], pixel, limit)
        down = cumulative([LEVELS - levels >= i for i in range(1, LEVELS + 1)], pixel, limit)
        tables = [up[q] + down[LEVELS - q] for q in range(LEVELS + 1)]
        frequencies = np.array([len(p) for p in points]) / levels.size
        return cls(center, pixel, points, frequencies, tables, round(SAMPLING * levels.size))

    def sample(self, generator: np.random.Generator) -> list[Array]:
        """Points of each level, drawn with replacement."""
        counts = generator.multinomial(self.count, self.frequencies)
        drawn = zip(self.points, counts, strict=True)
        return [points[generator.integers(0, max(len(points), 1), n)] if n else points[:0] for points, n in drawn]


def cumulative(cuts: list[Array], pixel: float, limit: float) -> list[Array]:
    """Sums of (gradient, distance) over the first cuts, a list that starts with none."""
    tables = [np.zeros((3, *cuts[0].shape))]
    for cut in cuts:
        distance = np.full(cut.shape, limit)
        if cut.any():
            distance = np.minimum(ndimage.distance_transform_edt(~cut, sampling=pixel), limit)
        gradients = [np.where(cut, 0, slope) for slope in np.gradient(distance, pixel)]
        tables.append(tables[-1] + np.stack([*gradients, distance]) / LEVELS)
    return tables


def one_way(source: LiteralSet, target: LiteralSet, parameters: Array, generator: np.random.Generator) -> Array:
    """Sampled distance from source to target, and its derivative by angle and shift."""
    turn, slope = rotation(parameters[0]), rotation(parameters[0] + np.pi / 2)
    total, weight = np.zeros(4), 0.0
    for table, points in zip(target.tables, source.sample(generator), strict=True):
        if not len(points):
            continue
        indices = ((points @ turn.T + parameters[1:] + target.center) / target.pixel).T
        sides = np.array(table.shape[1:])[:, None] - 1
        inside = ((indices >= 0) & (indices <= sides)).all(axis=0)
        by_y, by_x, distance = (
            ndimage.map_coordinates(part, indices, order=1, mode="constant", prefilter=False) * inside for part in table
        )
        by_angle = (np.stack([by_y, by_x], axis=1) * (points @ slope.T)).sum()
        total += [distance.sum(), by_angle, by_y.sum(), by_x.sum()]
        weight += inside.sum()
    return total / max(weight, 1)


def symmetric(fixed: LiteralSet, moving: LiteralSet, parameters: Array, generator: np.random.Generator) -> Array:
    """The same in both directions, with the derivative of the inverse mapped back."""
    forward = one_way(fixed, moving, parameters, generator)
    angle, shift = parameters[0], parameters[1:]
    back = one_way(moving, fixed, np.array([-angle, *(-rotation(-angle) @ shift)]), generator)
    by_angle = -back[1] + back[2:] @ (rotation(-angle + np.pi / 2) @ shift)
    by_shift = -rotation(-angle).T @ back[2:]
    return 0.5 * (forward + np.array([back[0], by_angle, *by_shift]))


def rotation(radians: float) -> Array:
    return rotation_matrix(2, math.degrees(radians))


def literal(fixed: Array, moving: Array) -> Array:
    """Angle and shift that take points of the fixed image, about its centre, to the moving one."""
    generator = np.random.default_rng(1000)
    pairs = [
        [LiteralSet.of(ndimage.gaussian_filter(v, sigma)[::factor, ::factor], factor) for v in (fixed, moving)]
        for factor, sigma in PYRAMID
    ]
    scales = np.array([0.1 / math.hypot(*fixed.shape), 5.0, 5.0])
    ends = [descended(pairs, np.array([start, 0.0, 0.0]), scales, generator) for start in STARTS]
    return min(ends, key=lambda end: end[0])[1]


def descended(
    pairs: list[list[LiteralSet]], parameters: Array, scales: Array, generator: np.random.Generator
) -> tuple[float, Array]:
    """The last sampled distance, and the parameters, after the descent through all levels."""
    distance = math.inf
    for pair, iterations, (first, last) in zip(pairs, ITERATIONS, STEPS, strict=True):
        for k in range(iterations):
            distance, *gradient = symmetric(*pair, parameters, generator)
            parameters = parameters - (first + k / iterations * (last - first)) * scales * gradient
            if np.linalg.norm(gradient) < LEAST_GRADIENT:
                break
    return distance, parameters


def scenes() -> dict[str, Image]:
    """Textured fields, large enough that displaced views have no empty corners."""
    side = round(1.6 * SIDE)
    fibres = tissue(0, TissueOptions(shape=(side, side))).second_harmonic
    return {"fine texture": texture(side, 6.0), "coarse texture": texture(side, 15.0), "tissue": fibres}


def texture(side: int, feature: float) -> Image:
    """Band-passed noise."""
    noise = np.random.default_rng(0).standard_normal((side, side))
    band = ndimage.gaussian_filter(noise, feature) - ndimage.gaussian_filter(noise, 4 * feature)
    return Image(band[None].astype(np.float32), Grid(band.shape))


def views(scene: Image) -> tuple[Image, Image, Rigid]:
    """The middle of a scene, the same displaced, and the truth."""
    corner = (scene.grid.shape[0] - SIDE) // 2
    fixed = scene.cropped((corner, corner), (SIDE, SIDE))
    truth = Rigid.about(fixed.grid.center, rotation_matrix(2, DEGREES), SIDE * SHIFT * np.array([1.0, -1.0]) / 2**0.5)
    return fixed, scene.resampled(fixed.grid, truth.inverse(), order=3), truth


def timed(work: Callable[[], Result]) -> tuple[float, Result]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def main() -> None:
    print(f"{'scene':15} {'literal':>9} {'engine':>9} {'ratio':>6}   corner error, pixels: literal, engine")
    for name, scene in scenes().items():
        fixed, moving, truth = views(scene)
        AlphaAmd().register(fixed, moving)  # compiles, or loads what was compiled
        fast, found = timed(lambda f=fixed, m=moving: AlphaAmd().register(f, m))
        both = [image.data[0].astype(float) for image in (fixed, moving)]
        slow, end = timed(lambda b=both: literal(*b))
        reference = Rigid.about(fixed.grid.center, rotation(end[0]), end[1:])
        errors = [corner_error(fixed.grid, t, truth) for t in (reference, found.candidate) if t is not None]
        print(
            f"{name:15} {slow:7.2f} s {fast:7.2f} s {slow / fast:6.0f}   {errors[0]:.4f}, {errors[1]:.4f}", flush=True
        )


if __name__ == "__main__":
    main()
