"""Rotations: spread evenly, within a limit, and never further apart than promised."""

import numpy as np
import pytest

from modalign.geometry import angle_degrees, planes, random_rotations, rotation_matrix, sweep, turn

COUNTS = {2: 360 / 10, 3: 8 * np.pi**2 / np.radians(20.0) ** 3}
STEPS = {2: 10.0, 3: 20.0}


def all_of(ndim: int, limit: float = 180.0) -> np.ndarray:
    return np.array([rotation @ g.matrix for rotation, turns in sweep(ndim, STEPS[ndim], limit) for g in turns])


@pytest.mark.parametrize("ndim", [2, 3])
def test_every_rotation_has_a_neighbour_in_the_sweep_and_none_is_tried_twice(ndim):
    tried = all_of(ndim)
    assert len(tried) == pytest.approx(COUNTS[ndim], rel=0.12)
    cosines = np.einsum("nij,mij->nm", random_rotations(ndim, 400, np.random.default_rng(0)), tried)
    nearest = [
        angle_degrees(a.T @ tried[k])
        for a, k in zip(random_rotations(ndim, 400, np.random.default_rng(0)), cosines.argmax(1), strict=True)
    ]
    assert max(nearest) < 0.5 * STEPS[ndim] * np.sqrt(len(planes(ndim))) * 1.1
    among = np.einsum("nij,mij->nm", tried, tried)
    np.fill_diagonal(among, -1)
    assert among.max() < ndim - 2 + 2 * np.cos(np.radians(0.25 * STEPS[ndim]))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("limit", [0.0, 35.0])
def test_the_sweep_keeps_its_limit_and_begins_with_no_rotation_among_others(ndim, limit):
    tried = all_of(ndim, limit)
    angles = [angle_degrees(rotation) for rotation in tried]
    assert max(angles) <= limit + 1e-6
    assert min(angles) == pytest.approx(0, abs=1e-6)
    assert (len(tried) == 1) == (limit == 0)


def test_the_angles_of_a_sweep_of_space_are_spread_as_those_of_random_rotations():
    """The angle θ of a uniform rotation has the density (1 − cos θ) / π."""
    angles = np.radians([angle_degrees(rotation) for rotation in all_of(3)])
    for limit in np.radians([60, 90, 120, 150]):
        assert (angles <= limit).mean() == pytest.approx((limit - np.sin(limit)) / np.pi, abs=0.03)


def test_turns_are_rotations_in_the_planes_of_the_axes():
    assert planes(3) == [(0, 1), (0, 2), (1, 2)]
    for number, plane in enumerate(planes(3)):
        vector = np.radians(25.0) * np.eye(3)[number]
        np.testing.assert_allclose(turn(3, vector), rotation_matrix(3, 25.0, plane), atol=1e-12)
    np.testing.assert_allclose(turn(2, np.radians([-70.0])), rotation_matrix(2, -70.0), atol=1e-12)
    assert angle_degrees(turn(3, np.array([0.3, -0.4, 1.2]))) == pytest.approx(np.degrees(1.3))


@pytest.mark.parametrize("degrees", [0.0, 1e-6, 30.0, 179.99999])
def test_angles_are_exact_at_both_ends(degrees):
    assert angle_degrees(rotation_matrix(3, degrees, (0, 2))) == pytest.approx(degrees, abs=1e-9)


@pytest.mark.parametrize("ndim", [2, 3])
def test_random_rotations_are_proper_and_uniform(ndim):
    made = random_rotations(ndim, 4000, np.random.default_rng(3))
    np.testing.assert_allclose(made @ made.swapaxes(1, 2), np.broadcast_to(np.eye(ndim), made.shape), atol=1e-12)
    assert np.allclose(np.linalg.det(made), 1)
    assert np.abs(made.mean(0)).max() < 0.04
    assert np.abs((made**2).mean(0) - 1 / ndim).max() < 0.02
