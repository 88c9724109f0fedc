"""The volume behind the linked planes: both images on one grid, and the picture of its slices."""

from dataclasses import replace

import numpy as np
import pytest
from report_contents import reported, textured, turned

from modalign.geometry import identity
from modalign.report import report_page
from modalign.report.volume import volume


def content(status="accepted", **others):
    fixed, moving = textured(3), textured(3, seed=3)
    return reported(fixed, moving, turned(fixed.grid, moving.grid), status, **others)


def test_after_is_the_moving_image_under_the_transform():
    image = textured(3)
    still = reported(image, image, identity(3))
    found = volume(still, 48)
    assert list(found.levels) == ["fixed", "before", "after"]
    assert len(set(found.grid.spacing)) == 1, "cubes"
    assert max(found.grid.shape) == 48
    np.testing.assert_allclose(found.grid.center, image.grid.center)
    np.testing.assert_allclose(found.levels["after"], found.levels["fixed"], atol=40)
    assert np.corrcoef(found.levels["after"].ravel(), found.levels["fixed"].ravel())[0, 1] > 0.98
    moved = volume(content(), 48)
    assert np.corrcoef(moved.levels["after"].ravel(), moved.levels["before"].ravel())[0, 1] < 0.9


def test_every_slice_stands_in_its_place_of_the_mosaic():
    found = volume(content(), 40)
    depth, height, width = found.grid.shape
    mosaic = found.mosaic("fixed")
    assert mosaic.shape[1] == found.columns * width
    for z in range(depth):
        top, left = z // found.columns * height, z % found.columns * width
        np.testing.assert_array_equal(mosaic[top : top + height, left : left + width], found.levels["fixed"][z])


def test_a_refused_registration_without_a_transform_has_no_after():
    refused = content("refused")
    bare = replace(refused, registration=replace(refused.registration, rejected=None))
    assert list(volume(bare, 20).levels) == ["fixed", "before"]
    assert list(volume(refused, 20).levels) == ["fixed", "before", "after"]


@pytest.mark.parametrize("ndim", [2, 3])
def test_only_pages_of_volumes_have_linked_planes(ndim):
    image = textured(ndim)
    page = report_page(reported(image, image, identity(ndim)))
    assert ('id="planes"' in page) == (ndim == 3)
    assert page.count("data-volume=") == (3 if ndim == 3 else 0)
    assert len(page) < 3_000_000
