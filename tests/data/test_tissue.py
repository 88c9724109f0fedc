"""The two pictures of a procedural tissue share its structure, and next to nothing of their intensities."""

from dataclasses import fields, replace
from functools import cache

import numpy as np
import pytest
from scipy import ndimage

from modalign.data.tissue import LABELS, Tissue, TissueOptions, tissue
from modalign.data.tissue.canvas import Canvas, Ellipses, draw_ellipses, draw_lines, smooth_field
from modalign.data.tissue.fibres import FLOOR, harmonic_factor, trace
from modalign.data.tissue.rendering import LUMA, isoluminant_hue
from modalign.errors import InvalidInputError
from modalign.geometry import Grid

SEEDS = range(8)
SMALL = TissueOptions(shape=(120, 150))


@cache
def sample(seed: int) -> Tissue:
    return tissue(seed)


def gray(seed: int) -> np.ndarray:
    return np.einsum("c,cyx->yx", LUMA, sample(seed).bright_field.data.astype(float))


def harmonic(seed: int) -> np.ndarray:
    return sample(seed).second_harmonic.data[0].astype(float)


def region(seed: int, name: str) -> np.ndarray:
    return sample(seed).labels.data == LABELS[name]


def entropy(probabilities: np.ndarray) -> float:
    positive = probabilities[probabilities > 0]
    return float(-np.sum(positive * np.log(positive)))


def normalised_mutual_information(a: np.ndarray, b: np.ndarray) -> float:
    """(H(a) + H(b)) / H(a, b) - 1 over 32 bins a side: zero without any relation, one for a one-to-one map."""
    joint = np.histogram2d(a.ravel(), b.ravel(), 32)[0] / a.size
    return (entropy(joint.sum(0)) + entropy(joint.sum(1))) / entropy(joint) - 1


def gradient_magnitude(picture: np.ndarray) -> np.ndarray:
    return ndimage.gaussian_gradient_magnitude(picture, 1.0)


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


def best_shift(mask: np.ndarray, picture: np.ndarray) -> tuple[int, ...]:
    """Where the circular cross-correlation of a mask with a picture is largest."""
    spectra = np.conj(np.fft.fft2(mask - mask.mean())) * np.fft.fft2(picture - picture.mean())
    peak = np.unravel_index(np.argmax(np.fft.ifft2(spectra).real), mask.shape)
    return tuple(int((p + n // 2) % n - n // 2) for p, n in zip(peak, mask.shape, strict=True))


class TestForm:
    def test_both_pictures_lie_on_one_grid_in_micrometers(self) -> None:
        grown = tissue(0, replace(SMALL, pixel_size=0.8))
        grid = Grid((120, 150), (0.8, 0.8), unit="micrometer")
        assert grown.bright_field.grid == grown.second_harmonic.grid == grown.labels.grid == grid
        assert (grown.bright_field.data.dtype, grown.bright_field.data.shape) == (np.uint8, (3, 120, 150))
        assert (grown.second_harmonic.data.dtype, grown.second_harmonic.data.shape) == (np.uint8, (1, 120, 150))
        assert grown.bright_field.channels == ("red", "green", "blue")
        assert grown.second_harmonic.channels == ("shg",)
        assert grown.points.unit == "micrometer"
        assert len(set(grown.points.names)) == len(grown.points.coordinates) > 10

    def test_same_seed_same_tissue_other_seed_another(self) -> None:
        first, again, other = tissue(5, SMALL), tissue(5, SMALL), tissue(6, SMALL)
        for name in ("bright_field", "second_harmonic", "labels"):
            np.testing.assert_array_equal(getattr(first, name).data, getattr(again, name).data)
            assert (getattr(first, name).data != getattr(other, name).data).mean() > 0.1
        np.testing.assert_array_equal(first.points.coordinates, again.points.coordinates)

    def test_pictures_of_different_seeds_are_unrelated(self) -> None:
        assert abs(np.mean([correlation(harmonic(s), harmonic(s + 1)) for s in range(7)])) < 0.1
        assert abs(np.mean([correlation(gray(s), gray(s + 1)) for s in range(7)])) < 0.1

    @pytest.mark.parametrize("change", [{"photons": 5.0}, {"polarisation_degrees": 100.0}])
    def test_the_second_microscope_does_not_touch_the_tissue(self, change: dict[str, float]) -> None:
        before, after = tissue(2, SMALL), tissue(2, replace(SMALL, **change))
        np.testing.assert_array_equal(before.bright_field.data, after.bright_field.data)
        np.testing.assert_array_equal(before.labels.data, after.labels.data)
        assert (before.second_harmonic.data != after.second_harmonic.data).mean() > 0.1

    def test_every_option_has_an_effect(self) -> None:
        options = replace(SMALL, gland_density=500.0)  # enough that a small tissue has some
        nominal = tissue(0, options)
        for field in fields(TissueOptions):
            value = getattr(options, field.name)
            change = (130, 150) if field.name == "shape" else 1.5 * value
            other = tissue(0, replace(options, **{field.name: change}))
            same_stain = np.array_equal(nominal.bright_field.data, other.bright_field.data)
            same_harmonic = np.array_equal(nominal.second_harmonic.data, other.second_harmonic.data)
            assert nominal.labels.grid != other.labels.grid or not (same_stain and same_harmonic), field.name

    @pytest.mark.parametrize(
        "change",
        [
            {"shape": (0, 10)},
            {"pixel_size": 0.0},
            {"pixel_size": 50.0},
            {"photons": 0.0},
            {"collagen_fraction": 1.0},
            {"nuclei_density": -1.0},
        ],
    )
    def test_impossible_options_are_refused(self, change: dict[str, object]) -> None:
        with pytest.raises(InvalidInputError):
            replace(TissueOptions(), **change)

    def test_an_empty_tissue_is_still_a_tissue(self) -> None:
        bare = tissue(0, replace(SMALL, fibre_density=0.0, nuclei_density=0.0, gland_density=0.0))
        assert len(bare.points.coordinates) == 0
        assert not np.isin(bare.labels.data, [LABELS[n] for n in ("collagen", "nucleus", "lumen", "epithelium")]).any()
        assert bare.second_harmonic.data.max() < 20


class TestWhatTheModalitiesShare:
    def test_intensities_share_almost_no_information(self) -> None:
        together = np.mean([normalised_mutual_information(gray(s), harmonic(s)) for s in SEEDS])
        unrelated = np.mean([normalised_mutual_information(gray(s), harmonic((s + 3) % 8)) for s in SEEDS])
        assert together < 0.015
        assert together - unrelated < 0.008

    def test_the_measure_of_information_sees_a_relation_where_there_is_one(self) -> None:
        noise = np.random.default_rng(0).normal(0, 5, harmonic(0).shape)
        assert normalised_mutual_information(255 - gray(0) + noise, gray(0)) > 0.15

    def test_gradients_and_gray_values_do_not_correlate(self) -> None:
        edges = [correlation(gradient_magnitude(gray(s)), gradient_magnitude(harmonic(s))) for s in SEEDS]
        values = [correlation(gray(s), harmonic(s)) for s in SEEDS]
        assert abs(np.mean(edges)) < 0.05
        assert np.max(np.abs(edges)) < 0.15
        assert abs(np.mean(values)) < 0.08

    @pytest.mark.parametrize("seed", SEEDS)
    def test_collagen_is_what_the_second_harmonic_shows(self, seed: int) -> None:
        collagen = region(seed, "collagen")
        assert harmonic(seed)[collagen].mean() > 4 * harmonic(seed)[~collagen].mean()

    def test_a_hue_tells_collagen_in_bright_field(self) -> None:
        hues = [
            ndimage.gaussian_filter(np.tensordot(isoluminant_hue(), sample(s).bright_field.data, 1), 1.5) for s in SEEDS
        ]
        in_stroma = [region(s, "stroma") | region(s, "collagen") for s in SEEDS]
        related = [correlation(h[m], region(s, "collagen")[m]) for s, h, m in zip(SEEDS, hues, in_stroma, strict=True)]
        assert np.mean(related) > 0.4

    def test_collagen_differs_from_other_stroma_neither_in_gray_nor_in_contrast(self) -> None:
        collagen, stroma = (np.concatenate([gray(s)[region(s, n)] for s in SEEDS]) for n in ("collagen", "stroma"))
        assert abs(collagen.mean() - stroma.mean()) < 4
        assert collagen.std() == pytest.approx(stroma.std(), rel=0.25)

    def test_illumination_is_not_shared(self) -> None:
        axes = [np.broadcast_to(ramp, (384, 384)) for ramp in (np.arange(384.0)[:, None], np.arange(384.0)[None])]
        slopes = np.array([[correlation(a, p) for a in axes] for s in SEEDS for p in (gray(s), harmonic(s))])
        assert abs(np.mean(np.sum(slopes[::2] * slopes[1::2], axis=1))) < 0.03


class TestNuclei:
    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_landmark_lies_on_a_nucleus(self, seed: int) -> None:
        grown = sample(seed)
        y, x = np.rint(grown.labels.grid.world_to_index(grown.points.coordinates)).astype(int).T
        assert (grown.labels.data[y, x] == LABELS["nucleus"]).all()

    @pytest.mark.parametrize("seed", SEEDS)
    def test_every_nucleus_holds_a_landmark(self, seed: int) -> None:
        grown = sample(seed)
        parts, count = ndimage.label(region(seed, "nucleus"))
        border = np.concatenate([parts[0], parts[-1], parts[:, 0], parts[:, -1]])
        inside = set(range(1, count + 1)) - set(border.tolist())
        sizes = np.bincount(parts.ravel())
        y, x = np.rint(grown.labels.grid.world_to_index(grown.points.coordinates)).astype(int).T
        assert {part for part in inside if sizes[part] > 12} <= set(parts[y, x].tolist())

    @pytest.mark.parametrize("seed", SEEDS)
    def test_nuclei_are_dark_in_bright_field(self, seed: int) -> None:
        assert gray(seed)[region(seed, "nucleus")].mean() < gray(seed)[region(seed, "stroma")].mean() - 50

    def test_nuclei_away_from_collagen_cannot_be_seen_in_the_second_harmonic(self) -> None:
        nuclei, stroma = [], []
        for seed in SEEDS:
            away = ndimage.distance_transform_edt(~region(seed, "collagen")) > 12
            nuclei.append(harmonic(seed)[away & region(seed, "nucleus")])
            stroma.append(harmonic(seed)[away & region(seed, "stroma")])
        assert np.concatenate(nuclei).mean() == pytest.approx(np.concatenate(stroma).mean(), abs=1.0)

    def test_labels_lie_exactly_on_both_pictures(self) -> None:
        for seed in SEEDS:
            assert best_shift(region(seed, "nucleus"), -gray(seed)) == (0, 0)
            assert np.abs(best_shift(region(seed, "collagen"), np.minimum(harmonic(seed), 60))).max() <= 1


class TestStatistics:
    def test_a_larger_tissue_is_more_of_the_same(self) -> None:
        large = tissue(11, TissueOptions(shape=(768, 768)))
        for label in ("stroma", "collagen", "nucleus"):
            small = np.mean([region(s, label).mean() for s in SEEDS])
            assert (large.labels.data == LABELS[label]).mean() == pytest.approx(small, rel=0.3)
        small_points = np.mean([len(sample(s).points.coordinates) for s in SEEDS])
        assert len(large.points.coordinates) == pytest.approx(4 * small_points, rel=0.2)

    def test_the_pixel_size_changes_the_sampling_and_not_the_tissue(self) -> None:
        coarse = [tissue(s, TissueOptions(shape=(192, 192), pixel_size=1.0)) for s in SEEDS]
        for label in ("collagen", "nucleus"):
            fine = np.mean([region(s, label).mean() for s in SEEDS])
            assert np.mean([(t.labels.data == LABELS[label]).mean() for t in coarse]) == pytest.approx(fine, rel=0.3)

    def test_nothing_thins_out_towards_the_border(self) -> None:
        border = np.ones((384, 384), bool)
        border[40:-40, 40:-40] = False
        for label in ("collagen", "nucleus"):
            inner, outer = (np.mean([region(s, label)[m].mean() for s in SEEDS]) for m in (~border, border))
            assert outer == pytest.approx(inner, rel=0.25)


class TestBrushes:
    canvas = Canvas((90, 110), 0.5)

    def test_a_smooth_field_has_unit_variance_and_a_gaussian_correlation(self) -> None:
        drawn = np.stack([smooth_field(np.random.default_rng(s), self.canvas, 3.0) for s in range(60)])
        assert drawn.mean() == pytest.approx(0, abs=0.1)
        assert drawn.var() == pytest.approx(1, abs=0.1)
        lag = 8  # pixels of half a micrometer; the correlation of filtered white noise is exp(-d² / 4σ²)
        assert np.mean(drawn[..., lag:] * drawn[..., :-lag]) == pytest.approx(np.exp(-16 / 36), abs=0.1)

    def test_a_ridge_has_the_height_and_width_that_were_asked_for(self) -> None:
        line = np.stack([np.full(81, 40.3), np.arange(10.0, 91.0)], axis=-1)
        drawn = draw_lines(self.canvas, line, np.full(81, 2.5), 1.5)
        profile = drawn[:, 50]
        oracle = 2.5 * np.exp(-0.5 * ((np.arange(90) - 40.3) / 3.0) ** 2)
        np.testing.assert_allclose(profile, oracle, atol=0.05)

    def test_an_ellipse_covers_its_area_and_lies_along_its_angle(self) -> None:
        shape = Ellipses(np.array([[44.6, 52.3]]), np.array([[9.0, 3.0]]), np.array([0.6]))
        drawn = draw_ellipses(self.canvas, shape, np.ones(1)).astype(float)
        assert drawn.sum() * 0.25 == pytest.approx(np.pi * 27, rel=0.03)
        y, x = np.indices(drawn.shape)
        mean = np.array([(drawn * y).sum(), (drawn * x).sum()]) / drawn.sum()
        np.testing.assert_allclose(mean, (44.6, 52.3), atol=0.05)
        dy, dx = y - mean[0], x - mean[1]
        angle = 0.5 * np.arctan2(2 * (drawn * dx * dy).sum(), (drawn * (dx**2 - dy**2)).sum())
        assert angle == pytest.approx(0.6, abs=0.01)

    def test_fibres_follow_the_orientation(self) -> None:
        straight = trace(self.canvas, np.full((90, 110), 0.4), np.array([[40.0, 50.0]]), 20)
        along = np.arange(-20.0, 21.0)[:, None] * (np.sin(0.4), np.cos(0.4))
        np.testing.assert_allclose(straight[0] - (40.0, 50.0), along, atol=1e-9)

    def test_fibres_cross_the_jump_of_an_angle_that_is_known_modulo_pi(self) -> None:
        orientation = np.where(np.arange(110) < 55, 1e-3, np.pi - 1e-3) * np.ones((90, 1))
        path = trace(self.canvas, orientation, np.array([[40.0, 54.0]]), 20)[0]
        assert (np.diff(path[:, 1]) > 0.9).all()

    def test_a_fibril_across_the_polarisation_is_the_darkest_and_none_exceeds_one(self) -> None:
        angles = np.deg2rad(np.arange(0.0, 360.0))
        factor = harmonic_factor(angles)
        assert factor[90] == pytest.approx(FLOOR)
        assert factor.min() == pytest.approx(FLOOR)
        assert factor.max() == pytest.approx(1.0, abs=1e-3)
        np.testing.assert_allclose(factor[:180], factor[180:], atol=1e-12)

    def test_the_hue_of_collagen_is_invisible_in_gray(self) -> None:
        assert isoluminant_hue() @ np.array(LUMA) == pytest.approx(0, abs=1e-12)
        assert isoluminant_hue().sum() == pytest.approx(0, abs=1e-12)
