"""The peers that stand on ITK: SimpleITK's registration framework, elastix, and ANTs. All maximise Mattes' MI."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any, ClassVar

import numpy as np

from modalign.errors import InvalidInputError
from modalign.evaluation.peers.peer import KINDS, Kind, Peer, PeerFailure, check_kind, probed
from modalign.geometry import Linear, identity
from modalign.image import Image
from modalign.registration.mattes import from_itk_transform, one_thread, to_itk, to_itk_transform

Array = np.ndarray
THREADS = "ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS"
"""Tells ITK, when it starts, how many threads to use: one, or the last digits depend on the load of the machine."""


LEAST_SIDE = 16
"""No level has a shorter side."""
FIRST_STEPS: dict[Kind, float] = {"rigid": 2.0, "affine": 0.5}
"""Pixels that the first step of the gradient descent moves the corners: longer ones reach further, or run off."""


@dataclass(frozen=True)
class SimpleItkMI(Peer):
    """SimpleITK's registration framework: Mattes' mutual information by gradient descent on three levels, one start.

    Source of the settings: the notebooks of SimpleITK (60_Registration_Introduction): 50 bins, linear interpolation,
    shrinking by 4, 2, 1 with smoothing by 2, 1, 0 pixels, scales from physical shifts. Tuned: all pixels, where 1 %
    are taken there from volumes (BF/SHG at level 1: 6 of 8 right, 4 with a fifth of the pixels); a regular step that
    is relaxed, which ends nearer to the optimum than a fixed learning rate; no level with a side below 16 pixels.
    """

    transform: Kind = "rigid"
    """What may change: rotation and shift, or everything linear."""
    bins: int = 50
    """Bins of the joint histogram along each axis."""
    sampling: float = 1.0
    """Share of the pixels, drawn at random where it is below 1."""
    shrink_factors: tuple[int, ...] = (4, 2, 1)
    """How much each level is smaller than the image."""
    smoothing: tuple[float, ...] = (2.0, 1.0, 0.0)
    """Standard deviation of the smoothing at each level, pixels."""
    iterations: int = 200
    """Most steps at each level."""
    start_rotations_degrees: tuple[float, ...] = (0.0,)
    """Rotations to start from; the result with the highest mutual information is kept."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "simpleitk-mi"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    module: ClassVar[str] = "SimpleITK"

    def __post_init__(self) -> None:
        check_kind(self.transform)
        if len(self.shrink_factors) != len(self.smoothing) or not self.start_rotations_degrees:
            raise InvalidInputError("each level needs a shrink factor and a smoothing, and there is at least one start")

    @property
    def starts(self) -> tuple[float, ...]:
        """See :attr:`start_rotations_degrees`."""
        return self.start_rotations_degrees

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """Climb from the identity; an affine transform from the rigid one, with smaller steps."""
        found: Linear = identity(fixed.ndim)
        for kind in KINDS:
            found = self._climbed(fixed, moving, found, kind)
            if kind == self.transform:
                break
        return found

    def _climbed(self, fixed: Image, moving: Image, start: Linear, kind: Kind) -> Linear:
        transform = to_itk_transform(start, kind, fixed)
        method = self._method(fixed, moving, FIRST_STEPS[kind])
        method.SetInitialTransform(transform, inPlace=True)
        try:
            with one_thread():
                method.Execute(*(to_itk(image, image.data[0].astype(np.float32)) for image in (fixed, moving)))
        except RuntimeError as error:
            raise PeerFailure("the images no longer overlap") from error
        return from_itk_transform(transform, kind)

    def _method(self, fixed: Image, moving: Image, first_step: float) -> Any:
        method: Any = self.library().ImageRegistrationMethod()
        method.SetMetricAsMattesMutualInformation(self.bins)
        if self.sampling < 1:
            method.SetMetricSamplingStrategy(method.RANDOM)
            method.SetMetricSamplingPercentage(
                self.sampling, self.seed + 1
            )  # ITK takes a seed of 0 for the time of day
        for image, use in ((fixed, method.SetMetricFixedMask), (moving, method.SetMetricMovingMask)):
            if image.mask is not None:
                use(to_itk(image, image.mask.astype(np.uint8)))
        method.SetInterpolator(self.library().sitkLinear)
        step = max(fixed.grid.spacing)
        method.SetOptimizerAsRegularStepGradientDescent(first_step * step, 0.01 * step, self.iterations, 0.6, 1e-8)
        method.SetOptimizerScalesFromPhysicalShift()
        least = max(1, min(*fixed.grid.shape, *moving.grid.shape) // LEAST_SIDE)
        method.SetShrinkFactorsPerLevel([min(factor, least) for factor in self.shrink_factors])
        method.SetSmoothingSigmasPerLevel([sigma * min(fixed.grid.spacing) for sigma in self.smoothing])
        method.SmoothingSigmasAreSpecifiedInPhysicalUnitsOn()
        return method


@dataclass(frozen=True)
class Elastix(Peer):
    """Elastix: Mattes' mutual information by adaptive stochastic gradient descent on a smoothing pyramid.

    Sources: Klein et al., elastix: a toolbox for intensity-based medical image registration, IEEE TMI 29(1), 2010; its
    default parameter map of the wanted transform, with the changes of MultiRegEval's ``mi_ms.py`` (Lu et al., PLOS ONE
    17(11): e0276196, 2022): 4 resolutions, more iterations, starts turned by −0.4, 0 and 0.4 rad. Tuned: 512 iterations
    of 2048 pixels, which register as many pairs as the 1024 there (BF/SHG at level 2: 5 of 8) in a third of the time.
    """

    transform: Kind = "rigid"
    """What may change: rotation and shift, or everything linear."""
    resolutions: int = 4
    """Levels of the pyramid, each half as fine as the next."""
    iterations: int = 512
    """Steps at each level."""
    samples: int = 2048
    """Pixels drawn at random in each step."""
    start_rotations_degrees: tuple[float, ...] = (0.0, -22.9, 22.9)
    """Rotations to start from; the result with the highest mutual information is kept."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "elastix"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    package: ClassVar[str] = "itk-elastix"
    module: ClassVar[str] = "itk"

    def __post_init__(self) -> None:
        check_kind(self.transform)
        if not self.start_rotations_degrees:
            raise InvalidInputError("start_rotations_degrees needs at least one rotation, such as 0")

    @property
    def starts(self) -> tuple[float, ...]:
        """See :attr:`start_rotations_degrees`."""
        return self.start_rotations_degrees

    def library(self) -> ModuleType:
        """ITK with elastix; loading it takes many seconds the first time."""
        itk = super().library()
        try:
            itk.ElastixRegistrationMethod  # noqa: B018 - ITK loads a module when a name of it is first asked for
        except AttributeError as error:
            raise InvalidInputError(
                "elastix needs the package itk-elastix: pip install 'modalign[benchmark]'"
            ) from error
        return itk

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """Climb from the identity."""
        itk: Any = self.library()
        method = itk.ElastixRegistrationMethod.New(
            *(as_itk(itk, image, image.data[0], np.float32) for image in (fixed, moving))
        )
        for image, use in ((fixed, method.SetFixedMask), (moving, method.SetMovingMask)):
            if image.mask is not None:
                use(as_itk(itk, image, image.mask, np.uint8))
        method.SetParameterObject(self._parameters(itk))
        method.SetLogToConsole(False)
        try:
            with one_itk_thread(itk):
                method.UpdateLargestPossibleRegion()
        except RuntimeError as error:
            raise PeerFailure("too few pixels overlap") from error
        found = method.GetTransformParameterObject().GetParameterMap(0)
        transform = to_itk_transform(identity(fixed.ndim), self.transform, fixed)
        transform.SetCenter([float(value) for value in found["CenterOfRotationPoint"]])
        transform.SetParameters([float(value) for value in found["TransformParameters"]])
        return from_itk_transform(transform, self.transform)

    def _parameters(self, itk: Any) -> Any:
        parameters = itk.ParameterObject.New()
        chosen = parameters.GetDefaultParameterMap(self.transform, self.resolutions)
        changes = {
            "AutomaticTransformInitialization": "false",
            "MaximumNumberOfIterations": self.iterations,
            "NumberOfSpatialSamples": self.samples,
            "RandomSeed": self.seed + 1,
            "RequiredRatioOfValidSamples": 0.05,
            "WriteResultImage": "false",
        }
        for key, value in changes.items():
            chosen[key] = [str(value)]
        parameters.AddParameterMap(chosen)
        return parameters


@dataclass(frozen=True)
class Ants(Peer):
    """ANTs: Mattes' mutual information by gradient descent on four levels.

    Sources: Avants et al., A reproducible evaluation of ANTs similarity metric performance in brain image registration,
    NeuroImage 54(3), 2011; the defaults of ANTsPy 0.5. Tuned: the start is where the centres of the images coincide,
    not their centres of mass, for the bright parts of two modalities lie in different places; and all pixels are used,
    not a fifth of them (BF/SHG at level 1: 6 of 8 right instead of 1).
    """

    transform: Kind = "rigid"
    """What may change: rotation and shift, or everything linear."""
    bins: int = 32
    """Bins of the joint histogram along each axis."""
    sampling: float = 1.0
    """Share of the pixels, on a regular pattern where it is below 1."""
    iterations: tuple[int, ...] = (2100, 1200, 1200, 10)
    """Most steps at each level."""
    shrink_factors: tuple[int, ...] = (6, 4, 2, 1)
    """How much each level is smaller than the image."""
    smoothing: tuple[float, ...] = (3, 2, 1, 0)
    """Standard deviation of the smoothing at each level, pixels."""
    start_rotations_degrees: tuple[float, ...] = (0.0,)
    """Rotations to start from; the result with the highest mutual information is kept."""
    seed: int = 0
    """Seed of the random samples."""

    name: ClassVar[str] = "ants"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    package: ClassVar[str] = "antspyx"
    module: ClassVar[str] = "ants"

    def __post_init__(self) -> None:
        check_kind(self.transform)
        levels = {len(self.iterations), len(self.shrink_factors), len(self.smoothing)}
        if len(levels) != 1 or not self.start_rotations_degrees:
            raise InvalidInputError(
                "each level needs iterations, a shrink factor and a smoothing, and there is at least one start"
            )

    @property
    def starts(self) -> tuple[float, ...]:
        """See :attr:`start_rotations_degrees`."""
        return self.start_rotations_degrees

    def library(self) -> ModuleType:
        """ANTs, on one thread; importing it takes seconds the first time."""
        with environment(THREADS, "1"):
            return super().library()

    def solve(self, fixed: Image, moving: Image) -> Linear:
        """Climb from the identity."""
        ants: Any = self.library()
        with TemporaryDirectory() as folder, environment(THREADS, "1"):
            try:
                found = ants.registration(
                    *(as_ants(ants, image, image.data[0]) for image in (fixed, moving)),
                    **self._options(ants, fixed, moving),
                    outprefix=f"{folder}/",
                )
                transform = ants.read_transform(found["fwdtransforms"][0])
            except (RuntimeError, ValueError, IndexError) as error:
                raise PeerFailure("it stopped with an error") from error
        return probed(transform.apply_to_point, fixed.grid, self.transform)

    def _options(self, ants: Any, fixed: Image, moving: Image) -> dict[str, Any]:
        masks = {
            key: as_ants(ants, image, image.mask)
            for key, image in (("mask", fixed), ("moving_mask", moving))
            if image.mask is not None
        }
        return masks | {
            "type_of_transform": self.transform.capitalize(),
            "initial_transform": "Identity",
            "mask_all_stages": True,
            "aff_metric": "mattes",
            "aff_sampling": self.bins,
            "aff_random_sampling_rate": self.sampling,
            "aff_iterations": self.iterations,
            "aff_shrink_factors": self.shrink_factors,
            "aff_smoothing_sigmas": self.smoothing,
            "random_seed": self.seed + 1,
        }


def as_itk(itk: Any, image: Image, data: Array, kind: type[np.generic]) -> Any:
    """An array on the grid of an image as an image of the module itk."""
    result = itk.image_from_array(np.ascontiguousarray(data, dtype=kind))
    result.SetSpacing(image.grid.spacing[::-1])
    result.SetOrigin(image.grid.origin[::-1])
    result.SetDirection(itk.matrix_from_array(np.array(image.grid.direction)[::-1, ::-1].copy()))
    return result


def as_ants(ants: Any, image: Image, data: Array) -> Any:
    """An array on the grid of an image as an image of ANTs, whose arrays are indexed x, y, z as well."""
    grid = image.grid
    pixels = np.asfortranarray(data.T, dtype=np.float32)
    direction = np.array(grid.direction)[::-1, ::-1].copy()
    return ants.from_numpy(pixels, list(grid.origin[::-1]), list(grid.spacing[::-1]), direction)


@contextmanager
def one_itk_thread(itk: Any) -> Iterator[None]:
    """ITK's own Python module on one thread, as :func:`modalign.registration.mattes.one_thread` for SimpleITK."""
    threader = itk.MultiThreaderBase
    before = threader.GetGlobalDefaultNumberOfThreads()
    threader.SetGlobalDefaultNumberOfThreads(1)
    try:
        yield
    finally:
        threader.SetGlobalDefaultNumberOfThreads(before)


@contextmanager
def environment(name: str, value: str) -> Iterator[None]:
    """A variable of the environment, for a while."""
    before = os.environ.get(name)
    os.environ[name] = value
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
