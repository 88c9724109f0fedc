"""Resampling: equal to ITK, true to the physics of a dot, exact for labels."""

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import (
    Affine,
    Grid,
    Rigid,
    Similarity,
    as_rows,
    identity,
    resample,
    resample_labels,
    resampling,
    rotation_matrix,
)

NDIMS = (2, 3)
MOVING = {
    ndim: Grid((20, 31, 17)[:ndim], (1.5, 0.7, 2.0)[:ndim], (3.0, -4.0, 5.0)[:ndim], as_rows(rotation_matrix(ndim, 20)))
    for ndim in NDIMS
}
FIXED = {
    ndim: Grid(
        (25, 22, 19)[:ndim],
        (1.1, 0.9, 1.3)[:ndim],
        (1.0, -2.0, 9.0)[:ndim],
        as_rows(rotation_matrix(ndim, -10, (0, 1))),
    )
    for ndim in NDIMS
}


def mapping(ndim):
    """A similarity that lays the centre of the fixed grid near that of the moving one."""
    turned = Similarity(as_rows(rotation_matrix(ndim, 15)), 0.9, (0.0,) * ndim)
    shift = MOVING[ndim].center - turned.map_points(FIXED[ndim].center) + 0.3
    return Rigid(as_rows(np.eye(ndim)), tuple(shift)) @ turned


def noise(ndim, channels=1, dtype=np.float32, seed=0):
    values = np.random.default_rng(seed).random((channels, *MOVING[ndim].shape))
    return (values * (1000 if np.issubdtype(dtype, np.integer) else 1)).astype(dtype)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize(
    ("order", "interpolator", "share"),
    [(0, "sitkNearestNeighbor", 0.999), (1, "sitkLinear", 1.0), (3, "sitkBSpline", 1.0)],
)
def test_resampling_equals_itk(ndim, order, interpolator, share):
    sitk = pytest.importorskip("SimpleITK")

    def as_itk(data, grid):
        volume = sitk.GetImageFromArray(data)
        volume.SetSpacing(grid.spacing[::-1])
        volume.SetOrigin(grid.origin[::-1])
        volume.SetDirection(np.array(grid.direction)[::-1, ::-1].ravel().tolist())
        return volume

    transform, data = mapping(ndim), noise(ndim)
    theirs = sitk.AffineTransform(ndim)
    theirs.SetMatrix(transform.linear[::-1, ::-1].ravel().tolist())
    theirs.SetTranslation(transform.offset[::-1].tolist())
    like = as_itk(np.zeros(FIXED[ndim].shape, np.float32), FIXED[ndim])
    volume = sitk.Resample(as_itk(data[0], MOVING[ndim]), like, theirs, getattr(sitk, interpolator), 0.0)
    expected = sitk.GetArrayFromImage(volume).clip(data.min(), data.max()) * (sitk.GetArrayFromImage(volume) != 0)
    ours = resample(data, MOVING[ndim], FIXED[ndim], transform, order=order)[0]
    assert 0.3 < (ours != 0).mean() < 1  # inside and outside are both there to be compared
    assert (np.abs(ours - expected) < 1e-3).mean() >= share  # of a range of 1; nearest may tie


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("order", [1, 3])
@pytest.mark.parametrize("kind", ["rigid", "similarity", "affine"])
def test_a_dot_appears_where_its_coordinate_is_mapped(ndim, order, kind):
    """fixed(x) = moving(T(x)): a dot at T(x) in the moving image is seen at x in the fixed one."""
    fixed = Grid(
        (40, 44, 48)[:ndim], (1.0, 0.8, 1.2)[:ndim], (10.0, -5.0, 3.0)[:ndim], as_rows(rotation_matrix(ndim, 12))
    )
    moving = Grid(
        (52, 46, 50)[:ndim], (0.9, 1.1, 0.8)[:ndim], (-7.0, 4.0, 8.0)[:ndim], as_rows(rotation_matrix(ndim, -30))
    )
    linear = {"rigid": 1.0, "similarity": 1.1, "affine": np.eye(ndim) + 0.1 * np.eye(ndim, k=1)}[kind]
    matrix = np.eye(ndim + 1)
    matrix[:-1, :-1] = rotation_matrix(ndim, 20) * linear if np.isscalar(linear) else rotation_matrix(ndim, 20) @ linear
    matrix[:-1, -1] = moving.center - matrix[:-1, :-1] @ fixed.center
    transform = Affine(as_rows(matrix))
    place = fixed.center + np.array([2.3, -1.7, 0.9])[:ndim]
    indices = np.stack(np.indices(moving.shape), -1).astype(float)
    distance = np.linalg.norm(moving.index_to_world(indices) - transform.map_points(place), axis=-1)
    dot = np.exp(-0.5 * (distance / 2.5) ** 2)[None]
    seen = resample(dot, moving, fixed, transform, order=order)[0]
    positions = np.stack(np.indices(fixed.shape), -1).reshape(-1, ndim).astype(float)
    centroid = (positions * seen.reshape(-1, 1)).sum(0) / seen.sum()
    np.testing.assert_allclose(centroid, fixed.world_to_index(place), atol=0.05)  # pixels


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16", "int32", "float32", "float64"])
def test_the_identity_is_an_exact_copy(ndim, order, dtype):
    data = noise(ndim, 2, np.dtype(dtype))
    out = resample(data, MOVING[ndim], MOVING[ndim], identity(ndim), order=order)
    assert out.dtype == data.dtype
    tolerance = 1e-6 if order == 3 and dtype.startswith("float") else 0  # the spline goes through floating point
    np.testing.assert_allclose(out, data, atol=tolerance)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_a_shift_by_whole_pixels_moves_values_unchanged(ndim, order):
    grid = Grid(MOVING[ndim].shape, MOVING[ndim].spacing)
    steps = (2, -3, 1)[:ndim]
    transform = Rigid(as_rows(np.eye(ndim)), tuple(n * s for n, s in zip(steps, grid.spacing, strict=True)))
    data = noise(ndim)
    out = resample(data, grid, grid, transform, order=order, fill=-1.0)
    expected = np.full_like(data, -1.0)
    for index in np.ndindex(*grid.shape):
        origin = tuple(i + n for i, n in zip(index, steps, strict=True))
        if all(0 <= o < size for o, size in zip(origin, grid.shape, strict=True)):
            expected[(0, *index)] = data[(0, *origin)]
    np.testing.assert_allclose(out, expected, atol=1e-5)


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("order", [0, 1, 3])
def test_the_size_of_the_blocks_does_not_matter(ndim, order, monkeypatch):
    data, transform = noise(ndim, 2), mapping(ndim)
    whole = resample(data, MOVING[ndim], FIXED[ndim], transform, order=order)
    labels = resample_labels(data[0], MOVING[ndim], FIXED[ndim], transform)
    for points in (97, 700):
        monkeypatch.setattr(resampling, "BLOCK_POINTS", points)
        np.testing.assert_array_equal(resample(data, MOVING[ndim], FIXED[ndim], transform, order=order), whole)
        np.testing.assert_array_equal(resample_labels(data[0], MOVING[ndim], FIXED[ndim], transform), labels)


@pytest.mark.parametrize("ndim", NDIMS)
def test_outside_is_the_fill_of_each_channel(ndim):
    transform = mapping(ndim)
    out = resample(noise(ndim, 3) + 1, MOVING[ndim], FIXED[ndim], transform, fill=np.array([-5.0, 0.0, 9.0]))
    outside = resample_labels(np.ones(MOVING[ndim].shape, bool), MOVING[ndim], FIXED[ndim], transform, fill=False) == 0
    assert outside.any()
    for channel, value in zip(out, (-5.0, 0.0, 9.0), strict=True):
        assert (channel[outside] == value).all()
        assert ((channel[~outside] >= 1) & (channel[~outside] <= 2)).all()


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("order", [0, 1, 3])
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int16"])
def test_integers_stay_integers_within_their_range(ndim, order, dtype):
    limits = np.iinfo(dtype)
    data = np.where(noise(ndim) > 0.5, limits.max, limits.min).astype(dtype)  # where a spline overshoots most
    out = resample(data, MOVING[ndim], FIXED[ndim], mapping(ndim), order=order, fill=7)
    assert out.dtype == data.dtype
    floating = resample(data.astype(float), MOVING[ndim], FIXED[ndim], mapping(ndim), order=order, fill=7)
    np.testing.assert_allclose(out, floating, atol=0.5)  # rounded, never wrapped around


@pytest.mark.parametrize("ndim", NDIMS)
@pytest.mark.parametrize("dtype", ["uint8", "uint32", "int64", "uint64"])
def test_labels_of_any_size_are_copied(ndim, dtype):
    values = np.array([0, np.iinfo(dtype).max, np.iinfo(dtype).max - 1, 1], dtype)
    labels = values[np.random.default_rng(0).integers(0, 4, MOVING[ndim].shape)]
    out = resample_labels(labels, MOVING[ndim], FIXED[ndim], mapping(ndim))
    assert out.dtype == labels.dtype
    assert set(np.unique(out)) == set(values)
    indices = np.stack(np.indices(FIXED[ndim].shape), -1).reshape(-1, ndim)[:: 11 ** (ndim - 1)]
    for index in indices:  # one by one, the slow literal way
        world = mapping(ndim).map_points(FIXED[ndim].index_to_world(index.astype(float)))
        nearest = np.floor(MOVING[ndim].world_to_index(world) + 0.5).astype(int)
        inside = ((nearest >= 0) & (nearest < MOVING[ndim].shape)).all()
        assert out[tuple(index)] == (labels[tuple(nearest)] if inside else 0)


@pytest.mark.parametrize("order", [0, 1, 3])
def test_whole_numbers_beyond_the_floating_point_range_survive_the_identity(order):
    grid = Grid((4, 5))
    data = np.full((1, 4, 5), 2**24 + 1, np.int32)
    data[0, 1, 2] = 5
    np.testing.assert_array_equal(resample(data, grid, grid, identity(2), order=order), data)


def test_the_border_reaches_half_a_pixel_beyond_the_centres():
    grid, data = Grid((3, 4), (2.0, 0.5)), np.arange(1.0, 13).reshape(1, 3, 4)
    for shift, inside in ((0.49, True), (0.51, False)):
        moved = Rigid(as_rows(np.eye(2)), (-shift * 2.0, 0.0))
        out = resample(data, grid, grid, moved)[0, 0]
        np.testing.assert_array_equal(out, data[0, 0] if inside else np.zeros(4))


def test_inputs_are_not_touched():
    data = noise(2)
    before = data.copy()
    data.setflags(write=False)
    for order in (0, 1, 3):
        resample(data, MOVING[2], FIXED[2], mapping(2), order=order)
    np.testing.assert_array_equal(data, before)


def test_what_does_not_fit_is_refused():
    data = noise(2)
    with pytest.raises(InvalidInputError, match="does not lie on a grid"):
        resample(data, FIXED[2], FIXED[2], identity(2))
    with pytest.raises(InvalidInputError, match="2D image on a 3D grid"):
        resample(data, MOVING[2], FIXED[3], identity(2))
    with pytest.raises(InvalidInputError, match="3D transform"):
        resample(data, MOVING[2], FIXED[2], identity(3))
    with pytest.raises(InvalidInputError, match="resample_labels"):
        resample(data > 0.5, MOVING[2], FIXED[2], identity(2))


def test_one_value_that_is_not_finite_spoils_only_its_neighbourhood() -> None:
    data = np.random.default_rng(0).random((1, 30, 40))
    data[0, 10, 10] = np.nan
    grid, shift = Grid((30, 40)), Rigid(((1.0, 0.0), (0.0, 1.0)), (0.5, 0.5))
    assert np.isnan(resample(data, grid, grid, shift, order=1)).sum() <= 4
    with pytest.raises(InvalidInputError, match="cubic"):
        resample(data, grid, grid, shift, order=3)


@pytest.mark.parametrize("fill", [300.0, -1.0, float("nan")])
def test_a_fill_that_the_type_cannot_hold_is_refused(fill: float) -> None:
    data, grid = np.zeros((1, 5, 6), dtype=np.uint8), Grid((5, 6))
    with pytest.raises(InvalidInputError, match="0 to 255"):
        resample(data, grid, grid, Rigid(((1.0, 0.0), (0.0, 1.0)), (3.0, 0.0)), fill=fill)
