"""The distance between fuzzy sets against literal oracles, and what is peculiar to its descent."""

import subprocess
import sys
from dataclasses import replace

import numba
import numpy as np
import pytest
from scipy import ndimage
from scipy.spatial.distance import cdist

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, corner_error, rotation_matrix
from modalign.image import Image
from modalign.registration.alpha_amd import AlphaAmd, random_rotation, start_rotations
from modalign.registration.amd_kernels import distance, move, uniform
from modalign.registration.compiled import compiled
from modalign.registration.distance_tables import MASKED, alpha_levels, distance_table, stretched
from modalign.registration.fuzzy_pairs import LIMIT, FuzzyImage, FuzzyPair, Place, Schedule, generators, smoothed
from modalign.registration.workspace import isotropic
from modalign.testing.registration import FIXED_GRIDS, known_pair, textured_scene

LEVELS = 5
SHAPES = {2: (23, 31), 3: (9, 12, 10)}
ALONE = AlphaAmd(threads=1)


def texture(shape, seed=0, feature=1.5):
    noise = np.random.default_rng(seed).standard_normal(shape)
    return ndimage.gaussian_filter(noise, feature).astype(np.float32)


def levels_of(shape, seed=0, masked=False):
    valid = np.ones(shape, dtype=bool)
    if masked:
        valid[tuple(slice(0, n // 3) for n in shape)] = False
    return alpha_levels(stretched(texture(shape, seed), valid, LEVELS))


def literal_table(image, levels, limit):
    """The definition, pixel by pixel and cut by cut."""
    places = np.argwhere(np.ones(image.shape))
    between, level = cdist(places, places), image.ravel()

    def to_set(members):
        return np.minimum(between[:, members].min(1, initial=np.inf), limit)

    cuts = [(level >= i) & (level != MASKED) for i in range(1, levels + 1)]
    complements = [level < i for i in range(1, levels + 1)]
    rows = [
        sum(to_set(cuts[i - 1] if i <= q else complements[i - 1]) for i in range(1, levels + 1)) / levels
        for q in range(levels + 1)
    ]
    return np.array(rows).reshape(levels + 1, *image.shape)


def fuzzy(ndim, seed=0, window="uniform", masked=False, shape=None):
    shape = shape or SHAPES[ndim]
    mask = np.ones(shape, dtype=bool)
    mask[tuple(slice(0, n // 3) for n in shape)] = not masked
    turned = tuple(map(tuple, rotation_matrix(ndim, 10.0 * seed)))
    grid = Grid(shape, (0.8,) * ndim, (5.0,) * ndim, turned)
    image = Image(texture(shape, seed)[None], grid, mask=mask if masked else None)
    return FuzzyImage.of(image, 0.7, LEVELS, window, seed)


def fuzzy_pair(ndim, **options):
    larger = tuple(n + 4 for n in SHAPES[ndim])
    return FuzzyPair(fuzzy(ndim, 0, **options), fuzzy(ndim, 1, shape=larger, **options))


def some_place(pair, scale=1.07):
    ndim = pair.fixed.grid.ndim
    linear = scale * rotation_matrix(ndim, 12.0) @ rotation_matrix(ndim, -7.0, (0, 1))
    linear[0, -1] += 0.06
    return Place.of(linear, np.linspace(0.7, 1.4, ndim), pair.fixed.grid, pair.moving.grid, pair.spacing)


@pytest.mark.parametrize("limit", [3.5, 100.0])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_tables_are_what_the_definition_says(ndim, masked, limit):
    image = levels_of(SHAPES[ndim], masked=masked)
    np.testing.assert_allclose(distance_table(image, LEVELS, limit), literal_table(image, LEVELS, limit), atol=2e-6)


def test_the_distance_to_an_empty_cut_is_the_limit():
    image = np.zeros((8, 9), dtype=np.uint8)
    table = distance_table(image, 2, 17.0)
    assert (table[2] == 17).all()
    assert (table[0] == 0).all()


@pytest.mark.parametrize("shape", [(3, 700), (300, 333), (40, 30, 150)])
def test_distance_transforms_are_exact_beyond_a_block_of_lines(shape):
    """Few members, so that distances are long; the lines are worked on in blocks of 128."""
    members = np.random.default_rng(0).random(shape) < 5e-4
    members.flat[0] = True
    table = distance_table(members.astype(np.uint8), 1, 5000.0)
    np.testing.assert_allclose(table[1], ndimage.distance_transform_edt(~members), rtol=1e-6)
    np.testing.assert_allclose(table[0], ndimage.distance_transform_edt(members), rtol=1e-6)


def test_levels_are_robust_to_extreme_pixels_and_cover_the_range():
    values = texture((60, 70))
    spoilt = values.copy()
    spoilt[3, 4], spoilt[50, 60] = 1e6, -1e6
    valid = np.ones(values.shape, dtype=bool)
    plain, robust = (alpha_levels(stretched(v, valid, 7)) for v in (values, spoilt))
    assert (plain != robust).mean() < 0.01
    assert set(np.unique(plain)) == set(range(8))


@pytest.mark.parametrize("window", ["uniform", "hann"])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_the_symmetric_distance_is_what_the_definition_says(ndim, masked, window):
    pair = fuzzy_pair(ndim, masked=masked, window=window)
    place = some_place(pair)
    transform = place.transform(pair.fixed.grid, pair.moving.grid, "affine")
    there = literal_distance(pair.fixed, pair.moving, transform)
    back = literal_distance(pair.moving, pair.fixed, transform.inverse())
    found = pair.valued(place, samples=10**6)
    assert found.distance == pytest.approx((there[0] + back[0]) / 2, rel=1e-5)
    assert found.overlap == pytest.approx(max(there[1], back[1]), rel=1e-5)


def literal_distance(source, other, transform):
    """Weighted mean over the points of one image of the distance to the other, and the share of points that met it."""
    shape, ndim = other.grid.shape, other.grid.ndim
    middle = (np.array(source.grid.shape) - 1) / 2
    world = source.grid.index_to_world(source.points[:, :ndim].astype(float) + middle)
    indices = other.grid.world_to_index(transform.map_points(world)).T
    tables = other.table.reshape(-1, *shape).astype(float)
    rows = [ndimage.map_coordinates(t, indices, order=1, mode="constant", cval=np.nan) for t in tables]
    values = np.choose(source.points[:, ndim].astype(int), rows)
    weights = source.points[:, -1].astype(float) * ~np.isnan(values)
    return np.nansum(values * weights) / weights.sum(), weights.sum() / source.points[:, -1].sum()


@pytest.mark.parametrize("motion", ["rigid", "similarity", "affine"])
@pytest.mark.parametrize("direction", [0, 1])
@pytest.mark.parametrize("ndim", [2, 3])
def test_derivatives_agree_with_finite_differences(ndim, direction, motion):
    """Of each direction alone: the points of the other image weigh nothing."""
    pair = fuzzy_pair(ndim)
    (fixed, moving), *others = pair.problem
    silent = [fixed.copy(), moving.copy()]
    silent[1 - direction][:, -1] = 0
    problem = (tuple(silent), *others)
    pose = some_place(pair).pose
    motions = generators(motion, pair.fixed.grid)

    def value(step):
        moved, by_shift, by_linear = pose.copy(), np.zeros(ndim), np.zeros((ndim, ndim))
        move(moved, motions, step)
        sums = np.zeros((2, 2 + ndim + ndim**2))
        return distance(problem, moved, 0, 4000, sums, by_shift, by_linear), by_shift, by_linear

    steps = 1e-6 * np.eye(ndim + len(motions))
    numeric = [(value(step)[0] - value(-step)[0]) / 2e-6 for step in steps]
    _, by_shift, by_linear = value(np.zeros(len(steps)))
    exact = [*by_shift, *((generator * by_linear).sum() for generator in motions)]
    assert np.abs(exact).max() > 3e-3
    np.testing.assert_allclose(exact, numeric, atol=1e-5)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_distance_is_symmetric(ndim):
    pair = fuzzy_pair(ndim)
    place = some_place(pair)
    pose = place.pose.copy()
    pose[0], pose[1], pose[2, 0] = place.pose[1], place.pose[0], -place.pose[1] @ place.pose[2, 0]
    back = FuzzyPair(pair.moving, pair.fixed).valued(Place(pose, place.spacing))
    assert back.distance == pytest.approx(pair.valued(place).distance, rel=1e-12)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_place_is_the_transform_it_stands_for(ndim):
    pair = fuzzy_pair(ndim)
    transform = some_place(pair).transform(pair.fixed.grid, pair.moving.grid, "affine")
    place = some_place(pair).at(0.3)
    point = np.arange(1.0, ndim + 1)
    middles = [(np.array(image.grid.shape) - 1) / 2 for image in (pair.fixed, pair.moving)]
    world = pair.fixed.grid.index_to_world(middles[0] + point * 0.3 / pair.spacing)
    there = pair.moving.grid.world_to_index(transform.map_points(world)) - middles[1]
    np.testing.assert_allclose(there * pair.spacing / 0.3, place.pose[0] @ point + place.pose[2, 0], atol=1e-9)


def test_steps_keep_the_inverse_and_rotations_orthogonal():
    pose = np.stack([np.eye(3), np.eye(3), np.zeros((3, 3))])
    motions = generators("rigid", Grid((20, 30, 25)))
    rng = np.random.default_rng(0)
    for _ in range(200):
        move(pose, motions, rng.uniform(-1, 1, 6))
    np.testing.assert_allclose(pose[0] @ pose[1], np.eye(3), atol=1e-12)
    np.testing.assert_allclose(pose[0] @ pose[0].T, np.eye(3), atol=1e-12)
    assert np.abs(pose[0] - np.eye(3)).max() > 0.1


def test_a_unit_of_each_rigid_motion_is_a_pixel():
    grid = Grid((40, 60))
    places = np.argwhere(np.ones(grid.shape)) - (np.array(grid.shape) - 1) / 2
    for generator in generators("similarity", grid):
        assert np.sqrt(((places @ generator.T) ** 2).sum(1).mean()) == pytest.approx(1, abs=0.01)


def test_points_are_even_and_lie_between_the_pixels():
    values = np.full((40, 50), 3.0, dtype=np.float32)
    values[:, 25:] = np.nan
    image = Image(np.nan_to_num(values)[None], Grid((40, 50)), mask=~np.isnan(values))
    points = FuzzyImage.of(image.with_data(image.data + texture((40, 50))), 0.5, LEVELS, "uniform", 0).points
    rows, columns = points[:, 0] + 19.5, points[:, 1] + 24.5
    assert columns.max() < 24
    counts = np.histogram2d(rows[:600], columns[:600], bins=(5, 5), range=((0, 39), (0, 24)))[0]
    assert counts.min() > 18  # 24 on average in any run; at random, some would hold 12
    assert np.histogram(rows % 1, bins=4)[0].min() > 0.24 * len(rows)


def test_the_hann_window_falls_to_nothing_at_the_border():
    points = fuzzy(2, window="hann").points
    side = np.array(SHAPES[2]) / 2
    inwards = 1 - np.abs(points[:, :2] / side)
    assert points[inwards.min(1) < 0.1, -1].max() < 0.03
    assert points[inwards.min(1) > 0.8, -1].min() > 0.8


def test_smoothing_keeps_masked_values_out():
    values = texture((30, 40))
    mask = np.ones(values.shape, dtype=bool)
    mask[10:20, 5:30] = False
    images = [Image(np.where(mask, values, fill)[None], Grid(values.shape), mask=mask) for fill in (0.0, 1e6)]
    first, second = (smoothed(image, 2.0)[mask] for image in images)
    np.testing.assert_array_equal(first, second)
    assert values.min() <= first.min() <= first.max() <= values.max()


def test_values_under_a_mask_change_nothing():
    fixed, moving, _ = known_pair(2)
    mask = np.ones(fixed.grid.shape, dtype=bool)
    mask[:60, 40:120] = False
    results = [
        ALONE.register(replace(fixed, data=np.where(mask, fixed.data, np.float32(f)), mask=mask), moving)
        for f in (0, 1e5)
    ]
    assert results[0] == results[1]


@pytest.mark.parametrize("shift", [(3.5, -2.5), (0.25, 0.75), (4.0, 1.0)])
def test_a_translation_is_found_at_a_pyramid_level_even_between_the_pixels(shift):
    """The level has pixels of twice the size, and nothing draws the result to whole pixels."""
    scene, grid = textured_scene(2), Grid((120, 140), (0.5, 0.5), (-30.0, -35.0))
    truth = np.array(shift)  # world units, so pixels of the level
    fixed = scene.resampled(grid, Rigid(as_rows(np.eye(2)), (0.0, 0.0)), order=3)
    moving = scene.resampled(grid, Rigid(as_rows(np.eye(2)), tuple(-truth)), order=3)
    pair = FuzzyPair(*(FuzzyImage.of(isotropic(image, 1.0), 1.0, 7, "uniform", 0) for image in (fixed, moving)))
    start = Place.of(np.eye(2), np.zeros(2), pair.fixed.grid, pair.moving.grid, 1.0)
    end = pair.descended(start, "rigid", Schedule(400, 2000, 1.0, 0.003), 1)
    found = end.transform(pair.fixed.grid, pair.moving.grid, "rigid")
    assert corner_error(fixed.grid, found, Rigid(as_rows(np.eye(2)), tuple(truth))) < 0.05


@pytest.mark.parametrize("ndim", [2, 3])
def test_threads_do_not_change_the_answer(ndim):
    fixed, moving, _ = known_pair(ndim)
    assert ALONE.register(fixed, moving) == AlphaAmd(threads=2).register(fixed, moving)


def test_another_seed_finds_the_same_place():
    fixed, moving, truth = known_pair(2)
    results = [AlphaAmd(threads=1, seed=seed).register(fixed, moving).fixed_to_moving for seed in (1, 2)]
    assert results[0] != results[1]
    assert max(corner_error(fixed.grid, found, truth) for found in results) < 0.1


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("kind", ["similarity", "affine"])
def test_size_and_shape_are_recovered(ndim, kind):
    grid = FIXED_GRIDS[ndim]
    rotation = rotation_matrix(ndim, 9.0)
    linear = 1.1 * rotation
    if kind == "affine":
        linear = linear @ (np.eye(ndim) + 0.08 * np.eye(ndim, k=1))
    offset = grid.center + 0.7 - linear @ grid.center
    affine = np.eye(ndim + 1)
    affine[:-1, :-1], affine[:-1, -1] = linear, offset
    truth = Affine.from_matrix(affine) if kind == "affine" else Similarity.from_matrix(affine)
    scene = textured_scene(ndim, feature=4.0 if ndim < 3 else 2.0)
    scene = scene.with_grid(replace(scene.grid, origin=tuple(np.array(scene.grid.origin) + grid.center)))
    still = Rigid(as_rows(np.eye(ndim)), (0.0,) * ndim)
    fixed, moving = scene.resampled(grid, still, order=3), scene.resampled(grid, truth.inverse(), order=3)
    result = AlphaAmd(transform=kind, threads=1).register(fixed, moving)
    assert type(result.candidate) is type(truth)
    assert corner_error(grid, result.candidate, truth) < 0.4 * max(grid.spacing)


def test_all_rotations_can_be_tried():
    fixed, moving, truth = known_pair(2, 130.0, 0.03, feature=5.0)
    result = AlphaAmd(max_rotation_degrees=180, threads=1).register(fixed, moving)
    assert result.status == "accepted"
    assert result.stats["starts"] == 16
    assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.1


def test_several_channels_are_compared_along_one_axis():
    fixed, moving, truth = known_pair(2)
    weights = np.array([1.0, -0.5, 2.0], dtype=np.float32).reshape(3, 1, 1)
    several = [image.with_data(image.data * weights + 7) for image in (fixed, moving)]
    assert corner_error(fixed.grid, ALONE.register(*several).fixed_to_moving, truth) < 0.1


def test_images_of_another_kind_are_not_accepted_although_both_have_structure():
    fixed, _, _ = known_pair(2, feature=5.0)
    for seed in range(4):
        _, other, _ = known_pair(2, 0.0, 0.0, seed + 20, feature=8.0)
        assert ALONE.register(fixed, other).status != "accepted"


def test_start_rotations_combine_the_planes_and_begin_with_none():
    turns = start_rotations(3, 23.0, 23.0)
    assert len(turns) == 27
    np.testing.assert_array_equal(turns[0], np.eye(3))
    assert len(start_rotations(2, 180.0, 22.5)) == 16
    assert len(start_rotations(2, 0.0, 22.5)) == 1


@pytest.mark.parametrize("ndim", [2, 3])
def test_random_rotations_are_rotations_and_favour_none(ndim):
    rng = np.random.default_rng(0)
    drawn = np.array([random_rotation(ndim, rng) for _ in range(600)])
    np.testing.assert_allclose(drawn @ drawn.transpose(0, 2, 1), np.broadcast_to(np.eye(ndim), drawn.shape), atol=1e-12)
    assert np.linalg.det(drawn).min() > 0
    assert np.abs(drawn.mean(0)).max() < 0.12


def test_random_numbers_are_uniform():
    numbers = np.array([uniform(k) for k in range(10_000)])
    assert np.histogram(numbers, bins=10, range=(0, 1))[0].min() > 900
    assert abs(np.corrcoef(numbers[:-1], numbers[1:])[0, 1]) < 0.05


def test_loops_compile_without_a_folder_to_keep_them_in(monkeypatch):
    real = numba.njit

    def refusing(*args, cache=False, **options):
        if cache:
            raise RuntimeError("cannot cache function: no locator available")
        return real(*args, **options)

    monkeypatch.setattr(numba, "njit", refusing)
    assert compiled(lambda x: x + 1)(2) == 3


def test_numba_is_not_imported_before_it_is_needed():
    code = "import sys, modalign.registration.alpha_amd; sys.exit('numba' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_valid_pixels_that_nowhere_touch_are_refused():
    """Between them, no distance can be interpolated."""
    fixed, moving, _ = known_pair(2)
    mask = np.zeros(fixed.grid.shape, dtype=bool)
    mask[::3, ::3] = True
    pixels = replace(fixed, grid=Grid(fixed.grid.shape), mask=mask)
    assert ALONE.register(pixels, moving.with_grid(Grid(moving.grid.shape))).status == "refused"


def test_a_place_without_overlap_is_as_far_as_can_be():
    pair = fuzzy_pair(2)
    far = pair.valued(Place.of(np.eye(2), np.array([500.0, 0.0]), pair.fixed.grid, pair.moving.grid, pair.spacing))
    assert (far.distance, far.overlap) == (LIMIT, 0.0)


@pytest.mark.parametrize(
    "options",
    [
        {"max_rotation_degrees": 190.0},
        {"start_step_degrees": 0.0},
        {"levels": 255},
        {"min_overlap": 0.0},
        {"max_pixels": 10},
        {"threads": -1},
        {"seed": -1},
    ],
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        AlphaAmd(**options)
