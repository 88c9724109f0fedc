"""How strongly values on a circle, or a sphere, vary with each harmonic: what no rotation changes."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float
from scipy.special import sph_harm_y

Array = np.ndarray
Basis = list[Float[Array, "directions functions"]]
"""For each degree, the functions that rotations mix with each other, at every direction."""


def powers(
    values: Float[Array, "*rows directions"], directions: Float[Array, "directions ndim"], degree: int
) -> Float[Array, "*rows degrees"]:
    """The length of the part of each degree, from 0 to ``degree``.

    Args:
        values: Samples of functions on the circle or the sphere.
        directions: Unit vectors, evenly spread; ``(y, x)`` or ``(z, y, x)``.
        degree: The highest one.
    """
    basis = BASES[directions.shape[1]](directions, degree)
    return np.stack([np.linalg.norm(values @ part, axis=-1) for part in basis], axis=-1)


def _circular(directions: Float[Array, "directions 2"], degree: int) -> Basis:
    angle = np.arctan2(directions[:, 0], directions[:, 1])
    return [np.stack([np.cos(k * angle), np.sin(k * angle)], 1) / len(angle) for k in range(degree + 1)]


def _spherical(directions: Float[Array, "directions 3"], degree: int) -> Basis:
    polar, azimuth = np.arccos(np.clip(directions[:, 0], -1, 1)), np.arctan2(directions[:, 1], directions[:, 2])
    complex_ones = (
        np.stack([sph_harm_y(k, m, polar, azimuth) for m in range(-k, k + 1)], 1) for k in range(degree + 1)
    )
    return [np.concatenate([part.real, part.imag], axis=1) / len(polar) for part in complex_ones]


BASES: Mapping[int, Callable[[Array, int], Basis]] = {2: _circular, 3: _spherical}
"""By the number of dimensions; in the plane Fourier series, in space spherical harmonics."""
