"""Images with label maps, or without, and patches of them at several resolutions."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float, Integer

from modalign.data.unit_range import in_unit_range, unit_range
from modalign.errors import FileError, InvalidInputError, PairingError
from modalign.geometry import RotationGroup, grid_rotations
from modalign.image import Image, Labels
from modalign.io import image_files, read_image, read_labels, stem

Array = np.ndarray
LabelKind: TypeAlias = Literal["classes", "instances"]
MOST_CLASSES = 64
MOST_TOLD = 4
"""Files that a message names."""
LEAST_SIDE = 8
"""Fewer pixels along an axis show nothing."""
FACTORS, SHARES = (1, 2, 4), (0.5, 0.3, 0.2)
"""By which patches are coarser than their image, and how often: registration goes from coarse to fine."""


@dataclass(frozen=True)
class LabelledImage:
    """An image and what its pixels are, where that is known.

    Attributes:
        name: Such as the file stem.
        image: The pixels.
        labels: Their labels, on a grid of the same shape; 0 is background.
    """

    name: str
    image: Image
    labels: Labels | None = None

    def __post_init__(self) -> None:
        if self.labels is not None and self.labels.grid.shape != self.image.grid.shape:
            raise InvalidInputError(
                f"the labels of {self.name!r} have the size {self.labels.grid.shape}, and its image "
                f"{self.image.grid.shape}: they must lie on each other, pixel on pixel"
            )


def load_labelled(images: Path, labels: Path | None = None) -> list[LabelledImage]:
    """The images of a folder, with the label maps of another that have the same file stems.

    Raises:
        PairingError: A folder is missing or empty, an image has no labels, files cannot be read, images differ in
            channels or dimensions, or labels do not fit. All kinds of trouble are told in one message.
    """
    files, maps = _by_stem(images), {} if labels is None else _by_stem(labels)
    found, problems = [], []
    bare = [] if labels is None else [path.name for name, path in files.items() if name not in maps]
    if bare:
        several = f"{len(bare)} images have" if len(bare) > 1 else "one image has"
        problems.append(f"{several} no labels in {labels}: {listed(bare)}")
    for name, path in files.items():
        if path.name in bare:
            continue
        try:
            found.append(_loaded(name, path, maps.get(name)))
        except (FileError, InvalidInputError) as error:
            problems.append(str(error))
    forms = {(len(one.image.data), one.image.ndim): one.name for one in found}
    if len(forms) > 1:
        told = [f"{name!r} is {ndim}D with {channels} channels" for (channels, ndim), name in forms.items()]
        problems.append("the images differ: " + ", ".join(told))
    if problems:
        more = f"; and {len(problems) - MOST_TOLD} more" if len(problems) > MOST_TOLD else ""
        raise PairingError(f"{'; '.join(problems[:MOST_TOLD])}{more}. Mend or remove these files and start again.")
    return found


def listed(names: Sequence[str]) -> str:
    """The first names of many, and how many more there are."""
    more = f" and {len(names) - MOST_TOLD} more" if len(names) > MOST_TOLD else ""
    return ", ".join(names[:MOST_TOLD]) + more


def _loaded(name: str, image: Path, labels: Path | None) -> LabelledImage:
    opened = read_image(image).without_alpha().without_gaps()
    if min(opened.grid.shape) < LEAST_SIDE:
        raise InvalidInputError(
            f"{image}: {' × '.join(map(str, opened.grid.shape))} pixels are too few to learn from: at least "
            f"{LEAST_SIDE} a side"
        )
    values = opened.data[:, opened.valid]
    if not values.size:
        raise InvalidInputError(f"{image}: no pixel holds a number")
    if not np.ptp(values, axis=1).any():
        raise InvalidInputError(f"{image}: the image is constant: there is nothing to learn from")
    return LabelledImage(name, opened, None if labels is None else _labels(labels))


def _labels(path: Path) -> Labels:
    labels = read_labels(path)
    if labels.data.min() < 0:
        raise InvalidInputError(f"{path}: labels run from 0, which is background, but the least is {labels.data.min()}")
    return labels


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise PairingError(f"{folder}: no such folder")
    found = {stem(path): path for path in image_files(folder)}
    if not found:
        raise PairingError(f"{folder}: no image file in this folder")
    return found


def classes_of(labels: Labels, kind: LabelKind, values: Sequence[int] = ()) -> Integer[Array, "*spatial"]:
    """The class of every pixel, counted from 0.

    Args:
        labels: The label map.
        kind: ``classes``, one for each of ``values``; or ``instances``, whose numbers say nothing but which pixels
            belong together: then 0 is background, 1 the inside of an object and 2 its outermost pixels.
        values: The labels that are classes, ascending; others become the first.
    """
    if kind == "classes":
        known = np.asarray(values)
        place = np.clip(np.searchsorted(known, labels.data), 0, len(known) - 1)
        return np.asarray(np.where(known[place] == labels.data, place, 0), np.int64)
    rim = np.zeros(labels.data.shape, bool)
    for axis in range(labels.data.ndim):
        here, there = ((slice(None),) * axis + (part,) for part in (slice(1, None), slice(None, -1)))
        differ = labels.data[here] != labels.data[there]
        rim[here] |= differ
        rim[there] |= differ
    inside = labels.data != 0
    return np.asarray(inside.astype(np.int64) + (rim & inside))


def class_values(images: Sequence[LabelledImage], kind: LabelKind) -> tuple[int, ...]:
    """The labels that stand for the classes.

    Raises:
        InvalidInputError: The label maps are empty, or have too many labels to be classes.
    """
    maps = [one.labels.data for one in images if one.labels is not None]
    values = sorted(set().union(*(np.unique(data).tolist() for data in maps)))
    if len(values) < 2:
        raise InvalidInputError(f"the label maps hold nothing but {values}: there is nothing to learn from them")
    if kind == "instances":
        return (0, 1, 2)
    values = sorted({0, *values})  # background is a class, also where none is left
    if len(values) > MOST_CLASSES:
        raise InvalidInputError(
            f"the label maps hold {len(values)} different labels, too many for classes; if they number objects, say "
            "so (--labels-are instances)"
        )
    return tuple(values)


@dataclass(frozen=True)
class LabelledPatches:
    """Draws patches at random places, turns and resolutions; the same generator, the same patches.

    Attributes:
        levels: Of each image, finest first: intensities from 0 to 1, classes, and 1 where pixels are valid.
        turns: Rotations that a patch may undergo.
    """

    levels: tuple[tuple[Array, ...], ...]
    turns: RotationGroup

    @classmethod
    def of(
        cls, images: Sequence[LabelledImage], kind: LabelKind = "classes", values: Sequence[int] = ()
    ) -> "LabelledPatches":
        """Patches of some images; one array an image and resolution, ``(channels + 2, *spatial)``."""
        stacks = []
        for one in images:
            unit = in_unit_range(one.image, unit_range(one.image))
            classes = np.zeros(unit.shape[1:]) if one.labels is None else classes_of(one.labels, kind, values)
            stacks.append(np.concatenate([unit, classes[None], one.image.valid[None]]).astype(np.float32))
        levels = tuple(
            tuple(_coarser(stack, f) for f in FACTORS if f == 1 or min(stack.shape[1:]) >= 8 * f) for stack in stacks
        )
        return cls(levels, grid_rotations(images[0].image.grid.spacing))

    def shares(self, count: int) -> Float[Array, " classes"]:
        """How many of the pixels belong to each class."""
        counts = np.zeros(count)
        for first, *_ in self.levels:
            counts += np.bincount(first[-2].astype(np.int64).ravel(), minlength=count)
        return np.asarray(counts / counts.sum())

    def draw(
        self, count: int, patch: int, generator: np.random.Generator
    ) -> tuple[Float[Array, "n c *patch"], Integer[Array, "n *patch"], Float[Array, "n 1 *patch"]]:
        """Intensities, classes and validity of some patches; images that are smaller are continued by reflection."""
        drawn = np.stack([self._patch(patch, generator) for _ in range(count)])
        return drawn[:, :-2], drawn[:, -2].astype(np.int64), drawn[:, -1:]

    def _patch(self, size: int, generator: np.random.Generator) -> Array:
        levels = self.levels[generator.integers(len(self.levels))]
        chances = np.array(SHARES[: len(levels)])
        stack = levels[generator.choice(len(levels), p=chances / chances.sum())]
        for axis, n in enumerate(stack.shape[1:], start=1):
            start = generator.integers(min(0, n - size), max(0, n - size) + 1)
            index = np.arange(start, start + size) % max(2 * (n - 1), 1)
            stack = stack.take(np.minimum(index, 2 * (n - 1) - index), axis=axis)
        (turn,) = self.turns.draw(1, generator)
        return np.ascontiguousarray(turn.act(stack))


def _coarser(stack: Float[Array, "c *spatial"], factor: int) -> Float[Array, "c *smaller"]:
    """Blocks of so many pixels a side as one: the mean of intensities, the middle one of classes and validity."""
    if factor == 1:
        return stack
    cut = stack[(slice(None), *(slice(0, n // factor * factor) for n in stack.shape[1:]))]
    middle = cut[(slice(-2, None), *(slice(factor // 2, None, factor),) * (stack.ndim - 1))]
    mean = cut[:-2]
    for axis in range(1, stack.ndim):
        shape = (*mean.shape[:axis], -1, factor, *mean.shape[axis + 1 :])
        mean = mean.reshape(shape).mean(axis + 1)
    return np.concatenate([mean, middle]).astype(np.float32)
