"""The report page says what is true, and holds all it needs."""

import csv
import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from urllib.parse import unquote

import numpy as np
import pytest
from report_contents import textured
from scipy import ndimage

from modalign.errors import InvalidInputError
from modalign.geometry import Affine, Chain, Grid, Rigid, Similarity, rotation_matrix
from modalign.image import Image
from modalign.io import transform_from_dict
from modalign.registration import Registration
from modalign.report import EvidenceRow, ReportContent, report_page, transform_csv
from modalign.report.comparison import Comparison
from modalign.report.encoding import encoded, layers
from modalign.report.matrices import matrix_tables
from modalign.report.scene import scene
from modalign.report.words import confidence_words, summary, transform_phrases

Make = Callable[..., ReportContent]
NASTY = "data/<script>alert(\"1\")</script> & 'α' <b>{{ 7 * 7 }}</b> " + "long" * 60 + ".tif"


class Page(HTMLParser):
    """What a browser makes of the markup: elements with their attributes, and the text outside scripts and styles."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.inside = ""
        self.words = ""
        self.feed(text)
        self.words = " ".join(self.words.split())

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        self.inside = tag
        self.words += " " if tag in ("td", "th", "li", "dd", "dt", "p") else ""

    def handle_endtag(self, tag):
        self.inside = ""

    def handle_data(self, data):
        if self.inside not in ("script", "style"):
            self.words += data

    def all(self, tag: str, **wanted: str) -> list[dict[str, str | None]]:
        return [a for t, a in self.elements if t == tag and wanted.items() <= a.items()]


# --- the page


@pytest.mark.parametrize("status", ["accepted", "unsure", "refused"])
def test_verdict_reasons_and_confidence_come_first(make_content: Make, status):
    content = make_content(status)
    words = Page(report_page(content)).words
    assert words.index(status.upper()) < words.index(content.registration.reasons[0]) < words.index("Overlay")
    assert "Right in 97 of 100 such cases, by calibration." in words


def test_notes_and_evidence_are_told_in_words_not_by_colour_alone(make_content: Make):
    content = make_content()
    noted = replace(content.registration, notes=("compared pixel by pixel",), confidence=None)
    words = Page(report_page(replace(content, registration=noted))).words
    assert "note compared pixel by pixel" in words
    assert "by calibration" not in words
    for row, said in zip(content.evidence, ("✓ for it", "– neither", "✗ against it"), strict=True):
        assert f"{row.name} {row.value} {row.meaning} {said}" in words


def test_nothing_is_loaded_from_elsewhere(make_content: Make):
    page = Page(report_page(make_content(representations=(textured(), textured(seed=1)))))
    links = [a[key] for _, a in page.elements for key in ("src", "href", "action", "srcset") if a.get(key)]
    assert len(links) > 8
    assert [link for link in links if not link.startswith(("data:", "#"))] == []
    policy = page.all("meta", **{"http-equiv": "Content-Security-Policy"})[0]["content"]
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert not page.all("link", rel="stylesheet")


def test_names_from_files_are_text_never_markup(make_content: Make):
    page = Page(report_page(make_content(names=(NASTY, NASTY))))
    plain = Page(report_page(make_content()))
    assert not page.all("b")
    assert len(page.all("script")) == len(plain.all("script"))
    assert NASTY in page.words


def test_reasons_and_provenance_are_text_too(make_content: Make):
    content = make_content(
        "refused", provenance={"</script><b>key": {"a": "</pre><b>"}, "b": "<b>"}, evidence=(EvidenceRow(*3 * ["<b>"]),)
    )
    refused = replace(content.registration, reasons=("<b>because</b>",), stats={"<b>": 1.0})
    page = Page(report_page(replace(content, registration=refused)))
    assert not page.all("b")
    assert "<b>because</b>" in page.words


def test_inputs_are_shown_as_understood(make_content: Make):
    unknown = textured(channels=3, unit="pixel", spacing=(1.0, 1.0))
    content = make_content()
    words = Page(report_page(content)).words
    assert "72 (y) × 96 (x)" in words
    assert "3: red, green, blue" in words
    assert "y 0.5, x 0.5 µm source: file" in words
    assert "mask none mask.png" in words
    assert "check" not in words.split("Inputs as understood")[1].split("How it came about")[0].replace("check the", "")
    records = (content.inputs[0], type(content.inputs[1]).of("moving", "m", unknown, "none: pixels"))
    doubtful = Page(report_page(replace(content, moving=unknown, inputs=records))).words
    assert "check not known source: none: pixels" in doubtful
    assert "pixel on pixel" in doubtful


def test_downloads_are_the_files_themselves(make_content: Make):
    content = make_content()
    links = Page(report_page(content)).all("a")
    for file in content.downloads:
        (link,) = [a for a in links if a.get("download") == file.name]
        assert unquote(link["href"].split(",", 1)[1]) == file.content
    found = transform_from_dict(json.loads(content.downloads[0].content)).transform
    np.testing.assert_allclose(found.matrix, content.registration.fixed_to_moving.matrix, rtol=1e-12)


def test_direction_is_stated_once_and_right(make_content: Make):
    words = Page(report_page(make_content())).words
    assert (
        words.count(
            "fixed_to_moving maps a world point of the FIXED image to the MOVING image; apply uses it to resample"
        )
        == 1
    )


def test_both_orders_of_axes_are_shown():
    transform = Rigid(((0.0, -1.0), (1.0, 0.0)), (10.0, 20.0))
    first, second = matrix_tables(transform)
    assert (first.axes, second.axes) == (("x", "y"), ("y", "x"))
    np.testing.assert_array_equal(np.array(second.rows), transform.matrix)
    assert np.array(first.rows)[:2, 2].tolist() == [20, 10]


@pytest.mark.parametrize("candidate", [True, False])
def test_a_refused_result_offers_nothing_to_use(make_content: Make, candidate):
    content = make_content("refused")
    if not candidate:
        content = replace(content, registration=Registration("sift", "refused", None, ("nothing",)))
    text = report_page(content)
    page = Page(text)
    assert not [a for a in page.all("a") if "download" in a]
    assert "modalign apply" not in page.words
    assert "No transform is given, and there is no aligned image" in page.words
    assert ("rejected: do not use" in page.words) == candidate
    assert len([i for i in page.all("img") if "/after/" in i.get("data-layer", "")]) == candidate


def test_a_report_that_contradicts_itself_is_refused(make_content: Make):
    content = make_content()
    with pytest.raises(InvalidInputError, match="exactly where"):
        replace(content, warped=None)
    with pytest.raises(InvalidInputError, match="nothing to download"):
        replace(make_content("refused"), downloads=content.downloads)
    with pytest.raises(InvalidInputError, match="does not lie on the grid"):
        replace(content, warped=content.warped.cropped((0, 0), (9, 9)))


def test_the_same_content_gives_the_same_page_and_stays_as_it_is(make_content: Make):
    content = make_content(representations=(textured(), textured(seed=1)))
    before = [image.data.copy() for image in (content.fixed, content.moving, content.warped)]
    assert report_page(content) == report_page(content)
    for image, data in zip((content.fixed, content.moving, content.warped), before, strict=True):
        np.testing.assert_array_equal(image.data, data)


@pytest.mark.parametrize("representations", [0, 1, 3, 5])
@pytest.mark.parametrize("ndim", [2, 3])
def test_any_channels_in_any_dimensions(make_content: Make, ndim, representations):
    shown = {"representations": tuple(textured(ndim, representations, k) for k in (5, 6))} if representations else {}
    page = Page(report_page(make_content("unsure", ndim, (2, 4), **shown)))
    colours = [i for i in page.all("img") if i.get("data-layer", "").endswith("colour")]
    assert len(colours) == {2: 1, 3: 3}[ndim] * (2 if representations else 1) * 3
    assert "across z, slice 7 of 12" in page.words or ndim == 2


ODD = {
    "constant": lambda image: image.with_data(np.full_like(image.data, 7)),
    "masked": lambda image: replace(image, mask=np.zeros(image.grid.shape, bool)),
    "holes": lambda image: image.with_data(np.where(image.data > 128, np.nan, image.data).astype(np.float32)),
    "one pixel high": lambda image: image.cropped((3, 0), (1, 60)),
    "one pixel": lambda image: image.cropped((3, 9), (1, 1)),
    "far away": lambda image: image.with_grid(replace(image.grid, origin=(1e6, -1e6))),
    "in millimeters": lambda image: image.with_grid(image.grid.in_unit("millimeter")),
    "tall pixels": lambda image: image.with_grid(replace(image.grid, spacing=(4.0, 0.5))),
    "mirrored axes": lambda image: image.with_grid(replace(image.grid, direction=((-1.0, 0.0), (0.0, 1.0)))),
    "alpha": lambda image: Image(np.repeat(image.data, 2, 0), image.grid, ("gray", "alpha")),
}


@pytest.mark.parametrize("name", ODD)
@pytest.mark.parametrize("role", ["fixed", "moving"])
def test_odd_images_do_not_break_the_page(make_content: Make, name, role):
    content = make_content("refused", channels=(1, 1))
    odd = replace(content, **{role: ODD[name](getattr(content, role))})
    assert "REFUSED" in Page(report_page(odd)).words


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_absurd_values_do_not_overflow(make_content: Make, dtype):
    """Warnings are errors in the tests."""
    content = make_content("unsure", channels=(1, 1))
    data = content.fixed.data.astype(dtype)
    data[0, 5, 7], data[0, 9, 9] = np.finfo(dtype).max, -np.finfo(dtype).max
    spoilt = content.fixed.with_data(data)
    page = report_page(replace(content, fixed=spoilt, moving=spoilt, warped=spoilt, representations=(spoilt, spoilt)))
    assert "data:image/webp" in page


def test_two_images_of_1024_pixels_stay_below_3_megabytes(make_content: Make):
    rng = np.random.default_rng(0)

    def large(channels: int) -> Image:
        noise = ndimage.uniform_filter(rng.standard_normal((channels, 1024, 1024), np.float32), (0, 3, 3))
        return Image((128 + 150 * noise).clip(0, 255).astype(np.uint8), Grid((1024, 1024)))

    fixed, moving = large(1), large(3)
    content = make_content(representations=(large(1), large(1)))
    page = report_page(replace(content, fixed=fixed, moving=moving, warped=moving))
    assert 1_000_000 < len(page.encode()) < 3_000_000
    assert re.search(r"Shown with (1024 × 1024|768 × 768) pixels of [\d.]+ px, compressed \(WebP, quality \d\d\)", page)


# --- the pictures


def dotted(place: tuple[float, ...], ndim: int) -> Image:
    """A bright dot at an index, on a faint texture."""
    image = textured(ndim)
    indices = np.indices(image.grid.shape)
    near = sum((i - p) ** 2 * s**2 for i, p, s in zip(indices, place, image.grid.spacing, strict=True))
    return image.with_data((image.data * 0.02 + 200 * np.exp(-near / 4)).astype(np.float32))


def centroid(gray: np.ndarray) -> np.ndarray:
    bright = np.where(gray > 0.5 * gray.max(), gray, 0).astype(float)
    return (np.indices(gray.shape) * bright).sum((1, 2)) / bright.sum()


def test_a_dot_moves_from_before_to_after_as_the_words_say(make_content: Make):
    moving = dotted((30.0, 60.0), 2)
    transform = turned_by(35.0, moving.grid, (3.0, -4.0))
    content = make_content("refused", channels=(1, 1))
    content = replace(
        content, moving=moving, registration=Registration("x", "refused", None, ("r",), rejected=transform)
    )
    (plane,) = scene(content, 1024)
    before, after = (centroid(plane.pictures["originals", role].gray) for role in ("before", "after"))
    np.testing.assert_allclose(before, (30, 60), atol=0.1)
    expected = moving.grid.world_to_index(transform.inverse().map_points(moving.grid.index_to_world(before)))
    np.testing.assert_allclose(after, expected, atol=0.15)

    motion = Comparison.of(content.fixed, moving).motion(transform)
    middle = (np.array(plane.shape) - 1) / 2
    np.testing.assert_allclose(
        after, middle + motion.linear @ (before - middle) + motion.shift / moving.grid.spacing, atol=0.15
    )


def turned_by(degrees: float, grid: Grid, shift: tuple[float, ...]) -> Rigid:
    return Rigid.about(grid.center, rotation_matrix(2, degrees), np.array(shift))


def test_the_rejected_transform_is_shown_as_it_is(make_content: Make):
    refused, accepted = make_content("refused"), make_content("accepted")
    shown = [scene(content, 1024)[0].pictures["originals", "after"] for content in (refused, accepted)]
    np.testing.assert_allclose(shown[0].gray[20:50, 30:60].astype(int), shown[1].gray[20:50, 30:60], atol=2)


def test_large_images_are_averaged_to_the_stated_size(make_content: Make):
    rows, columns = np.indices((300, 400))
    slow = np.sin(rows / 40) + np.cos(columns / 50)
    fine = 50 * ((rows + columns) % 2)  # would show as stripes, were pixels only picked
    image = Image((80 + 25 * slow + fine).astype(np.float32)[None], Grid((300, 400), (0.25, 0.25), unit="micrometer"))
    content = replace(make_content(channels=(1, 1)), fixed=image, moving=image, warped=image)
    (plane,) = scene(content, 100)
    assert plane.shape == (75, 100)
    assert plane.spacing == pytest.approx(1.0)
    averaged = slow.reshape(75, 4, 100, 4).mean((1, 3))
    for role in ("fixed", "before", "after"):
        assert np.corrcoef(plane.pictures["originals", role].gray.ravel(), averaged.ravel())[0, 1] > 0.999


def test_sections_of_a_volume_cut_through_its_middle(make_content: Make):
    content = make_content("accepted", 3, (1, 1))
    planes = scene(content, 1024)
    assert [plane.axes for plane in planes] == [("y", "x"), ("z", "x"), ("z", "y")]
    assert [plane.spacing for plane in planes] == [0.5, 0.5, 1.0]
    across_z = planes[0].pictures["originals", "fixed"].gray
    expected = content.fixed.data[0, 6].astype(float)
    assert across_z.shape == (80, 48)  # 40 rows of 1 µm, shown with square pixels of 0.5 µm
    assert np.corrcoef(across_z[::2].ravel(), expected.ravel())[0, 1] > 0.99
    corner = planes[1].grid.index_to_world(np.zeros((1, 3)))[0]
    np.testing.assert_allclose(corner[1], 20.0)  # the middle slice across y


def test_a_bright_field_image_is_dark_where_nothing_is_in_overlays_only(make_content: Make):
    glass = np.full((3, 72, 96), 240, np.uint8)
    glass[:, 20:40, 30:60] = np.array([120, 40, 140])[:, None, None]
    content = make_content("refused")
    (plane,) = scene(replace(content, moving=Image(glass, content.fixed.grid, ("red", "green", "blue"))), 1024)
    shown = plane.pictures["originals", "before"]
    assert shown.gray[30, 45] > 250
    assert shown.gray[5, 5] == 0
    assert shown.colour[5, 5].min() > 250


def test_encoding_keeps_to_its_limit_and_loses_nothing_where_it_can(make_content: Make):
    import imagecodecs

    pictures = layers(scene(make_content(), 1024))
    uris, quality = encoded(pictures, 10**6)
    assert quality == 100
    from base64 import b64decode

    for key, uri in uris.items():
        back = imagecodecs.webp_decode(b64decode(uri.split(",")[1]))
        opaque = pictures[key][..., 3] > 0
        np.testing.assert_array_equal(back[..., :3][opaque], pictures[key][..., :3][opaque])
    full = sum(map(len, uris.values()))
    lossy, worse = encoded(pictures, full - 1)
    assert sum(map(len, lossy.values())) < full
    assert worse < 100
    assert encoded(pictures, 100) is None


# --- words


GRID = Grid((72, 96), (0.5, 0.25), unit="micrometer")


def described(transform, grid: Grid = GRID, moving: Grid | None = None):
    images = [Image(np.zeros((1, *g.shape), np.uint8), g) for g in (grid, moving or grid)]
    return transform_phrases(Comparison.of(*images), transform)


def moving_by(linear: np.ndarray, shift: tuple[float, ...] = (0.0, 0.0)):
    """The fixed_to_moving under which the content moves by a linear map about the middle, then a shift."""
    matrix = np.eye(3)
    matrix[:2, :2] = linear
    matrix[:2, 2] = GRID.center + shift - linear @ GRID.center
    return Affine.from_matrix(np.linalg.inv(matrix))


def test_nothing_happens():
    phrases = described(Rigid(((1.0, 0.0), (0.0, 1.0)), (0.0, 0.0)))
    assert [phrase.words for phrase in phrases] == [""] * 5
    assert summary(phrases) == "The moving image already lies on the fixed one, middle on middle."


def test_every_part_of_a_motion_is_named():
    flip = np.diag([1.0, -1.0])
    stretch = np.array([[1.1, 0.0], [0.0, 0.98]])
    linear = rotation_matrix(2, 30) @ stretch @ flip
    phrases = {p.name: p for p in described(moving_by(linear, (-3.0, 2.0)))}
    assert phrases["mirror"].words == "mirrored (left and right exchanged)"
    assert phrases["turn"].words == "turned by 30.00° counter-clockwise"
    assert phrases["shift of the middle"].words == "moved by 2 µm (8 px) right and 3 µm (6 px) up"
    assert phrases["size"].words == "made smaller by 2.00% along its x and enlarged by 10.00% along its y"
    assert phrases["shear"].words == ""
    assert phrases["turn"].numbers.startswith("+30.00°")


def test_a_clockwise_turn_takes_what_is_right_of_the_middle_down():
    quarter = np.array([[0.0, 1.0], [-1.0, 0.0]])  # (y, x): a point at +x goes to +y, down on the screen
    phrases = {p.name: p.words for p in described(moving_by(quarter))}
    assert phrases["turn"] == "turned by 90.00° clockwise"


def test_shear_is_the_lost_part_of_a_right_angle():
    sheared = np.array([[1.0, 0.0], [np.tan(np.deg2rad(3)), 1.0]])
    assert "sheared by 3.00°" in [p.words for p in described(moving_by(sheared))]


def test_size_is_true_size_where_pixels_differ_and_pixels_where_sizes_are_unknown():
    fixed = Grid((72, 96), (0.5, 0.5), unit="micrometer")
    smaller = Grid((144, 192), (0.00025, 0.00025), unit="millimeter")
    unit = Similarity(((1.0, 0.0), (0.0, 1.0)), 1e-3, (0.000125 - 0.00025, 0.000125 - 0.00025))
    words = [p.words for p in described(unit, fixed, smaller)]
    assert words[0] == words[1] == words[3] == ""
    sizeless = Grid((72, 96))
    pixels = Affine.from_matrix(sizeless.matrix @ np.linalg.inv(fixed.matrix))
    assert summary(described(pixels, fixed, sizeless)).startswith("The moving image already lies")


def test_a_turn_in_space_is_about_an_axis():
    grid = Grid((20, 30, 40), (2.0, 1.0, 1.0), unit="millimeter")
    about_z = Rigid.about(grid.center, rotation_matrix(3, 10, (-2, -1)), np.zeros(3))
    (turn,) = [p for p in described(about_z.inverse(), grid) if p.name == "turn"]
    # counter-clockwise on the screen, where y points down, is a negative turn about +z
    assert turn.words == "turned by 10.00° about the axis (x +0.00, y +0.00, z -1.00)"


def test_a_transform_without_an_inverse_is_named_so():
    flat = Affine(((1.0, 0.0, 0.0), (0.0, 0.0, 0.0), (0.0, 0.0, 1.0)))
    assert "flattened" in summary(described(flat))


class Wave:
    """A transform that bends by up to 2 µm."""

    ndim = 2

    def map_points(self, points):
        return points + 2 * np.sin(points[..., :1] / 6) * np.array([0.0, 1.0])

    def inverse(self):
        raise NotImplementedError

    def __matmul__(self, other):
        return Chain((other, self))


def test_a_transform_that_bends_is_described_by_its_linear_part():
    phrases = described(Wave())
    assert phrases[-1].words.startswith("bent, by up to ")
    assert matrix_tables(Wave()) == ()
    assert transform_csv(Wave()) == ""


@pytest.mark.parametrize(
    ("confidence", "words"),
    [(0.97, "right in 97 of 100"), (1.0, "right in more than 99 of 100"), (0.001, "right in fewer than 1 of 100")],
)
def test_confidence_is_a_frequency(confidence, words):
    assert confidence_words(confidence) == f"{words} such cases, by calibration"
    assert confidence_words(None) == ""


@pytest.mark.parametrize("ndim", [2, 3])
def test_the_table_of_a_transform_maps_points_as_its_titles_say(ndim):
    rng = np.random.default_rng(ndim)
    matrix = np.eye(ndim + 1)
    matrix[:-1] += rng.normal(0, 0.3, (ndim, ndim + 1))
    transform = Affine.from_matrix(matrix)
    rows = list(csv.DictReader(transform_csv(transform).splitlines()))
    point = dict(zip("zyx"[-ndim:], rng.normal(0, 10, ndim), strict=True))
    mapped = transform.map_points(np.array([list(point.values())]))[0]
    for name, value in zip("zyx"[-ndim:], mapped, strict=True):
        (row,) = [r for r in rows if r["moving"] == name]
        total = sum(float(row[f"fixed_{axis}"]) * at for axis, at in point.items()) + float(row["offset"])
        assert total == pytest.approx(value)
