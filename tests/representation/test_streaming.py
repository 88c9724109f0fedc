"""Images larger than memory: what is read and written in windows is what the ordinary way gives."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from modalign.data import shelf as shelf_module
from modalign.data.intensity import IntensityScaling
from modalign.errors import ModelError, OutputError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import open_tiled, read_image, write_image
from modalign.nn import UNetOptions
from modalign.representation import ComirCard, ComirModel, Modality
from modalign.representation import streaming as streaming_module
from modalign.representation.streaming import encode_to_file
from modalign.warping import InMemory

SHAPES = {2: (203, 170), 3: (41, 52, 47)}
SPACINGS = {2: (0.5, 0.5), 3: (1.5, 1.0, 1.0)}


def image(ndim: int, channels: int = 1, dtype: type = np.uint16) -> Image:
    rng = np.random.default_rng(ndim)
    data = rng.integers(0, 4000, (channels, *SHAPES[ndim])).astype(dtype)
    return Image(data, Grid(SHAPES[ndim], SPACINGS[ndim], unit="micrometer"))


def model(sample: Image, pixel_size: tuple[float, ...]) -> ComirModel:
    torch.manual_seed(0)
    side = Modality("a", sample.channels, IntensityScaling.fit([sample]), UNetOptions((4, 6)))
    return ComirModel.untrained(ComirCard(side, side, sample.ndim, 2, pixel_size, "micrometer"))


@pytest.mark.parametrize("suffix", [".ome.zarr", ".ome.tif"])
@pytest.mark.parametrize("ndim", [2, 3])
@pytest.mark.parametrize("factor", [1.0, 2.2, 0.8], ids=["same", "coarser", "finer"])
def test_windows_give_what_the_whole_image_gives(tmp_path: Path, ndim: int, suffix: str, factor: float) -> None:
    source = image(ndim)
    encoder = model(source, tuple(factor * max(SPACINGS[ndim]) for _ in range(ndim))).encoder("fixed", tile=24)
    write_image(tmp_path / f"image{suffix}", source)
    shares: list[float] = []
    reader = open_tiled(tmp_path / f"image{suffix}", ndim=ndim)
    assert reader is not None
    with reader:
        encode_to_file(tmp_path / f"out{suffix}", encoder, reader, advance=shares.append)
    found, expected = read_image(tmp_path / f"out{suffix}", ndim=ndim), encoder.encode(source)
    np.testing.assert_allclose(found.data, expected.data, atol=2e-5)
    assert found.channels == expected.channels
    assert found.grid.shape == source.grid.shape
    np.testing.assert_allclose(found.grid.matrix, source.grid.matrix)
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1)
    assert not list(tmp_path.glob(".*"))


def test_transparency_and_gaps_are_left_out(tmp_path: Path) -> None:
    opaque = image(2, channels=2, dtype=np.float32)
    encoder = model(opaque, (0.5, 0.5)).encoder("fixed")
    data = opaque.data.copy()
    data[1, 40:50, 60:70] = np.nan
    both = Image(np.concatenate([data, np.ones_like(data[:1])]), opaque.grid, (*opaque.channels, "alpha"))
    encode_to_file(tmp_path / "out.tif", encoder, InMemory(both))
    np.testing.assert_allclose(read_image(tmp_path / "out.tif").data, encoder.encode(both).data, atol=1e-4)


def test_only_windows_are_ever_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = image(3)
    encoder = model(source, SPACINGS[3]).encoder("fixed", tile=8)
    largest = 0

    class Watched(InMemory):
        def read(self, window, channels=slice(None)):
            nonlocal largest
            found = super().read(window, channels)
            largest = max(largest, found[0].size)
            return found

        def blocks(self):
            return ((slice(z, z + 1), slice(0, 52), slice(0, 47)) for z in range(41))

    monkeypatch.setattr(streaming_module, "GLANCE", 2000)
    encode_to_file(tmp_path / "out.tif", encoder, Watched(source))
    assert largest < source.data.size / 2
    np.testing.assert_allclose(read_image(tmp_path / "out.tif").data, encoder.encode(source).data, atol=2e-5)


def test_an_image_that_the_model_does_not_know_is_refused_before_work(tmp_path: Path) -> None:
    source = image(2)
    encoder = model(source, (0.5, 0.5)).encoder("fixed")
    dark = source.with_data(source.data // 4000)
    with pytest.raises(ModelError, match="almost no contrast"):
        encode_to_file(tmp_path / "out.tif", encoder, InMemory(dark))
    with pytest.raises(ModelError, match="this one has 2"):
        encode_to_file(tmp_path / "out.tif", encoder, InMemory(image(2, channels=2)))
    assert not list(tmp_path.iterdir())


def test_no_room_is_told_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    source = image(2)
    encoder = model(source, (0.5, 0.5)).encoder("fixed")
    monkeypatch.setattr(shelf_module.os, "posix_fallocate", full)
    with pytest.raises(OutputError, match=r"No space left on device.*GiB are needed there"):
        encode_to_file(tmp_path / "out.tif", encoder, InMemory(source))
    with pytest.raises(OutputError, match="No such file"):
        encode_to_file(tmp_path / "absent" / "out.tif", encoder, InMemory(source))


def test_a_network_that_has_diverged_is_told(tmp_path: Path) -> None:
    source = image(2)
    encoder = model(source, (0.5, 0.5)).encoder("fixed")
    for weight in encoder.network.parameters():
        weight.data.fill_(float("nan"))
    with pytest.raises(ModelError, match="no longer finite"):
        encode_to_file(tmp_path / "out.tif", replace(encoder), InMemory(source))
    assert not list(tmp_path.iterdir())
