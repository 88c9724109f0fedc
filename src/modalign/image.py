"""Images, label maps and points: data together with the space they live in."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from jaxtyping import Bool, Float, Integer, Shaped

from modalign.errors import InvalidInputError
from modalign.geometry import Grid, Transform, covered, resample, resample_labels
from modalign.geometry.grid import Unit

Array = np.ndarray
ALPHA = "alpha"


@dataclass(frozen=True, eq=False)
class Image:
    """Pixels with their grid. Never mutated.

    Attributes:
        data: ``(channels, *spatial)``, in the dtype of the file it came from; spatial is ``(y, x)`` or ``(z, y, x)``.
        grid: Where the pixels lie in world space.
        channels: One name a channel, such as ``("red", "green", "blue")``.
        mask: ``(*spatial)``, true where the pixels are valid; ``None`` where all are.

    Raises:
        InvalidInputError: The data does not fit the grid, the names or the mask.
    """

    data: Shaped[Array, "channels *spatial"]
    grid: Grid
    channels: tuple[str, ...] = ()
    mask: Bool[Array, "*spatial"] | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        if self.data.shape[1:] != self.grid.shape:
            raise InvalidInputError(
                f"data of shape {self.data.shape} does not lie on a grid of shape {self.grid.shape}"
            )
        if not (np.issubdtype(self.data.dtype, np.number) or self.data.dtype == bool):
            raise InvalidInputError(f"an image needs numbers, not {self.data.dtype}")
        if not self.channels:
            object.__setattr__(self, "channels", tuple(f"channel_{i}" for i in range(len(self.data))))
        if len(self.channels) != len(self.data):
            raise InvalidInputError(f"{len(self.channels)} channel names for {len(self.data)} channels")
        if self.mask is not None and self.mask.shape != self.grid.shape:
            raise InvalidInputError(f"a mask of shape {self.mask.shape} does not fit an image of {self.grid.shape}")

    def __repr__(self) -> str:
        size = " × ".join(map(str, self.grid.shape))
        spacing = " × ".join(f"{s:g}" for s in self.grid.spacing)
        return f"Image({size}, {len(self.data)} × {self.data.dtype}, {spacing} {self.grid.unit})"

    @property
    def ndim(self) -> int:
        """Number of spatial axes."""
        return self.grid.ndim

    @property
    def valid(self) -> Bool[Array, "*spatial"]:
        """True where the pixels are valid: the mask, or everywhere."""
        return np.ones(self.grid.shape, dtype=bool) if self.mask is None else self.mask

    def with_data(self, data: Shaped[Array, "c *spatial"], channels: tuple[str, ...] = ()) -> "Image":
        """Another image on the same grid, with the same mask."""
        return Image(data, self.grid, channels, self.mask)

    def with_grid(self, grid: Grid) -> "Image":
        """The same pixels on another grid of the same shape."""
        return replace(self, grid=grid)

    def without_alpha(self) -> "Image":
        """The image without its transparency channel, which becomes part of the mask: transparent is not valid."""
        if ALPHA not in self.channels:
            return self
        alpha = self.channels.index(ALPHA)
        opaque = self.data[alpha] > 0
        keep = [i for i in range(len(self.data)) if i != alpha]
        mask = None if opaque.all() and self.mask is None else self.valid & opaque
        return Image(self.data[keep], self.grid, tuple(self.channels[i] for i in keep), mask)

    def without_gaps(self) -> "Image":
        """The image with pixels that are not finite masked out, and the median of their channel in their place."""
        finite = np.isfinite(self.data)
        if finite.all():
            return self
        medians = [np.median(values[good]) if good.any() else 0 for values, good in zip(self.data, finite, strict=True)]
        fill = np.array(medians, dtype=self.data.dtype).reshape(-1, *(1,) * self.ndim)
        return replace(self, data=np.where(finite, self.data, fill), mask=self.valid & finite.all(axis=0))

    def resampled(
        self, fixed: Grid, fixed_to_moving: Transform, *, order: int = 1, fill: float | Float[Array, " channels"] = 0.0
    ) -> "Image":
        """This image, as the moving one, sampled on another grid; its mask becomes false outside.

        See :func:`modalign.geometry.resample`.
        """
        data = resample(self.data, self.grid, fixed, fixed_to_moving, order=order, fill=fill)
        if self.mask is None:
            mask = covered(self.grid, fixed, fixed_to_moving)
        else:
            mask = resample_labels(self.mask, self.grid, fixed, fixed_to_moving, fill=False)
        return Image(data, fixed, self.channels, None if mask.all() else mask)

    def cropped(self, start: tuple[int, ...], shape: tuple[int, ...]) -> "Image":
        """The part of the image that begins at index ``start`` and lies inside it."""
        inside = all(s >= 0 and s + n <= m for s, n, m in zip(start, shape, self.grid.shape, strict=True))
        if not inside:
            raise InvalidInputError(f"a crop of {shape} at {start} does not fit into {self.grid.shape}")
        window = tuple(slice(s, s + n) for s, n in zip(start, shape, strict=True))
        mask = None if self.mask is None else self.mask[window]
        return Image(self.data[(slice(None), *window)], self.grid.cropped(start, shape), self.channels, mask)


@dataclass(frozen=True, eq=False)
class Labels:
    """A map of integer labels with its grid; 0 is background. Only ever sampled by nearest neighbour."""

    data: Integer[Array, "*spatial"]
    grid: Grid

    def __post_init__(self) -> None:
        if self.data.shape != self.grid.shape:
            raise InvalidInputError(f"labels of shape {self.data.shape} do not lie on a grid of {self.grid.shape}")
        if not np.issubdtype(self.data.dtype, np.integer):
            raise InvalidInputError(f"labels must be integers, not {self.data.dtype}")

    def resampled(self, fixed: Grid, fixed_to_moving: Transform) -> "Labels":
        """These labels, as the moving ones, sampled on another grid; 0 outside."""
        return Labels(resample_labels(self.data, self.grid, fixed, fixed_to_moving), fixed)


@dataclass(frozen=True, eq=False)
class Points:
    """Named points in world space.

    Attributes:
        coordinates: ``(points, ndim)`` in array axis order.
        unit: The unit of the coordinates.
        names: One name a point, or none at all.
    """

    coordinates: Float[Array, "points ndim"]
    unit: Unit = "pixel"
    names: tuple[str, ...] = ()

    def mapped(self, transform: Transform | Callable[[Array], Array]) -> "Points":
        """The points moved by a transform."""
        move = transform.map_points if isinstance(transform, Transform) else transform
        return replace(self, coordinates=move(self.coordinates))
