"""The laws of a registration method.

A method passes if a subclass of :class:`RegistrarLaws` does::

    class TestMyMethod(RegistrarLaws):
        method = MyMethod()
        poses = ((3.0, 0.02), (-8.0, 0.05))  # what it claims to find: degrees, shift as a fraction of the width
"""

from dataclasses import replace
from typing import ClassVar

import numpy as np
import pytest
from scipy import ndimage

from modalign.errors import DimensionError, InvalidInputError
from modalign.geometry import Grid, Rigid, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.registration import METHODS, Registrar, Registration, register

FIXED_GRIDS = {
    2: Grid((150, 180), (0.9, 0.7), (12.5, -40.0)),
    3: Grid((24, 32, 30), (1.25, 0.9, 1.0), (12.5, -40.0, 7.0)),
}
MOVING_GRIDS = {
    2: Grid((190, 160), (0.7, 0.8), (-3.0, 21.0)),
    3: Grid((28, 31, 32), (1.1, 1.0, 0.95), (-3.0, 21.0, 4.0)),
}
SCENE_SIDES = {2: 400, 3: 84}
RIGHT_ANGLED = {2: 96, 3: 32}
"""Sides of images with equal sides."""
FEATURE = 2.0
"""Size of the texture in pixels of the scene: the views neither alias nor blur it."""


def textured_scene(ndim: int, seed: int = 0, feature: float = FEATURE) -> Image:
    """Band-passed noise with sparse bright and dark dots on pixels of 0.5 about the origin: texture everywhere.

    Args:
        ndim: Number of dimensions.
        seed: Seed of the noise.
        feature: Size of the texture in pixels of the scene; methods that climb need it larger to reach further.
    """
    rng = np.random.default_rng(seed)
    shape = (SCENE_SIDES[ndim],) * ndim
    noise = rng.standard_normal(shape)
    band = ndimage.gaussian_filter(noise, feature) - ndimage.gaussian_filter(noise, 4 * feature)
    dots = np.where(rng.random(shape) < 0.02 / feature**ndim, rng.choice([-1.0, 1.0], shape), 0.0)
    sparse = ndimage.gaussian_filter(dots, 1.5 * feature)
    data = 100 + 10 * band / band.std() + 15 * sparse / sparse.std()
    half = (np.array(shape) - 1) / 4
    return Image(data[None].astype(np.float32), Grid(shape, (0.5,) * ndim, tuple(-half)))


def known_pose(ndim: int, degrees: float, shift: float) -> Rigid:
    """A rotation about the centre of the fixed grid (in 3D about two axes) that also brings the grid centres together.

    Args:
        ndim: Number of dimensions.
        degrees: Angle of each rotation.
        shift: Length of the remaining shift along each axis, as a fraction of the width of the fixed grid.
    """
    fixed, moving = FIXED_GRIDS[ndim], MOVING_GRIDS[ndim]
    rotation = rotation_matrix(ndim, degrees)
    for axis in range(ndim - 2):
        rotation = rotation @ rotation_matrix(ndim, degrees / 2, (axis, axis + 1))
    signs = np.array([1, -1, 1])[:ndim]
    return Rigid.about(fixed.center, rotation, moving.center - fixed.center + shift * max(fixed.extent) * signs)


def views(scene: Image, fixed: Grid, moving: Grid, fixed_to_moving: Rigid) -> tuple[Image, Image]:
    """Two images of one scene with ``moving(fixed_to_moving(x)) = fixed(x)``; the scene lies about the fixed centre."""
    to_scene = Rigid(as_rows(np.eye(fixed.ndim)), tuple(-fixed.center))
    seen_fixed = scene.resampled(fixed, to_scene, order=3)
    moving_to_scene = Rigid.from_matrix(to_scene.matrix @ fixed_to_moving.inverse().matrix)
    return seen_fixed, scene.resampled(moving, moving_to_scene, order=3)


def known_pair(
    ndim: int, degrees: float = 5.0, shift: float = 0.03, seed: int = 0, feature: float = FEATURE
) -> tuple[Image, Image, Rigid]:
    """Fixed and moving image on different anisotropic grids away from the origin, and the true transform."""
    truth = known_pose(ndim, degrees, shift)
    fixed, moving = views(textured_scene(ndim, seed, feature), FIXED_GRIDS[ndim], MOVING_GRIDS[ndim], truth)
    return fixed, moving, truth


def poor_pairs(fixed: Image, moving: Image) -> dict[str, tuple[Image, Image]]:
    """Crops and versions of two images with little to hold on to; the true transform stays the same."""
    small = tuple(slice(n // 2 - 8, n // 2 + 8) for n in fixed.grid.shape)
    thin = (slice(None), *(slice(n // 2 - 5, n // 2 + 5) for n in fixed.grid.shape[1:]))
    bright = np.where(fixed.data > np.percentile(fixed.data, 1), np.float32(255), fixed.data)
    few = np.zeros(fixed.grid.shape, dtype=bool)
    few[small] = True
    return {
        "tiny": (cropped(fixed, small), moving),
        "thin": (cropped(fixed, thin), moving),
        "saturated": (fixed.with_data(bright), moving),
        "mostly masked": (replace(fixed, mask=few), moving),
    }


def cropped(image: Image, window: tuple[slice, ...]) -> Image:
    """A part of an image, in place."""
    grid = image.grid
    starts = np.array([part.indices(n)[0] for part, n in zip(window, grid.shape, strict=True)])
    data = image.data[(slice(None), *window)]
    origin = tuple(grid.index_to_world(starts.astype(float)).tolist())
    return Image(data, replace(grid, shape=data.shape[1:], origin=origin), image.channels)


def right_turn(grid: Grid, quarters: int, turn: Rigid) -> Rigid:
    """Of a turn and its opposite, the one that :func:`numpy.rot90` makes: found from where one corner pixel goes."""
    index = np.zeros(grid.shape)
    index[(0,) * grid.ndim] = 1
    goes_to = np.argwhere(np.rot90(index, quarters, axes=(-2, -1)))[0].astype(float)
    wanted = grid.index_to_world(goes_to)
    candidates = (turn, turn.inverse())
    return min(candidates, key=lambda t: float(np.abs(t.map_points(grid.corners[:1])[0] - wanted).sum()))


@pytest.mark.parametrize("ndim", [2, 3])
class RegistrarLaws:
    """Subclass, name a method, and let pytest run it."""

    method: ClassVar[Registrar]
    """The method to try."""
    poses: ClassVar[tuple[tuple[float, float], ...]] = ((5.0, 0.03), (-8.0, 0.05))
    """Rotations in degrees, and shifts as a fraction of the width, that the method claims to find."""
    tolerance_pixels: ClassVar[float] = 0.3
    """Largest mean corner error, in pixels of the fixed image, that counts as found."""

    @pytest.fixture(autouse=True)
    def _exists_here(self, ndim: int) -> None:
        if ndim not in self.method.ndims:
            pytest.skip(f"{self.method.name} does not exist in {ndim}D")

    def assert_found(self, result: Registration, fixed: Grid, truth: Rigid) -> None:
        """The result is a transform that takes the corners where the truth takes them."""
        assert result.fixed_to_moving is not None, result.reasons
        assert corner_error(fixed, result.fixed_to_moving, truth) < self.tolerance_pixels * max(fixed.spacing)

    def test_identical_images_give_the_identity(self, ndim: int) -> None:
        """An image registered with itself does not move."""
        fixed, *_ = known_pair(ndim)
        result = register(fixed, fixed, self.method)
        self.assert_found(result, fixed.grid, identity(ndim))
        assert isinstance(result.fixed_to_moving, Rigid)

    def test_known_poses_are_found_in_world_units(self, ndim: int) -> None:
        """On anisotropic grids of different pixel size and origin, the corners go where the truth takes them."""
        for seed, (degrees, shift) in enumerate(self.poses):
            fixed, moving, truth = known_pair(ndim, degrees, shift, seed)
            self.assert_found(register(fixed, moving, self.method), fixed.grid, truth)

    def test_a_transform_maps_each_world_in_its_own_unit(self, ndim: int) -> None:
        """Micrometres of the fixed image go to millimetres of the moving one."""
        fixed, moving, truth = known_pair(ndim, *self.poses[0])
        fixed = fixed.with_grid(replace(fixed.grid, unit="micrometer"))
        moving = moving.with_grid(replace(moving.grid, unit="micrometer").in_unit("millimeter"))
        found = register(fixed, moving, self.method).fixed_to_moving
        assert found is not None
        points = fixed.grid.corners
        off = np.linalg.norm(1000 * found.map_points(points) - truth.map_points(points), axis=1).mean()
        assert off < self.tolerance_pixels * max(fixed.grid.spacing)

    def test_a_world_without_a_unit_is_compared_in_pixels(self, ndim: int) -> None:
        """Where one image has no unit, pixels meet pixels, and the answer is in each image's own world."""
        grid = Grid(FIXED_GRIDS[ndim].shape)
        truth = Rigid.about(grid.center, rotation_matrix(ndim, self.poses[0][0]), np.full(ndim, 1.5))
        scene = textured_scene(ndim)
        fixed, moving = views(scene.with_grid(scene.grid.centered(scene.grid.shape, (0.8,) * ndim)), grid, grid, truth)
        physical = Grid(grid.shape, FIXED_GRIDS[ndim].spacing, FIXED_GRIDS[ndim].origin, (), "micrometer")
        found = register(fixed, moving.with_grid(physical), self.method).fixed_to_moving
        assert found is not None
        indices = physical.world_to_index(found.map_points(grid.corners))
        assert np.linalg.norm(indices - truth.map_points(grid.corners), axis=1).mean() < self.tolerance_pixels

    def test_the_same_seed_gives_the_same_answer_and_inputs_stay_untouched(self, ndim: int) -> None:
        """To the last digit, on read-only images."""
        fixed, moving, _ = known_pair(ndim)
        before = [image.data.copy() for image in (fixed, moving)]
        for image in (fixed, moving):
            image.data.setflags(write=False)
        first, second = (register(fixed, moving, self.method) for _ in range(2))
        assert first == second
        assert all(np.array_equal(image.data, copy) for image, copy in zip((fixed, moving), before, strict=True))

    def test_unrelated_images_are_never_accepted(self, ndim: int) -> None:
        """Two scenes with the same statistics have no place in common."""
        for seed in range(2):
            fixed, *_ = known_pair(ndim, seed=seed)
            _, moving, _ = known_pair(ndim, seed=seed + 10)
            assert register(fixed, moving, self.method).status != "accepted"

    def test_masked_pixels_do_not_count(self, ndim: int) -> None:
        """Values that are not finite do no harm under the mask."""
        fixed, moving, truth = known_pair(ndim, *self.poses[0])
        data, mask = fixed.data.copy(), fixed.valid.copy()
        corner = tuple(slice(0, n // 3) for n in fixed.grid.shape)
        data[0][corner], mask[corner] = np.nan, False
        masked = Image(data, fixed.grid, fixed.channels, mask)
        self.assert_found(register(masked, moving, self.method), fixed.grid, truth)

    def test_images_without_information_are_refused_by_name(self, ndim: int) -> None:
        """Blank, constant, wholly masked, never finite, or of a few pixels: a value that says which image and why."""
        fixed, moving, _ = known_pair(ndim)
        tiny = Image(moving.data[(slice(None), *(slice(0, 5),) * ndim)], moving.grid.centered((5,) * ndim))
        useless = {
            "constant": moving.with_data(np.zeros_like(moving.data)),
            "no valid pixel": moving.with_data(np.full_like(moving.data, np.nan)),
            "masked": replace(moving, mask=np.zeros(moving.grid.shape, dtype=bool)),
            "too small": tiny,
        }
        for word, image in useless.items():
            for pair, role in (((fixed, image), "moving"), ((image, fixed), "fixed")):
                result = register(*pair, self.method)
                assert result.status == "refused"
                assert role in result.reasons[0]
                assert word in result.reasons[0]

    def test_values_that_are_not_finite_count_as_masked(self, ndim: int) -> None:
        """A few dead pixels do no harm."""
        fixed, moving, truth = known_pair(ndim)
        data = moving.data.copy()
        data.flat[::997] = np.nan
        result = register(fixed, moving.with_data(data), self.method)
        if result.status == "accepted":
            self.assert_found(result, fixed.grid, truth)

    def test_poor_images_never_raise_and_are_never_accepted_wrongly(self, ndim: int) -> None:
        """Small, thin, nearly saturated or mostly masked images: found, or not accepted."""
        fixed, moving, truth = known_pair(ndim)
        for name, (poor_fixed, poor_moving) in poor_pairs(fixed, moving).items():
            result = register(poor_fixed, poor_moving, self.method)
            if result.status == "accepted":
                assert result.fixed_to_moving is not None
                off = corner_error(poor_fixed.grid, result.fixed_to_moving, truth)
                assert off < 0.05 * max(fixed.grid.extent), name

    def test_right_angles_are_found_or_not_accepted(self, ndim: int) -> None:
        """An image against itself turned by exactly 90° or 180°."""
        grid = Grid((RIGHT_ANGLED[ndim],) * ndim)
        fixed = textured_scene(ndim).resampled(grid, Rigid(as_rows(np.eye(ndim)), tuple(-grid.center / 2)))
        for quarters in (1, 2):
            moving = fixed.with_data(np.rot90(fixed.data, quarters, axes=(-2, -1)).copy())
            result = register(fixed, moving, self.method)
            truth = Rigid.about(grid.center, rotation_matrix(ndim, 90.0 * quarters), np.zeros(ndim))
            if result.status == "accepted":
                self.assert_found(result, grid, right_turn(grid, quarters, truth))

    def test_periodic_texture_is_never_accepted(self, ndim: int) -> None:
        """Every period fits equally well, so no answer deserves trust but the exact one."""
        grid = Grid((RIGHT_ANGLED[ndim],) * ndim)
        waves = [np.cos(np.arange(n) * 2 * np.pi / 12) for n in grid.shape]
        pattern = np.prod(np.meshgrid(*waves, indexing="ij"), axis=0)[None].astype(np.float32)
        result = register(Image(pattern, grid), Image(np.roll(pattern, 3, axis=-1), grid), self.method)
        assert result.status != "accepted"

    def test_other_dimensions_are_refused_with_alternatives(self) -> None:
        """The message names exactly the methods that would work."""
        for other in {1, 2, 3, 4} - set(self.method.ndims):
            image = Image(np.random.default_rng(0).random((1, *(8,) * other)), Grid((8,) * other))
            with pytest.raises(DimensionError) as caught:
                register(image, image, self.method)
            for name, kind in METHODS.items():
                assert (name in str(caught.value).partition("Methods")[2]) == (other in kind.ndims)

    def test_mixed_dimensions_are_refused(self, ndim: int) -> None:
        """A plane cannot be registered with a volume."""
        fixed, *_ = known_pair(ndim)
        flat = Image(fixed.data[:, 0], Grid(fixed.grid.shape[1:]))
        with pytest.raises(InvalidInputError, match=f"{ndim}D fixed image"):
            register(fixed, flat, self.method)
