"""Space: grids, transforms, fits, resampling and rotation groups. NumPy and SciPy only."""

from modalign.geometry.fits import fit_affine, fit_rigid, fit_similarity
from modalign.geometry.grid import Grid
from modalign.geometry.groups import GroupElement, axis_rotations
from modalign.geometry.measures import corner_error
from modalign.geometry.resampling import covered, resample, resample_labels
from modalign.geometry.transforms import (
    Affine,
    Chain,
    Linear,
    Rigid,
    Similarity,
    Transform,
    as_rows,
    identity,
    rotation_matrix,
)

__all__ = [
    "Affine",
    "Chain",
    "Grid",
    "GroupElement",
    "Linear",
    "Rigid",
    "Similarity",
    "Transform",
    "as_rows",
    "axis_rotations",
    "corner_error",
    "covered",
    "fit_affine",
    "fit_rigid",
    "fit_similarity",
    "identity",
    "resample",
    "resample_labels",
    "rotation_matrix",
]
