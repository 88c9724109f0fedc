"""How much more the intensities of two images know about each other under a transform than by chance."""

from itertools import islice

import numpy as np
from jaxtyping import Float, Integer

from modalign.geometry import Affine, Grid, Linear, Rigid, planes, turn
from modalign.image import Image
from modalign.registration import workspace
from modalign.registration.poses import linear_scale

Array = np.ndarray

LARGEST_STRETCH = 4.0
"""Images that differ more in scale are not brought to one pixel size: no such transform is accepted."""
LEVELS = 12
"""Gray levels of the joint histogram."""
INFORMATION_SIDES = {2: 112, 3: 40}
"""The same for the joint histogram."""
DISPLACED = 47
"""Random displacements whose mutual information says what chance gives."""


def information(fixed: Image, moving: Image, transform: Linear, seed: int = 0) -> float:
    """Mutual information under a transform, in standard deviations above that of random displacements."""
    space = workspace.harmonised(*workspace.pictures(fixed, moving))
    spacing = workspace.spacing_by_area(space.fixed, space.moving, INFORMATION_SIDES[fixed.ndim])
    common = in_common(space, transform)
    here = workspace.isotropic(space.fixed, spacing)
    there = workspace.isotropic(space.moving, spacing * stretch(common))
    a, b = _gray_levels(here), _gray_levels(there)
    rng = np.random.default_rng(seed)
    transforms = [common, *(_displaced(common, here.grid, rng) for _ in range(DISPLACED))]
    transforms += [_shifted(common, here.grid, rng) for _ in range(DISPLACED)]
    to_index = np.linalg.inv(there.grid.matrix)
    known = (_mutual_information(a, b, to_index @ t.matrix @ here.grid.matrix) for t in transforms)
    value = next(known)
    turned = [v for v in islice(known, DISPLACED) if v is not None]
    null = np.array(turned if len(turned) >= DISPLACED // 4 else [v for v in known if v is not None])
    if value is None or len(null) < DISPLACED // 4:
        return 0.0
    return float((value - null.mean()) / max(null.std(), 1e-3))


def _displaced(transform: Linear, fixed: Grid, rng: np.random.Generator) -> Linear:
    """The transform after a rotation of at least 20° and a shift of up to a fifth of the width."""
    axis = rng.standard_normal(len(planes(fixed.ndim)))
    radians = np.deg2rad(rng.uniform(20, 340)) * axis / np.linalg.norm(axis)
    after = turned(transform, fixed, turn(fixed.ndim, radians))
    shift = rng.uniform(-0.2, 0.2, fixed.ndim) * np.array(fixed.extent)
    return affine(after.linear, after.offset + after.linear @ shift)


def _shifted(transform: Linear, fixed: Grid, rng: np.random.Generator) -> Linear:
    """The transform after a shift alone, for images so long that turned ones hardly overlap."""
    shift = rng.choice((-1.0, 1.0), fixed.ndim) * rng.uniform(0.1, 0.4, fixed.ndim) * np.array(fixed.extent)
    return affine(transform.linear, transform.offset + transform.linear @ shift)


def _gray_levels(image: Image) -> Integer[Array, "*spatial"]:
    """Gray levels with equal numbers of pixels, −1 where not valid."""
    values = image.data[0]
    limits = np.quantile(values[image.valid], np.linspace(0, 1, LEVELS + 1)[1:-1])
    return np.where(image.valid, np.searchsorted(limits, values, side="right"), -1).astype(np.int16)


def _mutual_information(a: Array, b: Array, indices: Float[Array, "homogeneous homogeneous"]) -> float | None:
    """In nats, from the nearest pixels; ``None`` where less than a quarter of the smaller image overlaps.

    ``indices`` maps pixel indices of ``a`` to those of ``b``.
    """
    axes = np.ix_(*(np.arange(n, dtype=np.float32) for n in a.shape))
    flat = np.zeros(a.shape, dtype=np.intp)
    good = a >= 0
    for row, length in zip(indices[:-1].astype(np.float32), b.shape, strict=True):
        place = np.rint(sum((weight * axis for weight, axis in zip(row[:-1], axes, strict=True)), start=row[-1]))
        good &= (place >= 0) & (place < length)
        flat = flat * length + place.astype(np.intp)
    x, y = a[good], b.ravel()[flat[good]]
    x, y = x[y >= 0].astype(np.intp), y[y >= 0]
    if len(x) < 0.25 * min((a >= 0).sum(), (b >= 0).sum()):
        return None
    joint = np.bincount(LEVELS * x + y, minlength=LEVELS**2).reshape(LEVELS, LEVELS) / len(x)
    apart = np.outer(joint.sum(1), joint.sum(0))
    seen = joint > 0
    return float((joint[seen] * np.log(joint[seen] / apart[seen])).sum())


def in_common(space: workspace.Workspace, transform: Linear) -> Linear:
    """A transform between the images' own worlds as one of the common world."""
    matrix = np.linalg.inv(space.to_moving.matrix) @ transform.matrix @ np.linalg.inv(space.from_fixed.matrix)
    return workspace.smallest_group(matrix)


def stretch(transform: Linear) -> float:
    """How much larger the pixels of the moving image are made to be."""
    return float(np.clip(linear_scale(transform), 1 / LARGEST_STRETCH, LARGEST_STRETCH))


def affine(linear: Float[Array, "ndim ndim"], offset: Float[Array, " ndim"]) -> Linear:
    """The transform with a matrix and an offset."""
    matrix = np.eye(len(linear) + 1)
    matrix[:-1, :-1], matrix[:-1, -1] = linear, offset
    return Affine.from_matrix(matrix)


def turned(transform: Linear, fixed: Grid, rotation: Float[Array, "ndim ndim"]) -> Linear:
    """The transform after a rotation about the centre of the fixed image."""
    about_center = Rigid.about(fixed.center, rotation, np.zeros(fixed.ndim))
    return Affine.from_matrix(transform.matrix @ about_center.matrix)
