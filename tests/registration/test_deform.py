from dataclasses import replace

import numpy as np
import pytest
from scipy import ndimage

from modalign.data.labelled import LabelledImage
from modalign.errors import InvalidInputError
from modalign.geometry import (
    Affine,
    Chain,
    DisplacementField,
    Grid,
    Rigid,
    deformation,
    identity,
    rotation_matrix,
)
from modalign.image import Image
from modalign.pipeline import align
from modalign.registration import Deform, Judge, Registration, register
from modalign.registration.levels import pyramid
from modalign.registration.soundness import limited
from modalign.testing.registration import textured_scene
from modalign.training import FeatureOptions, fit_features

GRIDS = {
    2: Grid((120, 110), (0.9, 0.7), (12.5, -40.0), unit="micrometer"),
    3: Grid((26, 30, 32), (1.25, 0.9, 1.0), (12.5, -40.0, 7.0), unit="millimeter"),
}


BENDING = {2: 0.03, 3: 0.12}
"""Largest displacement, as a fraction of the width."""


def bent_pair(ndim, degrees=4.0, seed=0):
    """Two views of one scene, and the true transform: bent by a fraction of the width, then turned."""
    grid = GRIDS[ndim]
    rng = np.random.default_rng(seed)
    sigma = max(grid.shape) / 8
    noise = np.stack([ndimage.gaussian_filter(rng.standard_normal(grid.shape), sigma) for _ in range(ndim)])
    field = DisplacementField((BENDING[ndim] * max(grid.extent) * noise / np.abs(noise).max()).astype(np.float32), grid)
    turn = Rigid.about(grid.center, rotation_matrix(ndim, degrees), np.zeros(ndim))
    truth = turn @ field
    scene = textured_scene(ndim, feature=3.0)
    scene = scene.with_grid(replace(scene.grid, unit=grid.unit))
    to_scene = Rigid.about(grid.center, np.eye(ndim), -grid.center)
    moving = scene.resampled(grid, to_scene, order=3)
    fixed = scene.resampled(grid, to_scene @ truth, order=3)
    return fixed, moving, truth


def off(found, truth, grid):
    """Mean distance inside the image, in pixels."""
    inner = grid.points[tuple(slice(n // 8, -(n // 8)) for n in grid.shape)].reshape(-1, grid.ndim)
    distance = np.linalg.norm(found.map_points(inner) - truth.map_points(inner), axis=1)
    return float(distance.mean()) / min(grid.spacing)


@pytest.mark.parametrize("ndim", [2, 3])
class TestDeform:
    def test_bending_and_turning_are_found_in_world_units(self, ndim):
        fixed, moving, truth = bent_pair(ndim)
        linear = register(fixed, moving, Deform("rigid", max_rotation_degrees=12, steps=1, check_back=False))
        found = register(fixed, moving, Deform("rigid", max_rotation_degrees=12))
        assert found.fixed_to_moving is not None
        assert isinstance(found.fixed_to_moving, Chain)
        assert off(found.fixed_to_moving, truth, fixed.grid) < 0.5
        assert off(found.fixed_to_moving, truth, fixed.grid) < 0.5 * off(linear.candidate, truth, fixed.grid)
        assert found.stats["gain"] > 0
        assert found.stats.get("back_and_forth", 0.0) < 0.02
        assert found.stats["jacobian_folded"] == 0
        assert deformation(found.fixed_to_moving, fixed.grid).folded == 0

    def test_the_way_back_is_there(self, ndim):
        fixed, moving, _ = bent_pair(ndim)
        found = register(fixed, moving, Deform("none", check_back=False)).candidate
        points = fixed.grid.points.reshape(-1, ndim)[::7]
        back = found.inverse().map_points(found.map_points(points))
        np.testing.assert_allclose(back, points, atol=0.01 * min(fixed.grid.spacing))

    @pytest.mark.parametrize("similarity", ["mse", "nmi", "mind"])
    def test_every_similarity_helps(self, ndim, similarity):
        fixed, moving, truth = bent_pair(ndim, degrees=0.0)
        if similarity in ("nmi", "mind"):
            moving = moving.with_data(moving.data.max() - moving.data)
        found = register(fixed, moving, Deform("none", similarity, check_back=False)).candidate
        assert off(found, truth, fixed.grid) < 0.5 * off(identity(ndim), truth, fixed.grid)

    def test_a_world_without_pixel_size_is_compared_in_pixels(self, ndim):
        fixed, moving, truth = bent_pair(ndim, degrees=0.0)
        plain = fixed.with_grid(fixed.grid.without_unit())
        found = register(plain, moving, Deform("none", check_back=False)).candidate
        pixels = plain.grid.points[tuple(slice(n // 6, -(n // 6)) for n in plain.grid.shape)]
        wanted = truth.map_points(fixed.grid.index_to_world(pixels))
        distance = np.linalg.norm(found.map_points(pixels) - wanted, axis=-1).mean()
        assert distance < 0.7 * min(moving.grid.spacing)

    def test_images_that_share_nothing_are_refused(self, ndim):
        fixed, moving, _ = bent_pair(ndim)
        far = replace(moving.grid, origin=tuple(np.array(moving.grid.origin) + 3 * np.array(moving.grid.extent)))
        found = register(fixed, moving.with_grid(far), Deform("none"))
        assert found.status == "refused"
        assert "share only" in found.reasons[0]

    def test_it_goes_through_the_pipeline(self, ndim):
        fixed, moving, _ = bent_pair(ndim)
        found = align(fixed, moving, Deform("rigid", max_rotation_degrees=12))
        assert found.registration.status == "accepted", found.registration.reasons
        assert found.warped is not None
        inner = (0, *(slice(n // 6, -(n // 6)) for n in fixed.grid.shape))
        assert np.corrcoef(found.warped.data[inner].ravel(), fixed.data[inner].ravel())[0, 1] > 0.95


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A feature extractor that was hardly trained."""
    fixed, moving, _ = bent_pair(2, degrees=0.0)
    images = [LabelledImage(name, image) for name, image in (("a", fixed), ("b", moving))]
    folder = tmp_path_factory.mktemp("features") / "model"
    fit_features(images, [], FeatureOptions(steps=10, patch=32, batch=2)).model.save(folder)
    return str(folder)


class TestDeepSim:
    @pytest.mark.parametrize("order", ["warp-first", "features-first"])
    def test_both_orders_find_the_deformation(self, features, order):
        fixed, moving, truth = bent_pair(2, degrees=0.0)
        method = Deform("none", "deepsim", features, weight=0.05, order=order, check_back=False)
        found = register(fixed, moving, method).candidate
        assert off(found, truth, fixed.grid) < 0.6 * off(identity(2), truth, fixed.grid)

    def test_representations_of_several_channels_are_features_themselves(self):
        fixed, moving, truth = bent_pair(2, degrees=0.0)
        channels = [
            image.with_data(
                np.concatenate([image.data, *(ndimage.gaussian_filter(image.data, (0, s, s)) for s in (2, 4))])
            )
            for image in (fixed, moving)
        ]
        found = register(*channels, Deform("none", "deepsim", check_back=False)).candidate
        assert off(found, truth, fixed.grid) < 0.5 * off(identity(2), truth, fixed.grid)

    def test_maps_that_there_are_not(self, features):
        fixed, moving, _ = bent_pair(2)
        with pytest.raises(InvalidInputError, match="has 3 maps"):
            register(fixed, moving, Deform("none", "deepsim", features, maps=(5,)))

    def test_one_channel_without_features(self):
        fixed, moving, _ = bent_pair(2)
        with pytest.raises(InvalidInputError, match="an image of one channel has none"):
            register(fixed, moving, Deform("none", "deepsim"))

    def test_features_of_another_similarity(self):
        with pytest.raises(InvalidInputError, match="not ncc"):
            Deform("none", "ncc", "somewhere")


def test_thick_slices_are_bent_in_world_units():
    grid = Grid((12, 60, 64), (4.0, 1.0, 1.0), unit="millimeter")
    rng = np.random.default_rng(3)
    field = np.zeros((3, *grid.shape), np.float32)
    noise = ndimage.gaussian_filter(rng.standard_normal(grid.shape), (2, 9, 9))
    field[2] = 4.0 * noise / np.abs(noise).max()
    truth = DisplacementField(field, grid)
    data = ndimage.gaussian_filter(rng.standard_normal(grid.shape), (0.7, 2, 2))[None].astype(np.float32)
    moving = Image(data, grid)
    fixed = moving.resampled(grid, truth, order=3)
    found = register(fixed, moving, Deform("none", "mse", check_back=False)).candidate
    inner = grid.points[2:-2, 8:-8, 8:-8]
    before, after = (
        np.linalg.norm(t.map_points(inner) - truth.map_points(inner), axis=-1).mean() for t in (identity(3), found)
    )
    assert after < 0.5 * before


@pytest.mark.parametrize("similarity", ["ncc", "mse", "nmi", "mind"])
def test_what_is_masked_draws_nothing_to_itself(similarity):
    """A bright image with a hole, shifted by a fraction of a pixel: the hole's edge must not hold on to its place."""
    rng = np.random.default_rng(0)
    grid = Grid((96, 96))
    texture = 0.8 + 0.05 * ndimage.gaussian_filter(rng.standard_normal((1, 128, 128)), (0, 2, 2)) / 0.14
    moving = Image(texture[:, 16:112, 16:112].astype(np.float32), grid)
    shift = Rigid.about(grid.center, np.eye(2), np.array([0.0, 1.5]))
    fixed = Image(ndimage.shift(texture, (0, 0, -1.5), order=3)[:, 16:112, 16:112].astype(np.float32), grid)
    valid = np.ones(grid.shape, bool)
    valid[36:60, 36:60] = False
    holed = replace(moving, data=np.where(valid, moving.data, 0).astype(np.float32), mask=valid)
    found = register(fixed, holed, Deform("none", similarity, check_back=False)).candidate
    around = ndimage.binary_dilation(~valid, iterations=6) & ndimage.binary_erosion(valid, iterations=2)
    points = grid.points[around]
    assert np.linalg.norm(found.map_points(points) - shift.map_points(points), axis=1).mean() < 0.5


def test_a_volume_of_few_slices():
    rng = np.random.default_rng(0)
    grid = Grid((8, 400, 400), unit="micrometer")
    data = ndimage.gaussian_filter(rng.standard_normal((1, *grid.shape)), (0, 0, 2, 2)).astype(np.float32)
    fixed, moving = (Image(np.roll(data, k, axis=3), grid) for k in (0, 1))
    found = register(fixed, moving, Deform("none", "mse", finest_side=16, steps=4, check_back=False))
    assert found.candidate is not None
    flat = Grid((2, 3000, 3000), unit="micrometer")
    image = Image(np.zeros((1, *flat.shape), np.float32), flat)
    with pytest.raises(InvalidInputError, match="too thin to be bent"):
        pyramid(image, image, identity(3), 16)


class TestSoundness:
    grid = Grid((20, 20))

    def bent(self, size):
        """A bump of a size in pixels, three pixels wide."""
        field = np.zeros((2, 20, 20))
        field[0] = size * np.exp(-(((np.indices((20, 20)) - 10) / 1.5) ** 2).sum(0))
        return DisplacementField(field, self.grid)

    def test_folds_are_refused(self):
        limits = limited("accepted", self.bent(8.0), fixed_grid=self.grid, stats={})
        assert limits.status == "refused"
        assert "folds" in limits.reasons[0]

    def test_gentle_bending_is_left_alone(self):
        assert limited("accepted", self.bent(0.5), fixed_grid=self.grid, stats={"gain": 0.1}).status == "accepted"

    @pytest.mark.parametrize(
        ("stats", "word"), [({"gain": -0.1}, "no more alike"), ({"back_and_forth": 0.05}, "back again")]
    )
    def test_doubts_make_unsure(self, stats, word):
        limits = limited("accepted", self.bent(0.5), fixed_grid=self.grid, stats=stats)
        assert limits.status == "unsure"
        assert word in limits.reasons[0]

    def test_extreme_stretching_makes_unsure(self):
        squeeze = Affine.from_matrix(np.diag([0.02, 1.0, 1.0]))
        still = DisplacementField.sampled(squeeze, self.grid)
        assert limited("accepted", still, fixed_grid=self.grid, stats={}).status == "unsure"

    @pytest.mark.parametrize("after", [np.diag([1000.0, 1000.0, 1.0]), np.diag([-1.0, 1.0, 1.0])])
    def test_a_change_of_scale_or_a_mirror_after_the_bending_is_no_stretch(self, after):
        found = Affine.from_matrix(after) @ self.bent(0.5)
        assert limited("accepted", found, fixed_grid=self.grid, stats={}).status == "accepted"
        folded = Affine.from_matrix(after) @ self.bent(8.0)
        assert limited("accepted", folded, fixed_grid=self.grid, stats={}).status == "refused"

    @pytest.mark.parametrize("name", ["gain", "back_and_forth"])
    def test_a_measure_that_is_no_number_makes_unsure(self, name):
        limits = limited("accepted", self.bent(0.5), fixed_grid=self.grid, stats={name: float("nan")})
        assert limits.status == "unsure"

    def test_linear_transforms_are_not_judged_here(self):
        mirror = Affine.from_matrix(np.diag([-1.0, 1.0, 1.0]))
        assert limited("accepted", mirror, fixed_grid=self.grid, stats={}).status == "accepted"

    def test_a_bad_verdict_stays(self):
        assert limited("refused", self.bent(0.5), fixed_grid=self.grid, stats={}).status == "refused"

    def test_the_judge_refuses_folds_whatever_the_images_say(self):
        fixed, _, _ = bent_pair(2)
        index = tuple(n // 2 for n in fixed.grid.shape)
        field = np.zeros((2, *fixed.grid.shape), np.float32)
        field[(0, *index)] = 20.0
        claimed = Registration("deform", "accepted", DisplacementField(field, fixed.grid), ("made up",))
        judged = Judge().judge(claimed, fixed, fixed)
        assert judged.status == "refused"
        assert judged.fixed_to_moving is None
        assert judged.rejected is claimed.fixed_to_moving


def test_options_without_sense_are_refused():
    for wrong in ({"weight": -1.0}, {"steps": 0}, {"finest_side": 4}, {"weight": float("nan")}):
        with pytest.raises(InvalidInputError):
            Deform(**wrong)
