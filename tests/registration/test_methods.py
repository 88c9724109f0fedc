"""Saved methods, and the common working space."""

import json
import subprocess
import sys
from typing import get_args

import numpy as np
import pytest

from modalign.errors import DimensionError, InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.local_features.channels import gray
from modalign.registration import (
    ENGINES,
    METHODS,
    Features,
    FftSearch,
    MutualInformation,
    method_from_dict,
    method_to_dict,
)
from modalign.registration.methods import Method
from modalign.registration.workspace import finest_spacing, isotropic, pictures


@pytest.mark.parametrize("method", [FftSearch(mirror=True), Features(ratio=0.8), MutualInformation((1.0, 2.0))])
def test_a_saved_method_comes_back_from_json(method):
    assert method_from_dict(json.loads(json.dumps(method_to_dict(method)))) == method


def test_names_are_unique_and_dimensions_stated():
    assert len(METHODS) == len(get_args(Method))
    assert all(ENGINES[name] == kind() for name, kind in METHODS.items())
    assert all(kind.ndims <= {2, 3} for kind in METHODS.values())


@pytest.mark.parametrize(
    ("saved", "known"),
    [
        ({"name": "magic"}, "fft-search, global-mi, mutual-information"),
        ({"name": "features", "configuration": {"speed": 3}}, "transform, features"),
        ({"name": "features", "options": {}}, "configuration"),
    ],
)
def test_unknown_names_and_options_are_answered_with_the_known_ones(saved, known):
    with pytest.raises(InvalidInputError, match=known):
        method_from_dict(saved)


def test_importing_the_methods_is_light():
    code = "import sys, modalign.registration; print([m for m in ('torch', 'cv2', 'SimpleITK') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_square_pixels_keep_the_mean_and_a_ramp_in_its_place():
    grid = Grid((40, 60), (1.0, 0.5), (5.0, 7.0))
    y, x = np.moveaxis(grid.index_to_world(np.stack(np.indices(grid.shape), -1).astype(float)), -1, 0)
    square = isotropic(Image(np.stack([y, x, y * 0 + 3]), grid), 2.0)
    assert square.grid.spacing == (2.0, 2.0)
    where = square.grid.index_to_world(np.stack(np.indices(square.grid.shape), -1).astype(float))
    np.testing.assert_allclose(square.data[0], where[..., 0], rtol=1e-6)
    np.testing.assert_allclose(square.data[1], where[..., 1], rtol=1e-6)
    np.testing.assert_allclose(square.data[2], 3, rtol=1e-6)


def test_masked_pixels_take_no_part_in_area_means():
    data = np.ones((1, 8, 8))
    mask = np.ones((8, 8), dtype=bool)
    data[0, :2, :3], mask[:2, :3] = np.nan, False
    coarse = isotropic(Image(data, Grid((8, 8)), (), mask), 2.0)
    np.testing.assert_allclose(coarse.data[0][coarse.valid], 1)
    assert not coarse.valid[0, 0]
    assert coarse.valid[0, 1], "half of its area is valid"


def test_the_finest_level_has_the_detail_of_the_coarser_image():
    fine, coarse = (
        Image(np.zeros((1, 400, 400)), Grid((400, 400), (0.25, 0.5))),
        Image(np.zeros((1, 90, 90)), Grid((90, 90))),
    )
    assert finest_spacing(fine, coarse, 2048) == 1.0
    assert finest_spacing(fine, coarse, 50) == 4.0


def test_pictures_of_representations_share_one_projection():
    rng = np.random.default_rng(0)
    base = rng.random((1, 16, 16))
    latent = Image(np.concatenate([-3 * base, base, 0.1 * base, 0 * base]), Grid((16, 16)))
    fixed, moving = pictures(latent, latent.with_data(latent.data[:, ::-1]))
    np.testing.assert_allclose(moving.data, fixed.data[:, ::-1], rtol=1e-5)
    assert np.ptp(fixed.data) > 0


def test_gray_of_a_photograph_is_its_luminance():
    red = Image(np.stack([np.full((8, 8), 100, np.uint8), *np.zeros((2, 8, 8), np.uint8)]), Grid((8, 8)))
    np.testing.assert_allclose(gray(red).data, 29.9, rtol=1e-5)


def test_a_method_called_directly_refuses_other_dimensions_too():
    volume = Image(np.random.default_rng(0).random((1, 8, 8, 8)), Grid((8, 8, 8)))
    with pytest.raises(DimensionError, match="METHODS"):
        Features().register(volume, volume)
