"""Each piece of evidence answers its question: on a right transform, on wrong ones, and against literal definitions."""

from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from modalign.geometry import Affine, Grid, Rigid, Similarity, as_rows, identity
from modalign.image import Image
from modalign.registration.evidence import Evidence, gather, tile_windows
from modalign.registration.facts import facts
from modalign.registration.shared_information import _gray_levels, _mutual_information, information
from modalign.testing.registration import known_pair, known_pose, textured_scene


@pytest.fixture(scope="module")
def pair() -> tuple[Image, Image, Rigid]:
    return known_pair(2)


@pytest.fixture(scope="module")
def right(pair: tuple[Image, Image, Rigid]) -> Evidence:
    return gather(*pair)


def test_a_right_transform_is_spoken_for(right: Evidence) -> None:
    assert right.similarity > 0.9
    assert right.contrast > 0.5
    assert right.surprise > 10
    assert right.agreement == 1
    assert right.tiles >= 6
    assert max(right.drift, right.spread, right.consistency) < 0.01
    assert right.information > 20
    assert right.original_information == right.information
    assert right.overlap > 0.7
    assert right.scale == pytest.approx(0, abs=1e-9)
    assert right.shear == pytest.approx(0, abs=1e-9)
    assert all(fact.favours for fact in facts(right))


def test_a_wrong_transform_is_spoken_against(pair: tuple[Image, Image, Rigid]) -> None:
    fixed, moving, _ = pair
    wrong = gather(fixed, moving, known_pose(2, 60, 0.1))
    assert wrong.contrast < 0
    assert wrong.agreement < 0.3
    assert wrong.information < 5
    assert not any(fact.favours for fact in facts(wrong)[:3])


def test_a_near_miss_is_seen_by_the_tiles(pair: tuple[Image, Image, Rigid]) -> None:
    """The fixed image moved by 3 % of its width: every tile would rather be there, and says where."""
    fixed, moving, truth = pair
    width = max(fixed.grid.extent)
    missed = truth @ Rigid(as_rows(np.eye(2)), (0.03 * width, 0.0))
    evidence = gather(fixed, moving, missed)
    assert evidence.agreement < 0.2
    assert evidence.drift == pytest.approx(0.03, abs=0.005)
    assert evidence.spread < 0.01


def test_evidence_does_not_depend_on_units_and_worlds(pair: tuple[Image, Image, Rigid], right: Evidence) -> None:
    fixed, moving, truth = pair
    fixed = fixed.with_grid(replace(fixed.grid, unit="micrometer"))
    moving = moving.with_grid(replace(moving.grid, unit="micrometer").in_unit("millimeter"))
    to_millimeters = Similarity(as_rows(np.eye(2)), 1e-3, (0.0, 0.0))
    again = gather(fixed, moving, Similarity.from_matrix(to_millimeters.matrix @ truth.matrix))
    for name, value in right.to_dict().items():
        assert again.to_dict()[name] == pytest.approx(value, rel=0.02, abs=1e-3), name


def test_scale_and_shear_are_measured(pair: tuple[Image, Image, Rigid]) -> None:
    fixed, moving, truth = pair
    stretched = Affine.from_matrix(truth.matrix @ np.diag([2.0, 1.0, 1.0]))
    evidence = gather(fixed, moving, stretched)
    assert evidence.scale == pytest.approx(np.log(2) / 2)
    assert evidence.shear == pytest.approx(np.log(2))
    assert {"scale", "shape"} & {fact.name for fact in facts(evidence)}


def test_structureless_images_say_that_they_say_nothing() -> None:
    """A dot on a blank field: too few tiles to judge by."""
    data = np.zeros((1, 200, 200), dtype=np.float32)
    data[0, 100:104, 100:104] = 1
    image = Image(data, Grid((200, 200)))
    evidence = gather(image, image, identity(2))
    assert evidence.tiles < 4
    assert facts(evidence)[0].favours is False


def test_mutual_information_is_that_of_the_joint_histogram() -> None:
    """Against a literal double sum over the pixels of a shifted pair."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 12, (2, 40, 50)).astype(np.int16)
    b[:, :25] = a[:, :25]
    indices = np.eye(3)
    indices[:2, 2] = 3, -2
    found = _mutual_information(a, b, indices)
    x, y = a[:37, 2:].ravel(), b[3:, :48].ravel()
    expected = 0.0
    for i in range(12):
        for j in range(12):
            p = np.mean((x == i) & (y == j))
            if p:
                expected += p * np.log(p / (np.mean(x == i) * np.mean(y == j)))
    assert found == pytest.approx(expected)


def test_information_sees_a_relation_that_correlation_does_not() -> None:
    scene = textured_scene(2).resampled(Grid((160, 160), (0.9, 0.9), (-70.0, -70.0)), identity(2))
    middle = np.median(scene.data)
    folded = scene.with_data(np.abs(scene.data - middle))
    assert abs(np.corrcoef(scene.data.ravel(), folded.data.ravel())[0, 1]) < 0.35
    assert information(scene, folded, identity(2)) > 20
    assert information(scene, folded, Rigid(as_rows(np.eye(2)), (12.0, 9.0))) < 5


def test_gray_levels_hold_equal_numbers_and_leave_out_the_mask() -> None:
    rng = np.random.default_rng(0)
    mask = rng.random((60, 60)) < 0.7
    levels = _gray_levels(Image(rng.random((1, 60, 60)) ** 3, Grid((60, 60)), (), mask))
    assert (levels[~mask] == -1).all()
    counts = np.bincount(levels[mask])
    assert counts.max() - counts.min() <= 2


@pytest.mark.parametrize("shape", [(100, 256), (20, 30, 90)])
def test_tiles_cover_everything_once(shape: tuple[int, ...]) -> None:
    count = np.zeros(shape, dtype=int)
    for window in tile_windows(shape):
        count[window] += 1
    assert (count == 1).all()


def test_the_same_evidence_twice(pair: tuple[Image, Image, Rigid], right: Evidence) -> None:
    assert gather(*pair) == right


@pytest.mark.parametrize("period", [8, 20, 33])
def test_a_periodic_texture_has_an_echo(period: int) -> None:
    """A lattice seen a quarter of the width further on, with other noise: every period fits as well."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:560, :560]
    lattice = np.sin(2 * np.pi * x / period) + np.sin(2 * np.pi * y / period)
    views = (lattice[:400, :400], lattice[100:500, 60:460])
    noisy = (view + rng.normal(0, 0.2, view.shape) for view in views)
    fixed, moving = (Image(view[None].astype(np.float32), Grid((400, 400))) for view in noisy)
    offset = (-(100 % period), -(60 % period))
    assert gather(fixed, moving, Rigid(as_rows(np.eye(2)), offset)).echo > 0.9


def test_a_texture_that_does_not_repeat_has_no_echo(right: Evidence) -> None:
    assert right.echo < 0.5


@pytest.mark.parametrize("shape", [(40, 1280), (16, 640)])
def test_long_images_are_judged_by_what_they_hold(shape: tuple[int, int]) -> None:
    texture = ndimage.gaussian_filter(np.random.default_rng(0).normal(size=shape), 2)
    image = Image(texture[None].astype(np.float32), Grid(shape))
    found = gather(image, image, identity(2))
    assert found.tiles >= 4
    assert found.agreement == 1
    assert found.information > 10


def test_values_that_are_not_finite_leave_all_numbers_finite(pair: tuple[Image, Image, Rigid]) -> None:
    fixed, moving, truth = pair
    data = moving.data.astype(np.float32).copy()
    data[..., :9, :7] = np.nan
    data[..., -1, -1] = np.inf
    found = gather(fixed, moving.with_data(data, moving.channels), truth, (fixed, moving.with_data(data)))
    assert all(np.isfinite(value) for value in found.to_dict().values())
    assert found.agreement > 0.9
