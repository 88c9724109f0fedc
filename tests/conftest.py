"""Small images that several tests share."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy import ndimage

from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.geometry import Grid
from modalign.image import Image
from modalign.nn import UNetOptions
from modalign.representation import ComirCard, ComirModel, Modality


def textured_pair(seed: int, shape: tuple[int, ...] = (96, 112), name: str = "") -> Pair:
    """Two modalities of one random texture: RGB, and one channel that depends on it in another, uneven way."""
    rng = np.random.default_rng(seed)
    fine, coarse = (ndimage.gaussian_filter(rng.standard_normal(shape), sigma) for sigma in (2, 6))
    fine, coarse = fine / fine.std(), coarse / coarse.std()
    colour = np.stack([128 + 40 * fine, 120 + 30 * coarse, 100 + 25 * (fine + coarse)])
    other = 8000 * np.exp(-((fine - 0.5) ** 2) * 3) * (1 + 0.3 * np.tanh(coarse))
    grid = Grid(shape)
    rgb = Image(colour.clip(0, 255).astype(np.uint8), grid, ("red", "green", "blue"))
    return Pair(name or f"p{seed}", rgb, Image(other[None].astype(np.uint16), grid, ("signal",)))


@pytest.fixture(scope="session")
def pairs() -> list[Pair]:
    """Four aligned pairs."""
    return [textured_pair(seed) for seed in range(4)]


@pytest.fixture
def make_pair() -> Callable[..., Pair]:
    """Makes aligned pairs of any size."""
    return textured_pair


@pytest.fixture(scope="session")
def untrained(pairs: list[Pair]) -> ComirModel:
    """A model for these pairs whose networks have never been trained."""
    torch.manual_seed(0)
    network = UNetOptions((4, 6, 8))
    modalities = [
        Modality(name, images[0].channels, IntensityScaling.fit(images), network)
        for name, images in (("colour", [p.fixed for p in pairs]), ("signal", [p.moving for p in pairs]))
    ]
    return ComirModel.untrained(ComirCard(modalities[0], modalities[1], 2, 2, (1.0, 1.0), "pixel"))
