import numpy as np
import pytest
import torch

from modalign.nn import Network, TiramisuOptions, UNetOptions
from modalign.representation.tiling import BORDER, TILE_PIXELS, encode_tiled

CPU = torch.device("cpu")
SMALL = [UNetOptions((4, 6, 8)), TiramisuOptions(4, 2, (1, 1), 1, (1, 1))]


@pytest.mark.parametrize("shape", [(61, 90), (23, 30, 26)])
@pytest.mark.parametrize("options", SMALL, ids=["unet", "tiramisu"])
def test_result_does_not_depend_on_the_tile_size(options: Network, shape: tuple[int, ...]) -> None:
    torch.manual_seed(0)
    network = options.build(len(shape), 2, 3).eval()
    data = np.random.default_rng(0).standard_normal((2, *shape), dtype=np.float32)
    whole = encode_tiled(network, data, device=CPU, tile=128)
    for tile in (8, 20):
        np.testing.assert_allclose(encode_tiled(network, data, device=CPU, tile=tile), whole, atol=1e-5)


def test_inside_it_is_the_network_on_the_plain_image() -> None:
    network = UNetOptions((4, 6)).build(2, 1, 1).eval()
    data = np.random.default_rng(0).standard_normal((1, 96, 96), dtype=np.float32)
    with torch.inference_mode():
        plain = network(torch.from_numpy(data)[None])[0].numpy()
    inner = (slice(None), *(slice(network.radius, -network.radius),) * 2)
    np.testing.assert_allclose(encode_tiled(network, data, device=CPU)[inner], plain[inner], atol=1e-5)


def test_borders_are_reflected() -> None:
    network = UNetOptions((4, 6)).build(2, 1, 1).eval()
    data = np.random.default_rng(0).standard_normal((1, 40, 40), dtype=np.float32)
    mirrored = torch.from_numpy(np.pad(data, [(0, 0), (BORDER, BORDER), (BORDER, BORDER)], mode="reflect"))
    with torch.inference_mode():
        inner = network(mirrored[None])[0, :, BORDER:-BORDER, BORDER:-BORDER].numpy()
    np.testing.assert_allclose(encode_tiled(network, data, device=CPU), inner, atol=1e-5)


@pytest.mark.parametrize(("ndim", "side"), [(2, 1100), (3, 104)])
def test_images_beyond_the_size_of_a_tile_are_cut(ndim: int, side: int) -> None:
    class Recorder:
        stride, radius, recomputes = 4, 5, False

        def __init__(self) -> None:
            self.sizes: list[tuple[int, ...]] = []

        def __call__(self, x: torch.Tensor) -> torch.Tensor:
            self.sizes.append(tuple(x.shape[2:]))
            return x

    recorder = Recorder()
    data = np.random.default_rng(0).standard_normal((1, *(side,) * ndim), dtype=np.float32)
    np.testing.assert_array_equal(encode_tiled(recorder, data, device=CPU), data)
    assert len(recorder.sizes) == 2**ndim
    assert max(np.prod(size) for size in recorder.sizes) < 1.7 * TILE_PIXELS


@pytest.mark.parametrize("shape", [(1, 1), (3, 50), (1, 7)])
def test_tiny_images_work(shape: tuple[int, ...]) -> None:
    network = UNetOptions((4, 6, 8)).build(2, 1, 2).eval()
    latents = encode_tiled(network, np.ones((1, *shape), dtype=np.float32), device=CPU)
    assert latents.shape == (2, *shape)
    assert np.isfinite(latents).all()
