"""``modalign encode``."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import tyro

from modalign.cli.console import parse
from modalign.io import read_image, write_image
from modalign.report import picture
from modalign.representation import ComirModel


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
    """File to write; a format that holds floating point numbers, such as .tif or .nii.gz."""
    picture: Path | None = None
    """Also write an 8-bit picture of the representation, such as a .png."""
    tile: int | None = None
    """Side of the tiles in pixels that large images are worked on in; the result does not depend on it."""
    device: str = "cpu"
    """Where to compute."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Encode, "encode", arguments)
    model = ComirModel.load(command.model)
    image = read_image(command.image, ndim=model.card.ndim)
    latents = model.encoder(command.side, device=command.device, tile=command.tile).encode(image)
    write_image(command.out, latents)
    print(f"representation written to {command.out}")
    if command.picture is not None:
        write_image(command.picture, picture(latents))
        print(f"picture written to {command.picture}")
    return 0
