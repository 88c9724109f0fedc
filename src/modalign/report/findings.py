"""What a search found, as one HTML page: the query, the hits with their scores, where in each the query lies."""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

import numpy as np
from scipy.spatial import ConvexHull, QhullError

from modalign import __version__
from modalign.image import Image
from modalign.report.encoding import colour_uri
from modalign.report.overlay import magenta_green, picture, plane, shrunk
from modalign.report.page import environment
from modalign.search import Found
from modalign.warping import warp

LONGEST = 384
"""Most pixels along the longest side of a picture."""


@dataclass(frozen=True, eq=False)
class Finding:
    """A hit as it is shown.

    Attributes:
        found: The hit, and what became of it.
        image: Its original; ``None`` where it could not be read.
    """

    found: Found
    image: Image | None


@dataclass(frozen=True)
class _Shown:
    """What the page shows of a hit."""

    found: Found
    facts: str
    whole: str = ""
    """Address of a picture of all of it."""
    size: tuple[int, int] = (0, 0)
    """Width and height of that picture."""
    outline: str = ""
    """Corners of the query in it, as the points of a polygon."""
    part: str = ""
    """Address of a picture of the part where the query lies, turned as the query is."""
    overlay: str = ""
    """Address of a picture of query and part in one."""


def findings_page(name: str, query: Image, findings: Sequence[Finding], about: Sequence[tuple[str, str]]) -> str:
    """The page as HTML with all pictures in it; it needs no network.

    Args:
        name: What the query is called.
        query: The query.
        findings: The hits, best first.
        about: What else to tell of the search, by title.
    """
    flat = picture(plane(shrunk(query, LONGEST)))
    return (
        environment()
        .get_template("findings.html")
        .render(
            name=name,
            version=__version__,
            query=colour_uri(flat.data),
            hits=[_shown(query, finding) for finding in findings],
            about=about,
        )
    )


def _shown(query: Image, finding: Finding) -> _Shown:
    found, image = finding.found, finding.image
    facts = ", ".join(
        f"{key} {value:g}" if isinstance(value, float) else f"{key} {value}" for key, value in _told(found)
    )
    if image is None:
        return _Shown(found, facts)
    small = plane(shrunk(image, LONGEST))
    height, width = small.grid.shape
    whole = colour_uri(picture(small).data)
    corners = found.outline(query.grid)
    registration = found.registration
    if corners is None or registration is None or registration.fixed_to_moving is None:
        return _Shown(found, facts, whole, (width, height))
    pixels = image.grid.world_to_index(corners)[:, -2:]
    outline = _polygon((pixels + 0.5) * (np.array([height, width]) / np.array(image.grid.shape[-2:])))
    seen = shrunk(query, LONGEST)
    part = warp(image, seen.grid, registration.fixed_to_moving)
    pair = plane(seen), plane(part)
    return _Shown(
        found,
        facts,
        whole,
        (width, height),
        outline,
        colour_uri(picture(pair[1]).data),
        colour_uri(magenta_green(*pair).data),
    )


def _told(found: Found) -> list[tuple[str, str | float]]:
    """The facts that tell a reader something."""
    return [
        (key, value) for key, value in found.hit.facts.items() if key not in ("digest", "file", "pixel_size", "unit")
    ]


def _polygon(points: np.ndarray) -> str:
    """Points of SVG around all points ``(y, x)``."""
    with suppress(QhullError):  # all may lie on one line
        points = points[ConvexHull(points).vertices]
    return " ".join(f"{x:.1f},{y:.1f}" for y, x in points)
