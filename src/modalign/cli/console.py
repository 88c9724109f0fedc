"""What the verbs share: parsing into a dataclass, progress on stderr, results on stdout."""

import json
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from modalign.io import plain

EXIT_NOT_TRUSTED = 3
"""Exit status of a verb whose result is not to be trusted."""

Command = TypeVar("Command")
Advance = Callable[[float, str], None]
"""Called with the finished fraction of the work, 0 to 1, and a short text."""


def parse(kind: type[Command], verb: str, arguments: Sequence[str]) -> Command:
    """A command from the arguments of the command line; prints help and leaves on ``--help`` or a usage error."""
    import tyro

    try:
        return tyro.cli(kind, prog=f"modalign {verb}", args=list(arguments))
    except SystemExit as leaving:
        if leaving.code:
            print(f"modalign: cannot understand the arguments; see 'modalign {verb} --help'", file=sys.stderr)
        raise


@contextmanager
def progress(title: str) -> Iterator[Advance]:
    """A progress bar with an estimate on stderr; where that is no terminal, a line every tenth of the way."""
    if not sys.stderr.isatty():
        yield _lines(title)
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    columns = ("{task.description}", BarColumn(), "{task.percentage:>3.0f}%", TextColumn("{task.fields[text]}"))
    clocks = (TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())
    with Progress(*columns, *clocks, console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=1.0, text="")
        yield lambda fraction, text: bar.update(task, completed=fraction, text=text)


def _lines(title: str) -> Advance:
    told = -1

    def advance(fraction: float, text: str) -> None:
        nonlocal told
        if int(10 * fraction) > told:
            told = int(10 * fraction)
            print(f"{title} {fraction:4.0%} {text}", file=sys.stderr, flush=True)

    return advance


def print_json(value: Any) -> None:
    """One JSON object on stdout; numbers that JSON cannot hold become null."""
    print(json.dumps(plain(value), indent=2, allow_nan=False))


def print_table(rows: Sequence[Mapping[str, object]]) -> None:
    """Rows of equal keys as an aligned table on stdout."""
    titles = list(rows[0])
    cells = [titles, *([str(row[title]) for title in titles] for row in rows)]
    widths = [max(len(line[column]) for line in cells) for column in range(len(titles))]
    for line in cells:
        print("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())
