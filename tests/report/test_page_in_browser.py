"""Every control of the report's viewer does what it says, in a real browser, and no script fails."""

import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from report_contents import reported, textured, turned

from modalign.report import ReportContent, apply_commands, report_page
from modalign.report.scene import Plane, scene
from modalign.report.volume import volume

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(BROWSER is None, reason="no Chromium here; on Debian: apt-get install chromium")

Make = Callable[..., ReportContent]
POINTS = [(v, u) for v in (0.33, 0.52, 0.71) for u in (0.24, 0.43, 0.58, 0.83)] + [(0.97, 0.98)]
"""Places in the picture, (y, x) as fractions, clear of the labels on the canvas; at the last, moving has no pixels."""
WATCH = """<head><script>
const failures = [];
addEventListener("error", (e) => failures.push(String(e.message)));
addEventListener("unhandledrejection", (e) => failures.push(String(e.reason)));
addEventListener("securitypolicyviolation", (e) => failures.push(e.violatedDirective));
const copied = [];
Object.defineProperty(navigator, "clipboard", { value: { writeText: async (text) => copied.push(text) } });
for (const kind of ["error", "warn"]) console[kind] = (...words) => failures.push(words.join(" "));
</script>"""
DRIVE = """<script>
(async () => {
  const viewer = document.getElementById("viewer"), canvas = viewer.querySelector("canvas");
  const rest = (ms) => new Promise((done) => setTimeout(done, ms));
  while (!viewer.dataset.ready) await rest(20);
  const pointer = (kind, x, y) =>
    canvas.dispatchEvent(new PointerEvent(kind, { clientX: x, clientY: y, pointerId: 1, bubbles: true }));
  const acts = {
    click: (selector) => document.querySelector(selector).click(),
    key: (key) => (canvas.focus(),
      canvas.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }))),
    keyOutside: (key) => (document.activeElement.blur(),
      document.body.dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }))),
    slide: (value) => {
      const slider = viewer.querySelector("input[type=range]");
      slider.value = value;
      slider.dispatchEvent(new Event("input", { bubbles: true }));
    },
    wheel: (delta) => {
      const box = canvas.getBoundingClientRect();
      canvas.dispatchEvent(new WheelEvent("wheel",
        { deltaY: delta, ctrlKey: true, clientX: box.left + 200, clientY: box.top + 100, cancelable: true }));
    },
    drag: ([x0, y0, x1, y1]) => {
      const box = canvas.getBoundingClientRect();
      pointer("pointerdown", box.left + x0, box.top + y0);
      pointer("pointermove", box.left + x1, box.top + y1);
      pointer("pointerup", box.left + x1, box.top + y1);
    },
    rest,
  };
  const seen = () => {
    const { scale, left, top, plane } = canvas.dataset;
    const { width, height } = JSON.parse(setup.textContent).planes[plane];
    const on = canvas.getContext("2d");
    return {
      ...canvas.dataset,
      width: canvas.clientWidth,
      height: canvas.clientHeight,
      clipped: [...document.querySelectorAll(".scroll, body")].map((e) => e.scrollWidth - e.clientWidth),
      samples: POINTS.map(([v, u]) =>
        [...on.getImageData(Math.round(+left + u * width * scale), Math.round(+top + v * height * scale), 1, 1).data]),
      shift: POINTS.map(([v, u]) => Math.round(+left + u * width * scale) + canvas.clientWidth / 2).map((x, i) =>
        [...on.getImageData(x, Math.round(+top + POINTS[i][0] * height * scale), 1, 1).data]),
      caption: shown.textContent,
      position: position.textContent,
      pressed: [...viewer.querySelectorAll("[aria-pressed=true]")].map((b) => b.dataset.value),
      option: viewer.querySelector(".option").hidden ? "" : viewer.querySelector(".option").innerText,
      pause: viewer.querySelector(".pause").hidden ? "" : viewer.querySelector(".pause").textContent,
      label: canvas.getAttribute("aria-label"),
    };
  };
  const found = [seen()];
  for (const [act, value] of STEPS) {
    await acts[act](value);
    await rest(0);
    found.push(seen());
  }
  const out = document.createElement("pre");
  out.id = "findings";
  out.textContent = JSON.stringify({ found, failures, copied });
  document.body.append(out);
})().catch((error) => document.body.append("DRIVER FAILED " + error));
</script></body>"""
FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-extensions",
    "--disable-background-networking",
    "--no-first-run",
    "--hide-scrollbars",
    "--force-device-scale-factor=1",
    "--virtual-time-budget=30000",
    "--dump-dom",
)


@dataclass(frozen=True)
class Session:
    """What a browser saw: the viewer at the start and after each step."""

    plane: Plane
    found: list[dict[str, Any]]
    failures: list[str]
    copied: list[str]

    def expected(self, role: str, form: str, source: str = "originals") -> np.ndarray:
        """Pixels of a picture at the sampled places, as floats: gray, or colours with their transparency."""
        picture = self.plane.pictures[source, role]
        height, width = picture.gray.shape
        places = tuple(np.array([(int(v * height), int(u * width)) for v, u in POINTS]).T)
        if form == "gray":
            return picture.gray[places].astype(float)
        alpha = np.where(picture.valid, 255, 0)[..., None]
        return np.concatenate([picture.colour * picture.valid[..., None], alpha], axis=-1)[places].astype(float)


def drive(
    folder: Path, page: str, steps: list[tuple[str, Any]], window: tuple[int, int] = (1000, 900)
) -> dict[str, Any]:
    """Open a page in a window of this width and height, do the steps, and return what was seen."""
    driver = DRIVE.replace("POINTS", json.dumps(POINTS)).replace("STEPS", json.dumps(steps))
    path = folder / "page.html"
    path.write_text(page.replace("<head>", WATCH, 1).replace("</body>", driver), encoding="utf-8")
    size = f"--window-size={window[0]},{window[1]}"
    command = [str(BROWSER), *FLAGS, size, f"--user-data-dir={folder / 'profile'}", path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    found = re.search(r'<pre id="findings">(.*?)</pre>', done.stdout, re.DOTALL)
    assert found, f"the browser did not finish: {done.stdout[-300:]} {done.stderr[-300:]}"
    text = found[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")
    findings: dict[str, Any] = json.loads(text)
    return findings


def session(folder: Path, content: ReportContent, steps: list[tuple[str, Any]]) -> Session:
    return Session(scene(content, 1024)[0], **drive(folder, report_page(content), steps))


def press(value: str) -> tuple[str, str]:
    return "click", f"[data-value={value}]"


STEPS: dict[str, tuple[str, Any]] = {
    "swipe": press("swipe"),
    "swipe dragged": ("drag", [480, 200, 330, 210]),
    "checkerboard": press("checkerboard"),
    "fewer tiles": ("slide", 2),
    "blend": press("blend"),
    "blend moved": ("slide", 100),
    "side": press("side"),
    "before": press("before"),
    "representations": press("representations"),
    "key 1": ("key", "1"),
    "key b": ("key", "b"),
    "key r": ("key", "R"),
    "zoomed": ("click", "[data-zoom=in]"),
    "zoomed out": ("click", "[data-zoom=out]"),
    "key +": ("key", "+"),
    "key right": ("key", "ArrowRight"),
    "key down": ("key", "ArrowDown"),
    "dragged": ("drag", [300, 200, 340, 230]),
    "key 0": ("key", "0"),
    "key -": ("key", "-"),
    "fit": ("click", "[data-zoom=fit]"),
    "wheel": ("wheel", -200),
    "fit again": ("key", "0"),
    "outside": ("keyOutside", "3"),
    "space": ("key", " "),
    "flicker 1": ("rest", 700),
    "flicker 2": ("rest", 670),
    "flicker 3": ("rest", 670),
    "paused": ("click", ".pause"),
    "paused 1": ("rest", 900),
    "paused 2": ("rest", 900),
    "key 2": ("key", "2"),
    "key 3": ("key", "3"),
    "key 4": ("key", "4"),
    "key 5": ("key", "5"),
    "key 6": ("key", "6"),
    "copied": ("click", ".copy"),
}


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Session:
    """A gray fixed and a colourful moving image with representations, and every control used once."""
    if BROWSER is None:
        pytest.skip("no Chromium here")
    fixed, moving = textured(channels=1), textured(channels=3, seed=1)
    content = reported(fixed, moving, turned(fixed.grid, moving.grid))
    content = replace(content, representations=(textured(seed=2), textured(seed=3)))
    return session(tmp_path_factory.mktemp("browser"), content, list(STEPS.values()))


def at(seen: Session, step: str = "") -> dict[str, Any]:
    """What was seen right after a step; at the start without one."""
    return seen.found[list(STEPS).index(step) + 1 if step else 0]


def samples(view: dict[str, Any], key: str = "samples") -> np.ndarray:
    """Colours, as dark as they are transparent, with their transparency."""
    found = np.array(view[key], dtype=float)
    found[:, :3] *= found[:, 3:] / 255
    return found


CLOSE = {"atol": 6, "rtol": 0}
"""Pictures are smooth, yet they are enlarged on the canvas."""


def composed(seen: Session, stage: str = "after", source: str = "originals") -> np.ndarray:
    """Magenta and green, from the gray levels that Python made."""
    fixed, moving = (seen.expected(role, "gray", source) for role in ("fixed", stage))
    return np.stack([fixed, moving, fixed, np.full(len(fixed), 255.0)], axis=1)


def test_no_script_fails_and_nothing_is_refused_by_the_policy(seen: Session):
    assert seen.failures == []


def test_a_failing_script_would_be_noticed(tmp_path: Path, make_content: Make):
    broken = report_page(make_content()).replace("const fit = () => ", "const fit = () => missing() && ")
    assert "missing is not defined" in drive(tmp_path, broken, [("key", "0")])["failures"][0]


def test_one_of_the_sampled_places_has_no_moving_pixels(seen: Session):
    assert seen.expected("after", "colour")[:, 3].tolist() == [255] * (len(POINTS) - 1) + [0]


def test_it_begins_with_the_overlay_of_the_aligned_originals(seen: Session):
    view = at(seen)
    assert view["pressed"] == ["overlay", "after", "originals"]
    np.testing.assert_allclose(samples(view), composed(seen), **CLOSE)
    assert np.ptp(samples(view)[:, 0]) > 50
    assert view["option"] == ""


def test_swipe_shows_fixed_left_and_moving_right_of_the_divider(seen: Session):
    left = np.array([u < 0.5 for _, u in POINTS])
    fixed, moving = (seen.expected(role, "colour") for role in ("fixed", "after"))
    np.testing.assert_allclose(samples(at(seen, "swipe")), np.where(left[:, None], fixed, moving), **CLOSE)
    assert np.abs(fixed - moving).max(1).min() > 12


def test_the_divider_can_be_dragged(seen: Session):
    view = at(seen, "swipe dragged")
    edge = (330 - float(view["left"])) / float(view["scale"]) / seen.plane.shape[1]
    left = np.array([u < edge for _, u in POINTS])
    assert 0 < left.sum() < sum(u < 0.5 for _, u in POINTS)
    expected = np.where(left[:, None], seen.expected("fixed", "colour"), seen.expected("after", "colour"))
    np.testing.assert_allclose(samples(view), expected, **CLOSE)
    assert f"{100 * 330 / view['width']:.0f} %" in view["option"]


@pytest.mark.parametrize(("step", "tiles"), [("checkerboard", 8), ("fewer tiles", 2)])
def test_checkerboard_takes_tiles_in_turn(seen: Session, step, tiles):
    height, width = seen.plane.shape
    side = max(height, width) / tiles
    odd = np.array([(int(v * height / side) + int(u * width / side)) % 2 for v, u in POINTS], dtype=bool)
    assert 0 < odd.sum() < len(odd)
    expected = np.where(odd[:, None], seen.expected("after", "colour"), seen.expected("fixed", "colour"))
    np.testing.assert_allclose(samples(at(seen, step)), expected, **CLOSE)


def test_blend_mixes_by_the_stated_share(seen: Session):
    fixed, moving = (seen.expected(role, "colour") for role in ("fixed", "after"))
    np.testing.assert_allclose(samples(at(seen, "blend")), (fixed + moving) / 2, **CLOSE)
    np.testing.assert_allclose(samples(at(seen, "blend moved")), moving, **CLOSE)
    assert "0 % fixed, 100 % moving" in at(seen, "blend moved")["caption"]


@pytest.mark.parametrize(
    ("step", "stage", "source"),
    [
        ("side", "after", "originals"),
        ("before", "before", "originals"),
        ("representations", "before", "representations"),
    ],
)
def test_side_by_side_shows_fixed_left_and_moving_right(seen: Session, step, stage, source):
    view = at(seen, step)
    np.testing.assert_allclose(samples(view), seen.expected("fixed", "colour", source), **CLOSE)
    np.testing.assert_allclose(samples(view, "shift"), seen.expected(stage, "colour", source), **CLOSE)
    assert stage in view["pressed"]
    assert source in view["pressed"]


def test_before_and_after_and_representations_differ(seen: Session):
    for source in ("originals", "representations"):
        before, after = (seen.expected(stage, "colour", source) for stage in ("before", "after"))
        assert np.abs(before - after).max() > 40


def test_keys_for_before_and_for_representations_toggle(seen: Session):
    np.testing.assert_allclose(samples(at(seen, "key 1")), composed(seen, "before", "representations"), **CLOSE)
    np.testing.assert_allclose(samples(at(seen, "key b")), composed(seen, "after", "representations"), **CLOSE)
    np.testing.assert_allclose(samples(at(seen, "key r")), composed(seen), **CLOSE)
    assert at(seen, "key b")["pressed"] == ["overlay", "after", "representations"]


@pytest.mark.parametrize(
    ("step", "factor"),
    [("zoomed", 1.25), ("zoomed out", 1), ("key +", 1.25), ("key -", 0.8), ("fit", 1), ("wheel", 1.65)],
)
def test_zoom_changes_the_scale(seen: Session, step, factor):
    fitted = float(at(seen)["scale"])
    assert float(at(seen, step)["scale"]) == pytest.approx(fitted * factor, rel=0.01)
    np.testing.assert_allclose(samples(at(seen, "zoomed"))[:-1], composed(seen)[:-1], **CLOSE)  # the same places


def test_the_wheel_zooms_about_the_pointer(seen: Session):
    before, after = at(seen, "fit"), at(seen, "wheel")
    for edge, place in (("left", 200), ("top", 100)):
        fractions = [(place - float(view[edge])) / float(view["scale"]) for view in (before, after)]
        assert fractions[0] == pytest.approx(fractions[1], abs=0.01)


def test_arrows_and_dragging_pan(seen: Session):
    start, right, down, dragged = (at(seen, step) for step in ("key +", "key right", "key down", "dragged"))
    assert float(right["left"]) - float(start["left"]) == pytest.approx(-40, abs=0.01)
    assert float(down["top"]) - float(right["top"]) == pytest.approx(-40, abs=0.01)
    moved = [float(dragged[edge]) - float(down[edge]) for edge in ("left", "top")]
    assert moved == pytest.approx([40, 30], abs=0.01)
    np.testing.assert_allclose(samples(dragged)[:-1], composed(seen)[:-1], **CLOSE)
    assert at(seen, "key 0")["left"] == at(seen)["left"]


def test_the_place_under_the_pointer_is_told_in_world_units(seen: Session):
    view = at(seen, "dragged")
    x, y = ((at_ - float(view[edge])) / float(view["scale"]) - 0.5 for at_, edge in ((340, "left"), (230, "top")))
    told = re.fullmatch(r"fixed world: x ([-\d.]+), y ([-\d.]+) µm", view["position"])
    assert [float(value) for value in told.groups()] == pytest.approx([0.5 * x, 0.5 * y], abs=0.02)


def test_keys_mean_nothing_elsewhere_on_the_page(seen: Session):
    assert at(seen, "outside")["mode"] == "overlay"


def test_flicker_alternates_until_paused(seen: Session):
    assert at(seen, "space")["mode"] == "flicker"
    running = [at(seen, f"flicker {k}") for k in (1, 2, 3)]
    assert len({view["shown"] for view in running}) == 2
    for view in running:
        role = "fixed" if view["shown"] == "fixed" else "after"
        np.testing.assert_allclose(samples(view), seen.expected(role, "colour"), **CLOSE)
    assert running[0]["pause"] == "Pause"
    paused = [at(seen, step) for step in ("paused", "paused 1", "paused 2")]
    assert len({view["shown"] for view in paused}) == 1
    assert paused[0]["pause"] == "Go on"


@pytest.mark.parametrize(
    ("key", "mode"),
    [("1", "overlay"), ("2", "swipe"), ("3", "checkerboard"), ("4", "blend"), ("5", "flicker"), ("6", "side")],
)
def test_number_keys_choose_the_mode(seen: Session, key, mode):
    view = at(seen, f"key {key}")
    assert view["mode"] == mode
    assert mode in view["pressed"]
    assert view["label"] == view["caption"]


def test_commands_are_copied_as_they_are(seen: Session):
    assert seen.copied == [apply_commands("out/transform.json", "fixed.tif", "moving.tif")[0].line]


def test_a_rejected_transform_is_shown_only_when_asked_for_and_labelled(tmp_path: Path, make_content: Make):
    content = make_content("refused")
    start, before, rejected = session(tmp_path, content, [("key", "1"), ("key", "b")]).found
    assert start["mode"] == "side"
    assert start["stage"] == before["stage"] == "before"
    assert "rejected" not in before["caption"]
    assert "rejected: do not use" in rejected["caption"]
    assert rejected["rejected"] == "true"
    assert not np.allclose(samples(before), samples(rejected), atol=20)


@pytest.mark.parametrize("width", [500, 1400])
def test_nothing_is_cut_off_at_the_side(tmp_path: Path, make_content: Make, width):
    content = make_content("refused", names=("a/folder/" + "with_a_long_name" * 5 + ".ome.tif", "moving.tif"))
    (start,) = drive(tmp_path, report_page(content), [], (width, 900))["found"]
    assert start["clipped"] == [0] * len(start["clipped"])
    assert len(start["clipped"]) >= 3


@pytest.mark.parametrize("window", [(1000, 900), (1400, 900)])
def test_side_by_side_has_no_empty_field_above_and_below(tmp_path: Path, make_content: Make, window):
    content = make_content("refused")
    height, width = content.fixed.grid.shape
    start, overlay = drive(tmp_path, report_page(content), [("key", "1")], window)["found"]
    assert start["mode"] == "side"
    assert start["height"] == pytest.approx(start["width"] / 2 * height / width, abs=1)
    assert overlay["height"] > start["height"]


def test_without_a_transform_there_is_no_after(tmp_path: Path, make_content: Make):
    content = make_content("refused")
    bare = replace(content.registration, rejected=None)
    shown = session(
        tmp_path, replace(content, registration=bare), [("key", "b"), ("key", "r"), ("key", "p"), ("key", "4")]
    )
    assert shown.failures == []
    assert {view["stage"] for view in shown.found} == {"before"}
    assert shown.found[-1]["mode"] == "blend"


def test_sections_of_a_volume_can_be_chosen(tmp_path: Path, make_content: Make):
    content = make_content("unsure", 3, (1, 5))
    shown = session(tmp_path, content, [("key", "p"), ("click", "[data-state=plane][data-value='2']"), ("key", "p")])
    assert shown.failures == []
    assert [view["plane"] for view in shown.found] == ["0", "1", "2", "0"]
    assert "across y, slice 21 of 40" in shown.found[1]["caption"]
    first, again = samples(shown.found[0]), samples(shown.found[3])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_allclose(first, composed(shown), **CLOSE)
    assert not np.allclose(first, samples(shown.found[2]), atol=20)


PLANES = """<script>
(async () => {
  const section = document.getElementById("planes"), out = document.createElement("pre");
  while (!section.dataset.ready) await new Promise((done) => setTimeout(done, 20));
  const canvases = [...section.querySelectorAll("canvas")];
  const seen = () => ({
    point: section.dataset.point.split(",").map(Number),
    sizes: canvases.map((c) => [c.height, c.width]),
    colours: canvases.map((c) => [...c.getContext("2d").getImageData(0, 0, c.width, c.height).data]),
    slices: canvases.map((c) => c.parentElement.querySelector("output").textContent),
    cursor: document.getElementById("cursor").textContent,
  });
  const found = [seen()];
  const box = canvases[0].getBoundingClientRect();
  const place = { clientX: box.left + 0.25 * box.width, clientY: box.top + 0.75 * box.height };
  const at = { ...place, pointerId: 1, bubbles: true };
  canvases[0].dispatchEvent(new PointerEvent("pointerdown", at));
  canvases[0].dispatchEvent(new PointerEvent("pointerup", at));
  found.push(seen());
  for (const key of ["PageDown", "ArrowLeft", "ArrowUp"]) {
    canvases[1].dispatchEvent(new KeyboardEvent("keydown", { key, bubbles: true, cancelable: true }));
  }
  found.push(seen());
  section.querySelector("[data-stage=fixed]").click();
  found.push(seen());
  out.id = "findings";
  out.textContent = JSON.stringify({ found, failures, copied });
  document.body.append(out);
})().catch((error) => document.body.append("DRIVER FAILED " + error));
</script></body>"""


def test_one_point_leads_three_planes(tmp_path: Path, make_content: Make, monkeypatch: pytest.MonkeyPatch):
    """A point chosen in one plane is the place of the others; every pixel is the voxel it stands for."""
    monkeypatch.setattr("test_page_in_browser.DRIVE", PLANES)
    content = make_content("accepted", 3)
    whole = volume(content)
    findings = drive(tmp_path, report_page(content), [])
    assert findings["failures"] == []
    start, clicked, moved, alone = findings["found"]
    z, y, x = whole.grid.shape
    assert start["sizes"] == [[y, x], [z, x], [z, y]]
    assert start["point"] == [z // 2, y // 2, x // 2]
    assert clicked["point"] == [z // 2, pytest.approx(0.75 * y, abs=1), pytest.approx(0.25 * x, abs=1)]
    assert clicked["slices"][1] == f"{clicked['point'][1] + 1} of {y}"
    assert moved["point"] == [z // 2 - 1, clicked["point"][1] + 1, clicked["point"][2] - 1]
    at = moved["point"]
    world = whole.grid.index_to_world(np.array([at], dtype=float))[0]
    shown = [float(word) for word in re.findall(r"-?[0-9.]+", moved["cursor"].replace("fixed world", ""))]
    np.testing.assert_allclose(shown, world[::-1], atol=0.06)
    cuts = [(at[0], ...), (slice(None), at[1]), (slice(None), slice(None), at[2])]
    for view, role in ((moved, "after"), (alone, "fixed")):
        for colours, size, cut in zip(view["colours"], view["sizes"], cuts, strict=True):
            pixels = np.array(colours).reshape(*size, 4).astype(float)
            off_cross = np.ones(size, dtype=bool)
            down, right = [v for k, v in enumerate(at) if k != cuts.index(cut)]
            off_cross[down], off_cross[:, right] = False, False
            for channel, expected in ((0, "fixed"), (1, role), (2, "fixed")):
                off = np.abs(pixels[..., channel] - whole.levels[expected][cut])[off_cross]
                assert np.median(off) < 4, "slightly compressed"
