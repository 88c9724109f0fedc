"""Times of the hot paths, each beside its reference or peer: ``make bench``. Nothing here asserts a time.

What takes minutes has a script of its own: alpha_amd_reference.py, global_mi_reference.py.
"""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture

from modalign.batch.files import write_files
from modalign.batch.registration import RegistrationJob
from modalign.data.pairs import Pair
from modalign.data.shelf import Shelf
from modalign.data.tissue import TissueOptions, tissue
from modalign.evaluation.peers import PEERS, SimpleItkMI
from modalign.geometry import Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import write_image
from modalign.nn import Network, TiramisuOptions, UNetOptions
from modalign.pipeline import warp
from modalign.registration import ENGINES, AlphaAmd, FftSearch, Registrar
from modalign.representation.tiling import encode_tiled
from modalign.training import ComirOptions, comir

CPU = torch.device("cpu")


def displaced(side: int, degrees: float) -> Pair:
    """A tissue, and the same turned and shifted by a few per cent, in one modality."""
    margin = side // 3
    full = tissue(0, TissueOptions(shape=(side + 2 * margin,) * 2)).second_harmonic
    fixed = full.cropped((margin, margin), (side, side))
    truth = Rigid.about(fixed.grid.center, rotation_matrix(2, degrees), np.array([0.04, -0.03]) * fixed.grid.extent)
    return Pair("tissue", fixed, full.resampled(fixed.grid, truth.inverse()))


@pytest.fixture(scope="module")
def view() -> Pair:
    """A pair of 300² pixels."""
    return displaced(300, 25.0)


@pytest.fixture(scope="module")
def large() -> Pair:
    """A pair of 834² pixels, as in the paper."""
    return displaced(834, 25.0)


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


@pytest.mark.parametrize(
    "name", [name for name in ENGINES if name not in ("curvealign", "brisk", "akaze", "kaze", "asift")]
)
@pytest.mark.benchmark(group="register 300²")
def test_register(benchmark: BenchmarkFixture, view: Pair, name: str) -> None:
    benchmark.pedantic(lambda: ENGINES[name].register(view.fixed, view.moving), rounds=3, warmup_rounds=1)


LARGE: dict[str, Registrar] = {
    "fft-search, ±40°": FftSearch(max_rotation_degrees=40),
    "fft-search, ±180°": FftSearch(),
    "global-mi, ±180°": ENGINES["global-mi"],
    "alpha-amd, 3 starts": AlphaAmd(max_rotation_degrees=30, start_step_degrees=30),
    "SIFT": ENGINES["sift"],
    "SimpleITK mutual information, 3 starts": SimpleItkMI(start_rotations_degrees=(-30.0, 0.0, 30.0)),
    "OpenCV ECC": PEERS["opencv-ecc"],
}


@pytest.mark.parametrize("name", list(LARGE))
@pytest.mark.benchmark(group="register 834²")
def test_register_large(benchmark: BenchmarkFixture, large: Pair, name: str) -> None:
    benchmark.pedantic(lambda: LARGE[name].register(large.fixed, large.moving), rounds=2, warmup_rounds=1)


@pytest.mark.benchmark(group="apply to 4096² RGB")
def test_apply(benchmark: BenchmarkFixture, view: Pair) -> None:
    """Bilinear, in memory."""
    grid = replace(view.fixed.grid, shape=(4096, 4096))
    pixels = np.random.default_rng(0).integers(0, 255, (3, 4096, 4096), dtype=np.uint8)
    turn = Rigid.about(grid.center, rotation_matrix(2, 10.0), np.zeros(2))
    image = Image(pixels, grid, ("red", "green", "blue"))
    benchmark.pedantic(lambda: warp(image, grid, turn), rounds=2)


@pytest.mark.benchmark(group="register from files to files, 300²")
def test_all_files_of_a_pair(benchmark: BenchmarkFixture, view: Pair, tmp_path: Path) -> None:
    """Reading, searching, judging, and writing the report and all other files."""
    write_image(tmp_path / "fixed.tif", view.fixed)
    write_image(tmp_path / "moving.tif", view.moving)
    job = RegistrationJob(tmp_path / "fixed.tif", tmp_path / "moving.tif", method=FftSearch(), engine="fft-search")
    benchmark.pedantic(lambda: write_files(job.run(), tmp_path), rounds=3, warmup_rounds=1)


@pytest.mark.benchmark(group="modalign --help")
def test_help(benchmark: BenchmarkFixture) -> None:
    command = [sys.executable, "-m", "modalign", "--help"]
    benchmark.pedantic(lambda: subprocess.run(command, check=True, capture_output=True), rounds=5)


@pytest.mark.parametrize("options", [UNetOptions(), UNetOptions((16, 32, 64, 128))], ids=["default", "wide"])
@pytest.mark.benchmark(group="training step")
def test_training_step(benchmark: BenchmarkFixture, options: Network) -> None:
    made = [tissue(seed, TissueOptions(shape=(256, 256))) for seed in range(2)]
    pairs = [Pair(str(k), m.second_harmonic, m.bright_field) for k, m in enumerate(made)]
    trainer = comir._Trainer(
        pairs, [], replace(ComirOptions(steps=100), network=options), ("a", "b"), None, lambda _: None, Shelf()
    )
    benchmark.pedantic(lambda: trainer._train_step(0.5), rounds=5, warmup_rounds=2)
