"""Two images in one world: where the moving one lay before, and where a transform takes it."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float

from modalign.geometry import Linear, Rigid, Transform, fit_affine
from modalign.image import Image
from modalign.registration.workspace import Workspace, harmonised

Array = np.ndarray
LATTICE = 5
"""Points along each axis at which the motion of the moving image is taken."""


@dataclass(frozen=True)
class Motion:
    """What happens to the moving image between before and after, along the axes of the fixed image's array.

    Attributes:
        linear: About the middle of the fixed image, array axis order.
        shift: Where that middle goes, world units, array axis order.
        bending: How far the transform strays from this linear motion, at most, world units.
    """

    linear: Float[Array, "ndim ndim"]
    shift: Float[Array, " ndim"]
    bending: float


@dataclass(frozen=True, eq=False)
class Comparison:
    """A fixed and a moving image, free of values that are not finite, in a world with one unit."""

    space: Workspace

    @classmethod
    def of(cls, fixed: Image, moving: Image) -> "Comparison":
        """Two images as registration compares them: true sizes, or pixel by pixel where one has no pixel size."""
        return cls(harmonised(*(image.without_alpha().without_gaps() for image in (fixed, moving))))

    @property
    def fixed(self) -> Image:
        """The fixed image."""
        return self.space.fixed

    @property
    def moving(self) -> Image:
        """The moving image."""
        return self.space.moving

    @property
    def before(self) -> Rigid:
        """From fixed to moving with the middles of both images on each other."""
        ndim = self.fixed.ndim
        return Rigid.about(self.fixed.grid.center, np.eye(ndim), self.moving.grid.center - self.fixed.grid.center)

    def common(self, fixed_to_moving: Transform) -> Transform:
        """A transform between the images' own worlds as one of the common world."""
        return self.space.to_moving.inverse() @ fixed_to_moving @ self.space.from_fixed.inverse()

    def motion(self, fixed_to_moving: Transform) -> Motion:
        """How a transform moves the moving image, beginning with the middles on each other.

        Raises:
            InvalidInputError: The transform flattens the image.
        """
        grid = self.fixed.grid
        ticks = [np.linspace(-0.5, n - 0.5, LATTICE) for n in grid.shape]
        after = grid.index_to_world(np.array(list(product(*ticks))))
        before = self.before.inverse().map_points(self.common(fixed_to_moving).map_points(after))
        fitted: Linear = fit_affine(before, after)
        bending = np.linalg.norm(fitted.map_points(before) - after, axis=1).max()
        axes = np.array(grid.direction)
        shift = fitted.map_points(grid.center[None])[0] - grid.center
        return Motion(axes.T @ fitted.linear @ axes, axes.T @ shift, float(bending))
