"""Describers give the same place the same row, under the changes that they promise to bear."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.spatial import cKDTree

from modalign.errors import DimensionError, InvalidInputError
from modalign.geometry import Grid, Rigid, rotation_matrix
from modalign.image import Image
from modalign.local_features import KeyPoints, Surroundings
from modalign.retrieval import DESCRIBERS, Describer, Rings, Sift, UprightGradients
from modalign.retrieval.harmonics import powers
from modalign.testing.registration import textured_scene, views

GRIDS = {2: Grid((150, 140), (0.9, 0.9), (12.5, -40.0)), 3: Grid((32, 36, 34), (0.9,) * 3, (12.5, -40.0, 7.0))}
SMALL = {
    2: [Sift(), UprightGradients(sizes=(32, 48)), Rings(radius=16)],
    3: [UprightGradients(step=3, sizes=(12,)), Rings(step=3, radius=7, rings=4, degrees=25, harmonics=4)],
}
CASES = [(ndim, describer) for ndim, describers in SMALL.items() for describer in describers]
IDS = [f"{ndim}D-{describer.name}" for ndim, describer in CASES]


def same_places(fixed: KeyPoints, moving: KeyPoints, truth: Rigid, within: float) -> float:
    """Median similarity of the rows of places that are the same in truth."""
    distance, index = cKDTree(moving.points).query(truth.map_points(fixed.points))
    same = distance < within
    assert same.sum() > 20
    return float(np.median((fixed.descriptors[same] * moving.descriptors[index[same]]).sum(1)))


def by_chance(fixed: KeyPoints, moving: KeyPoints) -> float:
    rng = np.random.default_rng(0)
    rows = [rng.permutation(keys.descriptors)[: min(len(fixed), len(moving))] for keys in (fixed, moving)]
    return float(np.median((rows[0] * rows[1]).sum(1)))


def turned_views(ndim: int, degrees: float) -> tuple[Image, Image, Rigid]:
    grid = GRIDS[ndim]
    truth = Rigid.about(grid.center, rotation_matrix(ndim, degrees), np.zeros(ndim))
    return (*views(textured_scene(ndim, feature=4.0), grid, grid, truth), truth)


@pytest.mark.parametrize(("ndim", "describer"), CASES, ids=IDS)
def test_rows_have_unit_length_and_places_lie_in_the_image(ndim: int, describer: Describer) -> None:
    fixed, _, _ = turned_views(ndim, 0)
    keys = describer.describe(fixed)
    assert len(keys) > 30
    np.testing.assert_allclose(np.linalg.norm(keys.descriptors, axis=1), 1, atol=1e-5)
    indices = fixed.grid.world_to_index(keys.points)
    assert np.all((indices >= -0.5) & (indices <= np.array(fixed.grid.shape) - 0.5))
    again = describer.describe(fixed)
    np.testing.assert_array_equal(keys.descriptors, again.descriptors)


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("degrees", [0.0, 50.0, 90.0])
def test_rings_know_a_place_again_however_it_is_turned(ndim: int, degrees: float) -> None:
    fixed, moving, truth = turned_views(ndim, degrees)
    describer = replace(SMALL[ndim][-1], step=1, most=100_000)
    keys, others = describer.describe(fixed), describer.describe(moving)
    likeness, chance = same_places(keys, others, truth, 0.5), by_chance(keys, others)
    assert likeness > 0.93
    assert 1 - likeness < 0.5 * (1 - chance)


def test_upright_gradients_know_a_place_again_when_little_turned_and_not_when_much() -> None:
    describer = UprightGradients(step=2, sizes=(40,), most=100_000)
    likeness = {}
    for degrees in (10.0, 90.0):
        fixed, moving, truth = turned_views(2, degrees)
        likeness[degrees] = same_places(describer.describe(fixed), describer.describe(moving), truth, 0.9)
    assert likeness[10.0] > 0.9
    assert likeness[90.0] < likeness[10.0] - 0.1


@pytest.mark.parametrize("gain", [0.01, 500.0])
@pytest.mark.parametrize(("ndim", "describer"), CASES, ids=IDS)
def test_brightness_and_contrast_change_nothing(ndim: int, describer: Describer, gain: float) -> None:
    fixed, _, _ = turned_views(ndim, 0)
    other = fixed.with_data((gain * fixed.data + 7).astype(np.float32))
    keys, same = describer.describe(fixed), describer.describe(other)
    assert len(keys) == len(same)
    assert np.median((keys.descriptors * same.descriptors).sum(1)) > 0.999


def test_the_strongest_share_is_kept() -> None:
    fixed, _, _ = turned_views(2, 0)
    for kind in (Sift, UprightGradients, Rings):
        whole, part = (kind(strongest=share, most=100_000).describe(fixed) for share in (1.0, 0.5))
        assert len(part) == pytest.approx(len(whole) / 2, abs=1)
        assert len(kind(most=7).describe(fixed)) == 7


@pytest.mark.parametrize(("ndim", "describer"), CASES, ids=IDS)
def test_places_under_the_mask_are_left_out(ndim: int, describer: Describer) -> None:
    fixed, _, _ = turned_views(ndim, 0)
    mask = np.ones(fixed.grid.shape, dtype=bool)
    mask[: mask.shape[0] // 3] = False
    masked = Image(np.where(mask, fixed.data, np.float32(1e4)), fixed.grid, mask=mask)
    indices = fixed.grid.world_to_index(describer.describe(masked).points)
    assert np.all(indices[:, 0] >= mask.shape[0] // 3)


@pytest.mark.parametrize(("ndim", "describer"), CASES, ids=IDS)
def test_what_shows_nothing_has_no_places(ndim: int, describer: Describer) -> None:
    blank = Image(np.full((1, *GRIDS[ndim].shape), 5.0, dtype=np.float32), GRIDS[ndim])
    assert len(describer.describe(blank)) == 0
    tiny = Image(np.zeros((1, *(3,) * ndim), dtype=np.float32), Grid((3,) * ndim))
    assert len(describer.describe(tiny)) == 0


def test_key_points_of_sift_exist_in_the_plane_only() -> None:
    with pytest.raises(DimensionError):
        Sift().describe(textured_scene(3))


@pytest.mark.parametrize("ndim", [2, 3])
def test_powers_are_those_of_the_functions_and_no_rotation_changes_them(ndim: int) -> None:
    rng = np.random.default_rng(0)
    vectors = Surroundings("grid", 1, 1, 1.0, 1, 6.0).directions(ndim)
    first = vectors @ rng.standard_normal(ndim)  # all of degree 1
    found = powers(first, vectors, 4)
    assert found[1] > 0.05
    np.testing.assert_allclose(np.delete(found, 1), 0, atol=1e-3)
    form = rng.standard_normal((ndim, ndim))
    turn = rotation_matrix(ndim, 40.0)
    one, other = (powers(((v @ form) * v).sum(1) + v @ form[0], vectors, 4) for v in (vectors, vectors @ turn))
    np.testing.assert_allclose(one, other, atol=1e-3)


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Sift(strongest=0),
        lambda: Sift(most=0),
        lambda: UprightGradients(step=0),
        lambda: UprightGradients(sizes=()),
        lambda: UprightGradients(sizes=(4,)),
        lambda: Rings(rings=0),
        lambda: Rings(radius=float("nan")),
        lambda: Rings(degrees=0),
        lambda: Rings(harmonics=12),
    ],
)
def test_options_out_of_range_are_refused(wrong) -> None:
    with pytest.raises(InvalidInputError):
        wrong()


def test_every_describer_has_a_name() -> None:
    assert set(DESCRIBERS) == {"sift", "upright-gradients", "rings"}
