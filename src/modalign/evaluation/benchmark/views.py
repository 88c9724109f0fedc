"""One pair as a benchmark shows it to every method: the same pixels, with what is known of the truth."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from modalign.data.displacement import displaced_pair
from modalign.errors import BatchError
from modalign.evaluation.benchmark.cases import CaseFiles
from modalign.evaluation.benchmark.protocols import Natural, Protocol, check_width
from modalign.evaluation.metrics import corner_error, image_width, landmark_error
from modalign.evaluation.overlap import dice
from modalign.geometry import Grid, Transform, identity
from modalign.image import Image, Labels, Points
from modalign.io import read_image, read_labels, read_mask, read_points, read_transform


@dataclass(frozen=True)
class ViewPlan:
    """Which pair, and how it is misaligned.

    Attributes:
        dataset: Name of the set.
        case: The pair.
        protocol: How it is misaligned.
        label: Which of the kinds of displacements of the protocol.
        draw: Number of the displacement.
        width: Side of the patch, pixels.
        seed: Seed of the displacements.
    """

    dataset: str
    case: CaseFiles
    protocol: Protocol
    label: str
    draw: int
    width: int | None
    seed: int

    @property
    def name(self) -> str:
        """A name that tells it from all others of the plan, fit for a folder."""
        label = self.label.replace("±", "pm").replace("°", "deg").replace(", ", "-").replace(" ", "-")
        return f"{self.dataset}--{label}--{self.case.name}--{self.draw}"

    def load(self) -> "View":
        """Read the images and displace them.

        Raises:
            ModalignError: A file cannot be read, the images do not fit each other, or the patch is too large.
        """
        fixed, moving = _images(self.case)
        if isinstance(self.protocol, Natural):
            return _natural(self.case, fixed, moving)
        protocol = self.protocol.displacement(self.label, check_width(self.width, self.dataset), fixed.ndim, self.seed)
        aligned = moving.with_grid(fixed.grid) if moving.grid.shape == fixed.grid.shape else moving
        pair = displaced_pair(fixed, aligned, protocol, self.case.name, self.draw)
        labels = _labels(self.case, fixed, pair.fixed.grid, aligned, pair.fixed_to_moving.inverse())
        return View(pair.fixed, pair.moving, pair.fixed_to_moving, labels=labels)


@dataclass(frozen=True, eq=False)
class LabelMaps:
    """Label maps of two images.

    Attributes:
        fixed: That of the fixed image, on its grid.
        moving: That of the moving image, before it was displaced.
        moving_to_labels: From the moving image to its label map: undoes the displacement.
    """

    fixed: Labels
    moving: Labels
    moving_to_labels: Transform

    def dice(self, found: Transform) -> float:
        """Mean Dice coefficient of the labels under a transform from the fixed to the moving image."""
        there = self.moving.resampled(self.fixed.grid, self.moving_to_labels @ found)
        return dice(self.fixed.data, there.data)


@dataclass(frozen=True, eq=False)
class View:
    """Two images and what is known of how they belong together.

    Attributes:
        fixed: The fixed image.
        moving: The moving image.
        truth: From the fixed to the moving image; ``None`` where only landmarks are known.
        landmarks: The same points in both images, where there are any.
        labels: Label maps, where there are any.
    """

    fixed: Image
    moving: Image
    truth: Transform | None
    landmarks: tuple[Points, Points] | None = None
    labels: "LabelMaps | None" = None

    def errors(self, found: Transform) -> dict[str, float]:
        """How far a transform is from the truth.

        ``error`` is relative to the width of the image: mean over the corners, or median over the landmarks where only
        these are known. ``error_pixels`` is the same in pixels.
        """
        numbers: dict[str, float] = {}
        if self.landmarks is not None:
            marks = landmark_error(found, *self.landmarks, self.fixed.grid)
            numbers |= {"error": marks.median.relative, "error_pixels": marks.median.pixels}
            numbers |= {"landmark_median": marks.median.world, "landmark_maximum": marks.maximum.world}
            numbers |= {"median_rtre": marks.median_rtre, "maximum_rtre": marks.maximum_rtre}
        if self.truth is not None:
            corners = corner_error(found, self.truth, self.fixed.grid)
            numbers |= {"error": corners.mean.relative, "error_pixels": corners.mean.pixels}
        if self.labels is not None:
            numbers["dice"] = self.labels.dice(found)
        return numbers

    @property
    def width(self) -> float:
        """What relative errors are relative to, world units."""
        return image_width(self.fixed.grid)


@lru_cache(maxsize=2)
def _images(case: CaseFiles) -> tuple[Image, Image]:
    """The two images; kept, because the views of one pair are made one after the other."""
    fixed, moving = read_image(case.fixed), read_image(case.moving)
    if case.mask is None:
        return fixed, moving
    mask = read_mask(case.mask, fixed.grid)
    same = moving.grid.shape == fixed.grid.shape
    return replace(fixed, mask=mask), replace(moving, mask=mask) if same else moving


def _natural(case: CaseFiles, fixed: Image, moving: Image) -> View:
    truth = None if case.truth is None else _truth(case.truth, fixed, moving)
    points = (case.fixed_landmarks, case.moving_landmarks)
    landmarks = None
    if points[0] is not None and points[1] is not None:
        landmarks = read_points(points[0], unit=fixed.grid.unit), read_points(points[1], unit=moving.grid.unit)
    if truth is None and landmarks is None:
        raise BatchError(f"nothing is known of the truth of {case.name!r}: name a truth or landmarks in its row")
    return View(fixed, moving, truth, landmarks, _labels(case, fixed, fixed.grid, moving, identity(fixed.ndim)))


def _truth(path: Path, fixed: Image, moving: Image) -> Transform:
    stored = read_transform(path)
    for role, grid, image in (("fixed", stored.fixed, fixed), ("moving", stored.moving, moving)):
        if grid is not None and grid.unit != image.grid.unit:
            raise BatchError(f"{path} maps between images in {grid.unit}; the {role} image is in {image.grid.unit}")
    if stored.transform.ndim != fixed.ndim:
        raise BatchError(f"{path} is a {stored.transform.ndim}D transform; the images are {fixed.ndim}D")
    return stored.transform


def _labels(case: CaseFiles, fixed: Image, shown: Grid, moving: Image, moving_to_labels: Transform) -> LabelMaps | None:
    """The label maps; one as large as its image lies where the image lies, whatever its file says of pixel sizes."""
    if case.fixed_labels is None or case.moving_labels is None:
        return None
    here, there = (
        Labels(labels.data, image.grid) if labels.grid.shape == image.grid.shape else labels
        for labels, image in ((read_labels(case.fixed_labels), fixed), (read_labels(case.moving_labels), moving))
    )
    return LabelMaps(here.resampled(shown, identity(fixed.ndim)), there, moving_to_labels)
