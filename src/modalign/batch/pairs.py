"""A pair of images as a task: registered from files into a folder of its own."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from os.path import isdir
from pathlib import Path
from typing import Any

from modalign.batch.files import KINDS, Kind, as_record, content_files, sha256, write_files
from modalign.batch.registration import RegistrationJob
from modalign.batch.work import digest_of
from modalign.registration import method_to_dict

MARKER = "model.json"
"""File by which a folder is known to be a model."""


@dataclass(frozen=True)
class PairTask:
    """One row of a manifest.

    Attributes:
        name: Name of the pair and of its folder.
        job: What to register, and how.
        keep: Kinds of files to write beside the record.
    """

    name: str
    job: RegistrationJob
    keep: tuple[Kind, ...] = KINDS

    def digest(self) -> str:
        """Hash of the content of all files, whatever they are called, and of the configuration."""
        options = {key: value for key, value in asdict(self.job).items() if not isinstance(value, Path)}
        contents = [content_hash(path) for path in self.job.files]
        return digest_of(contents, options | {"method": method_to_dict(self.job.method)}, sorted(self.keep))

    def run(self, folder: Path) -> Mapping[str, Any]:
        """Register, write the files, and return the record."""
        finished = self.job.run()
        paths = write_files(finished, folder, self.keep)
        return as_record(finished, {name: path.name for name, path in paths.items()})


def content_hash(path: Path) -> str:
    """Hash of a file or model folder; what is not there has a hash as well, so that it is tried again once it is."""
    if isdir(path) and not (path / MARKER).is_file():
        return "some folder"
    try:
        return _content_hash(path, tuple(_stamp(file) for file in content_files(path)))
    except (OSError, ValueError):
        return "missing or unreadable"


def _stamp(file: Path) -> tuple[str, int, int]:
    status = file.stat()
    return file.name, status.st_mtime_ns, status.st_size


@lru_cache(maxsize=4096)
def _content_hash(path: Path, stamps: tuple[tuple[str, int, int], ...]) -> str:
    return sha256(path) if stamps else "missing or unreadable"
