"""What the verbs share: parsing into a dataclass, progress and warnings on stderr, results on stdout."""

import json
import signal
import sys
import threading
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import fields, is_dataclass
from io import StringIO
from pathlib import Path
from threading import Lock, Timer
from types import FrameType
from typing import Any, TypeVar, get_args

from modalign.errors import InvalidInputError, OutputError
from modalign.io import StoredTransform, plain

EXIT_NOT_TRUSTED = 3
"""Exit status of a verb whose result is not to be trusted."""
NOT_FINITE = frozenset({"nan", "inf", "infinity"})
PATIENCE = 5.0
"""Seconds that a verb may take before it says what it is doing."""

Command = TypeVar("Command")
Advance = Callable[[float, str], None]
"""Called with the finished fraction of the work, 0 to 1, and a short text."""


def parse(kind: type[Command], verb: str, arguments: Sequence[str], *, may_be_nan: Collection[str] = ()) -> Command:
    """A command from the arguments of the command line; prints help and leaves on ``--help`` or a usage error.

    Args:
        kind: The dataclass of the command.
        verb: Its name.
        arguments: What the user typed after it.
        may_be_nan: Fields for which numbers that are not finite make sense.

    Raises:
        InvalidInputError: A number is not finite, or options do not go together.
    """
    import tyro

    _check_finite(kind, arguments, may_be_nan)
    told = StringIO()
    try:
        with redirect_stderr(told):
            return tyro.cli(kind, prog=f"modalign {verb}", args=list(arguments))
    except SystemExit as leaving:
        if isinstance(leaving.__context__, InvalidInputError):  # ours: told like all others, not in the parser's words
            raise leaving.__context__ from None
        print(told.getvalue(), end="", file=sys.stderr)
        if leaving.code:
            print(f"modalign: cannot understand the arguments; see 'modalign {verb} --help'", file=sys.stderr)
        raise


def _check_finite(kind: type, arguments: Sequence[str], may_be_nan: Collection[str]) -> None:
    """Refuse nan and infinity as values of numbers, before checks of their ranges do so without naming the option."""
    numbers = set(_number_fields(kind)) - set(may_be_nan)
    option = ""
    for word in arguments:
        named = word.startswith("--")
        option, _, value = word.partition("=") if named else (option, "", word)
        if (
            option.lstrip("-").rpartition(".")[2].replace("-", "_") in numbers
            and value.lower().lstrip("+-") in NOT_FINITE
        ):
            raise InvalidInputError(f"{option} needs finite numbers, not {value}")


def _number_fields(kind: Any) -> Iterator[str]:
    """Names of the fields that hold fractional numbers, also of options within options."""
    for entry in fields(kind):
        parts = list(_parts(entry.type))
        if float in parts:
            yield entry.name
        for part in filter(is_dataclass, parts):
            yield from _number_fields(part)


def _parts(annotation: Any) -> Iterator[Any]:
    """A type and all that it is made of."""
    yield annotation
    for part in get_args(annotation):
        yield from _parts(part)


def check_device(device: str, *, has_model: bool) -> None:
    """Refuse a device that nothing would compute on.

    Raises:
        InvalidInputError: It is not the usual one, and there is no model.
    """
    if device != "cpu" and not has_model:
        raise InvalidInputError(f"--device {device} needs --model: without a model no network computes")


def warn_unless_trusted(path: Path, stored: StoredTransform) -> None:
    """Say on stderr that a transform comes from a registration that was not accepted."""
    status = stored.info.get("status", "accepted")
    if status != "accepted":
        advice = "it is most likely wrong" if status == "refused" else "look at its report before using it"
        print(f"warning: {path} is the transform of a registration that is {status}: {advice}", file=sys.stderr)


@contextmanager
def stages(verb: str, patience: float = PATIENCE) -> Iterator[Callable[[str], None]]:
    """A function that tells the stages of the work on stderr, for work that takes longer than ``patience`` seconds.

    Quick work says nothing. Once the time is over, the stage at hand is told, and all later ones as they begin.
    """
    lock, now, awake = Lock(), "", False

    def tell(stage: str, *, wake: bool = False) -> None:
        nonlocal now, awake
        with lock:
            now, awake = stage or now, awake or wake
            if awake and now:
                print(f"{verb}: {now} ...", file=sys.stderr, flush=True)

    timer = Timer(patience, tell, ("",), {"wake": True})
    timer.daemon = True
    timer.start()
    try:
        yield tell
    finally:
        timer.cancel()


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
        if int(10 * fraction) != told:  # a fraction that falls back belongs to the next phase
            told = int(10 * fraction)
            print(f"{title} {fraction:4.0%} {text}", file=sys.stderr, flush=True)

    return advance


@contextmanager
def remembered_interrupts() -> Iterator[Callable[[], None]]:
    """A check that raises KeyboardInterrupt once Ctrl-C has come, where the one raised then was lost.

    Python loses one that is raised in a destructor or in the callback of a library.
    """
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as of a job in the background
        yield lambda: None
        return
    came = threading.Event()

    def interrupt(number: int, frame: FrameType | None) -> None:
        came.set()
        signal.default_int_handler(number, frame)

    def check() -> None:
        if came.is_set():
            raise KeyboardInterrupt

    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield check
    finally:
        signal.signal(signal.SIGINT, before)


def checked(advance: Advance, check: Callable[[], None]) -> Advance:
    """Progress that also notices interruptions, see :func:`remembered_interrupts`."""

    def tell(fraction: float, text: str) -> None:
        check()
        advance(fraction, text)

    return tell


def keep_inputs(out: Path, inputs: Iterable[Path]) -> None:
    """Refuse to write over what is read: there would be no way back, and a second run would start from the first.

    Raises:
        OutputError: The output is one of the inputs, or lies in a folder that is one, or holds one.
    """
    place = out.resolve()
    for path in inputs:
        read = path.resolve()
        if place == read or place in read.parents or (path.is_dir() and read in place.parents):
            raise OutputError(out, f"would be written over {path}, which is read; give another name to --out")


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
