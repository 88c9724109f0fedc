"""Hand-made representations against literal versions of what they are."""

from itertools import product

import numpy as np
import pytest
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.representation.encoder import Encoder
from modalign.representation.handmade import HANDMADE, GradientMagnitude, SelfSimilarity

SHAPES = {2: (23, 29), 3: (9, 11, 10)}


def textured(ndim: int, channels: int = 1, seed: int = 0) -> Image:
    noise = np.random.default_rng(seed).standard_normal((channels, *SHAPES[ndim]))
    data = 50 + 20 * ndimage.gaussian_filter(noise, (0, *(1.2,) * ndim))
    return Image(data.astype(np.float32), Grid(SHAPES[ndim], (0.5, 0.8, 1.3)[:ndim], unit="micrometer"))


@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("encoder", HANDMADE.values(), ids=HANDMADE)
def test_the_grid_and_the_mask_stay(encoder: Encoder, ndim: int) -> None:
    image = textured(ndim, 2)
    mask = np.ones(image.grid.shape, dtype=bool)
    mask[:4] = False
    masked = Image(image.data, image.grid, image.channels, mask)
    encoded = encoder.encode(masked)
    assert (encoded.grid, encoded.data.dtype) == (image.grid, np.float32)
    np.testing.assert_array_equal(encoded.mask, mask)
    assert encoded.data.std() > 0.01
    scaled = Image(np.where(mask, 3 * image.data + 7, 1e6).astype(np.float32), image.grid, image.channels, mask)
    np.testing.assert_allclose(encoder.encode(scaled).data, encoded.data, atol=2e-3)  # hidden pixels say nothing


@pytest.mark.parametrize("encoder", HANDMADE.values(), ids=HANDMADE)
def test_inverted_contrast_looks_the_same(encoder: Encoder) -> None:
    image = textured(2, 3)
    inverted = image.with_data(255 - 2 * image.data)
    np.testing.assert_allclose(encoder.encode(inverted).data, encoder.encode(image).data, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("encoder", HANDMADE.values(), ids=HANDMADE)
def test_values_that_are_not_finite_are_masked_and_do_not_spread(encoder: Encoder) -> None:
    image = textured(2)
    data = image.data.copy()
    data[0, 5, 6], data[0, 7, 7] = np.nan, np.inf
    encoded = encoder.encode(image.with_data(data))
    assert np.isfinite(encoded.data).all()
    assert encoded.mask is not None
    assert np.argwhere(~encoded.mask).tolist() == [[5, 6], [7, 7]]
    np.testing.assert_allclose(encoded.data[:, 18:, 20:], encoder.encode(image).data[:, 18:, 20:], rtol=0.05, atol=0.02)


@pytest.mark.parametrize("encoder", HANDMADE.values(), ids=HANDMADE)
def test_images_without_information_give_finite_numbers(encoder: Encoder) -> None:
    flat = textured(2).with_data(np.full((1, 23, 29), 7.0, dtype=np.float32))
    assert np.ptp(encoder.encode(flat).data) == 0
    hidden = Image(flat.data, flat.grid, (), np.zeros((23, 29), dtype=bool))
    assert np.isfinite(encoder.encode(hidden).data).all()
    assert np.isfinite(encoder.encode(flat.with_data(np.full((1, 23, 29), np.nan, dtype=np.float32))).data).all()


def test_the_gradient_of_a_ramp_is_its_slope() -> None:
    ramp = np.broadcast_to(np.arange(40.0)[:, None], (40, 30))
    image = Image(np.stack([ramp, ramp]), Grid((40, 30)))
    steep = GradientMagnitude(1.0).encode(image).data[0, 10:30]
    np.testing.assert_allclose(steep, 1 / np.arange(40.0).std(), rtol=1e-4)


def literal_self_similarity(image: Image, step: int, sigma: float) -> np.ndarray:
    """Heinrich et al., MICCAI 2013, pixel by pixel and patch by patch."""
    scaled = [(c - c.mean()) / c.std() for c in image.data.astype(float)]
    shape, ndim = image.grid.shape, image.ndim
    ways = [tuple(sign * step * (axis == k) for k in range(ndim)) for axis in range(ndim) for sign in (-1, 1)]
    pairs = [
        (a, b) for i, a in enumerate(ways) for b in ways[i + 1 :] if not any(x and y for x, y in zip(a, b, strict=True))
    ]
    reach = int(4 * sigma + 0.5)
    line = np.exp(-0.5 * (np.arange(-reach, reach + 1) / sigma) ** 2)
    line /= line.sum()

    def at(channel: np.ndarray, place: tuple[int, ...], way: tuple[int, ...]) -> float:
        return float(channel[tuple(min(max(p - w, 0), n - 1) for p, w, n in zip(place, way, shape, strict=True))])

    def mirrored(index: int, size: int) -> int:
        while not 0 <= index < size:
            index = -index - 1 if index < 0 else 2 * size - 1 - index
        return index

    distances = np.zeros((len(pairs), *shape))
    for k, (a, b) in enumerate(pairs):
        squares = np.zeros(shape)
        for place in product(*map(range, shape)):
            squares[place] = sum((at(c, place, a) - at(c, place, b)) ** 2 for c in scaled)
        for place in product(*map(range, shape)):
            for offset in product(range(-reach, reach + 1), repeat=ndim):
                there = tuple(mirrored(p + o, n) for p, o, n in zip(place, offset, shape, strict=True))
                distances[(k, *place)] += np.prod([line[o + reach] for o in offset]) * squares[there]
    result = np.zeros_like(distances)
    for place in product(*map(range, shape)):
        distances[(slice(None), *place)] -= min(distances[(slice(None), *place)])
    middle = distances.mean()
    for place in product(*map(range, shape)):
        own = distances[(slice(None), *place)]
        result[(slice(None), *place)] = np.exp(-own / min(max(own.mean(), middle / 1000), 1000 * middle))
    return result


@pytest.mark.parametrize(("shape", "channels", "count"), [((9, 8), 2, 4), ((4, 5, 4), 1, 12)])
def test_self_similarity_is_that_of_the_paper(shape: tuple[int, ...], channels: int, count: int) -> None:
    data = np.random.default_rng(2).standard_normal((channels, *shape)).astype(np.float32)
    image = Image(data, Grid(shape))
    encoded = SelfSimilarity(distance_pixels=1, sigma_pixels=0.5).encode(image).data
    assert encoded.shape == (count, *shape)
    np.testing.assert_allclose(encoded, literal_self_similarity(image, 1, 0.5), atol=1e-5)
    assert (encoded.min() >= 0, encoded.max()) == (True, 1)


def test_options_out_of_range_are_refused() -> None:
    for make in (lambda: GradientMagnitude(0.0), lambda: SelfSimilarity(sigma_pixels=float("nan"))):
        with pytest.raises(InvalidInputError, match="positive"):
            make()
    with pytest.raises(InvalidInputError, match="one pixel away"):
        SelfSimilarity(distance_pixels=0)
