"""Running a network over an image of any size, tile by tile, with the same result whatever the tile size."""

from collections.abc import Iterator
from itertools import product
from math import ceil

import numpy as np
import torch
from jaxtyping import Float

from modalign.nn.layers import DenseNetwork

Array = np.ndarray
TILE_PIXELS = 512 * 512


def encode_tiled(
    network: DenseNetwork,
    data: Float[Array, "channels *spatial"],
    *,
    device: torch.device,
    tile: int | None = None,
) -> Float[Array, "latents *spatial"]:
    """Apply a network to an image that is continued by reflection beyond its borders.

    Each tile is given a margin as wide as the network's reach, so that its inner part is what the network would give
    on an endless image; borders inside the network never show.

    Args:
        network: In evaluation mode, on ``device``.
        data: Network input, float32.
        device: Where to compute.
        tile: Side of a tile in pixels, rounded up to the stride of the network; by default about 512² pixels a tile.
    """
    stride = network.stride
    margin = _up(network.radius, stride)
    shape = data.shape[1:]
    side = _up(tile or round(TILE_PIXELS ** (1 / len(shape))), stride)
    sides = tuple(min(side, _up(n, stride)) for n in shape)
    beyond = [(margin, _up(n, s) - n + margin) for n, s in zip(shape, sides, strict=True)]
    padded = np.pad(data, [(0, 0), *beyond], mode="reflect")
    result: Array | None = None
    for start in _starts(shape, sides):
        window = tuple(slice(s, s + n + 2 * margin) for s, n in zip(start, sides, strict=True))
        latents = _forward(network, padded[(slice(None), *window)], device)
        if result is None:
            result = np.empty((len(latents), *shape), dtype=np.float32)
        inner = tuple(slice(margin, margin + min(n, m - s)) for s, n, m in zip(start, sides, shape, strict=True))
        outer = tuple(slice(s, min(s + n, m)) for s, n, m in zip(start, sides, shape, strict=True))
        result[(slice(None), *outer)] = latents[(slice(None), *inner)]
    assert result is not None  # every image has at least one tile
    return result


def _forward(network: DenseNetwork, window: Array, device: torch.device) -> Array:
    with torch.inference_mode():
        batch = torch.from_numpy(np.ascontiguousarray(window))[None].to(device)
        return np.asarray(network(batch.contiguous(memory_format=_memory_format(batch)))[0].float().cpu().numpy())


def _memory_format(batch: torch.Tensor) -> torch.memory_format:
    return {4: torch.channels_last, 5: torch.channels_last_3d}[batch.ndim]


def _starts(shape: tuple[int, ...], sides: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    return product(*(range(0, n, side) for n, side in zip(shape, sides, strict=True)))


def _up(value: int, step: int) -> int:
    return ceil(value / step) * step
