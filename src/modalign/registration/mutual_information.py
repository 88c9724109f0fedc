"""Mattes mutual information of the intensities, maximised locally from several starts."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.geometry import Rigid
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.checks import check_pair
from modalign.registration.registrar import Registration

Array = np.ndarray

PERCENTILES = (0.5, 99.5)
"""Intensities are clipped to these percentiles: a few bright pixels must not use up the bins."""
SHRINKS = (8, 4, 2, 1)
"""Pixel size of each level, in units of the finest."""
COARSEST_PIXELS = 550
"""Levels at which the smaller image would have fewer pixels are left out."""
FIRST_STEP, LAST_STEP = 2.0, 0.005
"""Longest and shortest step of the optimiser, in pixels of the level."""
RELAXATION = 0.6
"""Steps shrink by this factor where the gradient turns back."""
ITERATIONS = 150
"""Most steps a level."""


@dataclass(frozen=True)
class Run:
    """One local optimum: parameters of the ITK transform (angles, then shift), metric, transform."""

    parameters: tuple[float, ...]
    information: float = 0.0
    fixed_to_moving: Rigid | None = None


@dataclass(frozen=True)
class MutualInformation:
    """Maximise the mutual information of the intensities, coarse to fine, from several start rotations.

    Needs no likeness of the modalities, only some statistical relation of their intensities, but finds only what lies
    near a start: rotations within some ten degrees and shifts within some ten per cent of the width. The best start is
    kept. A local optimum looks like any other, so a result is ``accepted`` only where several starts agree on it.

    Source: Mattes et al., IEEE TMI 22(1), 2003, as implemented in ITK.
    """

    start_rotations_degrees: tuple[float, ...] = (-20.0, 0.0, 20.0)
    """Rotations to start from; in 3D about each axis in turn."""
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
            raise InvalidInputError(f"samples must be at least 1000 and max_side at least 32")

    def register(self, fixed: Image, moving: Image) -> Registration:
        """Find the rigid transform with the highest mutual information; see :class:`Registrar`."""
        check_pair(self, fixed, moving)
        space = workspace.harmonised(*workspace.pictures(fixed, moving))
        finest = workspace.finest_spacing(space.fixed, space.moving, self.max_side)
        history: list[list[Run]] = []
        runs = self._starts(space.fixed, space.moving)
        for spacing in level_spacings(space.fixed, space.moving, finest):
            level = [workspace.isotropic(image, spacing) for image in (space.fixed, space.moving)]
            runs = sorted((self._climbed(*level, run) for run in runs), key=lambda run: -run.information)
            history.append(runs)
            runs = runs[: math.ceil(len(runs) / 2)]
        return verdict(self, space, history)

    def _starts(self, fixed: Image, moving: Image) -> list[Run]:
        """No rotation where it is asked for, and every other rotation about each axis; the centres on each other."""
        planes = fixed.ndim * (fixed.ndim - 1) // 2
        shift = (moving.grid.center - fixed.grid.center)[::-1]
        angles = [np.zeros(planes)] if 0 in self.start_rotations_degrees else []
        turns = [np.deg2rad(degrees) for degrees in self.start_rotations_degrees if degrees]
        angles += [turn * axis for axis in np.eye(planes) for turn in turns]
        return [Run(tuple(np.concatenate([angle, shift]).tolist())) for angle in angles]

    def _climbed(self, fixed: Image, moving: Image, start: Run) -> Run:
        """The local optimum at one level that a start leads to."""
        import SimpleITK as sitk

        transform = _transform(fixed, start.parameters)
        method = sitk.ImageRegistrationMethod()
        method.SetNumberOfThreads(1)  # the order of sums, and so the last digits, must not depend on the machine's load
        method.SetMetricAsMattesMutualInformation(self.bins)
        share = min(1.0, self.samples / math.prod(fixed.grid.shape))
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
            method.Execute(*(_to_itk(image, _clipped(image)) for image in (fixed, moving)))
        except RuntimeError:  # ITK raises where the images no longer overlap
            return replace(start, information=0.0)
        return Run(tuple(transform.GetParameters()), -float(method.GetMetricValue()), _as_rigid(transform))


def level_spacings(fixed: Image, moving: Image, finest: float) -> list[float]:
    """Pixel sizes from the coarsest level to the finest."""
    volume = min(math.prod(image.grid.extent) for image in (fixed, moving))
    shrinks = [n for n in SHRINKS if n == 1 or volume / (finest * n) ** fixed.ndim >= COARSEST_PIXELS]
    return [finest * shrink for shrink in shrinks]


def _transform(fixed: Image, parameters: Sequence[float]) -> Any:
    """An ITK transform about the centre of the fixed image."""
    import SimpleITK as sitk

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
    import SimpleITK as sitk

    result = sitk.GetImageFromArray(data)
    result.SetSpacing(image.grid.spacing[::-1])
    result.SetOrigin(image.grid.origin[::-1])
    result.SetDirection(np.array(image.grid.direction)[::-1, ::-1].ravel().tolist())
    return result


def _clipped(image: Image) -> Array:
    values = image.data[0]
    return np.clip(values, *np.percentile(values[image.valid], PERCENTILES)).astype(np.float32)


def verdict(method: MutualInformation, space: workspace.Workspace, history: Sequence[Sequence[Run]]) -> Registration:
    """Status by how many starts led to the same place."""
    best = history[-1][0]
    if best.fixed_to_moving is None:
        return Registration(method.name, "refused", None, ("the images lost each other",))
    stats = {"information": best.information, "coarse_information": history[0][0].information}
    return Registration(method.name, "unsure", space.to_world(best.fixed_to_moving), ("x",), None, stats)
