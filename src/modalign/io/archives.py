"""Unpacking archives from elsewhere: nothing gets out of the folder, and nothing half-unpacked is taken for whole."""

import shutil
import stat
import tarfile
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from modalign.errors import OutputError, UnreadableFileError
from modalign.io.files import make_folder, one_line

SUFFIXES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
"""Endings of the archives that :func:`unpack` knows."""
ROOM = 1 << 24
"""Bytes that stay free on the disk."""


def is_archive(path: Path) -> bool:
    """Whether a file is an archive by its name."""
    return path.name.lower().endswith(SUFFIXES)


def unpack(archive: Path, folder: Path) -> None:
    """Unpack a zip or tar file into a folder; links and devices in it are refused.

    Raises:
        UnreadableFileError: It is damaged, or a path in it leads out of the folder.
        OutputError: The folder cannot be written to, or the disk has too little room.
    """
    make_folder(folder)
    try:
        if archive.name.lower().endswith(".zip"):
            _unzip(archive, folder)
        else:
            _untar(archive, folder)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, NotImplementedError, RuntimeError) as error:
        raise UnreadableFileError(archive, f"cannot be unpacked ({one_line(error)})") from error
    except OSError as error:
        raise OutputError(folder, f"cannot be written ({error.strerror or error})") from error


def _unzip(archive: Path, folder: Path) -> None:
    with zipfile.ZipFile(archive) as source:
        entries = source.infolist()
        for entry in entries:
            _check_name(archive, entry.filename)
            if stat.S_ISLNK(entry.external_attr >> 16):
                raise UnreadableFileError(archive, f"holds a link ({entry.filename}), which is not unpacked")
        _check_room(folder, sum(entry.file_size for entry in entries))
        for entry in entries:
            source.extract(entry, folder)


def _untar(archive: Path, folder: Path) -> None:
    with tarfile.open(archive) as source:
        members = source.getmembers()
        for member in members:
            _check_name(archive, member.name)
            if not (member.isfile() or member.isdir()):
                raise UnreadableFileError(archive, f"holds a link or device ({member.name}), which is not unpacked")
        _check_room(folder, sum(member.size for member in members))
        source.extractall(folder, members, filter="data")


def _check_name(archive: Path, name: str) -> None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not parts or ".." in parts or parts[0].startswith("/") or ":" in parts[0]:
        raise UnreadableFileError(
            archive, f"holds a path that leads out of its folder ({name!r}): nothing was unpacked"
        )


def _check_room(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if needed + ROOM > free:
        raise OutputError(
            folder, f"the disk has {free / 1e9:.1f} GB left, where {needed / 1e9:.1f} GB are to be unpacked"
        )
