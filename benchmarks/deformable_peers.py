"""What the deformable benchmarks compare with: ANTs SyN and the B-splines of elastix, without a linear part.

Both see the moving image on the grid of the fixed one, in array order, so that directions and origins play no part;
where it does not cover it, it is continued by its nearest pixel, as for our engine.
"""

from collections.abc import Callable, Mapping
from tempfile import TemporaryDirectory
from typing import Any, TypeAlias

import numpy as np

from modalign.data.unit_range import nearest_filled
from modalign.geometry import DisplacementField, Transform, identity
from modalign.image import Image

Array = np.ndarray
Run: TypeAlias = Callable[[Image, Image], tuple[Transform, Mapping[str, float]]]
GRID_PIXELS = 8
"""Of elastix: distance of the knots at the last of four resolutions; the best of 8, 16 and 32 on tuning images."""


def ants_syn(fixed: Image, moving: Image) -> tuple[Transform, Mapping[str, float]]:
    """ANTs SyN with its usual settings, mutual information among them."""
    import ants

    images = [ants.from_numpy(values, spacing=list(fixed.grid.spacing)) for values in _on_one_grid(fixed, moving)]
    found = ants.registration(*images, type_of_transform="SyNOnly", initial_transform="identity")
    warps = [ants.image_read(path).numpy() for path in found["fwdtransforms"] if path.endswith(".nii.gz")]
    return _in_world(np.moveaxis(np.asarray(warps[0], np.float32), -1, 0), fixed), {}


def elastix_bspline(grid_pixels: int = GRID_PIXELS, metric: str = "AdvancedNormalizedCorrelation") -> Run:
    """Elastix with its default parameter map for B-splines, 500 iterations, and correlation as its metric."""

    def run(fixed: Image, moving: Image) -> tuple[Transform, Mapping[str, float]]:
        import itk

        images: list[Any] = []
        for values in _on_one_grid(fixed, moving):
            image = itk.GetImageFromArray(values)
            image.SetSpacing(list(fixed.grid.spacing)[::-1])
            images.append(image)
        settings = itk.ParameterObject.New()
        chosen = settings.GetDefaultParameterMap("bspline", 4, grid_pixels * min(fixed.grid.spacing))
        chosen["Metric"] = [metric, "TransformBendingEnergyPenalty"]
        chosen["MaximumNumberOfIterations"] = ["500"]
        chosen["RandomSeed"] = ["1"]
        settings.AddParameterMap(chosen)
        _, found = itk.elastix_registration_method(*images, parameter_object=settings, log_to_console=False)
        with TemporaryDirectory() as folder:
            bent = itk.transformix_deformation_field(images[1], found, output_directory=folder)
            vectors = np.array(itk.GetArrayFromImage(bent))
        return _in_world(np.moveaxis(vectors[..., ::-1], -1, 0), fixed), {}

    return run


def _on_one_grid(fixed: Image, moving: Image) -> list[Array]:
    return [
        np.ascontiguousarray(image.data[0], np.float32)
        for image in (fixed, nearest_filled(moving.resampled(fixed.grid, identity(fixed.ndim))))
    ]


def _in_world(field: Array, fixed: Image) -> DisplacementField:
    """A displacement along the axes of the array as one along those of the world."""
    axes = np.array(fixed.grid.direction)
    return DisplacementField(np.tensordot(axes, field, axes=1).astype(np.float32), fixed.grid)
