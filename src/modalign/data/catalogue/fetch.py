"""Getting a set: what its publisher offers, and a folder that is there once all of it is."""

import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from fnmatch import fnmatch
from functools import partial
from pathlib import Path
from typing import Any

from modalign.data.catalogue.entry import Entry
from modalign.errors import InvalidInputError, OutputError, UnreadableFileError
from modalign.io import make_folder, write_json
from modalign.io.archives import is_archive, unpack
from modalign.io.download import PART, Patience, RemoteFile, download, read_remote_json

SERVER = "https://zenodo.org/api/records"
"""Where records are described: ``SERVER/NUMBER`` is the JSON of a record."""
RECEIPT = "modalign-set.json"
"""Written into the folder of a set: what it is, from where, under which licence, with which checksums."""

Progress = Callable[[str, int, int | None], None]
"""Called with what is being fetched, the bytes that are there, and how many there will be, if that is known."""


@dataclass(frozen=True)
class Offer:
    """What the publisher of a set offers, in his own words.

    Attributes:
        title: Title of the record.
        licence: Name of the licence; ``None`` where the record names none.
        files: The files that belong to the set.
    """

    title: str
    licence: str | None
    files: tuple[RemoteFile, ...]

    @property
    def size(self) -> int | None:
        """Bytes of all files; ``None`` where one of them is unknown."""
        sizes = [file.size for file in self.files]
        return None if None in sizes else sum(size for size in sizes if size is not None)

    @property
    def unchecked(self) -> tuple[str, ...]:
        """Names of the files for which the publisher states no checksum."""
        return tuple(file.name for file in self.files if file.checksum is None)


def offer(entry: Entry, server: str = SERVER, patience: Patience | None = None) -> Offer:
    """Ask the publisher of a set what it consists of.

    Raises:
        UnreadableFileError: The server cannot be reached, or its record is not understood or lacks the set's files.
    """
    url = f"{server.rstrip('/')}/{entry.record}"
    record = read_remote_json(url, patience)
    try:
        files = [_file(described) for described in record["files"]]
        licence = (record.get("metadata") or {}).get("license") or {}
        title = str((record.get("metadata") or {}).get("title") or entry.title)
    except (KeyError, TypeError, AttributeError, InvalidInputError) as error:
        raise UnreadableFileError(url, f"is no record of files that modalign understands ({error!r})") from error
    fitting = tuple(f for f in files if any(fnmatch(f.name.lower(), pattern) for pattern in entry.wanted))
    if not fitting:
        names = ", ".join(file.name for file in files) or "nothing"
        raise UnreadableFileError(url, f"lists no file called {' or '.join(entry.wanted)}; it lists {names}")
    return Offer(title, licence.get("id") if isinstance(licence, dict) else str(licence), fitting)


def get(
    entry: Entry,
    offered: Offer,
    folder: Path,
    progress: Progress | None = None,
    patience: Patience | None = None,
) -> Path:
    """Fetch and unpack a set into ``folder/NAME``, which appears once everything is there and checked.

    Until then the files are in ``folder/NAME.part``, and the same call goes on with them. The licence is for the caller
    to have accepted.

    Returns:
        The folder of the set; at once where it is there already.

    Raises:
        UnreadableFileError: A file cannot be fetched, its checksum is wrong, or an archive is damaged or unsafe.
        OutputError: The place cannot be written to, has too little room, or is taken by something else.
    """
    final = make_folder(folder) / entry.name
    if (final / RECEIPT).is_file():
        return final
    if final.exists():
        raise OutputError(
            final, f"exists and was not made by modalign (no {RECEIPT}); name another folder or remove it"
        )
    work = make_folder(final.with_name(entry.name + PART))
    _check_room(work, offered)
    fetched = [download(file, work, progress and partial(progress, file.name), patience) for file in offered.files]
    whole = _unpacked(work, fetched)
    write_json(whole / RECEIPT, _receipt(entry, offered))
    _take_place(whole, final, work)
    return final


def _unpacked(work: Path, files: list[Path]) -> Path:
    whole = work / "unpacked"
    shutil.rmtree(whole, ignore_errors=True)
    make_folder(whole)
    for path in files:
        if is_archive(path):
            unpack(path, whole)
        else:
            shutil.copyfile(path, whole / path.name)
    return whole


def _take_place(whole: Path, final: Path, work: Path) -> None:
    try:
        os.replace(whole, final)
    except OSError as error:
        raise OutputError(final, f"cannot be written ({error.strerror or error})") from error
    shutil.rmtree(work, ignore_errors=True)


def _check_room(work: Path, offered: Offer) -> None:
    """Refuse before the first byte what would fill the disk: archives need room once packed and once unpacked."""
    if offered.size is None:
        return
    there = sum(path.stat().st_size for path in work.iterdir() if path.is_file())
    needed = 2 * offered.size - there
    free = shutil.disk_usage(work).free
    if needed > free:
        raise OutputError(work, f"the disk has {free / 1e9:.1f} GB left, where {needed / 1e9:.1f} GB are needed")


def _file(described: dict[str, Any]) -> RemoteFile:
    links = described["links"]
    url = links.get("content") or links.get("self") or links["download"]
    checksum, size = described.get("checksum"), described.get("size")
    return RemoteFile(str(url), str(described["key"]), None if size is None else int(size), checksum)


def _receipt(entry: Entry, offered: Offer) -> dict[str, Any]:
    return {
        "name": entry.name,
        "title": offered.title,
        "doi": entry.doi,
        "licence": offered.licence,
        "citation": entry.citation,
        "files": [{"name": f.name, "url": f.url, "size": f.size, "checksum": f.checksum} for f in offered.files],
    }
