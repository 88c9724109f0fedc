"""Named arrays in one safetensors file: weights and checkpoints, never a pickle."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from modalign.errors import UnreadableFileError
from modalign.io.files import write_bytes

DTYPES = {"I64": np.int64, "I32": np.int32, "F32": np.float32, "F64": np.float64, "U8": np.uint8, "BOOL": np.bool_}
"""The types of safetensors that can be mapped."""


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any shape and numeric type under their names.

    Raises:
        OutputError: The file cannot be written.
    """
    write_bytes(path, bytes_of_arrays(arrays))


def bytes_of_arrays(arrays: Mapping[str, np.ndarray]) -> bytes:
    """The content of such a file."""
    from safetensors.numpy import save

    return save({name: np.ascontiguousarray(array) for name, array in arrays.items()})


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote.

    Raises:
        UnreadableFileError: The file is missing, truncated, or not a safetensors file.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror})") from error
    return arrays_of_bytes(content, path)


def arrays_of_bytes(content: bytes, name: str | Path = "content") -> dict[str, np.ndarray]:
    """The arrays of :func:`bytes_of_arrays`.

    Args:
        content: What it made.
        name: What to call it in errors.

    Raises:
        UnreadableFileError: It is truncated, or something else.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(content))
    except SafetensorError as error:
        raise UnreadableFileError(name, f"not a complete safetensors file ({error})") from error


def map_arrays(path: Path) -> dict[str, np.ndarray]:
    """What :func:`write_arrays` wrote, read from the file where it is looked at; the arrays cannot be changed.

    Raises:
        UnreadableFileError: As for :func:`read_arrays`.
    """
    try:
        with path.open("rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
        entries = {name: entry for name, entry in header.items() if name != "__metadata__"}
        return {name: _mapped(path, 8 + size, entry) for name, entry in entries.items()}
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror})") from error
    except (ValueError, KeyError, TypeError, MemoryError, OverflowError) as error:
        raise UnreadableFileError(path, f"not a complete safetensors file ({error})") from error


def _mapped(path: Path, start: int, entry: Mapping[str, Any]) -> np.ndarray:
    dtype, shape, (first, last) = DTYPES[entry["dtype"]], tuple(entry["shape"]), entry["data_offsets"]
    if first == last:  # nothing can be mapped
        return np.zeros(shape, dtype)
    return np.memmap(path, dtype, "r", start + first, shape)
