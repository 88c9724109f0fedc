"""Files from the network: whole and checked, or not there. A download that was cut off goes on where it ended."""

import hashlib
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

from modalign.errors import InvalidInputError, OutputError, UnreadableFileError
from modalign.io.files import make_folder, one_line

BLOCK = 1 << 20
"""Bytes read at a time."""
LARGEST_DESCRIPTION = 1 << 26
"""A JSON answer of more bytes is not read."""
GOES_AWAY = frozenset({408, 425, 429, 500, 502, 503, 504})
"""Answers of servers that may be another one a moment later."""
PART = ".part"
"""Ending of a file that is not whole yet."""

Progress = Callable[[int, int | None], None]
"""Called with the bytes that are there, and how many there will be, if that is known."""


@dataclass(frozen=True)
class Patience:
    """How long a server is waited for."""

    tries: int = 6
    """Attempts in a row that bring nothing, before it is given up."""
    pause: float = 2.0
    """Seconds before the second attempt; twice as long before each further one, at most a minute."""
    timeout: float = 60.0
    """Seconds of silence after which a connection counts as broken."""


@dataclass(frozen=True)
class RemoteFile:
    """A file on a server.

    Attributes:
        url: Where it is.
        name: What it is called.
        size: Bytes, if known.
        checksum: Such as ``md5:9e10…`` or ``sha256:…``, as its publisher states it; ``None`` where unknown.
    """

    url: str
    name: str
    size: int | None = None
    checksum: str | None = None

    def __post_init__(self) -> None:
        if Path(self.name).name != self.name or self.name in ("", ".", ".."):
            raise InvalidInputError(f"{self.name!r} is no name for a file")
        if self.checksum is not None and not _known(self.checksum):
            raise InvalidInputError(f"a checksum is written as md5:… or sha256:…, not {self.checksum!r}")


def download(
    file: RemoteFile, folder: Path, progress: Progress | None = None, patience: Patience | None = None
) -> Path:
    """Bring a file into a folder; one that is there already is kept.

    Until it is whole and its checksum is right it is called ``NAME.part``, which stays where the connection breaks or
    the program is interrupted: the next call asks the server for the rest of it only.

    Raises:
        UnreadableFileError: The server has no such file, breaks off again and again, or sends other content than the
            size or the checksum state.
        OutputError: The folder cannot be written to, or the disk is full.
        InvalidInputError: The address is not one of the web.
    """
    path = make_folder(folder) / file.name
    if path.is_file():
        return path
    part = path.with_name(path.name + PART)
    try:
        _complete(file, part, progress or _silent, patience or Patience())
        _check(file, part)
        os.replace(part, path)
    except OSError as error:  # what the network raises is dealt with below this
        raise OutputError(path, f"cannot be written ({error.strerror or error})") from error
    return path


def read_remote_json(url: str, patience: Patience | None = None) -> Any:
    """What a server answers in JSON.

    Raises:
        UnreadableFileError: It cannot be reached, has no such page, or answers something else.
    """
    patience = patience or Patience(tries=3)
    for number in range(patience.tries):
        try:
            with _opened(url, {"Accept": "application/json"}, patience) as answer:
                return json.loads(answer.read(LARGEST_DESCRIPTION))
        except _Interrupted as broken:
            problem = str(broken)
        except (ValueError, RecursionError) as error:
            raise UnreadableFileError(url, f"is not valid JSON ({one_line(error)})") from error
        _wait(number, patience)
    raise UnreadableFileError(url, f"cannot be reached ({problem}); check the network and try again")


class _Interrupted(Exception):  # noqa: N818 - no error yet: it is tried again
    """The connection was not made or broke."""


def _complete(file: RemoteFile, part: Path, progress: Progress, patience: Patience) -> None:
    """Fetch until the part is whole; give up after some attempts in a row without a single byte."""
    failures, there = 0, _size(part)
    while True:
        try:
            return _fetch(file, part, progress, patience)
        except _Interrupted as broken:
            failures, there = (failures + 1, there) if _size(part) <= there else (1, _size(part))
            if failures >= patience.tries:
                got = f"{there:,} bytes are kept; the same command goes on from there" if there else "nothing came"
                raise UnreadableFileError(file.url, f"the connection fails ({broken}); {got}") from broken
            _wait(failures - 1, patience)


def _fetch(file: RemoteFile, part: Path, progress: Progress, patience: Patience) -> None:
    """One connection: append what is missing, or begin anew where the server cannot send a part of the file."""
    there = _size(part)
    if file.size is not None and there >= file.size:
        return progress(there, file.size)
    with _opened(file.url, {"Range": f"bytes={there}-"} if there else {}, patience) as answer:
        if answer.status == 416:  # what is there is the whole file, or is of another one
            return _settle(answer.headers.get("Content-Range", ""), part)
        there = there if answer.status == 206 and _begins(answer.headers.get("Content-Range", "")) == there else 0
        length = answer.headers.get("Content-Length")
        size = there + int(length) if length and length.isdigit() else file.size
        if None not in (size, file.size) and size != file.size:
            raise UnreadableFileError(file.url, f"is of {size:,} bytes, where its publisher states {file.size:,}")
        with part.open("ab" if there else "wb") as sink:
            for block in _blocks(answer):
                sink.write(block)
                there += len(block)
                progress(there, size)
    if size is not None and there < size:
        raise _Interrupted(f"it broke off after {there:,} of {size:,} bytes")
    return None


def _settle(content_range: str, part: Path) -> None:
    """The server has nothing beyond what is there: right if that is the whole file, else everything is fetched anew."""
    if content_range.rpartition("/")[2] != str(_size(part)):
        part.unlink(missing_ok=True)
        raise _Interrupted("the part that was there belongs to another file")


def _blocks(answer: Any) -> Any:
    while True:
        try:
            block = answer.read(BLOCK)
        except (OSError, HTTPException) as error:
            raise _Interrupted(one_line(error)) from error
        if not block:
            return
        yield block


def _opened(url: str, headers: dict[str, str], patience: Patience) -> Any:
    from urllib.error import HTTPError, URLError
    from urllib.request import Request, urlopen

    if not url.lower().startswith(("https://", "http://")):
        raise InvalidInputError(f"{url!r} is no address of the web, which begins with https://")
    request = Request(url, headers={"User-Agent": "modalign", "Accept-Encoding": "identity", **headers})
    try:
        return urlopen(request, timeout=patience.timeout)
    except HTTPError as error:
        if error.code == 416:
            return error
        error.close()
        if error.code in GOES_AWAY:
            raise _Interrupted(f"the server answers {error.code}") from error
        raise UnreadableFileError(url, f"the server answers {error.code} {error.reason}") from error
    except URLError as error:
        raise _Interrupted(one_line(error.reason)) from error
    except (OSError, HTTPException) as error:
        raise _Interrupted(one_line(error)) from error


def _check(file: RemoteFile, part: Path) -> None:
    """Remove a part with another content than stated, so that the next attempt begins anew."""
    if file.checksum is None:
        return
    kind, _, stated = file.checksum.partition(":")
    with part.open("rb") as source:
        found = hashlib.file_digest(source, lambda: hashlib.new(kind, usedforsecurity=False)).hexdigest()
    if found != stated.lower():
        part.unlink(missing_ok=True)
        raise UnreadableFileError(
            file.url, f"came with the {kind} checksum {found}, where its publisher states {stated}; it was removed"
        )


def _silent(done: int, size: int | None) -> None:
    """Progress that nobody follows."""


def _known(checksum: str) -> bool:
    kind, colon, digits = checksum.partition(":")
    return bool(colon and digits) and kind in ("md5", "sha256", "sha512")


def _begins(content_range: str) -> int:
    """Where a part of a file begins: 5 for ``bytes 5-9/10``; −1 where that is not told."""
    start = content_range.removeprefix("bytes").strip().partition("-")[0]
    return int(start) if start.isdigit() else -1


def _size(part: Path) -> int:
    return part.stat().st_size if part.is_file() else 0


def _wait(failures: int, patience: Patience) -> None:
    time.sleep(min(60.0, patience.pause * 2**failures))
