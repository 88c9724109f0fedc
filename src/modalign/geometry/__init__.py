"""Space: grids, transforms, fits, resampling and rotation groups. NumPy and SciPy only."""

from modalign.geometry.displacement import DisplacementField, InverseField
from modalign.geometry.fits import fit_affine, fit_rigid, fit_similarity, nearest_affine
from modalign.geometry.grid import Grid
from modalign.geometry.groups import GroupElement, RotationGroup, axis_rotations, grid_rotations, rotation_group
from modalign.geometry.jacobian import Deformation, deformation, folded_cells, jacobian_determinants
from modalign.geometry.measures import corner_error
from modalign.geometry.resampling import covered, resample, resample_labels
from modalign.geometry.rotations import angle_degrees, planes, random_rotations, sweep, turn
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
    simplified,
)

__all__ = [
    "Affine",
    "Chain",
    "Deformation",
    "DisplacementField",
    "Grid",
    "GroupElement",
    "InverseField",
    "Linear",
    "Rigid",
    "RotationGroup",
    "Similarity",
    "Transform",
    "angle_degrees",
    "as_rows",
    "axis_rotations",
    "corner_error",
    "covered",
    "deformation",
    "fit_affine",
    "fit_rigid",
    "fit_similarity",
    "folded_cells",
    "grid_rotations",
    "identity",
    "jacobian_determinants",
    "nearest_affine",
    "planes",
    "random_rotations",
    "resample",
    "resample_labels",
    "rotation_group",
    "rotation_matrix",
    "simplified",
    "sweep",
    "turn",
]
