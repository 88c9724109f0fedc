"""Machine code for the inner loops, kept on disk between runs where a folder for it can be written.

Modules with such loops are imported inside functions: numba takes long to import.
"""

import inspect
from collections.abc import Callable
from typing import Any, TypeVar

import numba

Function = TypeVar("Function", bound=Callable[..., Any])

UNSIGNED_ZERO = frozenset({"nsz"})
"""The one liberty taken with the rules of floating point: the sign of zero. Reordered sums would change the digits."""


def compiled(function: Function) -> Function:
    """The function as machine code that releases the interpreter lock, compiled at the first call with new types.

    Where neither the folder of the module nor the user's cache folder can be written, it is compiled in every process.
    """
    plain: Any = inspect.unwrap(function)  # tests wrap functions in checks that cannot be compiled
    options: dict[str, Any] = {"nogil": True, "error_model": "numpy", "fastmath": set(UNSIGNED_ZERO)}
    try:
        made: Function = numba.njit(cache=True, **options)(plain)
    except RuntimeError:  # numba found no folder to write to
        made = numba.njit(**options)(plain)
    return made
