"""Errors equal their closed forms."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest

from modalign import geometry
from modalign.errors import InvalidInputError
from modalign.evaluation import (
    Tolerance,
    corner_error,
    evaluate_against_truth,
    evaluate_landmarks,
    landmark_error,
)
from modalign.geometry import Grid, Rigid, as_rows, identity, rotation_matrix
from modalign.image import Points

GRIDS = {
    2: Grid((101, 81), (2.0, 0.5), (7.0, -3.0), as_rows(rotation_matrix(2, 30)), "micrometer"),
    3: Grid((21, 41, 31), (3.0, 0.5, 0.8), (1.0, 2.0, 3.0), as_rows(rotation_matrix(3, 30)), "millimeter"),
}


def shifted(ndim: int, *shift: float) -> Rigid:
    return Rigid(as_rows(np.eye(ndim)), shift)


def points(grid: Grid, count: int = 5, seed: int = 0) -> Points:
    indices = np.random.default_rng(seed).uniform(0, np.array(grid.shape) - 1, (count, grid.ndim))
    return Points(grid.index_to_world(indices), grid.unit)


def test_a_shift_of_three_and_four_is_an_error_of_five():
    error = corner_error(shifted(2, 3.0, 4.0), identity(2), Grid((101, 81)))
    assert error.mean.world == error.mean.pixels == error.maximum.pixels == pytest.approx(5)
    assert error.mean.relative == pytest.approx(5 / 91)


def test_pixels_are_counted_along_each_axis_of_the_fixed_grid():
    grid = GRIDS[2]
    direction = np.array(grid.direction)
    shift = direction @ (2.0 * 3, 0.5 * 4)  # 3 pixels along the first axis, 4 along the second
    error = corner_error(shifted(2, *shift), identity(2), grid)
    assert error.mean.pixels == pytest.approx(5)
    assert error.mean.world == pytest.approx(np.hypot(6, 2))
    assert error.mean.relative == pytest.approx(np.hypot(6, 2) / ((202 + 40.5) / 2))


@pytest.mark.parametrize("degrees", [0.5, 30, 180])
def test_a_rotation_about_the_centre_moves_corners_along_a_chord(degrees):
    grid = GRIDS[2]
    turned = Rigid.about(grid.center, rotation_matrix(2, degrees), np.zeros(2))
    radius = np.hypot(100 * 2.0, 80 * 0.5) / 2
    error = corner_error(turned, identity(2), grid)
    assert error.mean.world == pytest.approx(2 * radius * np.sin(np.deg2rad(degrees) / 2))
    assert error.maximum.world == pytest.approx(error.mean.world)


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_truth_itself_has_no_error(ndim):
    grid = GRIDS[ndim]
    truth = Rigid.about(grid.center, rotation_matrix(ndim, 17, (0, 1)), np.arange(1.0, ndim + 1))
    report = evaluate_against_truth(truth, truth, grid)
    assert report.error.maximum.world == 0
    assert all(entry.reached and entry.fraction == 1 for entry in report.success)
    assert report.initial_error.mean.world == pytest.approx(geometry.corner_error(grid, identity(ndim), truth))
    assert report.unit == grid.unit


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_mean_in_world_units_is_that_of_geometry(ndim):
    grid = GRIDS[ndim]
    found = Rigid.about(grid.corners[0], rotation_matrix(ndim, 7), np.ones(ndim))
    truth = Rigid.about(grid.center, rotation_matrix(ndim, -4, (0, 1)), np.zeros(ndim))
    assert corner_error(found, truth, grid).mean.world == pytest.approx(geometry.corner_error(grid, found, truth))


def test_tolerances_are_judged_on_their_own_scale():
    grid = Grid((100, 100), (0.5, 0.5), unit="micrometer")
    tolerances = [Tolerance(5.01, "pixels"), Tolerance(4.99, "pixels"), Tolerance(2.51, "world"), Tolerance(0.0501)]
    report = evaluate_against_truth(shifted(2, 1.5, 2.0), identity(2), grid, tolerances)
    assert [entry.reached for entry in report.success] == [True, False, True, True]
    assert [entry.fraction for entry in report.success] == [1, 0, 1, 1]


@pytest.mark.parametrize("ndim", [2, 3])
def test_landmarks_moved_by_the_truth_have_no_error(ndim):
    grid = GRIDS[ndim]
    truth = Rigid.about(grid.center, rotation_matrix(ndim, 17), np.ones(ndim))
    fixed = points(grid)
    assert landmark_error(truth, fixed, fixed.mapped(truth), grid).maximum.world < 1e-12
    wrong_way = landmark_error(truth, fixed.mapped(truth), fixed, grid)
    assert wrong_way.median.world > 1  # the direction matters


def test_landmark_errors_equal_their_closed_forms():
    grid = Grid((30, 40), unit="micrometer")
    fixed = points(grid, 4)
    offsets = np.array([[0, 1.0], [2.0, 0], [0, -4.0], [6.0, 8.0]])
    moving = replace(fixed, coordinates=fixed.coordinates + offsets)
    report = evaluate_landmarks(identity(2), fixed, moving, grid, [Tolerance(2.5, "world"), Tolerance(3, "pixels")])
    assert report.error.distances == pytest.approx((1, 2, 4, 10))
    assert (report.error.median.world, report.error.mean.pixels) == pytest.approx((3, 4.25))
    assert report.error.maximum.relative == pytest.approx(10 / 35)
    assert (report.error.median_rtre, report.error.mean_rtre) == pytest.approx((3 / 50, 4.25 / 50))
    assert report.error.maximum_rtre == pytest.approx(10 / 50)
    assert report.initial_error == report.error
    assert [(entry.reached, entry.fraction) for entry in report.success] == [(False, 0.5), (True, 0.5)]


def test_evaluations_are_plain_numbers_that_json_takes():
    grid = GRIDS[2]
    fixed = points(grid)
    for report in (
        evaluate_against_truth(identity(2), identity(2), grid),
        evaluate_landmarks(identity(2), fixed, fixed, grid),
    ):
        assert json.loads(json.dumps(asdict(report)))["success"][1]["tolerance"] == {"value": 0.02, "scale": "relative"}


def test_landmarks_that_do_not_correspond_are_refused():
    grid = GRIDS[2]
    fixed = replace(points(grid, 3), names=("a", "b", "c"))

    def refused(moving: Points, why: str) -> None:
        with pytest.raises(InvalidInputError, match=why):
            landmark_error(identity(2), fixed, moving, grid)

    refused(points(grid, 4), "3 fixed landmarks .* 4 moving")
    refused(replace(fixed, unit="pixel"), "one unit")
    refused(replace(fixed, names=("a", "c", "b")), "'b', 'c'")
    refused(replace(fixed, coordinates=np.full((3, 2), np.nan)), "finite")
    with pytest.raises(InvalidInputError, match="0 fixed"):
        landmark_error(identity(2), points(grid, 0), points(grid, 0), grid)
