"""Pictures inside a page: WebP in data URIs, as good as a limit of size allows."""

from base64 import b64encode
from collections.abc import Mapping, Sequence

import numpy as np
from jaxtyping import UInt8

from modalign.report.scene import Picture, Plane

Array = np.ndarray
LOSSLESS = 100
QUALITIES = (LOSSLESS, 90, 75, 55)
"""Tried in turn, until all pictures fit."""
SMALL_QUALITY = 80
"""Of pictures that are small and many, as for overlays of volumes."""
LIKELY = 0.5
"""The pictures to come will on average be at least this long, as a fraction of those that were encoded."""
LOSSLESS_PIXELS = 1_500_000
"""Pages with more pixels altogether are not tried without loss: the attempt would be in vain for photographs."""


def layers(planes: Sequence[Plane]) -> dict[str, UInt8[Array, "y x 4"]]:
    """All pictures of a page with transparency where there is nothing to show, under ``plane/source/role/form``.

    The form is ``colour`` or ``gray``; gray pictures that follow from their colours are left out.
    """
    found = {}
    for number, plane in enumerate(planes):
        for (source, role), picture in plane.pictures.items():
            key = f"{number}/{source}/{role}"
            found[f"{key}/colour"] = _with_alpha(picture.colour, picture)
            if picture.mixes:
                found[f"{key}/gray"] = _with_alpha(np.repeat(picture.gray[..., None], 3, axis=-1), picture)
    return found


def encoded(pictures: Mapping[str, UInt8[Array, "y x 4"]], limit: int) -> tuple[dict[str, str], int] | None:
    """Data URIs of pictures that are together no longer than ``limit`` characters, and the quality (100: lossless).

    ``None`` where even the lowest quality does not suffice.
    """
    pixels = sum(picture.size // 4 for picture in pictures.values())
    for quality in QUALITIES:
        if quality == LOSSLESS and pixels > LOSSLESS_PIXELS:
            continue
        uris = _within(pictures, quality, limit)
        if uris is not None:
            return uris, quality
    return None


def _within(pictures: Mapping[str, UInt8[Array, "y x 4"]], quality: int, limit: int) -> dict[str, str] | None:
    """Data URIs of one quality; ``None`` where they are longer than the limit, as soon as that is likely."""
    uris: dict[str, str] = {}
    used = 0
    for done, (key, picture) in enumerate(pictures.items(), 1):
        uris[key] = _data_uri(picture, quality)
        used += len(uris[key])
        if used + LIKELY * used / done * (len(pictures) - done) > limit:
            return None
    return uris


def gray_uri(levels: UInt8[Array, "y x"]) -> str:
    """Data URI of gray levels, slightly compressed."""
    return colour_uri(np.stack([levels, levels, levels]))


def colour_uri(colours: UInt8[Array, "3 y x"]) -> str:
    """Data URI of a picture in red, green and blue, slightly compressed."""
    opaque = np.full_like(colours[:1], 255)
    return _data_uri(np.ascontiguousarray(np.moveaxis(np.concatenate([colours, opaque]), 0, -1)), SMALL_QUALITY)


def _with_alpha(colour: UInt8[Array, "y x 3"], picture: Picture) -> UInt8[Array, "y x 4"]:
    return np.ascontiguousarray(np.concatenate([colour, 255 * picture.valid[..., None].astype(np.uint8)], axis=-1))


def _data_uri(picture: UInt8[Array, "y x 4"], quality: int) -> str:
    import imagecodecs

    content = imagecodecs.webp_encode(picture, level=min(quality, 99), lossless=quality == LOSSLESS)
    return "data:image/webp;base64," + b64encode(content).decode("ascii")
