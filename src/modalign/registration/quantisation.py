"""Quantisation of images of any number of channels into a few classes, by k-means."""

import numpy as np
from jaxtyping import Float, Integer, UInt8

from modalign.image import Image

Array = np.ndarray
Values = Float[Array, "values channels"]
Labels = UInt8[Array, "*spatial"]
"""Class of every pixel, counted from 0; the number of classes where the pixel is masked."""

SAMPLE = 4096
"""The centres are fitted to about so many pixels, spread evenly over the valid ones."""
ITERATIONS = 25
"""Steps of Lloyd's algorithm; the centres have mostly settled after fewer."""


def quantised(image: Image, classes: int, seed: int = 0) -> tuple[Labels, int]:
    """Labels of an image, and the number of classes: fewer than asked for where the image has fewer distinct values.

    Args:
        image: Finite values where it is valid, which is somewhere.
        classes: At most 255.
        seed: Of the start of the search for the centres.
    """
    values = image.data[:, image.valid].T.astype(np.float32)
    used, classified = np.unique(nearest(values, centers(values, classes, seed)), return_inverse=True)
    labels = np.full(image.grid.shape, len(used), dtype=np.uint8)
    labels[image.valid] = classified
    return labels, len(used)


def planes(labels: Labels, classes: int) -> Float[Array, "classes *spatial"]:
    """One plane a class, 1 where a pixel belongs to it and else 0: together, they add up to the mask."""
    return np.stack([labels == number for number in range(classes)]).astype(np.float32)


def centers(values: Values, classes: int, seed: int = 0) -> Float[Array, "classes channels"]:
    """Centres of at most ``classes`` clusters, by Lloyd's algorithm from a k-means++ start, on a sample of the values.

    Source: Arthur and Vassilvitskii, k-means++: the advantages of careful seeding, SODA 2007.
    """
    sample = values[:: max(1, len(values) // SAMPLE)]
    found = _start(sample, classes, np.random.default_rng(seed))
    for _ in range(ITERATIONS):
        moved = _means(sample, nearest(sample, found))
        if np.array_equal(moved, found):
            break
        found = moved
    return found


def nearest(values: Values, among: Float[Array, "classes channels"]) -> Integer[Array, " values"]:
    """Index of the centre nearest to each value."""
    middle = among.mean(0)  # the expanded square loses its digits far from zero
    distances = np.square(among - middle).sum(1) - 2 * (values - middle) @ (among - middle).T
    return np.asarray(distances.argmin(1))


def _means(sample: Values, labels: Integer[Array, " values"]) -> Float[Array, "classes channels"]:
    """Mean of every class that has members."""
    sizes = np.bincount(labels)
    sums = np.stack([np.bincount(labels, channel) for channel in sample.T], axis=1)
    return np.asarray((sums[sizes > 0] / sizes[sizes > 0, None]).astype(np.float32))


def _start(sample: Values, classes: int, rng: np.random.Generator) -> Float[Array, "classes channels"]:
    """Centres drawn one after the other, far from those already drawn rather than near."""
    drawn = [sample[rng.integers(len(sample))]]
    squared = np.square(sample - drawn[0]).sum(1, dtype=np.float64)
    while len(drawn) < classes and squared.any():
        drawn.append(sample[rng.choice(len(sample), p=squared / squared.sum())])
        squared = np.minimum(squared, np.square(sample - drawn[-1]).sum(1))
    return np.stack(drawn)
