from collections.abc import Callable

import numpy as np

from modalign.data.pairs import Pair
from modalign.geometry import Grid, Rigid, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.pipeline import align, background, warp
from modalign.registration import FftSearch
from modalign.representation import Identity
from modalign.testing.registration import known_pair


class Negative:
    """A representation that undoes what makes the two modalities of this test differ."""

    def encode(self, image: Image) -> Image:
        return image.with_data(-image.data.astype(np.float32).mean(0, keepdims=True))


def views(make_pair: Callable[..., Pair]) -> tuple[Image, Image, Rigid]:
    full = make_pair(5, (220, 230)).fixed
    grid = Grid((220, 230), (0.5, 0.5), (7.0, -3.0), unit="micrometer")
    full = full.with_grid(grid)
    fixed = full.cropped((55, 50), (110, 120))
    truth = Rigid.about(fixed.grid.center, rotation_matrix(2, -35.0), np.array([4.0, 6.0]))
    moving = full.resampled(fixed.grid, truth.inverse(), order=3, fill=255.0)
    return fixed, moving.with_data(255 - moving.data, moving.channels), truth


def test_transform_found_between_representations_is_applied_to_the_originals(make_pair: Callable[..., Pair]) -> None:
    fixed, moving, truth = views(make_pair)

    class Gray:
        def encode(self, image: Image) -> Image:
            return image.with_data(image.data.astype(np.float32).mean(0, keepdims=True))

    alignment = align(fixed, moving, FftSearch(), encoders=(Gray(), Negative()))
    assert alignment.registration.status == "accepted"
    found = alignment.registration.fixed_to_moving
    assert found is not None
    assert corner_error(fixed.grid, found, truth) < 0.1
    warped = alignment.warped
    assert warped is not None
    assert warped.grid == fixed.grid
    assert warped.data.dtype == moving.data.dtype
    assert warped.channels == moving.channels
    inner = (slice(None), slice(40, 70), slice(40, 80))
    difference = (255 - warped.data[inner].astype(float)) - fixed.data[inner]
    assert np.abs(difference).mean() < 4


def test_refused_registration_warps_nothing(make_pair: Callable[..., Pair]) -> None:
    alignment = align(make_pair(1).fixed, make_pair(99).fixed, FftSearch())
    assert alignment.registration.status == "refused"
    assert alignment.warped is None


def test_identity_representation_keeps_intensities(make_pair: Callable[..., Pair]) -> None:
    image = make_pair(0).moving
    np.testing.assert_array_equal(Identity().encode(image).data, image.data.astype(np.float32))


def test_background_is_white_for_bright_colour_and_black_otherwise() -> None:
    bright, dark = (np.full((3, 9, 9), value, dtype=np.uint8) for value in (240, 10))
    grid, rgb = Grid((9, 9)), ("red", "green", "blue")
    assert background(Image(bright, grid, rgb)).tolist() == [255, 255, 255]
    assert background(Image(dark, grid, rgb)).tolist() == [0, 0, 0]
    assert background(Image(bright, grid)).tolist() == [0, 0, 0]
    rgba = Image(np.concatenate([bright, bright[:1]]), grid, (*rgb, "alpha"))
    assert background(rgba).tolist() == [255, 255, 255, 0]


def test_warp_fills_what_the_moving_image_does_not_show() -> None:
    image = Image(np.full((1, 8, 8), 7, dtype=np.int16), Grid((8, 8)))
    wider = Grid((8, 12))
    assert warp(image, wider, identity(2)).data[0, 0].tolist() == [7] * 8 + [0] * 4
    assert warp(image, wider, identity(2), fill=[-5.0]).data[0, 0].tolist() == [7] * 8 + [-5] * 4


def test_what_is_found_without_a_model_is_refined_on_the_originals_too() -> None:
    """In another contrast a search leaves the place where the information is largest."""
    fixed, moving, truth = known_pair(2, feature=3.0)
    moving = moving.with_data(np.abs(moving.data - 95))
    searched, refined = (
        align(fixed, moving, FftSearch(), refine_on_originals=wanted).registration.candidate for wanted in (False, True)
    )
    assert searched is not None
    assert refined is not None
    assert corner_error(fixed.grid, refined, truth) < 0.7 * corner_error(fixed.grid, searched, truth)
