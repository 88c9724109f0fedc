"""The reusable steps: maximising the correlation, phase correlation, and the two engines made of them."""

from dataclasses import replace

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import (
    Affine,
    Grid,
    Rigid,
    Similarity,
    as_rows,
    corner_error,
    identity,
    rotation_matrix,
)
from modalign.image import Image
from modalign.registration.ecc import Ecc, starts
from modalign.registration.phase_correlation import PhaseCorrelation, phase_correlation
from modalign.registration.poses import Level, Pose, warped
from modalign.registration.refinement import Motion, maximise_correlation, maximised, refined
from modalign.registration.search import contrast
from modalign.testing.registration import (
    FIXED_GRIDS,
    MOVING_GRIDS,
    RegistrarLaws,
    known_pair,
    textured_scene,
)

SIDES = {2: 140, 3: 44}
MODELS = {"rigid": Rigid, "similarity": Similarity, "affine": Affine}


def seen(truth, fixed, moving, feature=2.0, seed=0):
    """Two views of a scene about the centre of ``fixed``, related by any linear transform."""
    scene = textured_scene(fixed.ndim, seed, feature)
    to_scene = Rigid(as_rows(np.eye(fixed.ndim)), tuple(-fixed.center))
    from_moving = Affine.from_matrix(to_scene.matrix @ np.linalg.inv(truth.matrix))
    return scene.resampled(fixed, to_scene, order=3), scene.resampled(moving, from_moving, order=3)


def small_change(ndim, model):
    """A small motion of a model, in every direction it has."""
    turn = rotation_matrix(ndim, 2.0)
    for axis in range(ndim - 2):
        turn = turn @ rotation_matrix(ndim, -1.5, (axis, axis + 1))
    shear = np.eye(ndim) + 0.02 * np.triu(np.ones((ndim, ndim)), 1) + np.diag(np.linspace(-0.02, 0.01, ndim))
    return {"rigid": turn, "similarity": 1.02 * turn, "affine": turn @ shear}[model]


def about(fixed, moving, linear, shift):
    """The transform with this matrix that takes the centre of one grid to that of the other, and further by a shift."""
    matrix = np.eye(fixed.ndim + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, moving.center + shift - linear @ fixed.center
    return Affine.from_matrix(matrix)


def with_holes(image, seed):
    """The image with a masked cube of wild values at a random place."""
    rng = np.random.default_rng(seed)
    mask = np.ones(image.grid.shape, dtype=bool)
    corner = [int(rng.integers(0, n // 2)) for n in image.grid.shape]
    mask[tuple(slice(k, k + n // 3) for k, n in zip(corner, image.grid.shape, strict=True))] = False
    return Image(np.where(mask, image.data, np.float32(1e3)), image.grid, image.channels, mask)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("ndim", [2, 3])
def test_a_small_displacement_is_refined_to_a_part_of_a_pixel(ndim, model):
    fixed, moving = FIXED_GRIDS[ndim], MOVING_GRIDS[ndim]
    truth = about(fixed, moving, small_change(ndim, model), 0.8)
    start = Rigid(as_rows(np.eye(ndim)), tuple(moving.center - fixed.center))
    found = maximise_correlation(*seen(truth, fixed, moving, feature=4.0), start, model, coarse_side=28)
    assert type(found.transform) is MODELS[model]
    assert found.score > 0.98
    assert corner_error(fixed, found.transform, truth) < 0.1 * max(fixed.spacing)


@pytest.mark.parametrize("ndim", [2, 3])
def test_worlds_masks_mirrors_and_scales_of_the_start_are_kept(ndim):
    fixed, moving = FIXED_GRIDS[ndim], MOVING_GRIDS[ndim]
    mirror = np.diag([1.0] * (ndim - 1) + [-1.0])
    truth = about(fixed, moving, small_change(ndim, "rigid") @ mirror, 0.4)
    views = [with_holes(image, seed) for seed, image in enumerate(seen(truth, fixed, moving, feature=4.0))]
    micrometers = [image.with_grid(replace(image.grid, unit="micrometer")) for image in views]
    micrometers[1] = micrometers[1].with_grid(micrometers[1].grid.in_unit("millimeter"))
    start = Similarity(as_rows(mirror), 1e-3, tuple(1e-3 * (moving.center - mirror @ fixed.center)))
    found = maximise_correlation(*micrometers, start, coarse_side=28).transform
    assert found.scale == pytest.approx(1e-3, rel=1e-9)
    assert found.is_mirrored
    off = 1000 * found.map_points(fixed.corners) - truth.map_points(fixed.corners)
    assert np.linalg.norm(off, axis=1).mean() < 0.1 * max(fixed.spacing)


def test_nothing_better_leaves_the_start():
    fixed, *_ = known_pair(2)
    still = maximise_correlation(fixed, fixed, identity(2))
    assert corner_error(fixed.grid, still.transform, identity(2)) < 1e-3 * max(fixed.grid.spacing)
    assert still.score == pytest.approx(1, abs=1e-5)
    away = Rigid(as_rows(np.eye(2)), (1e4, 0.0))
    assert maximise_correlation(fixed, fixed, away).transform == away


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("model", MODELS)
def test_slopes_are_the_derivatives_of_the_motion(ndim, model):
    """A motion by a small step changes an image as its gradient along the velocities says."""
    grid = Grid((9, 8, 7)[:ndim], (0.7,) * ndim, (3.0, -2.0, 5.0)[:ndim], as_rows(rotation_matrix(ndim, 90.0)))
    motion = Motion.of(grid, model, unit=0.2)
    gradient = np.arange(1.0, ndim + 1)[:, None]
    index = np.array([[6.0, 1.0, 4.0][:ndim]])
    places = (index - (np.array(grid.shape) - 1) / 2).T
    slopes = motion.slopes(gradient.astype(np.float32), places.astype(np.float32))[:, 0]
    for parameter, slope in enumerate(slopes):
        step = np.zeros(len(slopes))
        step[parameter] = 1e-5
        moved = grid.world_to_index(motion.after(identity(ndim), step).map_points(grid.index_to_world(index)))
        assert (moved - index)[0] @ gradient[:, 0] / 1e-5 == pytest.approx(slope, abs=1e-3)


def test_poses_and_transforms_are_two_ways_to_say_one_thing():
    for ndim, degrees, mirrored, scale in ((2, -170.0, True, 1.3), (2, 12.0, False, 1.0), (3, 150.0, True, 0.7)):
        fixed, moving = FIXED_GRIDS[ndim], MOVING_GRIDS[ndim]
        pose = Pose.centered(rotation_matrix(ndim, degrees), mirrored=mirrored, scale=scale)
        pose = replace(pose, shift=(3.0, 4.0, -1.0)[:ndim], score=0.5, overlap=0.4)
        assert (pose.degrees, pose.mirrored) == (pytest.approx(degrees), mirrored)
        back = Pose.of(pose.candidate(fixed, moving), fixed, moving)
        np.testing.assert_allclose(back.matrix, pose.matrix, atol=1e-12)
        assert (back.degrees, back.scale, *back.shift) == pytest.approx((pose.degrees, pose.scale, *pose.shift))


def test_a_pose_is_refined_as_its_transform():
    fixed, moving, truth = known_pair(2, 1.0, 0.01)
    level = Level.of(fixed, moving, 0.9)
    start = Pose(as_rows(rotation_matrix(2, 0.5)), tuple(truth.map_points(fixed.grid.center) - moving.grid.center))
    expected = maximised(level, start.transform(level.fixed_grid, level.moving_grid))
    pose = refined(level, start)
    assert (pose.score, pose.overlap) == (expected.score, expected.overlap)
    assert corner_error(fixed.grid, pose.transform(fixed.grid, moving.grid), truth) < 0.1


@pytest.mark.parametrize("ndim", [2, 3])
def test_sampling_is_linear_between_pixels_and_invalid_outside_the_mask(ndim):
    grid = Grid((9,) * ndim)
    places = np.indices(grid.shape).astype(np.float32)
    mask = np.ones(grid.shape, dtype=np.float32)
    mask[(2,) * ndim] = 0
    stack = np.stack([places.sum(0), places.sum(0) ** 2, mask])
    shift = Rigid(as_rows(np.eye(ndim)), (0.25,) * ndim)
    result = warped(stack, grid, grid, shift)
    inside = result[-1] > 0
    assert result[0][inside] == pytest.approx((places.sum(0) + 0.25 * ndim)[inside], abs=1e-4)
    assert not inside[(1,) * ndim]
    assert not inside[(2,) * ndim]
    assert not inside[(8,) * ndim]
    assert inside[(4,) * ndim]


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("ndim", [2, 3])
def test_phase_correlation_finds_shifts_to_a_fiftieth_of_a_pixel(ndim, masked):
    grid = Grid((SIDES[ndim], *(SIDES[ndim] - 6,) * (ndim - 1)), (0.9, 0.7, 0.8)[:ndim], (5.0, -3.0, 2.0)[:ndim])
    for seed in range(3):
        pixels = np.random.default_rng(seed).uniform(-6, 6, ndim)
        truth = Rigid(as_rows(np.eye(ndim)), tuple((pixels * grid.spacing).tolist()))
        views = seen(truth, grid, grid, feature=1.5, seed=seed)
        if masked:
            views = [with_holes(image, seed + k) for k, image in enumerate(views)]
        found = phase_correlation(*views)
        off = (found.transform.offset - truth.offset) / grid.spacing
        assert np.abs(off).max() < 0.02
        assert found.score > 0.7


def test_phase_correlation_of_images_of_other_size_place_and_channels():
    grid = Grid((120, 130), (0.5, 0.8), (3.0, 4.0), as_rows(rotation_matrix(2, 90.0)))
    part = replace(grid.cropped((30, 41), (80, 70)), origin=(100.0, -50.0))
    scenes = [textured_scene(2, seed) for seed in range(2)]
    to_scene = Rigid(as_rows(np.eye(2)), tuple(-grid.center))
    whole = Image(np.concatenate([s.resampled(grid, to_scene, order=3).data for s in scenes]), grid)
    cut = Image(whole.data[:, 30:110, 41:111], part)
    found = phase_correlation(whole, cut).transform
    assert found.map_points(grid.index_to_world(np.array([30.0, 41.0]))) == pytest.approx((100.0, -50.0), abs=0.02)
    assert phase_correlation(cut, whole).transform.offset == pytest.approx(-found.offset, abs=0.02)


def test_phase_correlation_refuses_pixels_that_differ():
    image = textured_scene(2)
    with pytest.raises(InvalidInputError, match="same channels, pixel size"):
        phase_correlation(image, image.with_grid(replace(image.grid, spacing=(0.5, 0.6))))


def test_contrast_compares_with_other_shifts():
    fixed, moving, truth = known_pair(2)
    level = Level.of(fixed, moving, 1.5)
    wrong = Rigid.from_matrix(truth.matrix @ Rigid(truth.inverse().rotation, (40.0, 0.0)).matrix)
    assert contrast(level, truth, 0.3) > 0.4
    assert contrast(level, wrong, 0.3) < 0


def test_starts_are_the_world_and_the_centres():
    here = Grid((20, 20))
    assert starts(here, here) == [identity(2)]
    assert starts(here, here.centered((10, 10))) == [identity(2)]
    beside = replace(here, origin=(5.0, 0.0))
    assert starts(here, beside) == [identity(2), Rigid(as_rows(np.eye(2)), (5.0, 0.0))]
    assert starts(here, replace(here, origin=(500.0, 0.0))) == [Rigid(as_rows(np.eye(2)), (500.0, 0.0))]


@pytest.mark.parametrize("transform", MODELS)
def test_ecc_gives_the_kind_of_transform_asked_for(transform):
    fixed, moving = FIXED_GRIDS[2], MOVING_GRIDS[2]
    truth = about(fixed, moving, small_change(2, transform), 0.8)
    result = Ecc(transform=transform).register(*seen(truth, fixed, moving, feature=4.0))
    assert result.status == "accepted"
    assert type(result.fixed_to_moving) is MODELS[transform]
    assert corner_error(fixed, result.fixed_to_moving, truth) < 0.1


@pytest.mark.parametrize("axes", [[[0.0, 1.0], [1.0, 0.0]], rotation_matrix(2, 30.0).tolist()])
def test_only_the_world_is_shifted_however_the_axes_are_stored(axes):
    fixed, moving, truth = known_pair(2, 0.0, 0.08)
    turned = replace(moving.grid, direction=as_rows(np.array(axes)))
    aside = tuple((np.array(turned.origin) + moving.grid.center - turned.center).tolist())
    stored = textured_scene(2).resampled(
        replace(turned, origin=aside),
        Rigid.from_matrix(Rigid(as_rows(np.eye(2)), tuple(-fixed.grid.center)).matrix @ truth.inverse().matrix),
        order=3,
    )
    found = PhaseCorrelation().register(fixed, stored).fixed_to_moving
    assert corner_error(fixed.grid, found, truth) < 0.1 * 0.9


def test_a_turned_image_is_not_trusted_to_be_shifted():
    fixed, moving, _ = known_pair(2, 3.0, 0.02)
    result = PhaseCorrelation().register(fixed, moving)
    assert result.status != "accepted"
    assert any("turned" in reason or "place" in reason for reason in result.reasons)


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        (Ecc, {"min_overlap": 0}),
        (Ecc, {"coarse_side": 4}),
        (Ecc, {"max_pixels": 100}),
        (PhaseCorrelation, {"min_overlap": 2}),
        (PhaseCorrelation, {"max_pixels": 100}),
    ],
)
def test_impossible_options_are_refused(engine, options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        engine(**options)


class _Laws(RegistrarLaws):
    """The laws for small poses; which engines exist elsewhere is asked of those in the union only."""

    def test_masked_pixels_do_not_count(self, ndim):
        fixed, moving, truth = known_pair(ndim, *self.poses[0])
        mask = fixed.valid.copy()
        mask[tuple(slice(0, n // 3) for n in fixed.grid.shape)] = False
        masked = Image(np.where(mask, fixed.data, np.nan).astype(np.float32), fixed.grid, fixed.channels, mask)
        self.assert_found(self.method.register(masked, moving), fixed.grid, truth)

    def test_other_dimensions_are_refused_with_alternatives(self):
        pytest.skip("asked in test_conformance.py of every engine of the union")


class TestEcc(_Laws):
    method = Ecc()
    poses = ((1.0, 0.005), (-1.5, -0.01))


class TestPhaseCorrelation(_Laws):
    method = PhaseCorrelation()
    poses = ((0.0, 0.1), (0.0, -0.2), (0.0, 0.013))
    tolerance_pixels = 0.1


del _Laws, RegistrarLaws
