"""Times of the hot paths, side by side: ``make bench``. Nothing here asserts a time."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from modalign.data.pairs import Pair
from modalign.data.tissue import TissueOptions, tissue
from modalign.geometry import Rigid, rotation_matrix
from modalign.nn import Network, TiramisuOptions, UNetOptions
from modalign.registration import Features, FftSearch, MutualInformation, Registrar
from modalign.representation.tiling import encode_tiled
from modalign.training import ComirOptions, comir

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def view() -> Pair:
    """One tissue of 300², and the same displaced, in one modality."""
    full = tissue(0, TissueOptions(shape=(500, 500))).second_harmonic
    fixed = full.cropped((100, 100), (300, 300))
    truth = Rigid.about(fixed.grid.center, rotation_matrix(2, 25.0), np.array([12.0, -8.0]))
    return Pair("tissue", fixed, full.resampled(fixed.grid, truth.inverse()))


@pytest.mark.benchmark(group="encode 1024² RGB")
def test_encode_with_the_default_network(benchmark: BenchmarkFixture) -> None:
    network = UNetOptions().build(2, 3, 1).eval()
    benchmark.pedantic(lambda: encode_tiled(network, noise(1024), device=CPU), rounds=3)


@pytest.mark.benchmark(group="encode 1024² RGB")
def test_encode_as_the_paper_does(benchmark: BenchmarkFixture) -> None:
    """The paper's network, on the image reflected by 128 pixels at each border, in one piece."""
    network = TiramisuOptions().build(2, 3, 1).eval()
    padded = torch.from_numpy(np.pad(noise(1024), [(0, 0), (128, 128), (128, 128)], mode="reflect"))[None]
    with torch.inference_mode():
        benchmark.pedantic(lambda: network(padded), rounds=2)


def noise(side: int) -> np.ndarray:
    """Something to encode: its content does not matter to the time."""
    return np.random.default_rng(0).standard_normal((3, side, side), dtype=np.float32)


@pytest.mark.parametrize("method", [FftSearch(), Features(), MutualInformation()], ids=lambda m: m.name)
@pytest.mark.benchmark(group="register 300²")
def test_register(benchmark: BenchmarkFixture, view: Pair, method: Registrar) -> None:
    benchmark.pedantic(lambda: method.register(view.fixed, view.moving), rounds=3)


@pytest.mark.parametrize("options", [UNetOptions(), UNetOptions((16, 32, 64, 128))], ids=["default", "wide"])
@pytest.mark.benchmark(group="training step")
def test_training_step(benchmark: BenchmarkFixture, options: Network) -> None:
    made = [tissue(seed, TissueOptions(shape=(256, 256))) for seed in range(2)]
    pairs = [Pair(str(k), m.second_harmonic, m.bright_field) for k, m in enumerate(made)]
    trainer = comir._Trainer(
        pairs, [], replace(ComirOptions(steps=100), network=options), ("a", "b"), None, lambda _: None
    )
    benchmark.pedantic(lambda: trainer._train_step(0.5), rounds=5, warmup_rounds=2)
