"""What the verbs that train share: where the model goes, where its unfinished state lies, stopping between steps."""

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event
from types import FrameType

from modalign.errors import OutputError
from modalign.io import check_replaceable


def check_out(out: Path, *, overwrite: bool) -> None:
    """Refuse to write a model over what is there.

    Raises:
        OutputError: The folder holds a model that may not be replaced, or something else.
    """
    check_replaceable(out)
    if (out / "model.json").exists() and not overwrite:
        raise OutputError(out, "already holds a model; name another folder, or add --overwrite to replace it")


def unfinished_state(out: Path, *, resume: bool, overwrite: bool) -> Path:
    """The folder beside a model where the state of its unfinished training lies.

    Raises:
        OutputError: There is one, and it is neither to be taken up again nor to be given up.
    """
    state = out.with_name(out.name + ".training")
    if state.exists() and not (state / "progress.json").is_file():
        raise OutputError(state, "is in the way: the state of an unfinished training belongs there; move it away")
    if state.is_dir() and not (resume or overwrite):
        raise OutputError(
            state, "holds a training that was interrupted: go on with it (--resume), or begin anew (--overwrite)"
        )
    if overwrite and not resume:
        remove_state(state)
    if resume and not state.is_dir():
        print(f"note: there is no interrupted training in {state}: this one begins anew", file=sys.stderr)
    return state


@contextmanager
def interruptible(state: Path) -> Iterator[Event]:
    """An event that Ctrl-C or a termination sets, so that training stops where its state is whole.

    A second Ctrl-C stops at once. Says on leaving how to go on.
    """
    stopping = Event()

    def stop(_number: int, _frame: FrameType | None) -> None:
        stopping.set()
        signal.signal(signal.SIGINT, previous[signal.SIGINT])
        print("\nmodalign: stopping after this step; once more to stop at once", file=sys.stderr, flush=True)

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopping
    except KeyboardInterrupt:
        if state.is_dir():
            print(f"modalign: stopped; add --resume to go on (state in {state})", file=sys.stderr)
        raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


def remove_state(state: Path) -> None:
    """Remove the state of a training that is finished."""
    if state.is_dir():
        for path in state.iterdir():
            path.unlink()
        state.rmdir()
