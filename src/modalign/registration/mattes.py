"""Climbing Mattes' mutual information with ITK: one local optimum, or the best of many starts on a pyramid.

Source: Mattes et al., IEEE TMI 22(1), 2003; the evolution strategy is that of Styner et al., IEEE TMI 19(3), 2000.
"""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, Literal

import numpy as np

from modalign.geometry import Affine, Linear, Rigid, Similarity
from modalign.image import Image
from modalign.registration.information import Level, Run, Starts, level_spacings, scored
from modalign.registration.registrar import Status

Array = np.ndarray
Pair = tuple[Image, Image]
Kind = Literal["rigid", "similarity", "affine"]

KINDS: dict[Kind, type[Linear]] = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}
"""The kinds of transform, each a group that contains the one before."""
ITK_TRANSFORMS = {
    ("rigid", 2): "Euler2DTransform",
    ("rigid", 3): "Euler3DTransform",
    ("similarity", 2): "Similarity2DTransform",
    ("similarity", 3): "Similarity3DTransform",
}
"""ITK's names, where the kind and the number of dimensions matter; affine needs neither."""

COARSE_BLUR = 1.0
"""Smoothing of the coarsest level, in its pixels: it widens the peaks."""
LEAST_BINS = 12
"""Fewest bins of the joint histogram: small levels have too few pixels to fill more."""
FIRST_STEP, LAST_STEP, COARSE_LAST_STEP = 2.0, 0.005, 0.05
"""Longest and shortest step of the gradient descent, in pixels of the level; shortest where a finer level follows."""
RELAXATION = 0.6
"""Steps shrink by this factor where the gradient turns back."""

LEAST_INFORMATION = 0.01
"""Less mutual information times overlap, in nats, is refused."""
LEAST_OVERLAP = 0.25
"""A smaller overlap is refused."""
TRUSTED_PIXELS = 1000
"""An overlap of fewer pixels is not trusted: in so few, one texture looks much like another."""
TRUSTED_CONTRAST = 0.3
"""By how much, as a fraction, the best place must outrank the next best elsewhere to be trusted.

Of 90 unrelated pairs of stained sections and aerial photographs none was trusted; of 157 registered right, 139 were."""


@dataclass(frozen=True)
class Climb:
    """How a local optimum is climbed."""

    bins: int = 32
    """Bins of the joint histogram along each axis; fewer at levels with few pixels."""
    samples: int = 30_000
    """Pixels drawn at random for the histogram; all where there are fewer."""
    iterations: int = 150
    """Most steps."""
    seed: int = 0
    """Seed of the random samples."""
    last_step: float = LAST_STEP
    """Shortest step of a gradient descent, in pixels of the level."""

    def run(self, level: Level, start: Linear, kind: Kind) -> Run:
        """The local optimum near a start; the start itself where that is not worth less."""
        transforms = (self.climbed(level, start, kind), start)
        return max((scored(level, transform, self.seed) for transform in transforms), key=lambda run: run.rank)

    def climbed(self, level: Level, start: Linear, kind: Kind) -> Linear:
        """The transform of a kind at which the climb from a start ends; the start where it runs off the images."""
        method, transform = self._method(level), to_itk_transform(start, kind, level.fixed)
        self._set_optimiser(method, level, transform.GetNumberOfParameters())
        method.SetInitialTransform(transform, inPlace=True)
        try:
            with one_thread():
                method.Execute(to_itk(level.fixed, level.fixed.data[0]), to_itk(level.moving, level.moving.data[0]))
        except RuntimeError:  # ITK raises where the images no longer overlap
            return start
        return from_itk_transform(transform, kind)

    def _method(self, level: Level) -> Any:
        sitk = simple_itk()
        method = sitk.ImageRegistrationMethod()
        pixels = math.prod(level.fixed.grid.shape)
        method.SetMetricAsMattesMutualInformation(min(self.bins, max(LEAST_BINS, math.isqrt(pixels) // 2)))
        share = min(1.0, self.samples / pixels)
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, self.seed + 1)  # ITK takes a seed of 0 for the time of day
        for image, place in ((level.fixed, method.SetMetricFixedMask), (level.moving, method.SetMetricMovingMask)):
            if image.mask is not None:
                place(to_itk(image, image.mask.astype(np.uint8)))
        method.SetInterpolator(sitk.sitkLinear)
        return method

    def _set_optimiser(self, method: Any, level: Level, parameters: int) -> None:  # noqa: ARG002
        steps = (FIRST_STEP * level.spacing, self.last_step * level.spacing)
        method.SetOptimizerAsRegularStepGradientDescent(
            *steps, self.iterations, RELAXATION, gradientMagnitudeTolerance=1e-9
        )
        method.SetOptimizerScalesFromPhysicalShift()


@dataclass(frozen=True)
class Evolution(Climb):
    """A climb by random steps whose size and shape adapt to what succeeded (one parent, one child)."""

    initial_radius: float = 0.00625
    """Size of the first steps: radians, or shares of the image's diagonal."""
    growth: float = 1.05
    """By how much the steps grow after a success."""
    epsilon: float = 1.5e-6
    """The climb ends where the steps are smaller."""

    def _set_optimiser(self, method: Any, level: Level, parameters: int) -> None:
        method.SetOptimizerAsOnePlusOneEvolutionary(
            self.iterations, self.epsilon, self.initial_radius, self.growth, seed=self.seed + 1
        )  # ITK takes a seed of 0 for the time of day
        shifts = [1 / float(np.linalg.norm(level.fixed.grid.extent))] * level.fixed.ndim
        method.SetOptimizerScales([1.0] * (parameters - len(shifts)) + shifts)  # ITK counts the shift last


def multi_start(pairs: Sequence[Pair], starts: Starts, climb: Climb, kind: Kind, max_side: int) -> list[list[Run]]:
    """The runs of each level, coarsest level first, best run first: the better half of them goes on to the next.

    Args:
        pairs: The same two images in one or more forms, one channel each; the form whose best start tells most is used.
        starts: The poses to try on the coarsest level.
        climb: How each of them is climbed.
        kind: Of the transform; simpler kinds are climbed first.
        max_side: Pixels along the longest side of the finest level.
    """
    levels = [Level.of(*pair, level_spacings(*pair, max_side)[0], COARSE_BLUR) for pair in pairs]
    options = [(level, pair, starts.best(level)) for level, pair in zip(levels, pairs, strict=True)]
    level, pair, runs = max(options, key=lambda option: option[2][0].rank)
    coarse = replace(climb, last_step=COARSE_LAST_STEP)
    for simpler in _simpler(kind):
        runs = [coarse.run(level, run.fixed_to_moving, simpler) for run in runs]
    history = []
    spacings = level_spacings(*pair, max_side)
    for number, spacing in enumerate(spacings):
        level = Level.of(*pair, spacing) if number else level
        way = climb if spacing == spacings[-1] else coarse
        runs = sorted((way.run(level, run.fixed_to_moving, kind) for run in runs), key=lambda run: -run.rank)
        history.append(runs)
        runs = runs[: math.ceil(len(runs) / 2)]
    return history


def _simpler(kind: Kind) -> list[Kind]:
    kinds: list[Kind] = list(KINDS)
    return kinds[: kinds.index(kind)]


def verdict(best: Run, contrast: float) -> tuple[Status, tuple[str, ...]]:
    """Status and reason by what the best run is worth, and by how far it outranks the others."""
    if best.overlap < LEAST_OVERLAP:
        return "refused", (f"only {best.overlap:.0%} of the images overlap; give a start closer to the truth",)
    if best.rank < LEAST_INFORMATION:
        reason = f"the intensities tell too little about each other ({best.information:.3f} nats)"
        return "refused", (f"{reason}; use a representation or SIFT",)
    if best.pixels < TRUSTED_PIXELS:
        return "unsure", (f"only {best.pixels} pixels overlap; use larger images, or look at the overlay",)
    if contrast < TRUSTED_CONTRAST:
        reason = f"another place fits nearly as well (contrast {contrast:.2f}, at least {TRUSTED_CONTRAST} is needed)"
        return "unsure", (f"{reason}; look at the overlay, or give a start closer to the truth",)
    return "accepted", (f"the best place stands out ({best.information:.3f} nats, contrast {contrast:.2f})",)


def simple_itk() -> Any:
    """SimpleITK, which is slow to import and has no types."""
    return import_module("SimpleITK")


@contextmanager
def one_thread() -> Iterator[None]:
    """ITK on one thread: the order of its sums, and so the last digits, must not depend on the machine's load."""
    sitk = simple_itk()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def to_itk_transform(transform: Linear, kind: Kind, fixed: Image) -> Any:
    """A transform of world points for ITK, which counts (x, y, z), about the centre of the fixed image."""
    sitk = simple_itk()
    name = ITK_TRANSFORMS.get((kind, fixed.ndim))
    result = getattr(sitk, name)() if name else sitk.AffineTransform(fixed.ndim)
    center = fixed.grid.center
    matrix = KINDS[kind].from_matrix(transform.matrix).linear
    result.SetCenter(center[::-1].tolist())
    result.SetMatrix(matrix[::-1, ::-1].ravel().tolist())
    result.SetTranslation((transform.map_points(center) - center)[::-1].tolist())
    return result


def from_itk_transform(transform: Any, kind: Kind) -> Linear:
    """What :func:`to_itk_transform` has made, back in array axis order."""
    center, shift = (np.array(vector)[::-1] for vector in (transform.GetCenter(), transform.GetTranslation()))
    matrix = np.eye(len(center) + 1)
    matrix[:-1, :-1] = np.array(transform.GetMatrix()).reshape(len(center), -1)[::-1, ::-1]
    matrix[:-1, -1] = center + shift - matrix[:-1, :-1] @ center
    return KINDS[kind].from_matrix(matrix)


def to_itk(image: Image, data: Array) -> Any:
    """An array on the grid of an image as an ITK image."""
    result = simple_itk().GetImageFromArray(data)
    result.SetSpacing(image.grid.spacing[::-1])
    result.SetOrigin(image.grid.origin[::-1])
    result.SetDirection(np.array(image.grid.direction)[::-1, ::-1].ravel().tolist())
    return result
