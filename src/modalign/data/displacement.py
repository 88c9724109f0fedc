"""Simulated displacements with a known truth, for validation during training and for evaluation."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import reduce
from itertools import combinations
from typing import Any
from zlib import crc32

import numpy as np
from jaxtyping import Float

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, rotation_matrix
from modalign.image import Image

Array = np.ndarray
TRIES = 300
"""Displacements drawn for one pair before it is given up that one keeps the patch inside the image."""


@dataclass(frozen=True)
class DisplacementProtocol:
    """How patches are displaced: rotated about their centre, then shifted, each by a random amount from a band.

    Where one number stands for several axes, it holds for each of them. Draws whose patch would reach beyond the image
    are drawn again, so an image hardly larger than the patch sees fewer large displacements.

    Raises:
        InvalidInputError: A band is empty or a number is out of range.
    """

    patch_shape: tuple[int, ...]
    """Pixels of the central patch along each axis."""
    max_rotation_degrees: float | tuple[float, ...] = 30.0
    """Largest rotation to either side; several numbers are for the planes of the axes (0, 1), (0, 2), (1, 2)."""
    max_shift_pixels: float | tuple[float, ...] = 36.0
    """Largest shift to either side along each axis, in pixels of the fixed image."""
    min_rotation_degrees: float | tuple[float, ...] = 0.0
    """Smallest rotation to either side."""
    min_shift_pixels: float | tuple[float, ...] = 0.0
    """Smallest shift to either side along each axis, in pixels of the fixed image."""
    draws: int = 8
    """Displaced pairs made of each specimen."""
    seed: int = 0
    """Seed of the displacements; each depends on it, on the name of the specimen and on the number of the draw."""
    mirror_fraction: float = 0.0
    """Share of the pairs whose moving image is also mirrored along its last axis."""

    def __post_init__(self) -> None:
        if not self.patch_shape or min(self.patch_shape) < 1:
            raise InvalidInputError(f"a patch needs at least one pixel along every axis, not {self.patch_shape}")
        _check_band("rotation", self.rotation_bands)
        _check_band("shift", self.shift_bands)
        if self.draws < 1 or self.seed < 0 or not 0 <= self.mirror_fraction <= 1:
            raise InvalidInputError(
                "draws must be at least 1, the seed at least 0 and the mirror fraction between 0 and 1, "
                f"not {self.draws}, {self.seed} and {self.mirror_fraction}"
            )

    @property
    def planes(self) -> tuple[tuple[int, int], ...]:
        """Pairs of axes that span the planes of rotation: one in 2D, three in 3D."""
        return tuple(combinations(range(len(self.patch_shape)), 2))

    @property
    def rotation_bands(self) -> Float[Array, "bounds planes"]:
        """Smallest and largest rotation in each plane, degrees."""
        return _bands(self.min_rotation_degrees, self.max_rotation_degrees, len(self.planes))

    @property
    def shift_bands(self) -> Float[Array, "bounds ndim"]:
        """Smallest and largest shift along each axis, pixels."""
        return _bands(self.min_shift_pixels, self.max_shift_pixels, len(self.patch_shape))

    @classmethod
    def comir(cls, width: int, ndim: int = 2) -> "DisplacementProtocol":
        """Rotations up to ±30° and shifts up to ±12 % of the width: 36 of 300 pixels, 100 of 834.

        Source: Pielawski et al., NeurIPS 2020, evaluation on pairs of bright-field and SHG images. There every pair is
        displaced once.
        """
        return cls((width,) * ndim, 30.0, float(round(0.12 * width)))

    @classmethod
    def any_rotation(cls, width: int, ndim: int = 2, shift_fraction: float = 0.12) -> "DisplacementProtocol":
        """Rotations of any size (±180° in every plane) and shifts up to a fraction of the width."""
        return cls((width,) * ndim, 180.0, float(round(shift_fraction * width)))

    @classmethod
    def multiregeval(cls, width: int, level: int) -> "DisplacementProtocol":
        """Level 1 to 4 of the 2D protocol: |rotation| in [5(l−1), 5l)°, |shift| in [s(l−1), s·l) along each axis.

        The step s is 7 of 300 pixels and 20 of 834, rounded to whole pixels for other widths. Source: Lu et al., PLOS
        ONE 17(11): e0276196, 2022, and its data set, Zenodo 5557568. There the shift comes before the rotation.
        """
        return cls._banded((width, width), 5.0, float(max(1, round(0.024 * width))), level)

    @classmethod
    def multiregeval_volume(cls, shape: tuple[int, int, int], level: int) -> "DisplacementProtocol":
        """Level 1 to 4 of the 3D protocol for a patch ``(z, y, x)``: steps of 5° about z and 1° about y and x.

        The step of the shift is 7/300 of the patch along each axis. Source as for :meth:`multiregeval`.
        """
        return cls._banded(shape, (1.0, 1.0, 5.0), tuple(7 / 300 * n for n in shape), level)

    @classmethod
    def _banded(
        cls,
        shape: tuple[int, ...],
        degrees: float | tuple[float, ...],
        pixels: float | tuple[float, ...],
        level: int,
    ) -> "DisplacementProtocol":
        if level < 1:
            raise InvalidInputError(f"displacement levels are counted from 1; there is no level {level}")
        upper = (_times(degrees, level), _times(pixels, level))
        return cls(shape, *upper, _times(degrees, level - 1), _times(pixels, level - 1))


@dataclass(frozen=True, eq=False)
class DisplacedPair:
    """Two patches of one specimen, the moving one displaced by a known transform.

    Attributes:
        fixed: Central crop of the fixed image, pixel by pixel.
        moving: The moving image on the same grid, displaced; interpolated once, from the full image.
        fixed_to_moving: The truth, world units.
        rotation_degrees: The rotation in each plane of axes, see :attr:`DisplacementProtocol.planes`.
        shift: The shift after the rotation along each array axis, world units.
        specimen: Name of the pair it was made from.
        draw: Its number among the draws of the specimen.
    """

    fixed: Image
    moving: Image
    fixed_to_moving: Rigid
    rotation_degrees: tuple[float, ...]
    shift: tuple[float, ...]
    specimen: str = ""
    draw: int = 0


def displaced_pairs(
    fixed: Image, moving: Image, protocol: DisplacementProtocol, specimen: str = ""
) -> Iterator[DisplacedPair]:
    """Displace the moving one of two aligned images, ``protocol.draws`` times.

    With the truth D, rigid about the centre of the patch, ``moving_patch(D(x)) = moving(x)``: the patch is the moving
    image sampled once (cubic) through the inverse of D. It has no empty corners, and its mask is the mask of the moving
    image, displaced as well. The same seed, specimen and draw give the same displacement, whatever else is drawn.

    Args:
        fixed: Image of the specimen.
        moving: Image aligned with it in world space. Both patches have the pixel size of ``fixed``, so a much finer
            moving image has to be brought to that pixel size before.
        protocol: Size of the patch and of the displacements.
        specimen: Name that the draws depend on.

    Raises:
        InvalidInputError: The images do not belong to one space, the patch is larger than the fixed image, the moving
            image holds values that are not finite, or (while iterating) no displaced patch lies inside it.
    """
    _check_images(fixed, moving, protocol)
    return (displaced_pair(fixed, moving, protocol, specimen, draw) for draw in range(protocol.draws))


def displaced_pair(
    fixed: Image, moving: Image, protocol: DisplacementProtocol, specimen: str, draw: int
) -> DisplacedPair:
    """One of the pairs of :func:`displaced_pairs`, by its number."""
    _check_images(fixed, moving, protocol)
    start = tuple((n - p) // 2 for n, p in zip(fixed.grid.shape, protocol.patch_shape, strict=True))
    patch = fixed.cropped(start, protocol.patch_shape)
    generator = np.random.default_rng([protocol.seed, crc32(specimen.encode()), draw])
    for _ in range(TRIES):
        truth, degrees, shift = _draw(patch.grid, protocol, generator)
        if _inside(moving.grid, truth.inverse().map_points(patch.grid.corners)):
            displaced = moving.resampled(patch.grid, truth.inverse(), order=3)
            return DisplacedPair(patch, displaced, truth, degrees, shift, specimen, draw)
    raise InvalidInputError(_does_not_fit(patch.grid, moving.grid, protocol, specimen))


def _draw(
    patch: Grid, protocol: DisplacementProtocol, generator: np.random.Generator
) -> tuple[Rigid, tuple[float, ...], tuple[float, ...]]:
    """A displacement of the patch: the transform, its angles in degrees, and its shift in world units."""
    degrees = _from_band(protocol.rotation_bands, generator)
    shift = _from_band(protocol.shift_bands, generator) * patch.spacing
    mirror = np.ones(patch.ndim)
    mirror[-1] = -1.0 if generator.random() < protocol.mirror_fraction else 1.0
    turns = [rotation_matrix(patch.ndim, angle, plane) for angle, plane in zip(degrees, protocol.planes, strict=True)]
    rotation = reduce(np.matmul, turns, np.eye(patch.ndim)) * mirror
    axes = np.array(
        patch.direction
    )  # the protocol speaks of the axes of the array, the transform of those of the world
    truth = Rigid.about(patch.center, axes @ rotation @ axes.T, axes @ shift)
    return truth, tuple(map(float, degrees)), tuple(map(float, shift))


def _from_band(bands: Float[Array, "bounds axes"], generator: np.random.Generator) -> Float[Array, " axes"]:
    size = generator.uniform(bands[0], bands[1])
    return np.asarray(generator.choice((-1.0, 1.0), size=len(size)) * size)


def _bands(smallest: Any, largest: Any, axes: int) -> Float[Array, "bounds axes"]:
    try:
        return np.stack([np.broadcast_to(np.asarray(bound, dtype=float), axes) for bound in (smallest, largest)])
    except ValueError as error:
        raise InvalidInputError(
            f"a displacement band from {smallest} to {largest} does not fit this patch: give 1 or {axes} numbers"
        ) from error


def _check_band(what: str, bands: Float[Array, "bounds axes"]) -> None:
    smallest, largest = bands
    if not (np.all(smallest >= 0) and np.all(smallest <= largest) and np.all(np.isfinite(largest))):
        raise InvalidInputError(f"a {what} is drawn from 0 ≤ smallest ≤ largest, not from {smallest} to {largest}")


def _check_images(fixed: Image, moving: Image, protocol: DisplacementProtocol) -> None:
    if not fixed.ndim == moving.ndim == len(protocol.patch_shape) or fixed.grid.unit != moving.grid.unit:
        raise InvalidInputError(
            f"a {fixed.ndim}D image in {fixed.grid.unit}, a {moving.ndim}D image in {moving.grid.unit} and a patch of "
            f"{len(protocol.patch_shape)} axes do not share one space"
        )
    if any(p > n for p, n in zip(protocol.patch_shape, fixed.grid.shape, strict=True)):
        raise InvalidInputError(f"a patch of {_size(protocol.patch_shape)} is larger than {fixed}")
    if not np.all(np.isfinite(moving.data)):
        raise InvalidInputError("the moving image holds values that are not finite; replace them and mask them out")


def _inside(grid: Grid, points: Float[Array, "points ndim"]) -> bool:
    indices = grid.world_to_index(points)
    tolerance = 1e-6  # pixels: a patch that just fits must not fall out through rounding
    return bool(np.all((indices >= -tolerance) & (indices <= np.array(grid.shape) - 1 + tolerance)))


def _does_not_fit(patch: Grid, full: Grid, protocol: DisplacementProtocol, specimen: str) -> str:
    """What is wrong and what would have worked: a displaced patch never leaves a ball about the centre of the patch."""
    shift = float(np.linalg.norm(protocol.shift_bands[1] * patch.spacing))
    radius = float(np.linalg.norm((np.array(patch.shape) - 1) / 2 * patch.spacing))
    needed = tuple(int(np.ceil(2 * (radius + shift) / s)) + 1 for s in full.spacing)
    room = min((n - 1) * s / 2 for n, s in zip(full.shape, full.spacing, strict=True)) - shift
    smaller = tuple(1 + int(max(room, 0) / max(radius, 1e-9) * (n - 1)) for n in patch.shape)
    advice = f", as does a patch of {_size(smaller)}" if room > 0 else ""
    return (
        f"no displaced patch of {_size(patch.shape)} lies inside the moving image of {specimen or 'this pair'}, "
        f"{_size(full.shape)} ({TRIES} drawn); a centred image of {_size(needed)} always suffices{advice}"
    )


def _size(shape: tuple[int, ...]) -> str:
    return " × ".join(map(str, shape)) + " pixels"


def _times(value: float | tuple[float, ...], factor: int) -> float | tuple[float, ...]:
    return tuple(factor * v for v in value) if isinstance(value, tuple) else factor * value
