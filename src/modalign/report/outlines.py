"""What is where in both images: the outlines of their labels before and after, and how well they agree."""

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Integer

from modalign.geometry import Transform
from modalign.image import Image, Labels
from modalign.overlap import dice, hausdorff95
from modalign.report.curves import figure_bytes
from modalign.report.overlay import picture, plane

if TYPE_CHECKING:
    import matplotlib.axes

Array = np.ndarray
MOST_OUTLINED = 64
"""Labels that are outlined one by one; of more, only where there is any."""


@dataclass(frozen=True)
class Agreement:
    """How well the labels of both images agree.

    Attributes:
        dice_before: Mean Dice of the labels above 0 with the middles of both images on each other.
        dice: With the moving labels under the transform; not a number where there is none.
        hausdorff95_before: 95th percentile of the distances between the surfaces, in the unit of the fixed image.
        hausdorff95: Under the transform, likewise.
    """

    dice_before: float
    dice: float
    hausdorff95_before: float
    hausdorff95: float

    def to_dict(self) -> dict[str, float | None]:
        """The numbers; ``None`` where there is no transform, or no distance, as the maps share no label."""
        return {name: None if np.isnan(value) else round(value, 5) for name, value in asdict(self).items()}


@dataclass(frozen=True, eq=False)
class LabelledPair:
    """The labels of both images, and where those of the moving one come to lie.

    Attributes:
        fixed: Of the fixed image.
        before: Those of the moving image on the grid of the fixed one, with the middles on each other.
        after: Likewise, under the transform, if there is one.
    """

    fixed: Labels
    before: Labels
    after: Labels | None

    @classmethod
    def of(cls, fixed: Labels, moving: Labels, before: Transform, found: Transform | None) -> "LabelledPair":
        """The labels under two transforms from the fixed image to the moving one."""
        after = None if found is None else moving.resampled(fixed.grid, found)
        return cls(fixed, moving.resampled(fixed.grid, before), after)

    @cached_property
    def agreement(self) -> Agreement:
        """See :class:`Agreement`."""
        spacing, nothing = self.fixed.grid.spacing, (float("nan"),) * 2
        measured = [
            nothing
            if moved is None
            else (dice(self.fixed.data, moved.data), hausdorff95(self.fixed.data, moved.data, spacing))
            for moved in (self.before, self.after)
        ]
        shares, distances = zip(*measured, strict=True)
        return Agreement(*shares, *distances)


def outlines_picture(pair: LabelledPair, image: Image) -> bytes:
    """A PNG of the fixed image twice, with the outlines of its labels and of the moving ones, before and after.

    Of a volume, the plane in the middle is shown.
    """
    from matplotlib.figure import Figure

    shown = picture(plane(image))
    height, width = shown.grid.extent
    figure = Figure(figsize=(9.0, 0.5 + 4.3 * float(np.clip(height / width, 0.3, 2.0))), layout="constrained")
    for axes, name, moved in zip(figure.subplots(1, 2), ("before", "after"), (pair.before, pair.after), strict=True):
        axes.set_axis_off()
        if moved is None:
            continue
        axes.imshow(np.moveaxis(shown.data, 0, -1).squeeze(), cmap="gray")
        _outline(axes, _middle(pair.fixed), "#00c8c8", "-")
        _outline(axes, _middle(moved), "#ff5aa0", "--")
        axes.set_aspect(shown.grid.spacing[0] / shown.grid.spacing[1])
        axes.set_title(f"{name}: fixed solid, moving dashed", fontsize="medium")
    return figure_bytes(figure, "png", 110)


def _outline(axes: "matplotlib.axes.Axes", labels: Integer[Array, "y x"], colour: str, style: str) -> None:
    numbers = np.unique(labels[labels > 0])
    regions = [labels == number for number in numbers] if len(numbers) <= MOST_OUTLINED else [labels > 0]
    for region in regions:
        if min(region.shape) > 1 and not region.all():
            axes.contour(region, levels=[0.5], colors=colour, linestyles=style, linewidths=1.0)


def _middle(labels: Labels) -> Integer[Array, "y x"]:
    data = labels.data
    while data.ndim > len("yx"):
        data = data[len(data) // 2]
    return data
