"""Running a network over an image of any size, tile by tile, with the same result whatever the tile size."""

from collections.abc import Iterator
from itertools import product
from math import ceil, prod

import numpy as np
import torch
from jaxtyping import Float

from modalign.nn.layers import DenseNetwork

Array = np.ndarray
Window = tuple[slice, ...]
TILE_PIXELS = 1 << 20
"""Pixels or voxels of a tile: a network of 8 channels at full resolution then needs some 200 MB."""
BORDER = 8
"""Images are continued beyond their borders by at least so many pixels: the first layers then see no border."""


def encode_tiled(
    network: DenseNetwork,
    data: Float[Array, "channels *spatial"],
    *,
    device: torch.device,
    tile: int | None = None,
) -> Float[Array, "latents *spatial"]:
    """Apply a network to an image that is continued by reflection a little beyond its borders.

    Where the image is cut into tiles, each is given as many more pixels of the image as the network reaches, so that
    the result does not depend on the size of the tiles.

    Args:
        network: In evaluation mode, on ``device``.
        data: Network input, float32.
        device: Where to compute.
        tile: Side of a tile in pixels, rounded up to the stride of the network; by default the whole image is one if it
            has up to ``TILE_PIXELS`` pixels, and else tiles have about so many.
    """
    shape, stride = data.shape[1:], network.stride
    border, reach = _up(BORDER, stride), _up(network.radius, stride)
    padded = np.pad(data, [(0, 0), *((border, _up(n + border, stride) - n) for n in shape)], mode="reflect")
    result: Array | None = None
    for core in _tiles(padded.shape[1:], stride, tile):
        inside = [(max(c.start, border), min(c.stop, border + n)) for c, n in zip(core, shape, strict=True)]
        if any(a >= b for a, b in inside):
            continue
        window = tuple(
            slice(max(0, c.start - reach), min(n, c.stop + reach)) for c, n in zip(core, padded.shape[1:], strict=True)
        )
        latents = _forward(network, padded[(slice(None), *window)], device)
        if result is None:
            result = np.empty((len(latents), *shape), dtype=np.float32)
        to = tuple(slice(a - border, b - border) for a, b in inside)
        source = tuple(slice(a - w.start, b - w.start) for (a, b), w in zip(inside, window, strict=True))
        result[(slice(None), *to)] = latents[(slice(None), *source)]
    assert result is not None  # every image has at least one tile
    return result


def _tiles(shape: tuple[int, ...], stride: int, side: int | None) -> Iterator[Window]:
    """Windows that cover a shape without overlap, their corners on multiples of the stride."""
    if side is None:
        side = max(shape) if prod(shape) <= TILE_PIXELS else round(TILE_PIXELS ** (1 / len(shape)))
    step = _up(side, stride)
    cuts = ([(start, min(start + step, n)) for start in range(0, n, step)] for n in shape)
    return (tuple(slice(*cut) for cut in cuts) for cuts in product(*cuts))


def _forward(network: DenseNetwork, window: Array, device: torch.device) -> Array:
    with torch.inference_mode():
        batch = torch.from_numpy(np.ascontiguousarray(window))[None].to(device)
        return np.asarray(network(batch.contiguous(memory_format=_memory_format(batch)))[0].float().cpu().numpy())


def _memory_format(batch: torch.Tensor) -> torch.memory_format:
    return {4: torch.channels_last, 5: torch.channels_last_3d}[batch.ndim]


def _up(value: int, step: int) -> int:
    return ceil(value / step) * step
