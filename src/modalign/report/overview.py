"""Many registrations as one HTML page: the worst first, with a link to the page of each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from modalign import __version__
from modalign.report.page import environment

ORDER = {"failed": 0, "refused": 1, "unsure": 2, "accepted": 3}
"""Statuses as they are listed; any other comes first."""


@dataclass(frozen=True)
class OverviewRow:
    """One registration in the overview.

    Attributes:
        name: Name of the pair.
        status: ``accepted``, ``unsure``, ``refused`` or ``failed``.
        confidence: Probability that the result is right; ``None`` where there is no result.
        reason: Why it has this status.
        details: More to show, by title, such as an error against a known truth; the same titles in all rows.
        page: Address of the page of this pair, relative to this one; empty where there is none.
        picture: Address of an overlay, likewise.
        error: Error against a known truth, in any unit; rows with larger ones are listed first.
    """

    name: str
    status: str
    confidence: float | None
    reason: str
    details: tuple[tuple[str, str], ...] = ()
    page: str = ""
    picture: str = ""
    error: float = 0.0


def overview_page(title: str, rows: Sequence[OverviewRow], commands: Sequence[tuple[str, str]] = ()) -> str:
    """The page as HTML; its scripts only filter the rows, and without them all are shown.

    Args:
        title: What the registrations belong to.
        rows: The registrations in any order.
        commands: Purposes and command lines to copy.
    """
    counts = Counter(row.status for row in rows)
    statuses = sorted(counts, key=lambda status: ORDER.get(status, -1))
    listed = sorted(rows, key=lambda row: (-row.error, ORDER.get(row.status, -1), row.confidence or 0.0, row.name))
    titles = list(dict.fromkeys(title for row in rows for title, _ in row.details))
    return (
        environment()
        .get_template("overview.html")
        .render(
            title=title,
            version=__version__,
            rows=listed,
            titles=titles,
            counts=[(status, counts[status]) for status in statuses],
            commands=commands,
            has_pictures=any(row.picture for row in rows),
        )
    )
