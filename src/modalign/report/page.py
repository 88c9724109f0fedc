"""One registration as one HTML file: opens from disk, needs no network, shows why to trust the result or not."""

import json
import math
from base64 import b64encode
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

from modalign import __version__
from modalign.geometry import Transform
from modalign.io import plain
from modalign.report.advice import advice
from modalign.report.bending import bending_picture
from modalign.report.comparison import Comparison
from modalign.report.content import AXES, InputRecord, ReportContent
from modalign.report.encoding import LOSSLESS, encoded, gray_uri, layers
from modalign.report.matrices import matrix_tables
from modalign.report.outlines import outlines_picture
from modalign.report.scene import Plane, scene
from modalign.report.volume import Volume, volume
from modalign.report.words import (
    DIRECTION_SENTENCE,
    RIGHT,
    SYMBOLS,
    confidence_words,
    length,
    summary,
    transform_phrases,
)

if TYPE_CHECKING:
    import jinja2

LONGEST_SIDES = (1024, 768, 512, 256)
"""Most pixels along the longest side of a shown section; the smaller ones only where a page would get too large."""
PICTURES_LIMIT = 2_600_000
"""Characters that all pictures of a page may take together: the page stays below 3 MB, and can be mailed. Volumes add
up to some hundred thousand."""
STATUS_WORDS = {
    "accepted": "The evidence speaks for this alignment.",
    "unsure": "This alignment may be wrong: look at the overlay before using it.",
    "refused": "No alignment is given: what was found is not to be trusted.",
}
ROLE_WORDS = {"fixed": "fixed", "before": "moving, before", "after": "moving, after"}
REJECTED = "rejected: do not use"
PLANES = ((0, 1, 2), (1, 0, 2), (2, 0, 1))
"""Axes that the three planes cut, run down and run right."""


def report_page(content: ReportContent) -> str:
    """The report of one pair as a complete HTML page with everything in it: pictures, styles, scripts, downloads.

    Large images are shown smaller, and pictures are compressed until the page is below 3 MB; the page says so. No file
    is opened but the templates of this package.

    Raises:
        InvalidInputError: The images are not real numbers, or differ in dimensions.
    """
    planes, uris, quality = _shown(content)
    whole = volume(content)
    page = environment().get_template("page.html")
    return page.render(
        content=content,
        version=__version__,
        verdict=_verdict(content),
        images=_images(content, planes, uris),
        setup=_setup(content, planes, whole),
        volume=[{"role": role, "uri": gray_uri(whole.mosaic(role))} for role in whole.levels] if whole else [],
        shown_as=_shown_as(planes[0], content, quality),
        before=_before(content),
        transform=_transform(content),
        bending=_bending(content),
        labels=_labels(content),
        inputs=[_input(record) for record in content.inputs],
        advice=advice(content),
        downloads=[{"name": d.name, "uri": _text_uri(d.name, d.content)} for d in content.downloads],
        provenance=_provenance(content.provenance),
        stats={name: f"{value:.6g}" for name, value in content.registration.stats.items()},
    )


@cache
def environment() -> "jinja2.Environment":
    """The templates of this package, with HTML escaped."""
    import jinja2

    loader = jinja2.PackageLoader("modalign.report")
    return jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)


def _shown(content: ReportContent) -> tuple[list[Plane], dict[str, str], int]:
    """The sections and their pictures as data URIs, as large and as good as the limit allows."""
    for side in LONGEST_SIDES:
        planes = scene(content, side)
        if (found := encoded(layers(planes), PICTURES_LIMIT)) is not None:
            break
    assert found is not None, "pictures of 256 pixels fit into any page"
    return planes, *found


def _verdict(content: ReportContent) -> dict[str, Any]:
    registration = content.registration
    confidence = confidence_words(registration.confidence)
    return {
        "status": registration.status,
        "sentence": STATUS_WORDS[registration.status],
        "confidence": confidence,
        "right": RIGHT if confidence else "",
        "reasons": registration.reasons,
        "notes": registration.notes,
        "engine": registration.engine,
    }


def _images(content: ReportContent, planes: list[Plane], uris: Mapping[str, str]) -> list[dict[str, Any]]:
    """The pictures in the page, from which the viewer takes its own, each with a caption."""
    found = []
    for key, uri in uris.items():
        number, source, role, form = key.split("/")
        plane = planes[int(number)]
        words = REJECTED if content.is_refused and role == "after" else ""
        found.append(
            {
                "key": key,
                "uri": uri,
                "caption": ", ".join(filter(None, [source, ROLE_WORDS[role], words, plane.title])),
                "size": plane.shape,
                "range": plane.pictures[source, role].range if form == "colour" else None,
                "listed": form == "colour",
            }
        )
    return found


def _setup(content: ReportContent, planes: list[Plane], whole: Volume | None) -> dict[str, Any]:
    """What the viewer must know besides the pictures."""
    roles = {role for _, role in planes[0].pictures}
    sources = {source for source, _ in planes[0].pictures}
    return {
        "planes": [_plane(plane) for plane in planes],
        "refused": content.is_refused,
        "hasAfter": "after" in roles,
        "hasRepresentations": "representations" in sources,
        "rejected": REJECTED,
        "volume": None if whole is None else _volume(whole),
    }


def _volume(whole: Volume) -> dict[str, Any]:
    """Geometry of the linked planes, in array order: the world of a voxel is the origin plus the steps times it."""
    matrix, spacing = whole.grid.matrix, whole.grid.spacing[0]
    return {
        "hasAfter": "after" in whole.levels,
        "shape": whole.grid.shape,
        "columns": whole.columns,
        "planes": [
            {"title": f"across {AXES[across]}", "across": across, "down": down, "right": right}
            for across, down, right in PLANES
        ],
        "names": AXES,
        "origin": matrix[:-1, -1].tolist(),
        "steps": matrix[:-1, :-1].tolist(),
        "unit": SYMBOLS[whole.grid.unit],
        "digits": max(0, min(6, math.ceil(1 - math.log10(spacing)))),
        "size": length(spacing, whole.grid.unit),
    }


def _plane(plane: Plane) -> dict[str, Any]:
    """Geometry of a section, x first: where its first pixel lies in the world, and the steps to its neighbours."""
    matrix, height_width = plane.grid.matrix, plane.shape
    names = "zyx"[-plane.grid.ndim :]
    down, right = (matrix[:-1, names.index(axis)] for axis in plane.axes)
    return {
        "title": plane.title,
        "height": height_width[0],
        "width": height_width[1],
        "spacing": plane.spacing,
        "unit": SYMBOLS[plane.unit],
        "axes": names[::-1],
        "origin": matrix[:-1, -1][::-1].tolist(),
        "right": right[::-1].tolist(),
        "down": down[::-1].tolist(),
    }


def _shown_as(plane: Plane, content: ReportContent, quality: int) -> str:
    size = " × ".join(map(str, reversed(plane.shape)))
    own = " × ".join(map(str, reversed(content.fixed.grid.shape)))
    how = "without loss" if quality == LOSSLESS else f"compressed (WebP, quality {quality})"
    return f"Shown with {size} pixels of {length(plane.spacing, plane.unit)}, {how}; the fixed image has {own}."


def _before(content: ReportContent) -> str:
    sizeless = (content.fixed.grid.unit == "pixel") != (content.moving.grid.unit == "pixel")
    scale = "pixel on pixel, as one pixel size is not known" if sizeless else "at the pixel sizes of the files"
    return f"Before: the middles of both images on each other, {scale}, pixel centres at whole indices."


def _transform(content: ReportContent) -> dict[str, Any] | None:
    """The transform, or the rejected one, in words and numbers."""
    candidate = content.registration.candidate
    if candidate is None:
        return None
    phrases = transform_phrases(Comparison.of(content.fixed, content.moving), candidate)
    return {
        "kind": type(candidate).__name__.lower(),
        "summary": summary(phrases),
        "phrases": phrases,
        "direction": DIRECTION_SENTENCE,
        "units": _units(content, candidate),
        "tables": [
            {"title": table.title, "axes": table.axes, "rows": [[f"{v:.6g}" for v in row] for row in table.rows]}
            for table in matrix_tables(candidate)
        ],
    }


def _bending(content: ReportContent) -> str | None:
    """The picture of the deformation as a data URI; ``None`` where nothing bends."""
    candidate = content.registration.candidate
    picture = None if candidate is None else bending_picture(candidate, content.fixed.grid)
    return None if picture is None else _png_uri(picture)


def _labels(content: ReportContent) -> dict[str, Any] | None:
    """The outlines of the labels, and how well they agree; ``None`` where there are none."""
    if content.labels is None:
        return None
    agreement, unit = content.labels.agreement, content.fixed.grid.unit
    shares = agreement.dice_before, agreement.dice
    distances = agreement.hausdorff95_before, agreement.hausdorff95
    told = ["no label in common" if math.isnan(d) else length(d, unit) for d in distances]
    return {
        "picture": _png_uri(outlines_picture(content.labels, content.fixed)),
        "dice": tuple("no transform" if math.isnan(share) else f"{share:.3f}" for share in shares),
        "distance": tuple("no transform" if math.isnan(s) else t for s, t in zip(shares, told, strict=True)),
    }


def _png_uri(picture: bytes) -> str:
    return f"data:image/png;base64,{b64encode(picture).decode('ascii')}"


def _units(content: ReportContent, transform: Transform) -> str:
    fixed, moving = content.fixed.grid.unit, content.moving.grid.unit
    points = "homogeneous points" if matrix_tables(transform) else "points"
    return f"From {points} of the fixed image in {fixed}s to points of the moving image in {moving}s."


def _input(record: InputRecord) -> dict[str, Any]:
    sizes = ", ".join(f"{name} {size:g}" for name, size in zip(record.axes, record.pixel_size, strict=True))
    known = record.unit != "pixel"
    return {
        "record": record,
        "shape": " × ".join(f"{n} ({name})" for n, name in zip(record.shape, record.axes, strict=True)),
        "channels": f"{len(record.channels)}: {', '.join(record.channels)}",
        "pixel_size": f"{sizes} {SYMBOLS[record.unit]}" if known else "not known",
        "source": record.source,
        "is_doubtful": not known,
    }


def _text_uri(name: str, text: str) -> str:
    kinds = {"json": "application/json", "csv": "text/csv"}
    return f"data:{kinds.get(name.rpartition('.')[2], 'text/plain')};charset=utf-8,{quote(text)}"


def _provenance(provenance: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Name and text of each entry; what is nested is written as JSON."""
    entries = []
    for name, value in provenance.items():
        nested = isinstance(value, Mapping | list | tuple)
        text = json.dumps(plain(value), indent=2, ensure_ascii=False) if nested else str(value)
        entries.append({"name": name, "text": text, "is_block": nested})
    return entries
