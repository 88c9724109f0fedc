"""Mattes mutual information of the intensities, maximised locally from several starts."""

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any, ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Rigid, corner_error
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.engine import Engine
from modalign.registration.registrar import Registration, Status

Array = np.ndarray

PERCENTILES = (0.5, 99.5)
"""Intensities are clipped to these percentiles: a few bright pixels must not use up the bins."""
SHRINKS = (8, 4, 2, 1)
"""Pixel size of each level, in units of the finest."""
COARSEST_PIXELS = 550
"""Levels at which the smaller image would have fewer pixels are left out."""
LEAST_BINS = 12
"""Fewest bins of the joint histogram: small levels have too few pixels to fill more."""
FIRST_STEP, LAST_STEP = 2.0, 0.005
"""Longest and shortest step of the optimiser, in pixels of the level."""
RELAXATION = 0.6
"""Steps shrink by this factor where the gradient turns back."""
ITERATIONS = 150
"""Most steps a level."""

JUDGED_LEVEL = 1
"""The result is judged by the runs at this level, counted from the coarsest: few are left at the finest."""
AGREEMENT = 0.03
"""Runs agree where they take the corners to the same place within this fraction of the width.

Of 24 unrelated pairs, none had two agreeing runs; of 25 registrations that came out right, 22 had."""
LEAST_INFORMATION = 0.02
"""Less mutual information, in nats, is refused."""


@dataclass(frozen=True)
class Run:
    """One local optimum: parameters of the ITK transform (angles, then shift), metric, transform."""

    parameters: tuple[float, ...]
    information: float = 0.0
    fixed_to_moving: Rigid | None = None


@dataclass(frozen=True)
class MutualInformation(Engine):
    """Maximise the mutual information of the intensities, coarse to fine, from several start rotations.

    Needs no likeness of the modalities, only some statistical relation of their intensities, but finds only what lies
    near a start: rotations within some ten degrees and shifts within some ten per cent of the width. The best start is
    kept. A local optimum looks like any other, so a result is ``accepted`` only where several starts agree on it.

    Source: Mattes et al., IEEE TMI 22(1), 2003, as implemented in ITK.
    """

    start_rotations_degrees: tuple[float, ...] = (-20.0, 0.0, 20.0)
    """Rotations to start from, counter-clockwise on the screen; in 3D about each axis in turn."""
    bins: int = 32
    """Bins of the joint histogram along each axis."""
    samples: int = 30_000
    """Pixels drawn at random for the histogram of a level; all where there are fewer."""
    max_side: int = 1024
    """Work on at most so many pixels along the longest side."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "mutual-information"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def __post_init__(self) -> None:
        if not self.start_rotations_degrees:
            raise InvalidInputError("start_rotations_degrees needs at least one rotation, such as 0")
        if self.bins < 5:
            raise InvalidInputError(f"bins must be at least 5, not {self.bins}")
        if self.samples < 1000 or self.max_side < 32:
            raise InvalidInputError("samples must be at least 1000 and max_side at least 32")

    def find(self, fixed: Image, moving: Image) -> Registration:
        """Find the rigid transform with the highest mutual information."""
        space = workspace.harmonised(*workspace.pictures(fixed, moving))
        finest = workspace.finest_spacing(space.fixed, space.moving, self.max_side)
        history: list[list[Run]] = []
        starts = runs = self._starts(space.fixed, space.moving)
        for spacing in level_spacings(space.fixed, space.moving, finest):
            fixed, moving = (workspace.isotropic(image, spacing) for image in (space.fixed, space.moving))
            runs = sorted((self._climbed(fixed, moving, run) for run in runs), key=lambda run: -run.information)
            history.append(runs)
            runs = [*runs[: math.ceil(len(runs) / 2)], starts[0]]  # fine texture says nothing at coarse levels
        return result(self, space, history)

    def _starts(self, fixed: Image, moving: Image) -> list[Run]:
        """No rotation where it is asked for, and every other rotation about each axis; the centres on each other."""
        planes = fixed.ndim * (fixed.ndim - 1) // 2
        shift = (moving.grid.center - fixed.grid.center)[::-1]
        angles = [np.zeros(planes)] if 0 in self.start_rotations_degrees else []
        # ITK counts (x, y): its positive sense of rotation is the negative one of (y, x)
        turns = [-np.deg2rad(degrees) for degrees in self.start_rotations_degrees if degrees]
        angles += [turn * axis for axis in np.eye(planes) for turn in turns]
        return [Run(tuple(np.concatenate([angle, shift]).tolist())) for angle in angles]

    def _climbed(self, fixed: Image, moving: Image, start: Run) -> Run:
        """The local optimum at one level that a start leads to."""
        sitk = _simple_itk()
        transform = _transform(fixed, start.parameters)
        method = sitk.ImageRegistrationMethod()
        pixels = math.prod(fixed.grid.shape)
        method.SetMetricAsMattesMutualInformation(min(self.bins, max(LEAST_BINS, math.isqrt(pixels) // 2)))
        share = min(1.0, self.samples / pixels)
        if share < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(share, self.seed + 1)  # ITK takes a seed of 0 for the time of day
        for image, place in ((fixed, method.SetMetricFixedMask), (moving, method.SetMetricMovingMask)):
            if image.mask is not None:
                place(_to_itk(image, image.mask.astype(np.uint8)))
        spacing = fixed.grid.spacing[0]
        method.SetOptimizerAsRegularStepGradientDescent(
            FIRST_STEP * spacing, LAST_STEP * spacing, ITERATIONS, RELAXATION, gradientMagnitudeTolerance=1e-9
        )
        method.SetOptimizerScalesFromPhysicalShift()
        method.SetInterpolator(sitk.sitkLinear)
        method.SetInitialTransform(transform, inPlace=True)
        try:
            with _one_thread():
                method.Execute(*(_to_itk(image, _clipped(image)) for image in (fixed, moving)))
        except RuntimeError:  # ITK raises where the images no longer overlap
            return replace(start, information=0.0)
        return Run(tuple(transform.GetParameters()), -float(method.GetMetricValue()), _as_rigid(transform))


def _simple_itk() -> Any:
    """SimpleITK, which is slow to import and has no types."""
    return import_module("SimpleITK")


@contextmanager
def _one_thread() -> Iterator[None]:
    """ITK on one thread: the order of its sums, and so the last digits, must not depend on the machine's load."""
    sitk = _simple_itk()
    before = sitk.ProcessObject.GetGlobalDefaultNumberOfThreads()
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(before)


def level_spacings(fixed: Image, moving: Image, finest: float) -> list[float]:
    """Pixel sizes from the coarsest level to the finest."""
    volume = min(math.prod(image.grid.extent) for image in (fixed, moving))
    shrinks = [n for n in SHRINKS if n == 1 or volume / (finest * n) ** fixed.ndim >= COARSEST_PIXELS]
    return [finest * shrink for shrink in shrinks]


def _transform(fixed: Image, parameters: Sequence[float]) -> Any:
    """An ITK transform about the centre of the fixed image."""
    sitk = _simple_itk()
    transform = {2: sitk.Euler2DTransform, 3: sitk.Euler3DTransform}[fixed.ndim]()
    transform.SetCenter(fixed.grid.center[::-1].tolist())
    transform.SetParameters(list(parameters))
    return transform


def _as_rigid(transform: Any) -> Rigid:
    """An ITK transform, which counts (x, y, z), in array axis order."""
    matrix = np.array(transform.GetMatrix())
    ndim = math.isqrt(len(matrix))
    rotation = matrix.reshape(ndim, ndim)[::-1, ::-1]
    center, shift = (np.array(vector)[::-1] for vector in (transform.GetCenter(), transform.GetTranslation()))
    return Rigid.about(center, rotation, shift)


def _to_itk(image: Image, data: Array) -> Any:
    sitk = _simple_itk()
    result = sitk.GetImageFromArray(data)
    result.SetSpacing(image.grid.spacing[::-1])
    result.SetOrigin(image.grid.origin[::-1])
    result.SetDirection(np.array(image.grid.direction)[::-1, ::-1].ravel().tolist())
    return result


def _clipped(image: Image) -> Array:
    values = image.data[0]
    low, high = np.percentile(values[image.valid], PERCENTILES)
    return np.asarray(np.clip(values, low, high), dtype=np.float32)


def result(method: MutualInformation, space: workspace.Workspace, history: Sequence[Sequence[Run]]) -> Registration:
    """The registration that the best run stands for, judged by how many runs were near it at the second level."""
    best, early = history[-1][0], history[: JUDGED_LEVEL + 1][-1]
    agreeing = sum(_agree(space.fixed, run, best) for run in early)
    stats = {"information": best.information, "runs": float(len(early)), "agreeing_runs": float(agreeing)}
    if best.fixed_to_moving is None or best.information < LEAST_INFORMATION:
        reason = f"the intensities tell too little about each other ({best.information:.3f} nats)"
        found = best.fixed_to_moving and space.to_world(best.fixed_to_moving)
        return Registration.judged(method.name, "refused", found, (f"{reason}; use a representation or SIFT",), stats)
    status, reasons = verdict(agreeing, len(early))
    return Registration.judged(method.name, status, space.to_world(best.fixed_to_moving), reasons, stats)


def verdict(agreeing: int, runs: int) -> tuple[Status, tuple[str, ...]]:
    """Status and reason by how many of the runs came to one place."""
    counted = f"{agreeing} of {runs} runs led to the same place"
    if agreeing >= 2 and agreeing > runs / 2:
        return "accepted", (counted,)
    return "unsure", (f"{counted}; look at the overlay, or give a start closer to the truth",)


def _agree(fixed: Image, run: Run, best: Run) -> bool:
    if run.fixed_to_moving is None or best.fixed_to_moving is None:
        return False
    return corner_error(fixed.grid, run.fixed_to_moving, best.fixed_to_moving) < AGREEMENT * max(fixed.grid.extent)
