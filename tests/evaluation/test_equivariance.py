"""Encoders that follow rotations have no error, and those that do not have the error of their definition."""

from dataclasses import dataclass

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.evaluation.equivariance import group_errors, random_errors
from modalign.geometry import Grid, grid_rotations
from modalign.image import Image
from modalign.representation.handmade import GradientMagnitude
from modalign.testing.registration import textured_scene


@dataclass(frozen=True)
class Slope:
    """The derivative along the last axis: turns change it."""

    def encode(self, image: Image) -> Image:
        return image.with_data(np.gradient(image.data, axis=-1), image.channels)


def scene(ndim: int) -> Image:
    side = {2: 90, 3: 40}[ndim]
    return textured_scene(ndim, feature=4.0).cropped((20,) * ndim, (side,) * ndim)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_measure_without_direction_follows_all_rotations(ndim):
    image = scene(ndim)
    group = grid_rotations(image.grid.spacing, image.grid.shape)
    exact = [found.error for found in group_errors(GradientMagnitude(), image, group)]
    assert len(exact) == len(group) - 1
    assert max(exact) < 1e-5
    turned = [found.error for found in random_errors(GradientMagnitude(), image, 4)]
    assert 1e-4 < max(turned) < 0.1, "what is left is interpolation"


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_derivative_does_not_follow_them(ndim):
    image = scene(ndim)
    group = grid_rotations(image.grid.spacing)
    errors = {found.rotation: found.error for found in group_errors(Slope(), image, group)}
    for rotation, error in errors.items():
        # f(g x) is the derivative along g⁻¹ of the axis: the same, the opposite, or an unrelated one
        expected = {1.0: 0.0, -1.0: 2.0, 0.0: np.sqrt(2)}[rotation[-1][-1]]
        assert error == pytest.approx(expected, abs=0.25)
    assert min(found.error for found in random_errors(Slope(), image, 4)) > 0.2


def test_images_with_unequal_sides_are_refused():
    image = Image(np.zeros((1, 10, 12)), Grid((10, 12)))
    with pytest.raises(InvalidInputError, match="equal sides"):
        next(group_errors(Slope(), image, grid_rotations((1.0, 1.0))))
