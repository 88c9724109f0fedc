"""Pairs of images for a network that deforms: which belong together, brought onto one grid, and patches of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import numpy as np
from jaxtyping import Float

from modalign.data.labelled import LabelKind, LabelledImage, classes_of
from modalign.data.unit_range import in_unit_range, unit_range
from modalign.geometry import grid_rotations, identity
from modalign.image import Labels
from modalign.registration.workspace import isotropic

Array = np.ndarray
Stack: TypeAlias = Float[Array, "planes *spatial"]
"""Intensities from 0 to 1 channel by channel, validity, and one plane of 0 and 1 for each class."""
Pairing: TypeAlias = Literal["neighbours", "subjects", "atlas"]


def stacked(one: LabelledImage, pixel_size: float, kind: LabelKind, values: Sequence[int]) -> Stack:
    """An image on square pixels of a size, with what is known about it."""
    image = isotropic(one.image, pixel_size)
    planes = [in_unit_range(image, unit_range(image)), image.valid[None]]
    if one.labels is not None:
        there = Labels(one.labels.data, one.image.grid).resampled(image.grid, identity(image.ndim))
        classes = classes_of(there, kind, values)
        planes.append(np.stack([classes == number for number in range(len(values))]))
    return np.concatenate(planes).astype(np.float32)


def centred(stack: Stack, shape: tuple[int, ...], channels: int) -> Float[Array, "planes *shape"]:
    """A stack cut, or continued by its outermost pixels, to another shape, its middle in the middle.

    What is continued is not valid; validity is the plane after the channels.
    """
    places, inside = [], np.ones((1,) * len(shape), bool)
    for axis, (wanted, n) in enumerate(zip(shape, stack.shape[1:], strict=True)):
        place = np.arange(wanted) - (wanted - n) // 2
        places.append(place.clip(0, n - 1))
        along = (1,) * axis + (wanted,) + (1,) * (len(shape) - 1 - axis)
        inside = inside & ((place >= 0) & (place < n)).reshape(along)
    result = stack[(slice(None), *np.ix_(*places))]
    result[channels] *= inside
    return np.asarray(result, np.float32)


@dataclass(frozen=True)
class DeformPairs:
    """Pairs of images that are to be brought onto each other.

    Attributes:
        stacks: Of all images, in the order in which neighbours follow each other.
        atlas: That of the fixed image of all pairs, if there is one.
        pairing: Which images make a pair.
        reach: How many places away neighbours may be.
        channels: Of the images.
    """

    stacks: tuple[Stack, ...]
    atlas: Stack | None
    pairing: Pairing
    reach: int
    channels: int

    def draw(self, patch: int, generator: np.random.Generator) -> tuple[Stack, Stack]:
        """A patch of a random pair, turned at random; whole images where they are smaller than a patch."""
        fixed, moving = self._pair(int(generator.integers(len(self.stacks))), generator)
        moving = centred(moving, fixed.shape[1:], self.channels)
        starts = [int(generator.integers(max(n - patch, 0) + 1)) for n in fixed.shape[1:]]
        window = (slice(None), *(slice(start, start + patch) for start in starts))
        (turn,) = grid_rotations((1.0,) * len(starts)).draw(1, generator)
        one, other = (np.ascontiguousarray(turn.act(stack[window])) for stack in (fixed, moving))
        return one, other

    def _pair(self, number: int, generator: np.random.Generator) -> tuple[Stack, Stack]:
        """An image as the moving one and a partner as the fixed one."""
        moving = self.stacks[number]
        if self.atlas is not None:
            return self.atlas, moving
        places = np.arange(len(self.stacks))
        allowed = places != number
        if self.pairing == "neighbours":
            allowed &= np.abs(places - number) <= self.reach
        return self.stacks[int(generator.choice(places[allowed]))], moving

    def examples(self, most: int) -> list[tuple[Stack, Stack]]:
        """Some whole pairs to judge by, always the same: each image with the next one, or with the atlas."""
        if self.atlas is not None:
            pairs = [(self.atlas, moving) for moving in self.stacks]
        else:
            pairs = list(zip(self.stacks[:-1], self.stacks[1:], strict=True))
        chosen = pairs[:: -(-len(pairs) // most)]
        return [(fixed, centred(moving, fixed.shape[1:], self.channels)) for fixed, moving in chosen]
