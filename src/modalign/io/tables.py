"""Tables as CSV with a header."""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from modalign.errors import UnreadableFileError
from modalign.io.files import atomic_path, one_line, require_file


@dataclass(frozen=True)
class Table:
    """Columns, and rows with the number of the line that each ends on, which error messages need."""

    columns: tuple[str, ...]
    rows: tuple[tuple[int, dict[str, str]], ...]


def read_table(path: str | Path) -> list[dict[str, str]]:
    """The rows of a table with a header, separated by commas, semicolons or tabs; blank lines are skipped.

    Raises:
        UnreadableFileError: No such file, no header, a column twice, or a row with more or fewer values than the
            header; the message names the line.
    """
    return [row for _, row in parse_table(path).rows]


def write_table(path: str | Path, rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None) -> None:
    """Write rows as CSV; the columns are those given, or all that occur, in order of appearance.

    Raises:
        OutputError: The file cannot be written.
    """
    rows = list(rows)
    columns = list(dict.fromkeys(key for row in rows for key in row)) if columns is None else columns
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def parse_table(path: str | Path) -> Table:
    """Read a table with its line numbers; errors as :func:`read_table`."""
    path = require_file(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
        reader = csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True)
        header = _checked_header(path, next(reader, []))
        rows = [(reader.line_num, _row(path, reader.line_num, header, values)) for values in reader if any(values)]
    except UnicodeDecodeError as error:
        raise UnreadableFileError(path, "is not a table in CSV of UTF-8 text; save it as 'CSV UTF-8'") from error
    except csv.Error as error:
        raise UnreadableFileError(path, f"is not a table in CSV ({one_line(error)})") from error
    return Table(header, tuple(rows))


def _delimiter(text: str) -> str:
    first = text.partition("\n")[0]
    return max(",;\t", key=first.count)


def _checked_header(path: Path, titles: Sequence[str]) -> tuple[str, ...]:
    header = tuple(title.strip() for title in titles)
    if not any(header):
        raise UnreadableFileError(path, "the first line must be a header that names the columns")
    twice = [title for title in header if header.count(title) > 1]
    if twice:
        raise UnreadableFileError(path, f"the column {twice[0]!r} occurs twice in the header")
    return header


def _row(path: Path, line: int, header: Sequence[str], values: Sequence[str]) -> dict[str, str]:
    if len(values) != len(header):
        raise UnreadableFileError(path, f"line {line} has {len(values)} values, the header {len(header)}")
    return {title: value.strip() for title, value in zip(header, values, strict=True)}
