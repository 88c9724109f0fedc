"""Named arrays in one safetensors file: weights and checkpoints, never a pickle."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from modalign.errors import UnreadableFileError
from modalign.io.files import atomic_path


def write_arrays(path: Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Write arrays of any shape and numeric type under their names.

    Raises:
        OutputError: The file cannot be written.
    """
    from safetensors.numpy import save

    content = save({name: np.ascontiguousarray(array) for name, array in arrays.items()})
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read what :func:`write_arrays` wrote.

    Raises:
        UnreadableFileError: The file is missing, truncated, or not a safetensors file.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        return dict(load(path.read_bytes()))
    except OSError as error:
        raise UnreadableFileError(path, f"cannot be read ({error.strerror})") from error
    except SafetensorError as error:
        raise UnreadableFileError(path, f"not a complete safetensors file ({error})") from error
