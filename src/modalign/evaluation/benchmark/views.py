"""One pair as a benchmark shows it to every method: the same pixels, with what is known of the truth."""

from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

from modalign.data.displacement import displaced_pair
from modalign.errors import BatchError
from modalign.evaluation.benchmark.cases import CaseFiles
from modalign.evaluation.benchmark.protocols import Natural, Protocol, check_width
from modalign.evaluation.metrics import corner_error, image_width, landmark_error
from modalign.geometry import Grid, Transform, identity
from modalign.image import Image, Labels, Points
from modalign.io import read_image, read_labels, read_mask, read_points, read_transform
from modalign.overlap import dice


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
    landmarks = read_landmarks(case, fixed.grid, moving.grid)
    if truth is None and landmarks is None:
        raise BatchError(f"nothing is known of the truth of {case.name!r}: name a truth or landmarks in its row")
    return View(fixed, moving, truth, landmarks, _labels(case, fixed, fixed.grid, moving, identity(fixed.ndim)))


def read_landmarks(case: CaseFiles, fixed: Grid, moving: Grid) -> tuple[Points, Points] | None:
    """The landmarks of a pair, if it has any, in the units of its images.

    Raises:
        BatchError: They are not the same number of points in both images, or not of the dimensions of the images.
        UnreadableFileError: A table cannot be read.
    """
    if case.fixed_landmarks is None or case.moving_landmarks is None:
        return None
    both = tuple(
        read_points(path, unit=grid.unit)
        for path, grid in ((case.fixed_landmarks, fixed), (case.moving_landmarks, moving))
    )
    shapes = [points.coordinates.shape for points in both]
    if shapes[0] != shapes[1]:
        raise BatchError(
            f"{case.fixed_landmarks} and {case.moving_landmarks} must hold the same points: "
            + " and ".join(f"{number} points in {ndim}D" for number, ndim in shapes)
        )
    if shapes[0][1] != fixed.ndim:
        raise BatchError(f"{case.fixed_landmarks} holds points in {shapes[0][1]}D; the images are {fixed.ndim}D")
    return both[0], both[1]


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
    here, there = _fitted(case.fixed_labels, fixed), _fitted(case.moving_labels, moving)
    return LabelMaps(here.resampled(shown, identity(fixed.ndim)), there, moving_to_labels)


def _fitted(path: Path, image: Image) -> Labels:
    labels = read_labels(path)
    if labels.grid.shape == image.grid.shape:
        return Labels(labels.data, image.grid)
    if labels.grid.unit == image.grid.unit != "pixel":
        return labels  # a map of its own resolution that knows where it lies
    sizes = [" × ".join(map(str, grid.shape)) for grid in (labels.grid, image.grid)]
    raise BatchError(f"{path}: a label map of {sizes[0]} pixels does not fit an image of {sizes[1]}")
