"""Distances of representations from those of training."""

import numpy as np
import pytest

from modalign.geometry import Grid
from modalign.image import Image
from modalign.registration.novelty import QUANTILES, LatentStatistics


def latents(seed: int, mean: float = 0.0, scale: float = 1.0) -> Image:
    rng = np.random.default_rng(seed)
    return Image((mean + scale * rng.standard_normal((2, 60, 70))).astype(np.float32), Grid((60, 70)))


def test_an_image_like_those_of_training_is_not_new() -> None:
    known = LatentStatistics.fit([latents(seed) for seed in range(4)])
    assert known.distance(latents(9)) < 0.05
    assert known.novelty(latents(9)) < 1


def test_the_distance_is_that_of_the_quantiles_in_units_of_their_range() -> None:
    known = LatentStatistics.fit([latents(0)])
    wide = np.ptp(np.quantile(latents(0).data, QUANTILES[[0, -1]], axis=(1, 2)), axis=0).mean()
    assert known.distance(latents(0, mean=3.0)) == pytest.approx(3.0 / wide, rel=1e-3)


def test_what_is_usual_is_learnt() -> None:
    alike, mixed = ([latents(seed, mean=m * seed) for seed in range(4)] for m in (0.0, 1.0))
    new = latents(9, mean=4.0)
    assert LatentStatistics.fit(alike).novelty(new) > 3 * LatentStatistics.fit(mixed).novelty(new)


def test_masked_pixels_do_not_count() -> None:
    image = latents(0)
    data, mask = image.data.copy(), np.ones((60, 70), dtype=bool)
    data[:, :20], mask[:20] = 1e6, False
    assert LatentStatistics.fit([image]).distance(Image(data, image.grid, (), mask)) < 0.1


def test_saved_and_read_again() -> None:
    known = LatentStatistics.fit([latents(0), latents(1)])
    assert LatentStatistics.from_dict(known.to_dict()) == known
