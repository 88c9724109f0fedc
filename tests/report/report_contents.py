"""Registrations to report on."""

import json
from dataclasses import replace

import numpy as np
from scipy import ndimage

from modalign.geometry import Grid, Linear, Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import transform_to_dict
from modalign.pipeline import warp
from modalign.registration import Registration
from modalign.report import (
    Download,
    EvidenceRow,
    InputRecord,
    RegisterCommand,
    ReportContent,
    apply_commands,
    transform_csv,
)

SHAPES = {2: (72, 96), 3: (12, 40, 48)}
SPACING = {2: (0.5, 0.5), 3: (2.0, 1.0, 0.5)}
RGB = ("red", "green", "blue")


def textured(ndim: int = 2, channels: int = 1, seed: int = 0, smoothness: float = 4.0, **grid) -> Image:
    """A smooth random image of 8 bit; its neighbouring pixels differ little."""
    noise = np.random.default_rng(seed).standard_normal((channels, *SHAPES[ndim]))
    smooth = ndimage.gaussian_filter(noise, (0, *(smoothness / s for s in SPACING[ndim])))
    levels = 128 + 55 * smooth / smooth.std()
    names = RGB if channels == 3 else ()
    grid = {"spacing": SPACING[ndim], "unit": "micrometer", **grid}
    return Image(levels.clip(0, 255).astype(np.uint8), Grid(SHAPES[ndim], **grid), names)


def turned(fixed: Grid, moving: Grid, degrees: float = 20.0) -> Rigid:
    """Turns and moves a little, middle on middle before."""
    shift = moving.center - fixed.center + 0.04 * np.array(fixed.extent)
    return Rigid.about(fixed.center, rotation_matrix(fixed.ndim, degrees), shift)


def registration(status: str, transform: Linear | None) -> Registration:
    reasons = {"accepted": "the best place stands out", "unsure": "another place fits almost as well"}
    reason = reasons.get(status, "another place fits better")
    return Registration.judged("fft-search", status, transform, (reason,), {"score": 0.51}, 0.97)


def reported(
    fixed: Image,
    moving: Image,
    transform: Linear | None,
    status: str = "accepted",
    *,
    names: tuple[str, str] = ("fixed.tif", "moving.tif"),
    **others,
) -> ReportContent:
    """The content of a report as the command line makes it."""
    given = status != "refused"
    stored = transform and transform_to_dict(transform, fixed=fixed.grid, moving=moving.grid)
    sources = ["file" if image.grid.unit != "pixel" else "none: pixels" for image in (fixed, moving)]
    content = ReportContent(
        registration(status, transform),
        fixed,
        moving,
        warp(moving, fixed.grid, transform) if given else None,
        (
            InputRecord.of("fixed", names[0], fixed, sources[0], sha256="ab" * 32),
            InputRecord.of("moving", names[1], moving, sources[1], mask="mask.png"),
        ),
        command=RegisterCommand(*names, "fft-search", {"--out": ("out",)}, {"--max-side": ("512",)}),
        evidence=(
            EvidenceRow("agreement of the parts", "21 of 25", "21 of 25 parts agree", True),
            EvidenceRow("contrast", "0.22", "another place fits nearly as well", None),
            EvidenceRow("overlap", "24 %", "they overlap by only 24 %", False),
        ),
        commands=apply_commands("out/transform.json", *names) if given else (),
        downloads=(
            (Download("transform.json", json.dumps(stored)), Download("transform.csv", transform_csv(transform)))
            if given
            else ()
        ),
        provenance={"command": f"modalign register {names[0]}", "versions": {"numpy": np.__version__}, "seed": 0},
    )
    return replace(content, **others)
