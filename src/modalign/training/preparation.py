"""What is settled before the first step: the pixels to learn on, the rotations to follow, and the card of the model."""

from collections.abc import Sequence
from math import prod

from modalign.data.intensity import IntensityScaling
from modalign.data.pairs import Pair
from modalign.data.shelf import Shelf
from modalign.errors import TrainingError
from modalign.geometry import RotationGroup, grid_rotations, rotation_group
from modalign.registration.workspace import isotropic
from modalign.representation import ComirCard, Modality
from modalign.representation.pixel_size import MOST_GROWTH, MOST_PIXELS
from modalign.training.options import OWN_RANGE, ComirOptions


def at_pixel_size(pair: Pair, size: float | None, shelf: Shelf) -> Pair:
    """A pair on pixels of one size along all axes, kept on a shelf; as it is where no size is wanted.

    Raises:
        TrainingError: The size would make a multitude of the pixels.
    """
    if size is None:
        return pair
    fixed, moving = pair.fixed, pair.moving.with_grid(pair.fixed.grid)
    voxels = prod(max(length / size, 1) for length in fixed.grid.extent)
    if voxels > max(MOST_GROWTH * prod(fixed.grid.shape), MOST_PIXELS):
        raise TrainingError(
            f"pixels of {size:g} (pixel_size) would make {voxels:.2g} of pair {pair.name!r}, whose pixels are "
            f"{' × '.join(f'{s:.3g}' for s in fixed.grid.spacing)} {fixed.grid.unit}: give a larger size"
        )
    return shelf.put_pair(Pair(pair.name, isotropic(fixed, size), isotropic(moving, size)))


def group_to_follow(card: ComirCard, options: ComirOptions) -> RotationGroup:
    """The group whose rotations the representations are to follow.

    Raises:
        TrainingError: The pixels do not allow the one that is wanted.
    """
    if not options.equivariance:
        return rotation_group("C1", card.ndim)
    exact = grid_rotations(card.pixel_size)
    if options.group is None:
        return exact
    wanted = rotation_group(options.group, card.ndim)
    if not {g.permutation for g in wanted.elements} <= {g.permutation for g in exact.elements}:
        sizes = " × ".join(f"{size:g}" for size in card.pixel_size)
        raise TrainingError(
            f"the rotations {wanted.name} do not map pixels of {sizes} onto each other, as {exact.name} does; use "
            "that, or learn at one pixel size along all axes (pixel_size)"
        )
    return wanted


def new_card(pairs: Sequence[Pair], options: ComirOptions, names: tuple[str, str]) -> ComirCard:
    """The card of a model for some pairs that has not been trained yet."""
    first = pairs[0].fixed
    own = OWN_RANGE[first.ndim] if options.own_range is None else options.own_range
    fixed, moving = (
        Modality(
            name,
            images[0].channels,
            IntensityScaling.fit(images, own_range=own),
            options.network.resolved(images[0].ndim),
        )
        for name, images in zip(names, ([p.fixed for p in pairs], [p.moving for p in pairs]), strict=True)
    )
    return ComirCard(fixed, moving, first.ndim, options.latent_channels, first.grid.spacing, first.grid.unit)
