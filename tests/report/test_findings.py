"""The page of a search shows query, hits and places, needs no network, and takes names for text."""

import re

import numpy as np

from modalign.geometry import Grid, Rigid, identity, rotation_matrix
from modalign.image import Image
from modalign.registration import Registration
from modalign.report.findings import Finding, findings_page
from modalign.retrieval import Hit, Piece
from modalign.search import Found
from modalign.testing.registration import textured_scene

NASTY = "<script>alert(1)</script> & {{ 7 * 7 }}"
SCENE = textured_scene(2)
QUERY = SCENE.cropped((50, 60), (100, 120))


def found(status: str = "accepted", transform: Rigid | None = None, name: str = "scene") -> Found:
    given = (transform or identity(2)) if status != "refused" else None
    registration = Registration("fft-search", status, given, (f"why {NASTY}",), 0.9)
    return Found(
        Hit(name, 0.4, {"stain": "HE", "case": 7.0, "file": "/somewhere"}), Piece((0.0, 0.0), 0.5), registration
    )


def outline(page: str) -> np.ndarray:
    points = re.findall(r'<polygon points="([^"]*)"', page)[0]
    return np.array([[float(number) for number in pair.split(",")] for pair in points.split()])


def test_the_outline_lies_where_the_query_does_in_the_shrunk_picture() -> None:
    page = findings_page("q", QUERY, [Finding(found(), SCENE)], [])
    corners = SCENE.grid.world_to_index(QUERY.grid.corners)[:, ::-1]
    scale = 384 / 400
    wanted = (corners + 0.5) * scale
    shown = outline(page)
    assert len(shown) == 4
    for corner in wanted:
        assert np.linalg.norm(shown - corner, axis=1).min() < 0.2
    assert 'viewBox="0 0 384 384"' in page


def test_hits_that_were_refused_not_verified_or_not_read_are_shown_as_such() -> None:
    findings = [
        Finding(found("refused"), SCENE),
        Finding(Found(Hit("plain", 0.3)), SCENE),
        Finding(Found(Hit("lost", 0.2), note="not looked at again: gone"), None),
    ]
    page = findings_page("q", QUERY, findings, [("index", "here")])
    assert "polygon points" not in page
    assert page.count("not verified</span>") == 2
    assert "not looked at again: gone" in page
    assert page.count("<figure>") == 2


def test_names_are_text_and_nothing_is_loaded() -> None:
    page = findings_page(NASTY, QUERY, [Finding(found(name=NASTY), SCENE)], [(NASTY, NASTY)])
    assert NASTY not in page
    assert "49" not in re.sub(r'"data:[^"]*"', "", page)
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert all(address.startswith("data:") for address in addresses)
    assert "http" not in page


def test_no_hit_is_told() -> None:
    assert "No image of the index" in findings_page("q", QUERY, [], [])


def test_volumes_are_shown_by_a_section() -> None:
    volume = textured_scene(3)
    query = volume.cropped((20, 20, 20), (40, 30, 30))
    turn = Rigid.about(query.grid.center, rotation_matrix(3, 20.0), np.zeros(3))
    hit = Found(Hit("v", 0.4), Piece((0.0,) * 3, 0.5), Registration("fft-search", "accepted", turn, ("so",), 0.9))
    page = findings_page("q", query, [Finding(hit, volume)], [])
    assert len(outline(page)) >= 4
    assert page.count("<figure>") == 4


def test_images_on_oblique_grids_have_their_outline_in_pixels() -> None:
    grid = Grid((64, 64), (0.5, 0.5), direction=((0.0, 1.0), (1.0, 0.0)))
    image = Image(SCENE.data[:, :64, :64], grid)
    page = findings_page("q", image, [Finding(found(), image)], [])
    shown = outline(page)
    assert shown.min() >= 0.4
    assert shown.max() <= 63.6
