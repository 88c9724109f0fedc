import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Rigid, as_rows, identity, rotation_matrix
from modalign.image import Image, Labels, Points

GRIDS = {
    ndim: Grid((6, 8, 10)[:ndim], (2.0, 0.5, 1.0)[:ndim], (5.0, -3.0, 1.0)[:ndim], unit="micrometer") for ndim in (2, 3)
}


def picture(ndim, channels=2, **fields):
    data = np.random.default_rng(0).random((channels, *GRIDS[ndim].shape)).astype(np.float32)
    return Image(data, GRIDS[ndim], **fields)


@pytest.mark.parametrize("ndim", [2, 3])
def test_an_image_knows_what_it_holds(ndim):
    image = picture(ndim)
    assert image.ndim == ndim
    assert image.channels == ("channel_0", "channel_1")
    assert image.valid.all()
    assert image.valid.shape == GRIDS[ndim].shape
    assert "micrometer" in repr(image)
    assert "float32" in repr(image)


@pytest.mark.parametrize(
    ("data", "fields", "message"),
    [
        (np.zeros((1, 6, 9)), {}, "does not lie on a grid"),
        (np.zeros((6, 8)), {}, "does not lie on a grid"),
        (np.zeros((1, 6, 8), "U3"), {}, "needs numbers"),
        (np.zeros((2, 6, 8)), {"channels": ("a",)}, "1 channel names for 2 channels"),
        (np.zeros((1, 6, 8)), {"mask": np.ones((6, 9), bool)}, "mask"),
    ],
)
def test_what_does_not_fit_together_is_refused(data, fields, message):
    with pytest.raises((InvalidInputError, TypeError), match=f"{message}|Type-check"):
        Image(data, GRIDS[2], **fields)


def test_transparent_pixels_become_invalid():
    data = np.ones((4, 6, 8), np.uint8)
    data[3, :2] = 0
    mask = np.ones((6, 8), bool)
    mask[:, 0] = False
    image = Image(data, GRIDS[2], ("red", "green", "blue", "alpha"), mask).without_alpha()
    assert image.channels == ("red", "green", "blue")
    expected = mask.copy()
    expected[:2] = False
    np.testing.assert_array_equal(image.valid, expected)
    assert image.without_alpha() is image
    opaque = Image(np.ones((2, 6, 8)), GRIDS[2], ("gray", "alpha")).without_alpha()
    assert opaque.mask is None


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_crop_keeps_pixels_mask_and_place(ndim):
    mask = np.random.default_rng(1).random(GRIDS[ndim].shape) > 0.5
    image = picture(ndim, mask=mask)
    start, shape = (1, 2, 3)[:ndim], (4, 5, 6)[:ndim]
    crop = image.cropped(start, shape)
    index = (2, 3, 4)[:ndim]
    there = tuple(i + s for i, s in zip(index, start, strict=True))
    assert crop.data.shape[1:] == shape
    np.testing.assert_array_equal(crop.data[(slice(None), *index)], image.data[(slice(None), *there)])
    assert crop.mask[index] == mask[there]
    np.testing.assert_allclose(
        crop.grid.index_to_world(np.array(index, float)), image.grid.index_to_world(np.array(there, float))
    )
    for bad in ((-1,) * ndim, GRIDS[ndim].shape):
        with pytest.raises(InvalidInputError, match="does not fit"):
            image.cropped(bad, shape)


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_resampled_image_keeps_type_channels_and_says_where_it_is_valid(ndim):
    image = Image((picture(ndim).data * 200).astype(np.uint8), GRIDS[ndim], ("a", "b"))
    same = image.resampled(image.grid, identity(ndim))
    np.testing.assert_array_equal(same.data, image.data)
    assert same.mask is None
    turn = Rigid.about(image.grid.center, rotation_matrix(ndim, 45), np.zeros(ndim))
    moved = image.resampled(image.grid, turn, fill=255)
    assert (moved.data.dtype, moved.channels, moved.grid) == (np.uint8, ("a", "b"), image.grid)
    assert not moved.valid.all()
    assert (moved.data[:, ~moved.valid] == 255).all()


def test_the_mask_moves_with_the_image():
    mask = np.ones((6, 8), bool)
    mask[2, 3] = False
    image = picture(2, mask=mask)
    one_pixel = Rigid(as_rows(np.eye(2)), (2.0, -0.5))  # moving(y + 1, x - 1) is seen at (y, x)
    moved = image.resampled(image.grid, one_pixel)
    expected = np.zeros((6, 8), bool)
    expected[:-1, 1:] = mask[1:, :-1]
    np.testing.assert_array_equal(moved.valid, expected)


def test_another_picture_on_the_same_grid():
    mask = np.zeros((6, 8), bool)
    image = picture(2, mask=mask)
    other = image.with_data(np.zeros((3, 6, 8)), ("x", "y", "z"))
    assert (other.grid, other.channels, other.mask is mask) == (image.grid, ("x", "y", "z"), True)
    assert image.with_grid(Grid((6, 8))).data is image.data
    with pytest.raises((InvalidInputError, TypeError)):
        image.with_grid(Grid((8, 6)))


@pytest.mark.parametrize("ndim", [2, 3])
def test_labels_are_copied_never_mixed(ndim):
    data = np.random.default_rng(0).integers(2**40, 2**41, GRIDS[ndim].shape)
    labels = Labels(data, GRIDS[ndim])
    np.testing.assert_array_equal(labels.resampled(labels.grid, identity(ndim)).data, data)
    turn = Rigid.about(labels.grid.center, rotation_matrix(ndim, 30), np.zeros(ndim))
    assert set(np.unique(labels.resampled(labels.grid, turn).data)) <= {0, *np.unique(data)}
    with pytest.raises((InvalidInputError, TypeError)):
        Labels(data.astype(float), GRIDS[ndim])
    with pytest.raises((InvalidInputError, TypeError)):
        Labels(data[1:], GRIDS[ndim])


def test_points_are_mapped_with_their_names():
    points = Points(np.array([[1.0, 2.0], [3.0, 4.0]]), "micrometer", ("a", "b"))
    shift = Rigid(as_rows(np.eye(2)), (10.0, 20.0))
    moved = points.mapped(shift)
    np.testing.assert_array_equal(moved.coordinates, [[11.0, 22.0], [13.0, 24.0]])
    assert (moved.names, moved.unit) == (("a", "b"), "micrometer")
    np.testing.assert_array_equal(points.mapped(lambda x: 2 * x).coordinates, 2 * points.coordinates)
