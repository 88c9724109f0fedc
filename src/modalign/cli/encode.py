"""``modalign encode``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Literal

import tyro

from modalign.cli.console import parse, progress
from modalign.io import can_be_tiled, open_tiled, read_image, write_image
from modalign.report import picture
from modalign.representation import ComirModel
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
    picture: Path | None = None
    """Also write an 8-bit picture of the representation, such as a .png; then the whole image is held in memory."""
    tile: int | None = None
    """Side of the tiles in pixels that large images are worked on in; the result does not depend on it."""
    device: str = "cpu"
    """Where to compute."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Encode, "encode", arguments)
    model = ComirModel.load(command.model)
    encoder = model.encoder(command.side, device=command.device, tile=command.tile)
    reader = open_tiled(command.image, ndim=model.card.ndim) if can_be_tiled(command.out) else None
    if reader is not None and command.picture is None and _is_large(reader, model.card.latent_channels):
        with reader, progress("encode") as advance:
            encode_to_file(command.out, encoder, reader, advance=lambda share: advance(share, ""))
        print(f"representation written to {command.out}")
        return 0
    latents = encoder.encode(read_image(command.image, ndim=model.card.ndim))
    write_image(command.out, latents)
    print(f"representation written to {command.out}")
    if command.picture is not None:
        write_image(command.picture, picture(latents))
        print(f"picture written to {command.picture}")
    return 0


def _is_large(image: Source, latents: int) -> bool:
    return 4 * max(len(image.channels), latents) * prod(image.grid.shape) > LARGE
