"""``modalign encode``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

import tyro

from modalign.cli.console import keep_inputs, parse, progress
from modalign.geometry import Grid
from modalign.geometry.grid import Unit
from modalign.io import can_be_tiled, check_writable, open_tiled, read_with_pixel_size, write_image
from modalign.report import picture
from modalign.representation import ComirCard, ComirEncoder, ComirModel
from modalign.representation.streaming import encode_to_file
from modalign.warping import Source

LARGE = 1 << 28
"""Bytes in float32 of the image or its representation (256 MiB) from which on windows are read and written, where the
formats allow it."""


@dataclass(frozen=True)
class Encode:
    """Turn an image into its representation, as float32 on the same grid."""

    image: tyro.conf.Positional[Path]
    """The image."""
    model: Path = field(kw_only=True)
    """Model folder."""
    side: Literal["fixed", "moving"] = field(kw_only=True)
    """Which of the two modalities of the model the image belongs to."""
    out: Path = field(kw_only=True)
    """File to write; a format that holds floating point numbers, such as .tif, .nii.gz or .ome.zarr. From a TIFF or
    OME-Zarr to one of these, images may be larger than memory."""
    pixel_size: tuple[float, ...] | None = None
    """Pixel size of the image where its file has none or a wrong one; one number, or one an axis (z y x)."""
    unit: Unit = "micrometer"
    """Unit of the pixel size given here."""
    picture: Path | None = None
    """Also write an 8-bit picture of the representation, such as a .png, of volumes a .tif; then the whole image is
    held in memory."""
    tile: int | None = None
    """Side of the tiles in pixels that large images are worked on in; the result does not depend on it."""
    device: str = "cpu"
    """Where to compute."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Encode, "encode", arguments)
    model = ComirModel.load(command.model)
    encoder = model.encoder(command.side, device=command.device, tile=command.tile)
    for path in filter(None, (command.out, command.picture)):
        check_writable(path, model.card.ndim)
        keep_inputs(path, (command.image,))
    if command.picture is None and command.pixel_size is None and _streamed(command, encoder):
        print(f"representation written to {command.out}")
        return 0
    image = read_with_pixel_size(command.image, command.pixel_size, command.unit, ndim=model.card.ndim)
    _tell_size(command.image, image.grid, model.card)
    latents = encoder.encode(image)
    write_image(command.out, latents)
    print(f"representation written to {command.out}")
    if command.picture is not None:
        write_image(command.picture, picture(latents))
        print(f"picture written to {command.picture}")
    return 0


def _streamed(command: Encode, encoder: ComirEncoder) -> bool:
    """Represent a large image window by window, where the formats allow it; else nothing is done."""
    reader = open_tiled(command.image, ndim=encoder.card.ndim) if can_be_tiled(command.out) else None
    if reader is None:
        return False
    with reader:
        if not _is_large(reader, encoder.card.latent_channels):
            return False
        _tell_size(command.image, reader.grid, encoder.card)
        with progress("encode") as advance:
            encode_to_file(command.out, encoder, reader, advance=lambda share: advance(share, ""))
    return True


def _tell_size(path: Path, grid: Grid, card: ComirCard) -> None:
    """Say what is assumed of an image without a pixel size."""
    if grid.unit == "pixel" != card.unit:
        size = " × ".join(f"{length:g}" for length in card.pixel_size)
        print(
            f"note: {path} tells no pixel size; it is taken for that of the model, {size} {card.unit}", file=sys.stderr
        )


def _is_large(image: Source, latents: int) -> bool:
    return 4 * max(len(image.channels), latents) * prod(image.grid.shape) > LARGE
