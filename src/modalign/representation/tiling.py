"""Running a network over an image of any size, tile by tile, with the same result whatever the tile size."""

from collections.abc import Callable, Iterator
from itertools import product
from math import ceil, prod

import numpy as np
import torch
from jaxtyping import Float

from modalign.nn.layers import MEMORY_FORMATS, DenseNetwork

Array = np.ndarray
Window = tuple[slice, ...]
Read = Callable[[Window], Float[Array, "channels *window"]]
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
    """Apply a network to an image in memory, see :func:`encoded_tiles`."""
    shape = data.shape[1:]
    tiles = encoded_tiles(network, lambda window: data[(slice(None), *window)], shape, device=device, tile=tile)
    result: Array | None = None
    for window, latents in tiles:
        if result is None:
            result = np.empty((len(latents), *shape), dtype=np.float32)
        result[(slice(None), *window)] = latents
    assert result is not None  # every image has at least one tile
    return result


def encoded_tiles(
    network: DenseNetwork, read: Read, shape: tuple[int, ...], *, device: torch.device, tile: int | None = None
) -> Iterator[tuple[Window, Array]]:
    """What a network makes of an image that is continued by reflection a little beyond its borders, tile by tile.

    Each tile is given as many more pixels of the image as the network reaches, so that the result does not depend on
    the size of the tiles.

    Args:
        network: In evaluation mode, on ``device``.
        read: Gives the network input, ``(channels, *window)`` float32, of a window of the image.
        shape: Of the image.
        device: Where to compute.
        tile: Side of a tile in pixels, rounded up to the stride of the network; by default the whole image is one if it
            has up to ``TILE_PIXELS`` pixels, and else tiles have about so many.

    Yields:
        Windows that cover the image without overlap, each with its ``(latents, *window)``.
    """
    border, reach = _up(BORDER, network.stride), _up(network.radius, network.stride)
    padded = tuple(border + _up(n + border, network.stride) for n in shape)
    for core in _tiles(padded, network.stride, tile):
        inside = tuple(
            slice(max(c.start - border, 0), min(c.stop - border, n)) for c, n in zip(core, shape, strict=True)
        )
        if any(part.start >= part.stop for part in inside):
            continue
        wide = tuple(
            slice(max(c.start - reach, 0) - border, min(c.stop + reach, n) - border)
            for c, n in zip(core, padded, strict=True)
        )
        latents = _forward(network, _reflected(read, wide, shape), device)
        own = (slice(part.start - w.start, part.stop - w.start) for part, w in zip(inside, wide, strict=True))
        yield inside, latents[(slice(None), *own)]


def _reflected(read: Read, window: Window, shape: tuple[int, ...]) -> Array:
    """A window that may go beyond the image, which is continued by reflection about its outermost pixels."""
    indices = []
    for part, n in zip(window, shape, strict=True):
        period = max(2 * (n - 1), 1)
        index = np.arange(part.start, part.stop) % period
        indices.append(np.minimum(index, period - index) if n > 1 else 0 * index)
    data = read(tuple(slice(int(index.min()), int(index.max()) + 1) for index in indices))
    for axis, (index, part, n) in enumerate(zip(indices, window, shape, strict=True), start=1):
        if part.start < 0 or part.stop > n:
            data = data.take(index - index.min(), axis=axis)
    return data


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
        return np.asarray(
            network(batch.contiguous(memory_format=MEMORY_FORMATS[window.ndim - 1]))[0].float().cpu().numpy()
        )


def _up(value: int, step: int) -> int:
    return ceil(value / step) * step
