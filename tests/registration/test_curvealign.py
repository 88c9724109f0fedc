"""The collagen of H&E sections: found by its colour, and aligned with a second-harmonic image."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy import ndimage

from modalign.errors import DimensionError, InvalidInputError
from modalign.geometry import Affine, Grid, Rigid, corner_error, rotation_matrix
from modalign.image import Image
from modalign.io import read_image
from modalign.registration import collagen as steps
from modalign.registration.collagen import collagen
from modalign.registration.curvealign import CurveAlign, stretched
from modalign.testing.registration import known_pair

SIDE = 240
QUICK = CurveAlign(iterations=150, samples=3000)
WHITE, STROMA, COLLAGEN, NUCLEUS = (0.93, 0.92, 0.94), (0.92, 0.78, 0.79), (0.87, 0.34, 0.77), (0.29, 0.45, 0.55)


def waves(rng, shape, scale, level):
    field = ndimage.gaussian_filter(rng.standard_normal(shape), scale)
    return field > level * field.std()


def section(seed=0, side=SIDE):
    """An H&E section with pink collagen strands, its second-harmonic image, and where the collagen and nuclei are."""
    rng = np.random.default_rng(seed)
    shape = (side, side)
    tissue = waves(rng, shape, 25, -0.5)
    strands = waves(rng, shape, (2, 7), 1.1) & waves(rng, shape, 20, -0.2) & tissue
    nuclei = waves(rng, shape, 3, 1.5) & tissue & ~strands
    light = np.empty((3, *shape))
    for mask, colour in ((tissue | True, WHITE), (tissue, STROMA), (strands, COLLAGEN), (nuclei, NUCLEUS)):
        light[:, mask] = np.array(colour)[:, None]
    light += 0.012 * rng.standard_normal(light.shape)
    signal = ndimage.gaussian_filter(strands * (60 + 40 * rng.random(shape)), 0.7) + rng.poisson(3, shape)
    grid = Grid(shape, (0.8, 0.8), (15.0, -7.0))
    picture = Image(np.rint(255 * np.clip(light, 0, 1)).astype(np.uint8), grid, ("red", "green", "blue"))
    return picture, Image(np.clip(signal, 0, 255).astype(np.uint8)[None], grid), strands, nuclei


def displaced(degrees=2.0, shift=(3.0, -4.0), seed=0):
    """Second harmonic, displaced H&E, and the truth."""
    picture, signal, *_ = section(seed)
    patch = signal.cropped((40, 40), (160, 160))
    truth = Rigid.about(patch.grid.center, rotation_matrix(2, degrees), np.array(shift))
    return patch, picture.resampled(patch.grid, truth.inverse(), order=1), truth


def test_collagen_is_found_by_its_colour():
    """Nearly all that is found is collagen, most of which is found, where a quarter of chance would be."""
    picture, _, strands, nuclei = section()
    found = collagen(picture, 1.0).data[0] > 0
    assert strands.mean() < 0.25
    assert strands[found].mean() > 0.9
    assert found[strands].mean() > 0.4
    assert not found[ndimage.binary_erosion(nuclei)].any()


def test_the_picture_is_the_luminance_of_the_section_within_the_collagen():
    picture, *_ = section()
    gray = np.tensordot((0.299, 0.587, 0.114), picture.data / picture.data.max(), 1)
    found = collagen(picture, 1.0).data[0]
    np.testing.assert_allclose(found[found > 0], gray[found > 0], atol=1e-6)


def test_specks_are_left_out_by_their_area_in_micrometers():
    mask = np.zeros((20, 20), dtype=bool)
    mask[2, 2] = mask[10:13, 10:13] = True
    picture, *_ = section()
    coarse, fine = (collagen(picture, pixels).data[0] > 0 for pixels in (1.0, 3.0))
    sizes = np.bincount(ndimage.label(fine, np.ones((3, 3)))[0].ravel())[1:]
    assert sizes.min() >= 9
    assert fine.sum() < coarse.sum()


def test_the_stretch_removes_the_correlation_and_fills_the_range():
    rng = np.random.default_rng(0)
    base = rng.normal(0.6, 0.05, (1, 80, 90))
    colours = base + rng.normal(0, 0.01, (3, 80, 90)) * np.array([1.0, 2.0, 1.5])[:, None, None]
    valid = np.ones((80, 90), dtype=bool)
    spread = steps.decorrelated(colours, valid)
    assert abs(np.corrcoef(colours.reshape(3, -1))[0, 1]) > 0.8
    assert np.abs(np.corrcoef(spread.reshape(3, -1)) - np.eye(3)).max() < 0.05
    for channel in spread:
        assert (channel == 0).mean() == pytest.approx(0.01, abs=0.002)
        assert (channel == 255).mean() == pytest.approx(0.01, abs=0.002)


def test_masked_pixels_do_not_change_the_colours_and_hold_no_collagen():
    picture, *_ = section()
    mask = np.ones(picture.grid.shape, dtype=bool)
    mask[:60] = False
    data = picture.data.copy()
    data[:, :60] = np.random.default_rng(0).integers(0, picture.data.max(), (3, 60, SIDE))
    first, second = (collagen(replace(picture, data=d, mask=mask), 1.0) for d in (data, picture.data))
    assert np.array_equal(first.data[0][mask], second.data[0][mask])
    assert not first.data[0][~mask].any()


@pytest.mark.parametrize("method", [QUICK, CurveAlign(search="multi-start")], ids=["single", "multi"])
def test_a_small_displacement_is_found_in_either_order(method):
    signal, picture, truth = displaced()
    for fixed, moving, expected in ((signal, picture, truth), (picture, signal, truth.inverse())):
        result = method.register(fixed, moving)
        assert result.fixed_to_moving is not None, result.reasons
        assert isinstance(result.fixed_to_moving, Rigid)
        assert corner_error(fixed.grid, result.fixed_to_moving, expected) < 1.0 * 0.8
        assert (result.status == "accepted") == (method.search == "multi-start")


def test_many_starts_find_what_a_single_one_does_not():
    signal, picture, truth = displaced(-24.0, (14.0, 12.0))
    single, multi = (m.register(signal, picture) for m in (QUICK, CurveAlign(search="multi-start")))
    assert corner_error(signal.grid, multi.fixed_to_moving, truth) < 1.0 * 0.8
    assert corner_error(signal.grid, single.candidate, truth) > 10
    assert single.status != "accepted"


def test_the_original_pair_of_passes_finds_size_and_shear():
    signal, picture, _ = displaced()
    center = picture.grid.center
    matrix = np.eye(3)
    matrix[:2, :2] = np.diag([1.04, 0.98]) @ rotation_matrix(2, 1.0)
    matrix[:2, -1] = center - matrix[:2, :2] @ center + (1.5, 2.0)
    full, *_ = section()
    truth = Affine.from_matrix(matrix)
    moving = full.resampled(picture.grid, truth.inverse(), order=1)
    result = CurveAlign(transform="affine", samples=4000, iterations=300).register(signal, moving)
    assert isinstance(result.fixed_to_moving, Affine)
    assert corner_error(signal.grid, result.fixed_to_moving, truth) < 1.5 * 0.8


def test_the_same_seed_gives_the_same_answer_and_inputs_stay_untouched():
    signal, picture, _ = displaced()
    before = picture.data.copy()
    for image in (signal, picture):
        image.data.setflags(write=False)
    first, second = (QUICK.register(signal, picture) for _ in range(2))
    assert first == second
    assert np.array_equal(picture.data, before)


def test_each_world_is_mapped_in_its_own_unit():
    signal, picture, truth = displaced()
    signal = signal.with_grid(replace(signal.grid, unit="micrometer"))
    picture = picture.with_grid(replace(picture.grid, unit="micrometer").in_unit("millimeter"))
    found = CurveAlign(search="multi-start").register(signal, picture).fixed_to_moving
    points = signal.grid.corners
    assert np.linalg.norm(1000 * found.map_points(points) - truth.map_points(points), axis=1).mean() < 1.0 * 0.8


def test_sections_of_other_tissue_are_never_accepted():
    signal, _, _ = displaced()
    _, other, _ = displaced(seed=7)
    for method in (QUICK, CurveAlign(search="multi-start")):
        assert method.register(signal, other).status != "accepted"


def test_only_one_colour_image_with_one_gray_image_is_taken():
    signal, picture, _ = displaced()
    two = picture.with_data(picture.data[:2].astype(np.float32))
    for fixed, moving in ((signal, signal), (picture, picture), (signal, two), (two, picture)):
        result = QUICK.register(fixed, moving)
        assert result.status == "refused"
        assert "one image must be RGB" in result.reasons[0]


@pytest.mark.parametrize("which", [0, 1])
def test_images_without_information_are_refused_by_name(which):
    pair = list(displaced()[:2])
    pair[which] = pair[which].with_data(np.full_like(pair[which].data, 130), pair[which].channels)
    result = QUICK.register(*pair)
    assert result.status == "refused"
    assert "constant" in result.reasons[0]
    assert ("fixed", "moving")[which] in result.reasons[0]


def test_a_section_without_collagen_is_refused():
    signal, picture, _ = displaced()
    gray = np.repeat(picture.data[1:2], 3, axis=0)
    result = QUICK.register(signal, picture.with_data(gray, picture.channels))
    assert result.status == "refused"
    assert "collagen" in result.reasons[0]


def test_tiny_nearly_blank_and_mostly_masked_images_never_raise():
    signal, picture, truth = displaced()
    few = np.zeros(picture.grid.shape, dtype=bool)
    few[70:86, 70:86] = True
    dots = np.zeros_like(signal.data)
    dots[0, ::50, ::50] = 200
    poor = [
        (signal.cropped((70, 70), (16, 16)), picture),
        (signal, picture.cropped((70, 70), (16, 16))),
        (signal, replace(picture, mask=few)),
        (signal.with_data(dots), picture),
    ]
    for fixed, moving in poor:
        result = CurveAlign(search="multi-start").register(fixed, moving)
        assert QUICK.register(fixed, moving).status != "accepted"
        if result.status == "accepted":
            assert corner_error(fixed.grid, result.fixed_to_moving, truth) < 0.05 * 128


def test_the_contrast_of_the_signal_is_linear_between_its_percentiles():
    ramp = Image(np.arange(1000.0).reshape(1, 25, 40), Grid((25, 40)))
    values = stretched(ramp).data[0]
    assert (values == 0).sum() == pytest.approx(10, abs=1)
    assert (values == 1).sum() == pytest.approx(10, abs=1)
    assert np.ptp(np.diff(values.ravel()[20:-20])) < 1e-5


def test_volumes_are_not_for_this_method():
    fixed, moving, _ = known_pair(3)
    with pytest.raises(DimensionError):
        QUICK.register(fixed, moving)


@pytest.mark.parametrize(
    "options", [{"iterations": 0}, {"samples": 10}, {"max_side": 4}, {"pixels_per_micrometer": 0.0}]
)
def test_impossible_options_are_refused(options):
    with pytest.raises(InvalidInputError, match=next(iter(options))):
        CurveAlign(**options)


def test_collagen_of_real_sections_is_bright_in_the_second_harmonic():
    beside = Path(__file__).resolve().parents[3] / "shared" / "data"
    root = Path(os.environ.get("MODALIGN_DATA", beside)) / "bf_shg_tma"
    if not root.is_dir():
        pytest.skip(f"{root}: the bright-field and SHG cores are not here; set MODALIGN_DATA")
    for core in ("007", "025"):
        found = collagen(read_image(root / "bf" / f"{core}.png"), 1.0).data[0] > 0
        signal = read_image(root / "shg" / f"{core}.png").data[0].astype(float)
        assert signal[found].mean() > 2.5 * signal[~found].mean()
