"""The representation of an image larger than memory, from file to file."""

from collections.abc import Callable
from dataclasses import replace
from math import ceil, prod
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from modalign.data.shelf import mapped
from modalign.errors import ModelError
from modalign.geometry import Grid, identity
from modalign.image import ALPHA, Image
from modalign.representation.comir import NOT_FINITE, ComirEncoder
from modalign.representation.pixel_size import brought_to, reach
from modalign.representation.tiling import Window, encoded_tiles
from modalign.warping import InMemory, Source, warp_to_file

Array = np.ndarray
GLANCE = 1 << 21
"""Pixels that are looked at to see what an image is, at most."""
ENCODING = 0.9
"""Share of the work that is the networks'; the rest is writing."""


def encode_to_file(
    path: Path, encoder: ComirEncoder, image: Source, *, advance: Callable[[float], None] = lambda _: None
) -> None:
    """As :meth:`ComirEncoder.encode`, read and written in windows; memory is that of a few tiles.

    The representation is kept in a temporary file beside the result until it is complete, at the pixel size of the
    model. Where pixels are not finite, the median of a thinned image stands in for that of the whole.

    Args:
        path: Ends in a suffix of TIFF, OME-TIFF or OME-Zarr.
        encoder: Of the modality of the image.
        image: The image, such as :func:`modalign.io.open_tiled` opens it.
        advance: Told the finished fraction of the work.

    Raises:
        ModelError: As :meth:`ComirEncoder.encode`.
        OutputError: The place cannot be written to, or has no room.
    """
    colours = _Colours(image)
    glance = colours.glance()
    encoder.check(glance)
    grid = encoder.working_grid(image.grid)
    scaling = encoder.card.side(encoder.side).scaling.adapted(glance)
    whole = Image(np.broadcast_to(np.float32(0), (encoder.card.latent_channels, *grid.shape)), grid, _names(encoder))

    def read(window: Window) -> Array:
        return scaling.apply(colours.read(grid, window))

    spool = mapped(path.resolve().parent, whole.data.shape, np.dtype(np.float32))
    done = 0
    for window, latents in encoded_tiles(
        encoder.network,  # type: ignore[arg-type]
        read,
        grid.shape,
        device=encoder.device,
        tile=encoder.tile,
    ):
        if not np.all(np.isfinite(latents)):
            raise ModelError(NOT_FINITE)
        spool[(slice(None), *window)] = latents
        done += prod(part.stop - part.start for part in window)
        advance(ENCODING * done / prod(grid.shape))
    warp_to_file(
        path,
        InMemory(whole.with_data(spool, whole.channels)),
        image.grid,
        identity(grid.ndim),
        advance=lambda share: advance(ENCODING + (1 - ENCODING) * share),
    )


def _names(encoder: ComirEncoder) -> tuple[str, ...]:
    return tuple(f"latent_{i}" for i in range(encoder.card.latent_channels))


class _Colours:
    """An image without its transparency, and with the medians of the channels in place of what is not finite."""

    def __init__(self, image: Source) -> None:
        self._image = image
        self._kept = [number for number, name in enumerate(image.channels) if name != ALPHA]
        self._medians: Array = np.zeros(0)

    def glance(self) -> Image:
        """The image thinned out to few pixels."""
        shape = self._image.grid.shape
        step = ceil((prod(shape) / GLANCE) ** (1 / len(shape)))
        coarse = np.empty((len(self._kept), *(ceil(n / step) for n in shape)), self._image.dtype)
        for window in self._image.blocks():
            first = [-(-part.start // step) for part in window]
            last = [-(-part.stop // step) for part in window]
            here = tuple(slice(f * step - part.start, None, step) for f, part in zip(first, window, strict=True))
            to = tuple(slice(*ends) for ends in zip(first, last, strict=True))
            coarse[(slice(None), *to)] = self._image.read(window)[self._kept][(slice(None), *here)]
        names = tuple(self._image.channels[number] for number in self._kept)
        grid = self._image.grid
        thinned = replace(grid, shape=coarse.shape[1:], spacing=tuple(step * s for s in grid.spacing))
        seen = Image(coarse, thinned, names).without_gaps()
        self._medians = np.median(seen.data.reshape(len(coarse), -1), axis=1).astype(coarse.dtype)
        return seen

    def read(self, grid: Grid, window: Window) -> Shaped[Array, "channels *window"]:
        """A window of the image on another grid of the same field of view."""
        own = self._image.grid
        if grid == own:
            return self._finite(window)
        part = grid.cropped(tuple(w.start for w in window), tuple(w.stop - w.start for w in window))
        places, around = own.world_to_index(part.corners), np.array(reach(own, grid))
        low = np.maximum(np.floor(places.min(0)).astype(int) - around, 0)
        high = np.minimum(np.ceil(places.max(0)).astype(int) + around + 1, own.shape)
        wide = tuple(slice(int(a), int(b)) for a, b in zip(low, high, strict=True))
        data = self._finite(wide)
        names = tuple(self._image.channels[number] for number in self._kept)
        source = Image(data, own.cropped(tuple(low.tolist()), data.shape[1:]), names)
        return brought_to(source, part).data

    def _finite(self, window: Window) -> Array:
        data = self._image.read(window)[self._kept]
        finite = np.isfinite(data)
        if finite.all():
            return data
        return np.where(finite, data, self._medians.reshape(-1, *(1,) * (data.ndim - 1)))
