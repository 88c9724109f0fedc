from dataclasses import replace

import numpy as np
import pytest

from modalign.geometry import Affine, Grid, Linear, Rigid, Similarity, as_rows, corner_error, identity
from modalign.image import Image
from modalign.registration import Registration, refined_on_originals
from modalign.registration.originals import MOST_MOVED, NOTE
from modalign.testing.registration import known_pair, textured_scene


def other_contrast(image: Image) -> Image:
    """The same structures in intensities that no straight line relates to those of the image."""
    return image.with_data(np.abs(image.data - 100.0).astype(np.float32))


def off(truth: Linear, grid: Grid, share: float) -> Linear:
    """The truth after a shift of the fixed world by a share of its width."""
    shift = np.eye(grid.ndim + 1)
    shift[:-1, -1] = share * max(grid.extent) / np.sqrt(grid.ndim)
    return type(truth).from_matrix(truth.matrix @ shift)


def found(transform: Linear, status: str = "accepted") -> Registration:
    return Registration.judged("some-method", status, transform, ("because",), {})  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["accepted", "unsure", "refused"])
@pytest.mark.parametrize("ndim", [2, 3])
def test_what_is_nearly_right_gets_more_exact_in_other_contrasts(ndim, status):
    fixed, moving, truth = known_pair(ndim, feature=3.0)
    start = off(truth, fixed.grid, 0.02)
    refined = refined_on_originals(found(start, status), fixed, other_contrast(moving))
    assert refined.status == status
    assert refined.notes == (NOTE,)
    better = refined.candidate
    assert isinstance(better, Rigid)
    assert corner_error(fixed.grid, better, truth) < 0.2 * corner_error(fixed.grid, start, truth)


def test_the_kind_of_transform_stays():
    fixed, moving, truth = known_pair(2, feature=3.0)
    grown = 1.01 * truth.matrix
    grown[-1, -1] = 1
    affine = np.diag([1.01, 0.995, 1]) @ truth.matrix
    for start in (Similarity.from_matrix(grown), Affine.from_matrix(affine)):
        refined = refined_on_originals(found(start), fixed, other_contrast(moving)).candidate
        assert type(refined) is type(start)
        assert refined is not None
        assert corner_error(fixed.grid, refined, truth) < 0.3 * corner_error(fixed.grid, start, truth)


def test_a_mirrored_result_is_refined_as_well():
    fixed, moving, truth = known_pair(2, feature=3.0)
    mirror = np.diag([1.0, -1.0, 1.0])
    grid = moving.grid
    turned = replace(
        grid,
        origin=(grid.origin[0], -grid.origin[1]),
        direction=as_rows(mirror[:-1, :-1] @ np.array(grid.direction)),
    )
    # the moving image stored the other way round: an ordinary grid of mirrored pixels
    world = moving.with_grid(turned)
    mirrored_truth = Rigid.from_matrix(mirror @ truth.matrix)
    start = off(mirrored_truth, fixed.grid, 0.02)
    refined = refined_on_originals(found(start), fixed, other_contrast(world)).candidate
    assert isinstance(refined, Rigid)
    assert np.linalg.det(refined.linear) < 0
    assert corner_error(fixed.grid, refined, mirrored_truth) < 0.2 * corner_error(fixed.grid, start, mirrored_truth)


def test_images_that_know_nothing_about_each_other_change_nothing():
    fixed, _, truth = known_pair(2)
    strange = textured_scene(2, seed=99).resampled(known_pair(2)[1].grid, identity(2))
    changed = 0
    for share in (0.0, 0.01, 0.02):
        before = found(off(truth, fixed.grid, share))
        after = refined_on_originals(before, fixed, strange)
        changed += after != before
        assert corner_error(fixed.grid, after.candidate, before.candidate) <= MOST_MOVED * max(fixed.grid.extent)
    assert changed <= 1  # chance may move both halves alike now and then


def test_other_units_and_values_that_are_not_finite_do_not_disturb():
    fixed, moving, truth = known_pair(2, feature=3.0)
    millimeters = replace(fixed.grid, unit="millimeter")
    micrometers = replace(moving.grid, unit="millimeter").in_unit("micrometer")
    data = other_contrast(moving).data.copy()
    data[0, :9, :9] = np.nan
    scale = np.diag([1000.0, 1000.0, 1.0])
    start = Similarity.from_matrix(scale @ off(truth, fixed.grid, 0.02).matrix)
    goal = Similarity.from_matrix(scale @ truth.matrix)
    moved = Image(data, micrometers)
    refined = refined_on_originals(found(start), fixed.with_grid(millimeters), moved)
    assert refined.notes == (NOTE,)
    assert refined.candidate is not None
    assert corner_error(fixed.grid, refined.candidate, goal) < 200  # micrometres: 0.2 of the fixed image's unit


def test_nothing_found_and_nothing_to_see_stay_as_they_are():
    fixed, moving, truth = known_pair(2)
    nothing = Registration("some-method", "refused", None, ("because",))
    assert refined_on_originals(nothing, fixed, moving) is nothing
    before = found(truth)
    assert refined_on_originals(before, fixed.with_data(np.ones_like(fixed.data)), moving) is before
    few = np.zeros(fixed.grid.shape, dtype=bool)
    few[:9, :9] = True
    assert refined_on_originals(before, replace(fixed, mask=few), moving) is before


def test_the_same_call_gives_the_same_result():
    fixed, moving, truth = known_pair(2, feature=3.0)
    start = found(off(truth, fixed.grid, 0.02))
    once, again = (refined_on_originals(start, fixed, other_contrast(moving)) for _ in range(2))
    assert once == again
