"""Simulated displacements do what they say."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from modalign.data.displacement import DisplacementProtocol, _draw, displaced_pairs
from modalign.errors import InvalidInputError
from modalign.geometry import Grid, as_rows, corner_error, identity, rotation_matrix
from modalign.image import Image

SHAPES = {2: (150, 140), 3: (56, 60, 64)}
SPACING = {2: (0.5, 0.8), 3: (1.2, 0.9, 0.7)}
PATCH = {2: (60, 64), 3: (20, 24, 26)}


def grid(ndim: int) -> Grid:
    direction = rotation_matrix(ndim, 20, (0, 1))
    return Grid(SHAPES[ndim], SPACING[ndim], (3.0, -7.0, 11.0)[:ndim], as_rows(direction), "micrometer")


def textured(ndim: int, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).standard_normal((1, *SHAPES[ndim]))
    data = ndimage.gaussian_filter(noise, (0, *(2.0,) * ndim))
    return Image((100 * data / data.std()).astype(np.float32), grid(ndim))


def dot(space: Grid, point: np.ndarray) -> Image:
    """A round spot, in world units, at a world point."""
    indices = np.stack(np.meshgrid(*map(np.arange, space.shape), indexing="ij"), axis=-1).astype(float)
    distance = np.linalg.norm(space.index_to_world(indices) - point, axis=-1)
    return Image(np.exp(-0.5 * (distance / 2.0) ** 2)[None], space)


def centroid(image: Image) -> np.ndarray:
    return image.grid.index_to_world(np.array(ndimage.center_of_mass(image.data[0])))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("mirror_fraction", [0.0, 1.0])
def test_a_dot_lands_where_the_truth_takes_it(ndim, mirror_fraction):
    protocol = DisplacementProtocol(PATCH[ndim], 25, 4, draws=3, seed=1, mirror_fraction=mirror_fraction)
    image = textured(ndim)
    point = grid(ndim).center + np.array([1.7, -2.3, 1.1])[:ndim]
    for pair in displaced_pairs(image, dot(grid(ndim), point), protocol):
        assert pair.fixed_to_moving.is_mirrored == bool(mirror_fraction)
        miss = pair.moving.grid.world_to_index(centroid(pair.moving)) - pair.moving.grid.world_to_index(
            pair.fixed_to_moving.map_points(point)
        )
        assert np.abs(miss).max() < 0.05


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_truth_undoes_the_displacement(ndim):
    image = textured(ndim)
    (pair,) = displaced_pairs(image, image, DisplacementProtocol(PATCH[ndim], 20, 3, draws=1))
    warped = pair.moving.resampled(pair.fixed.grid, pair.fixed_to_moving, order=3)
    difference = (warped.data - pair.fixed.data)[0][warped.valid]
    assert warped.valid.mean() > 0.5
    blur = np.median(np.abs(difference))  # of two cubic interpolations of a smooth texture; the border has a wider one
    assert blur < 0.01 * pair.fixed.data.std()


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_fixed_patch_is_an_exact_central_crop(ndim):
    image = textured(ndim)
    pair = next(displaced_pairs(image, image, DisplacementProtocol(PATCH[ndim], 10, 2)))
    window = tuple(slice((n - p) // 2, (n - p) // 2 + p) for n, p in zip(SHAPES[ndim], PATCH[ndim], strict=True))
    np.testing.assert_array_equal(pair.fixed.data[0], image.data[0][window])
    middle = np.linalg.norm(grid(ndim).world_to_index(pair.fixed.grid.center) - (np.array(SHAPES[ndim]) - 1) / 2)
    assert middle < 1e-9
    assert pair.moving.grid == pair.fixed.grid
    assert pair.moving.mask is None  # no empty corners


@pytest.mark.parametrize("ndim", [2, 3])
def test_without_displacement_nothing_changes(ndim):
    image = textured(ndim)
    protocol = DisplacementProtocol(SHAPES[ndim], 0, 0, draws=1)
    (pair,) = displaced_pairs(image, image, protocol)
    assert corner_error(pair.fixed.grid, pair.fixed_to_moving, identity(ndim)) < 1e-9
    np.testing.assert_allclose(pair.moving.data, pair.fixed.data, atol=1e-3)


def test_patches_of_a_tight_image_have_no_empty_corners():
    image = Image(np.ones((1, 80, 80)), Grid((80, 80), (0.5, 0.5)))
    for pair in displaced_pairs(image, image, DisplacementProtocol((20, 20), 180, 24, draws=20)):
        origin = image.grid.world_to_index(pair.fixed_to_moving.inverse().map_points(pair.moving.grid.corners))
        assert np.all(origin > -1e-6)
        assert np.all(origin < np.array(image.grid.shape) - 1 + 1e-6)


def test_the_mask_moves_with_the_image():
    image = textured(2)
    mask = np.zeros(SHAPES[2], dtype=bool)
    mask[:, 70:] = True  # the half plane to the right of the middle is valid
    moving = Image(image.data, image.grid, mask=mask)
    pair = next(displaced_pairs(image, moving, DisplacementProtocol(PATCH[2], 30, 6, min_rotation_degrees=20)))
    indices = np.stack(np.meshgrid(*map(np.arange, PATCH[2]), indexing="ij"), axis=-1).astype(float)
    origin = pair.fixed_to_moving.inverse().map_points(pair.moving.grid.index_to_world(indices))
    columns = image.grid.world_to_index(origin)[..., 1]
    np.testing.assert_array_equal(pair.moving.valid, columns >= 69.5)
    assert 0.1 < pair.moving.valid.mean() < 0.9


def test_draws_depend_on_seed_specimen_and_number_only():
    protocol = DisplacementProtocol(PATCH[2], draws=4)

    def truths(image, protocol, name):
        return [pair.fixed_to_moving for pair in displaced_pairs(image, image, protocol, name)]

    expected = truths(textured(2), protocol, "core 7")
    assert truths(textured(2, seed=5), replace(protocol, draws=2), "core 7") == expected[:2]
    assert len(set(expected)) == 4
    assert not set(expected) & set(truths(textured(2), protocol, "core 8"))
    assert not set(expected) & set(truths(textured(2), replace(protocol, seed=1), "core 7"))


def test_shifts_and_angles_are_reported_in_world_units_and_degrees():
    image = textured(2)
    protocol = DisplacementProtocol(PATCH[2], 12, (10, 6), 11, (9, 5), draws=6)
    for pair in displaced_pairs(image, image, protocol):
        center = pair.fixed.grid.center
        axes = np.array(image.grid.direction)
        np.testing.assert_allclose(pair.fixed_to_moving.map_points(center) - center, axes @ pair.shift)
        np.testing.assert_allclose(pair.fixed_to_moving.linear, rotation_matrix(2, *pair.rotation_degrees))
        assert np.all(np.abs(pair.shift) / SPACING[2] <= (10, 6))
        assert np.all(np.abs(pair.shift) / SPACING[2] >= (9, 5))
        assert 11 <= abs(pair.rotation_degrees[0]) < 12


@pytest.mark.parametrize(
    ("level", "mean", "smallest", "largest"),
    [(1, 10.8, 0, 19.5), (2, 29.7, 20, 39), (3, 49.4, 40, 59), (4, 69, 59, 79)],
)
def test_levels_of_multiregeval_displace_as_the_published_data(level, mean, smallest, largest):
    protocol, patch = DisplacementProtocol.multiregeval(300, level), Grid((300, 300))
    generator = np.random.default_rng(0)
    truths = [_draw(patch, protocol, generator)[0] for _ in range(120)]
    errors = np.array([corner_error(patch, truth, identity(2)) for truth in truths])
    assert errors.mean() == pytest.approx(mean, abs=1.6)  # pixels; spread about 4.5 over the root of 120 draws, × 4
    assert smallest - 1 <= errors.min() <= errors.max() <= largest + 1  # published to whole pixels


def test_published_protocols_have_their_published_sizes():
    assert DisplacementProtocol.comir(300).max_shift_pixels == 36
    assert DisplacementProtocol.comir(834).max_shift_pixels == 100
    assert DisplacementProtocol.multiregeval(300, 2).shift_bands.tolist() == [[7, 7], [14, 14]]
    assert DisplacementProtocol.multiregeval(834, 4).shift_bands.tolist() == [[60, 60], [80, 80]]
    volume = DisplacementProtocol.multiregeval_volume((70, 210, 210), 4)
    np.testing.assert_allclose(volume.shift_bands[1], (6.53, 19.6, 19.6), atol=0.01)
    np.testing.assert_allclose(volume.rotation_bands, [[3, 3, 15], [4, 4, 20]])
    assert DisplacementProtocol.any_rotation(100, ndim=3).max_rotation_degrees == 180


def test_rotations_in_3d_turn_every_plane():
    image = textured(3)
    pair = next(displaced_pairs(image, image, DisplacementProtocol(PATCH[3], (1, 2, 15), 0, (1, 2, 15))))
    assert np.abs(pair.rotation_degrees).tolist() == [1, 2, 15]
    axes = np.array(image.grid.direction)
    turn = axes.T @ pair.fixed_to_moving.linear @ axes
    assert np.degrees(np.arcsin(abs(turn[1, 2]))) == pytest.approx(15, abs=0.1)


def test_a_patch_that_cannot_stay_inside_says_what_would_fit():
    image = Image(textured(2).data, Grid(SHAPES[2]))
    with pytest.raises(
        InvalidInputError, match=r"core 1, 150 × 140 pixels .* a patch of (\d+) × (\d+) pixels"
    ) as caught:
        next(displaced_pairs(image, image, DisplacementProtocol((140, 140), 30, 10, 20, 5), "core 1"))
    smaller = tuple(int(word) for word in str(caught.value).split("a patch of ")[-1].split()[:3:2])
    assert len(list(displaced_pairs(image, image, DisplacementProtocol(smaller, 30, 10, 20, 5, draws=20)))) == 20


@pytest.mark.parametrize(
    "options",
    [
        {"patch_shape": (0, 5)},
        {"patch_shape": (5, 5), "min_shift_pixels": 40},
        {"patch_shape": (5, 5), "max_shift_pixels": (1, 2, 3)},
        {"patch_shape": (5, 5), "max_rotation_degrees": float("nan")},
        {"patch_shape": (5, 5), "mirror_fraction": 1.5},
        {"patch_shape": (5, 5), "draws": 0},
        {"patch_shape": (5, 5), "seed": -1},
    ],
)
def test_impossible_protocols_are_refused(options):
    with pytest.raises(InvalidInputError):
        DisplacementProtocol(**options)


def test_images_that_do_not_belong_together_are_refused():
    image = textured(2)
    protocol = DisplacementProtocol((20, 20))
    with pytest.raises(InvalidInputError, match="larger"):
        displaced_pairs(image, image, DisplacementProtocol((151, 20)))
    with pytest.raises(InvalidInputError, match="one space"):
        displaced_pairs(image, textured(3), protocol)
    with pytest.raises(InvalidInputError, match="one space"):
        displaced_pairs(image, Image(image.data, Grid(SHAPES[2])), protocol)
    with pytest.raises(InvalidInputError, match="not finite"):
        displaced_pairs(image, image.with_data(np.full_like(image.data, np.nan)), protocol)
