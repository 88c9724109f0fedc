"""Pictures show what is there."""

import numpy as np
import pytest
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.report import Rendering, checkerboard, magenta_green, picture, pictures, section, shrunk

SHAPES = {2: (40, 60), 3: (10, 24, 30)}
SPACING = {2: (1.0, 0.5), 3: (2.0, 1.0, 0.5)}
EXACT = Rendering(percentiles=(0, 100))


def image(ndim: int = 2, channels: int = 1, seed: int = 0, **kwargs) -> Image:
    noise = np.random.default_rng(seed).standard_normal((channels, *SHAPES[ndim]))
    data = ndimage.gaussian_filter(noise, (0, *(1.5,) * ndim)).astype(np.float32)
    return Image(data, Grid(SHAPES[ndim], SPACING[ndim], unit="micrometer"), **kwargs)


def is_picture(shown: Image, of: Image) -> bool:
    return shown.data.dtype == np.uint8 and shown.channels == ("red", "green", "blue") and shown.grid == of.grid


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_an_overlay_of_an_image_with_itself_is_gray(ndim, channels):
    same = image(ndim, channels)
    shown = magenta_green(same, same)
    assert is_picture(shown, same)
    np.testing.assert_array_equal(shown.data[0], shown.data[1])
    np.testing.assert_array_equal(shown.data[0], shown.data[2])
    assert shown.data.std() > 30


def test_fixed_is_magenta_and_warped_is_green():
    fixed, warped = np.zeros((1, 40, 60)), np.zeros((1, 40, 60))
    fixed[0, :, :40], warped[0, :, 20:] = 7.0, 0.001  # scaled separately
    shown = magenta_green(image().with_data(fixed), image().with_data(warped), EXACT).data
    assert shown[:, 0, 10].tolist() == [255, 0, 255]
    assert shown[:, 0, 30].tolist() == [255, 255, 255]
    assert shown[:, 0, 50].tolist() == [0, 255, 0]


def test_extreme_pixels_neither_inside_nor_outside_the_mask_darken_the_rest():
    plain = image(mask=np.arange(60) * np.ones((40, 1)) < 50)
    dirty = plain.data.copy()
    dirty[0, :, 50:] = 1e6
    dirty[0, 3, 3] = 1e6
    clean, spoilt = magenta_green(plain, plain), magenta_green(plain.with_data(dirty), plain.with_data(dirty))
    change = np.abs(clean.data.astype(int) - spoilt.data)[:, 4:]
    assert change.max() <= 6  # gray levels: one of 2000 values moved from one end to the other
    assert spoilt.data[:, :, 50:].max() == 0


def test_gamma_brightens_what_is_dark():
    ramp = image().with_data(np.linspace(0, 1, 2400).reshape(1, 40, 60))
    shown = magenta_green(ramp, ramp, Rendering(percentiles=(0, 100), gamma=0.5)).data[0] / 255
    np.testing.assert_allclose(shown, np.sqrt(ramp.data[0]), atol=1 / 255)
    np.testing.assert_allclose(
        picture(ramp, Rendering((0, 100), gamma=2)).data[0] / 255, ramp.data[0] ** 2, atol=1 / 255
    )


def brightfield() -> Image:
    """White glass with a dark purple disc."""
    rows, columns = np.indices((40, 60))
    disc = (rows - 20) ** 2 + (columns - 30) ** 2 < 80
    data = np.where(disc, np.array([120, 40, 140]).reshape(3, 1, 1), 250).astype(np.uint8)
    return Image(data, image().grid, ("red", "green", "blue"))


def test_tissue_on_a_bright_background_is_bright_in_overlays():
    shown = magenta_green(brightfield(), image(), EXACT).data[0]
    assert shown[20, 30] == 255
    assert shown[0, 0] == 0
    kept = magenta_green(brightfield(), image(), Rendering(percentiles=(0, 100), invert=False)).data[0]
    assert (kept[20, 30], kept[0, 0]) == (0, 255)
    one = brightfield()
    gray = one.with_data(one.data[:1])
    assert magenta_green(gray, gray, EXACT).data[0, 0, 0] == 255  # a single channel may mean anything


@pytest.mark.parametrize("ndim", [2, 3])
def test_a_checkerboard_takes_the_tiles_in_turn(ndim):
    grid = image(ndim).grid
    dark, bright = np.zeros((1, *grid.shape)), np.ones((1, *grid.shape))
    shown = checkerboard(image(ndim).with_data(dark), image(ndim).with_data(bright), 8, Rendering(window=(0.0, 1.0)))
    side = max(grid.extent) / 8
    for index in [
        (0,) * ndim,
        tuple(n - 1 for n in grid.shape),
        *np.random.default_rng(0).integers(grid.shape, size=(50, ndim)),
    ]:
        parity = sum(int((i + 0.5) * s // side) for i, s in zip(index, grid.spacing, strict=True)) % 2
        assert shown.data[(slice(None), *index)].tolist() == [255 * parity] * 3
    assert is_picture(shown, image(ndim))


def test_one_tile_is_the_fixed_image():
    a, b = image(seed=1), image(seed=2)
    np.testing.assert_array_equal(checkerboard(a, b, 1).data, magenta_green(a, a).data)


def test_values_that_are_not_finite_are_black_and_spoil_nothing():
    data = image(2, 5).data.copy()
    data[2, 4, 5], data[1, 6, 7] = np.nan, np.inf
    broken = image().with_data(data)
    masked = image(2, 5, mask=np.isfinite(data).all(0))
    for show in (picture, lambda i: magenta_green(i, i), lambda i: checkerboard(i, i)):
        shown = show(broken)
        assert shown.data[:, 4, 5].tolist() == shown.data[:, 6, 7].tolist() == [0, 0, 0]
        np.testing.assert_array_equal(shown.data, show(masked).data)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_one_absurd_value_neither_overflows_nor_darkens_the_rest(dtype):
    """Warnings are errors in the tests."""
    usual = image(channels=3)
    data = usual.data.astype(dtype)
    data[:, 3, 5] = np.finfo(dtype).max
    data[:, 7, 7] = -np.finfo(dtype).max
    spoilt = usual.with_data(data)
    for shown, expected in (
        (magenta_green(spoilt, usual), magenta_green(usual, usual)),
        (picture(spoilt), picture(usual)),
        (shrunk(spoilt, 30), shrunk(usual, 30)),
    ):
        rest = np.ones(shown.grid.shape, dtype=bool)
        factor = 60 // shown.grid.shape[1]
        for y, x in ((3, 5), (7, 7)):
            rest[max(0, y // factor - 1) : y // factor + 2, max(0, x // factor - 1) : x // factor + 2] = False
        np.testing.assert_allclose(shown.data[:, rest].astype(float), expected.data[:, rest], atol=3)


@pytest.mark.parametrize("make", [magenta_green, checkerboard])
@pytest.mark.parametrize("ndim", [2, 3])
def test_large_images_are_averaged_to_the_size_of_a_screen(make, ndim):
    whole = image(ndim, seed=1)
    assert make(whole, whole).grid == whole.grid
    assert make(whole, whole, longest=None).grid == whole.grid
    small = make(whole, whole, longest=15).grid
    factor = max(whole.grid.shape) / 15
    assert small.shape == tuple(round(n / factor) for n in whole.grid.shape)
    np.testing.assert_allclose(small.spacing, [factor * s for s in whole.grid.spacing])
    np.testing.assert_allclose(small.center, whole.grid.center)


def test_shrunk_pixels_are_means_over_areas_of_what_is_valid():
    whole = image(channels=2)
    data, mask = whole.data.copy(), np.ones(SHAPES[2], dtype=bool)
    data[0, 4, 4] = np.nan
    mask[:2, :2] = False
    mask[10, 10] = False
    small = shrunk(Image(data, whole.grid, mask=mask), 30)
    mask[4, 4] = False
    blocks = np.where(mask, data, 0).reshape(2, 20, 2, 30, 2).sum((2, 4))
    counts = mask.reshape(20, 2, 30, 2).sum((1, 3))
    np.testing.assert_array_equal(small.valid, counts >= 2)
    np.testing.assert_allclose(small.data[:, counts > 0], (blocks / np.maximum(counts, 1))[:, counts > 0], atol=1e-5)


def test_images_without_information_are_black():
    nothing = image().with_data(np.full((1, 40, 60), np.nan))
    constant = image().with_data(np.full((4, 40, 60), 3, dtype=np.uint16))
    assert (
        picture(nothing).data.max() == picture(constant).data.max() == magenta_green(nothing, constant).data.max() == 0
    )


def test_sparse_bright_spots_are_seen():
    data = np.zeros((1, 40, 60))
    data[0, 20, 30] = 5.0
    assert picture(image().with_data(data)).data[:, 20, 30].tolist() == [255] * 3


def test_one_channel_is_gray_and_three_keep_their_colours():
    gray = image()
    shown = picture(gray, EXACT).data
    expected = (gray.data[0] - gray.data.min()) / np.ptp(gray.data)
    np.testing.assert_allclose(shown / 255, np.stack([expected] * 3), atol=1 / 255)
    colours = picture(brightfield(), Rendering(window=(0.0, 255.0)))
    np.testing.assert_array_equal(colours.data, brightfield().data)


def test_many_channels_show_their_principal_components():
    sources = image(2, 3, seed=4).data * np.array([3.0, 2.0, 1.0], dtype=np.float32).reshape(3, 1, 1)
    mixing, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((6, 3)))
    mixed = image().with_data(np.tensordot(mixing, sources, axes=1))
    shown = picture(mixed).data.reshape(3, -1)
    correlation = np.abs(np.corrcoef(shown, sources.reshape(3, -1))[:3, 3:])
    assert np.diag(correlation).min() > 0.9
    pixels = mixed.data.reshape(6, -1) - mixed.data.reshape(6, -1).mean(1, keepdims=True)
    loadings, _, _ = np.linalg.svd(pixels, full_matrices=False)
    for channel in range(3):
        loading = loadings[:, channel]
        component = np.sign(loading[np.abs(loading).argmax()]) * loading @ pixels
        assert np.corrcoef(component, shown[channel])[0, 1] > 0.98
    np.testing.assert_allclose(shown.std(axis=1) / shown.std(), 1, atol=0.1)  # equal variances, 3² : 2² : 1² before


def test_the_order_of_the_channels_does_not_choose_signs():
    latent = image(2, 6, seed=4)
    for seed in range(8):
        order = np.random.default_rng(seed).permutation(6)
        turned = picture(image().with_data(latent.data[order]))
        assert np.abs(turned.data.astype(int) - picture(latent).data).max() <= 1


def test_pictures_share_one_scale():
    a = image(2, 5, seed=1)
    b = image().with_data(a.data.copy())
    b.data[:, :, 30:] = 3 * b.data[:, :, 30:]
    shown_a, shown_b = pictures([a, b])
    np.testing.assert_array_equal(shown_a.data[:, :, :30], shown_b.data[:, :, :30])  # equal values, equal colours
    assert shown_b.data[:, :, 30:].std() > 1.5 * shown_a.data[:, :, 30:].std()
    alone = picture(a)
    assert np.abs(alone.data.astype(int) - shown_a.data).max() > 10
    with pytest.raises(InvalidInputError, match="channels"):
        pictures([a, image()])


def test_a_section_is_the_slice_that_it_says():
    volume = image(3, 2, mask=np.arange(30) < 20 * np.ones((10, 24, 1)))
    np.testing.assert_array_equal(section(volume).data, volume.data[:, 5])
    cut = section(volume, -1, 19)
    np.testing.assert_array_equal(cut.data, volume.data[..., 19])
    assert cut.grid.spacing == (2.0, 1.0)
    assert cut.mask.all()


def test_images_on_different_grids_are_refused():
    a = image()
    for other in (
        image(3),
        a.cropped((0, 0), (40, 59)),
        a.with_grid(Grid((40, 60), (1.0, 0.6))),
        a.with_grid(Grid((40, 60))),
    ):
        for overlay in (magenta_green, checkerboard):
            with pytest.raises(InvalidInputError, match="one grid"):
                overlay(a, other)


@pytest.mark.parametrize("options", [{"percentiles": (5.0, 5.0)}, {"window": (1.0, 1.0)}, {"gamma": 0.0}])
def test_impossible_renderings_are_refused(options):
    with pytest.raises(InvalidInputError):
        Rendering(**options)
