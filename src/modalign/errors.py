"""The errors that modalign raises on purpose.

::

    ModalignError                 every error a user can cause, and nothing else
    ├── InvalidInputError         a value, image or option that cannot be used (also a ValueError)
    │   ├── DimensionError        a method that does not exist for this number of dimensions
    │   └── NotInvertibleError    a transform without an inverse
    ├── FileError                 something about one file
    │   ├── UnreadableFileError   missing, empty, truncated, or not what its name says
    │   ├── UnsupportedFormatError
    │   └── OutputError           the place to write to cannot be used
    ├── PairingError              a pairs folder or table that does not pair up
    ├── ModelError                a model folder that is incomplete, foreign, or does not fit the images
    ├── TrainingError             training that cannot start or cannot go on
    ├── BatchError                many tasks that cannot start or cannot go on: manifest, plan, workers, cluster
    └── SearchError               an index of images that cannot be made, opened or searched
        └── NoIndexError          there is none

A message says what is wrong, with which file or value, and what would have worked. The command line prints it as one
line and exits with status 2.
"""

from collections.abc import Iterable
from pathlib import Path


class ModalignError(Exception):
    """Base class of every error that a user can cause."""


class InvalidInputError(ModalignError, ValueError):
    """A value, image or option that cannot be used."""


class DimensionError(InvalidInputError):
    """A method was asked for a number of dimensions in which it does not exist."""

    def __init__(self, method: str, ndim: int, alternatives: Iterable[str] = ()) -> None:
        names = ", ".join(sorted(alternatives)) or "none yet"
        super().__init__(f"{method} does not work on {ndim}D images. Methods that do: {names}.")


class NotInvertibleError(InvalidInputError):
    """A transform has no inverse."""


class FileError(ModalignError):
    """Something is wrong with one file."""

    def __init__(self, path: str | Path, problem: str) -> None:
        self.path = Path(path)
        self.problem = problem
        super().__init__(f"{path}: {problem}")


class UnreadableFileError(FileError):
    """A file is missing, empty, truncated, or not what its name says."""


class UnsupportedFormatError(FileError):
    """A file has a format that modalign does not know."""


class OutputError(FileError):
    """A file or folder cannot be written."""


class PairingError(ModalignError):
    """The images of a pairs folder or table do not pair up."""


class ModelError(ModalignError):
    """A model folder is incomplete, foreign, or does not fit the images it is used on."""


class TrainingError(ModalignError):
    """Training cannot start or cannot go on."""


class BatchError(ModalignError):
    """Many tasks cannot start or cannot go on: the manifest, the plan, the workers or the cluster."""


class SearchError(ModalignError):
    """An index of images cannot be made, opened or searched."""


class NoIndexError(SearchError):
    """There is no index in a place."""

    def __init__(self, place: str | Path) -> None:
        super().__init__(f"{place} holds no index: make one with 'modalign index build'")
