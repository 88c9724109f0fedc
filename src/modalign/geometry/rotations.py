"""All rotations: evenly spread over the circle or over SO(3), small ones by their planes, and how far they turn."""

import math
from itertools import combinations

import numpy as np
from jaxtyping import Float
from scipy import linalg

from modalign.geometry.groups import GroupElement, axis_rotations
from modalign.geometry.transforms import rotation_matrix

Array = np.ndarray

VOLUME = 8 * math.pi**2
"""Volume of SO(3) where lengths are angles in radians: near any rotation it looks like space."""
SPIRALS = math.sqrt(2), 1.533751168755204288118041413
"""The two numbers of the super-Fibonacci spirals: √2, and the positive root of ψ⁴ = ψ + 4."""

Sweep = list[tuple[Float[Array, "ndim ndim"], tuple[GroupElement, ...]]]
"""Rotations, each with the rotations of the grid after which it is tried."""


def planes(ndim: int) -> list[tuple[int, int]]:
    """The pairs of axes in which one can turn: one in 2D, three in 3D."""
    return list(combinations(range(ndim), 2))


def turn(ndim: int, radians: Float[Array, " planes"]) -> Float[Array, "ndim ndim"]:
    """The rotation by a vector of angles, one for each of :func:`planes`, which turns the first axis to the second.

    In 3D its length is the angle of the rotation.
    """
    velocity = np.zeros((ndim, ndim))
    for angle, (i, j) in zip(radians, planes(ndim), strict=True):
        velocity[j, i], velocity[i, j] = angle, -angle
    return np.asarray(linalg.expm(velocity))


def random_rotations(ndim: int, count: int, generator: np.random.Generator) -> Float[Array, "n ndim ndim"]:
    """Uniformly distributed rotations: QR of Gaussian matrices with the sign fixed (Mezzadri, Notices AMS 2007)."""
    q, r = np.linalg.qr(generator.standard_normal((count, ndim, ndim)))
    q = q * np.sign(np.diagonal(r, axis1=1, axis2=2))[:, None, :]
    q[:, :, 0] *= np.sign(np.linalg.det(q))[:, None]
    return np.asarray(q)


def angle_degrees(rotation: Float[Array, "ndim ndim"]) -> float:
    """By how much a rotation turns, 0 to 180."""
    ndim = len(rotation)
    # from the sine as well as from the cosine: each alone loses half of the digits somewhere
    sines = np.array([rotation[j, i] - rotation[i, j] for i, j in planes(ndim)]) / 2
    cosine = (np.trace(rotation) - (ndim - 2)) / 2
    return math.degrees(math.atan2(float(np.linalg.norm(sines)), float(cosine)))


def sweep(ndim: int, step_degrees: float, limit_degrees: float = 180.0) -> Sweep:
    """Rotations spread evenly within a limit, the identity among them, as products with rotations of the grid.

    The rotation to try is ``rotation @ element.matrix`` for every pair of the answer. Those of the grid need no
    interpolation, so only a fourth (2D) or a 24th (3D) of all rotations has to be made: those that are nearer to the
    identity than to any other rotation of the grid.

    Args:
        ndim: Number of dimensions.
        step_degrees: In 2D the largest angle between neighbours; in 3D the side of the cube in the space of rotations
            that every rotation has to itself.
        limit_degrees: Largest angle of a rotation.
    """
    kept = []
    for rotation in _SPREAD[ndim](math.radians(step_degrees)):
        elements = tuple(g for g in axis_rotations(ndim) if angle_degrees(rotation @ g.matrix) <= limit_degrees + 1e-9)
        if elements:
            kept.append((rotation, elements))
    return kept


def _circle(step: float) -> list[Float[Array, "ndim ndim"]]:
    """Rotations of −45° to below 45°."""
    count = math.ceil(math.pi / 4 / step)
    return [rotation_matrix(2, 45 * k / count) for k in range(-count, count)]


def _sphere(step: float) -> list[Float[Array, "ndim ndim"]]:
    """The identity, and rotations spread over those nearer to it than to any other rotation of the cube.

    Source: Alexa, Super-Fibonacci spirals: fast, low-discrepancy sampling of SO(3), CVPR 2022, algorithm 1.
    """
    count = math.ceil(VOLUME / step**3)
    place = np.arange(count) + 0.5
    inner, outer = np.sqrt(place / count), np.sqrt(1 - place / count)
    one, other = (2 * math.pi * place / spiral for spiral in SPIRALS)
    x, y, z, w = inner * np.sin(one), inner * np.cos(one), outer * np.sin(other), outer * np.cos(other)
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    rotations = np.moveaxis(np.array(rows), -1, 0)
    cube = np.stack([g.matrix for g in axis_rotations(3)])
    traces = np.einsum("nij,gij->ng", rotations, cube)  # the larger, the nearer
    nearest = traces[:, 0] >= traces.max(1) - 1e-12
    apart = traces[:, 0] < 1 + 2 * math.cos(step / 2)  # from the identity, which is added itself
    return [np.eye(3), *rotations[nearest & apart]]


_SPREAD = {2: _circle, 3: _sphere}
