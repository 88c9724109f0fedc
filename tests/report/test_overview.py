"""The overview of many registrations: worst first, harmless names, and filters that do what they say."""

import json
import re
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from modalign.report import OverviewRow, overview_page

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ROWS = [
    OverviewRow("good", "accepted", 0.99, "all parts agree", page="pairs/good/report.html", picture="pairs/good/o.png"),
    OverviewRow("fair", "accepted", 0.91, "most parts agree", page="pairs/fair/report.html"),
    OverviewRow("doubtful", "unsure", 0.62, "few parts agree", page="pairs/doubtful/report.html"),
    OverviewRow("lost", "refused", 0.02, "no part agrees", page="pairs/lost/report.html"),
    OverviewRow("away", "refused", 0.31, "less than 15 % overlap", page="pairs/away/report.html"),
    OverviewRow("gone", "failed", None, "gone.png: there is no such file"),
    OverviewRow("odd", "unheard of", None, "a status of another version"),
]
WORST_FIRST = ["odd", "gone", "lost", "away", "doubtful", "fair", "good"]
NASTY = "<script>alert(1)</script> & \"α\" {{ 7 * 7 }} 'x'"


def names(page: str) -> list[str]:
    return re.findall(r'<th scope="row">(?:<a [^>]*>)?([^<]*)<', page)


def test_worst_come_first_whatever_the_order() -> None:
    assert names(overview_page("All", ROWS)) == WORST_FIRST
    assert names(overview_page("All", ROWS[::-1])) == WORST_FIRST


def test_known_errors_decide_before_the_verdict() -> None:
    errors = {"good": 0.3, "lost": 0.01, "fair": float("inf")}
    rows = [replace(row, error=errors.get(row.name, 0.0)) for row in ROWS]
    assert names(overview_page("All", rows))[:3] == ["fair", "good", "lost"]


def test_names_reasons_and_commands_are_text() -> None:
    row = OverviewRow(NASTY, "failed", None, NASTY, ((NASTY, NASTY),))
    page = overview_page(NASTY, [row], [(NASTY, f"modalign batch {NASTY}")])
    assert NASTY not in page
    assert "49" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 8
    assert page.count("<script>") == 1


def test_links_are_relative_and_nothing_is_loaded_from_elsewhere() -> None:
    page = overview_page("All", ROWS)
    addresses = re.findall(r'(?:href|src)="([^"]*)"', page)
    assert {"pairs/good/report.html", "pairs/good/o.png"} <= set(addresses)
    assert all(address.startswith(("pairs/", "data:")) for address in addresses)
    assert "http" not in page


def test_details_stand_under_their_titles() -> None:
    rows = [
        OverviewRow("a", "accepted", 1.0, "", (("error", "0.1 µm"), ("seconds", "3"))),
        OverviewRow("b", "failed", None, "", (("seconds", "9"),)),
    ]
    page = overview_page("All", rows)
    titles = re.findall(r'<th scope="col"[^>]*>([^<]*)</th>', page)
    assert titles == ["Pair", "Verdict", "Confidence", "error", "seconds", "Why"]
    cells = [re.findall(r'<td class="number">([^<]*)</td>', row) for row in page.split("<tr data-status")[1:]]
    assert cells == [["", "", "9"], ["1.00", "0.1 µm", "3"]]


def test_page_without_rows_and_one_of_many() -> None:
    assert names(overview_page("None yet", [])) == []
    many = [
        OverviewRow(
            f"specimen_{i:05}_second_harmonic__specimen_{i:05}_bright_field",
            ("accepted", "unsure", "refused")[i % 3],
            i / 10_000,
            "4 of 4 parts of the image agree with it; no other place fits nearly as well",
            (("corner error", "12.34 µm"), ("landmarks", "0.56 µm")),
            f"pairs/specimen_{i:05}_second_harmonic__specimen_{i:05}_bright_field/report.html",
            f"pairs/specimen_{i:05}_second_harmonic__specimen_{i:05}_bright_field/overlay.png",
        )
        for i in range(10_000)
    ]
    page = overview_page("Many", many)
    assert len(page.encode()) < 10_000_000
    assert page.count('loading="lazy"') == 10_000


DRIVE = """<script>
const failures = [];
addEventListener("error", (event) => failures.push(event.message));
addEventListener("load", () => {
  const found = [];
  const look = () => found.push({
    names: [...document.querySelectorAll("tbody tr:not([hidden]) th")].map((cell) => cell.textContent.trim()),
    pressed: [...document.querySelectorAll("[aria-pressed=true]")].map((button) => button.dataset.status),
    said: document.querySelector("[role=status]").textContent,
  });
  look();
  for (const [status, words] of STEPS) {
    const search = document.querySelector("input[type=search]");
    search.value = words;
    search.dispatchEvent(new Event("input"));
    document.querySelector(`button[data-status="${status}"]`).click();
    look();
  }
  const out = document.createElement("pre");
  out.id = "findings";
  out.textContent = JSON.stringify({ found, failures });
  document.body.append(out);
});
</script></body>"""
FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking")


def drive(folder: Path, page: str, steps: list[tuple[str, str]]) -> list[dict[str, Any]]:
    """What a browser shows at the start and after each step."""
    path = folder / "index.html"
    path.write_text(page.replace("</body>", DRIVE.replace("STEPS", json.dumps(steps))), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(BROWSER), *FLAGS, "--virtual-time-budget=20000", "--dump-dom", profile, path.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", timeout=120, check=False)
    text = re.search(r'<pre id="findings">(.*?)</pre>', done.stdout, re.DOTALL)
    assert text, f"the browser did not finish: {done.stdout[-300:]} {done.stderr[-300:]}"
    findings = json.loads(text[1].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert findings["failures"] == []
    found: list[dict[str, Any]] = findings["found"]
    return found


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here; on Debian: apt-get install chromium")
def test_buttons_and_search_filter_together(tmp_path: Path) -> None:
    steps = [("refused", ""), ("refused", "OVERLAP"), ("", "overlap"), ("", "no such words"), ("unsure", ""), ("", "")]
    found = drive(tmp_path, overview_page("All", ROWS, [("Again:", "modalign batch")]), steps)
    assert [view["names"] for view in found] == [
        WORST_FIRST,
        ["lost", "away"],
        ["away"],
        ["away"],
        [],
        ["doubtful"],
        WORST_FIRST,
    ]
    assert [view["pressed"] for view in found] == [[""], ["refused"], ["refused"], [""], [""], ["unsure"], [""]]
    assert [view["said"] for view in found] == [f"{len(view['names'])} shown" for view in found]
