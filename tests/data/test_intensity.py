import numpy as np
import pytest

from modalign.data.intensity import IntensityScaling
from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image


def image(data: np.ndarray, mask: np.ndarray | None = None) -> Image:
    return Image(data, Grid(data.shape[1:]), mask=mask)


@pytest.fixture
def even() -> Image:
    return image(np.random.default_rng(0).integers(30, 220, (3, 64, 48)).astype(np.uint8))


@pytest.fixture
def sparse() -> Image:
    """Mostly dark with few bright fibres, as SHG."""
    return image((np.random.default_rng(1).exponential(0.03, (1, 64, 48)) * 4000).astype(np.uint16))


def test_training_images_come_out_standardised(even: Image) -> None:
    scaled = IntensityScaling.fit([even]).apply(even.data)
    assert scaled.dtype == np.float32
    np.testing.assert_allclose(scaled.mean(axis=(1, 2)), 0, atol=0.01)
    np.testing.assert_allclose(scaled.std(axis=(1, 2)), 1, atol=0.01)


def test_brighter_images_than_those_of_training_are_not_cut_off(even: Image) -> None:
    dark = even.with_data((even.data // 2).astype(np.uint8))
    assert IntensityScaling.fit([dark]).to_unit(even.data).max() < 0.9
    deep = even.with_data(dark.data.astype(np.uint16) * 16)
    assert IntensityScaling.fit([deep]).to_unit((deep.data * 1.4).astype(np.uint16)).max() < 1


def test_only_sparse_signals_get_a_logarithm(even: Image, sparse: Image) -> None:
    assert IntensityScaling.fit([even]).gain == 0
    assert IntensityScaling.fit([sparse]).gain > 0


def test_formula(sparse: Image) -> None:
    scaling = IntensityScaling.fit([sparse])
    low, high = np.percentile(sparse.data[0], (0.1, 99.9))
    high += 0.5 * (high - low)
    v = np.clip((sparse.data[0] - low) / (high - low), 0, 1)
    expected = np.log(1 + scaling.gain * v) / np.log(1 + scaling.gain)
    np.testing.assert_allclose(scaling.to_unit(sparse.data)[0], expected, atol=1e-5)


def test_intensity_order_is_kept(sparse: Image) -> None:
    values = np.sort(sparse.data.ravel())[None]
    assert (np.diff(IntensityScaling.fit([sparse]).to_unit(values)[0]) >= 0).all()


def test_invalid_pixels_do_not_count(even: Image) -> None:
    spoilt, mask = even.data.copy(), np.ones(even.grid.shape, dtype=bool)
    spoilt[:, :20], mask[:20] = 255, False
    kept = IntensityScaling.fit([image(spoilt, mask)])
    assert kept == IntensityScaling.fit([image(even.data[:, 20:])])


def test_saved_form_round_trip(even: Image) -> None:
    scaling = IntensityScaling.fit([even])
    assert IntensityScaling.from_dict(scaling.to_dict()) == scaling


def test_distance_tells_modalities_apart(even: Image, sparse: Image) -> None:
    scaling = IntensityScaling.fit([even])
    dark = image((even.data // 12).astype(np.uint8))
    assert scaling.distance(even) < 0.02
    assert scaling.distance(dark) > 0.3


def test_constant_images_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="constant"):
        IntensityScaling.fit([image(np.full((1, 8, 8), 7, dtype=np.uint8))])


def test_different_channels_are_refused(even: Image, sparse: Image) -> None:
    with pytest.raises(InvalidInputError, match=r"\[1, 3\] channels"):
        IntensityScaling.fit([even, sparse])


def head(gain: float = 1.0, seed: int = 0, shape: tuple[int, ...] = (30, 32, 34)) -> Image:
    """A scan: air of exactly 0 around tissue of some hundred, in a unit of its own."""
    rng = np.random.default_rng(seed)
    data = np.zeros((1, *shape))
    inner = (0, *(slice(n // 4, 3 * n // 4) for n in shape))
    data[inner] = rng.normal(300, 40, data[inner].shape)
    return image((gain * data).astype(np.int16))


def test_scans_of_any_gain_look_the_same_where_each_has_its_own_range() -> None:
    one, brighter = head(), head(gain=1.7)
    shared, own = (IntensityScaling.fit([one], own_range=choice) for choice in (False, True))
    assert np.abs(shared.apply(brighter.data) - shared.apply(one.data)).max() > 0.3
    difference = own.adapted(brighter).apply(brighter.data) - own.adapted(one).apply(one.data)
    assert np.abs(difference).max() < 0.05  # but for the rounding to whole numbers
    assert own.distance(brighter) < 0.01
    assert own.adapted(one) != own.adapted(brighter)
    assert shared.adapted(brighter) is shared


def test_background_takes_no_part_in_the_scaling() -> None:
    """With it, half of the values are 0 and a logarithm hides the contrast of the tissue."""
    scan = head()
    shared, own = (IntensityScaling.fit([scan], own_range=choice) for choice in (False, True))
    assert (shared.gain, own.gain) == (100, 0)
    tissue = scan.data[0] > 0
    scaled = own.adapted(scan).apply(scan.data)[0]
    assert scaled[tissue].mean() == pytest.approx(0, abs=0.02)
    assert scaled[tissue].std() == pytest.approx(1, abs=0.02)
    assert shared.apply(scan.data)[0][tissue].std() < 0.2
    assert (scaled[~tissue] <= scaled[tissue].min()).all()


def test_an_image_without_background_has_the_range_of_all_its_pixels() -> None:
    rng = np.random.default_rng(0)
    full = image(rng.normal(500, 50, (2, 20, 20, 20)).astype(np.float32))
    scaling = IntensityScaling.fit([full], own_range=True)
    low, high = np.percentile(full.data.reshape(2, -1), (0.5, 99.5), axis=1)
    np.testing.assert_allclose(scaling.low, low - 0.1 * (high - low), rtol=1e-6)
    np.testing.assert_allclose(scaling.high, high + 0.25 * (high - low), rtol=1e-6)
    np.testing.assert_allclose(scaling.apply(full.data).mean(axis=(1, 2, 3)), 0, atol=0.01)
    with pytest.raises(InvalidInputError, match="expected 2 channels, not 1"):
        scaling.adapted(head())


def test_a_constant_scan_is_no_crash() -> None:
    scaling = IntensityScaling.fit([head()], own_range=True)
    flat = head().with_data(np.full((1, 30, 32, 34), 7, dtype=np.int16))
    assert np.isfinite(scaling.adapted(flat).apply(flat.data)).all()
    assert scaling.contrast(flat) < 1e-5


def test_its_saved_form_tells_whose_range_it_is() -> None:
    scaling = IntensityScaling.fit([head()], own_range=True)
    assert IntensityScaling.from_dict(scaling.to_dict()) == scaling
    old = {key: value for key, value in scaling.to_dict().items() if key != "own_range"}
    assert not IntensityScaling.from_dict(old).own_range
