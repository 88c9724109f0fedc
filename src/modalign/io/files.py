"""Writing without half-written files, reading without surprises, and JSON."""

import json
import math
import os
import re
import shutil
import threading
import uuid
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from modalign.errors import OutputError, UnreadableFileError
from modalign.io.names import stem

_STDERR = threading.Lock()
_LEFTOVER = re.compile(r"\..+-[0-9a-f]{8}(\..*)?")
"""Names that :func:`_sibling` gives."""


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside the final one, which takes its place when the block ends without an error.

    It has the suffix of the final path; missing parent folders are made. After an error or an interruption nothing is
    left of it, and an older file under the final name stays as it was.

    Raises:
        OutputError: The place cannot be written to.
    """
    path = Path(path)
    with _as_output_error(path):
        if path.is_dir():
            raise IsADirectoryError
        if path.exists() and not path.is_file():
            raise OutputError(path, "is a device or pipe, where a file is to be written; name another place")
        final = path.resolve()  # what a link points to is written, and the link stays
        temporary = _sibling(final)
        try:
            yield temporary
            os.replace(temporary, final)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_folder(path: str | Path, *, marker: str = "model.json") -> Iterator[Path]:
    """A temporary folder beside the final one, which takes its place when the block ends without an error.

    An existing folder is replaced only if it is empty or holds a file named ``marker``, so that a slip of the hand does
    not cost a folder of something else; this is checked before the block runs. After an error or an interruption the
    old folder is still there.

    Raises:
        OutputError: The place cannot be written to, or holds something that is not to be replaced.
    """
    path = Path(path)
    with _as_output_error(path):
        _check_replaceable(path, marker)
        final = path.resolve()
        temporary = _sibling(final)
        try:
            temporary.mkdir()
            yield temporary
            _swap(temporary, final)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


@contextmanager
def staged(folder: Path, names: Collection[str]) -> Iterator[Path]:
    """A temporary folder inside a folder, whose files take their places together when the block ends without an error.

    Older files of the given names go, whether they are replaced or not; all others stay. After an error or an
    interruption the older ones are still there.

    Raises:
        OutputError: The place cannot be written to.
    """
    with _as_output_error(folder):
        temporary = _sibling(folder / "results")
        temporary.mkdir()
        try:
            yield temporary
            for name in names:
                (folder / name).unlink(missing_ok=True)
            for path in sorted(temporary.iterdir()):
                os.replace(path, folder / path.name)
        finally:
            shutil.rmtree(temporary, ignore_errors=True)


def make_folder(path: str | Path) -> Path:
    """A folder to write into, made with its parents where it does not exist yet.

    Raises:
        OutputError: The place cannot be written to, or is a file.
    """
    path = Path(path)
    with _as_output_error(path):
        if path.exists() and not path.is_dir():
            raise OutputError(path, "is a file, where a folder is to be written; name another place")
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK):
            raise OutputError(path, "the folder cannot be written to; name another place")
    return path


def check_replaceable(path: str | Path, *, marker: str = "model.json") -> None:
    """Make sure that :func:`atomic_folder` will be able to write, before work is spent on what it is to hold.

    Raises:
        OutputError: As :func:`atomic_folder`.
    """
    with suppress(_Nothing), atomic_folder(path, marker=marker):
        raise _Nothing


class _Nothing(Exception):  # noqa: N818 - no error: it ends a trial that writes nothing
    """Ends the trial of a folder."""


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that were killed while they wrote have left in a folder under a temporary name."""
    for path in folder.iterdir() if folder.is_dir() else ():
        if _LEFTOVER.match(path.name):
            shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)


def read_json(path: str | Path) -> Any:
    """The content of a JSON file.

    Raises:
        UnreadableFileError: There is no such file, or it is not JSON.
    """
    path = require_file(path)
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise UnreadableFileError(path, f"is not valid JSON ({one_line(error)})") from error


def write_json(path: str | Path, value: Any) -> None:
    """Write a JSON file; NumPy numbers and arrays, paths and tuples are turned into plain JSON.

    Numbers that are not finite become ``null``, because JSON has no word for them.

    Raises:
        OutputError: The file cannot be written.
    """
    write_text(path, json.dumps(plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: str | Path, text: str) -> None:
    """Write text as UTF-8, all of it or nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes(path, text.encode())


def write_bytes(path: str | Path, content: bytes) -> None:
    """Write a file, all of it or nothing.

    Raises:
        OutputError: The file cannot be written.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def plain(value: Any) -> Any:
    """A value as plain JSON types; numbers that are not finite become ``None``."""
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | None) else str(value)


def require_file(path: str | Path) -> Path:
    """The path, once it is sure that there is a readable file with something in it.

    Raises:
        UnreadableFileError: There is no such file, it is a folder, it is empty, or reading is not permitted.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise UnreadableFileError(path, "the file is empty (0 bytes)")
    except FileNotFoundError as error:
        raise UnreadableFileError(path, "there is no such file") from error
    except IsADirectoryError as error:
        raise UnreadableFileError(path, "is a folder, where a file is needed") from error
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror or error})") from error
    return path


@contextmanager
def quiet_stderr() -> Iterator[None]:
    """Drop what C libraries write to standard error; what went wrong is said by the error that modalign raises.

    Standard error belongs to the whole process, so threads take turns here.
    """
    with _STDERR:
        try:
            saved = os.dup(2)
        except OSError:  # no standard error to keep clean
            yield
            return
        try:
            with open(os.devnull, "wb") as sink:
                os.dup2(sink.fileno(), 2)
            yield
        finally:
            os.dup2(saved, 2)
            os.close(saved)


def one_line(error: object) -> str:
    """The first line of what a library says, to be part of a message."""
    lines = str(error).strip().splitlines()
    return lines[0][:200] if lines else type(error).__name__


def _sibling(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.with_name(f".{stem(path)}-{uuid.uuid4().hex[:8]}{path.name[len(stem(path)) :]}")


def _swap(temporary: Path, path: Path) -> None:
    old = _sibling(path)
    if path.exists():
        os.replace(path, old)
    try:
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.replace(old, path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _check_replaceable(path: Path, marker: str) -> None:
    if path.is_dir() and any(path.iterdir()) and not (path / marker).is_file():
        raise OutputError(
            path, f"the folder holds files, but no {marker}: it is not replaced; name a new or empty folder"
        )
    if path.exists() and not path.is_dir():
        raise OutputError(path, "is a file, where a folder is to be written; name another place")


@contextmanager
def _as_output_error(path: Path) -> Iterator[None]:
    try:
        yield
    except IsADirectoryError as error:
        raise OutputError(path, "is a folder; name a file inside it") from error
    except (NotADirectoryError, FileExistsError) as error:
        raise OutputError(path, "a part of the path is a file, not a folder; name another place") from error
    except OSError as error:
        raise OutputError(path, f"cannot be written ({error.strerror or error})") from error
