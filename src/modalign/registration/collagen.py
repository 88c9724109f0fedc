"""The collagen of an H&E section as a gray picture that resembles a second-harmonic one.

Source: Keikhosravi et al., Biomedical Optics Express 11(1), 2020, in the form of the published script
``BDcreation_reg`` of CurveAlign, which fixes the numbers below. The steps are the same, written anew: decorrelation
stretch, thresholds of the stretched colours for nuclei and for red tissue, k-means of the red tissue in CIELAB,
luminance within the reddest cluster, less the nuclei. Where the script leaves something to MATLAB, our reading is said
in the function.
"""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

from modalign.image import Image
from modalign.local_features.channels import LUMINANCE

Array = np.ndarray
Colours = Float[Array, "3 y x"]
"""Red, green and blue from 0 to 1."""

SATURATED = 0.01
"""Fraction of the pixels that the stretch makes black, and white, in each channel."""
NUCLEI = ((0, 120), (150, 256), (0, 120))
"""Stretched red, green and blue of haematoxylin: above the first number and below the second, of 255."""
RED = ((200, 256), (-1, 100), (100, 256))
"""Stretched red, green and blue of red tissue, likewise."""
CLUSTERS, REPLICATES = 3, 3
"""Clusters of the red tissue, and how often k-means starts anew."""
NUCLEUS_AREA = 50.0
"""Smaller nuclei, in square micrometers, are taken for dirt."""
SPECK_AREA = 1.0
"""Smaller pieces of collagen, in square micrometers, are left out."""
NUCLEUS_BLUR, NUCLEUS_LEVEL = 0.5, 0.001
"""Smoothing of the picture of the nuclei, in pixels, and the value above which it is a nucleus."""
FAINTEST = 0.01
"""Luminance below which nothing counts as collagen."""


def collagen(image: Image, pixels_per_micrometer: float, seed: int = 0) -> Image:
    """Luminance from 0 to 1 where an H&E image shows collagen, and 0 elsewhere.

    Args:
        image: Red, green and blue; the brightest value counts as 1.
        pixels_per_micrometer: Sets the smallest nucleus and the margin around it; in whole pixels, at least one.
        seed: Of k-means.
    """
    colours = np.where(image.valid, image.data, 0).astype(np.float64)
    colours /= max(float(colours.max()), 1e-12)
    stretched = decorrelated(colours, image.valid)
    red = reddest(colours, stretched, image.valid, seed)
    gray = np.tensordot(LUMINANCE, colours, 1) * red
    gray *= ~nuclei(colours, stretched, pixels_per_micrometer)
    gray *= _without_small(gray > FAINTEST, SPECK_AREA * pixels_per_micrometer**2)
    return replace(image, data=gray[None].astype(np.float32), channels=("collagen",))


def decorrelated(colours: Colours, valid: Bool[Array, "y x"]) -> Colours:
    """Decorrelation stretch from 0 to 255: correlations removed, spreads kept, then each channel at full contrast.

    Our reading of ``decorrstretch`` with a tolerance: whitening by the eigenvectors of the correlation matrix, back to
    the mean and deviation of each channel, and a linear stretch that saturates a part of the pixels at both ends.
    """
    values = colours[:, valid]
    mean, deviation = values.mean(1), np.maximum(values.std(1), 1e-9)
    strengths, axes = np.linalg.eigh(np.corrcoef(values) if (values.std(1) > 0).all() else np.eye(3))
    whitening = axes @ np.diag(1 / np.sqrt(np.maximum(strengths, 1e-9))) @ axes.T
    matrix = deviation[:, None] * whitening / deviation
    stretched = np.tensordot(matrix, colours - mean[:, None, None], 1)
    low, high = np.quantile(stretched[:, valid], (SATURATED, 1 - SATURATED), axis=1)[:, :, None, None]
    return np.asarray(255 * np.clip((stretched - low) / np.maximum(high - low, 1e-9), 0, 1))


def reddest(colours: Colours, stretched: Colours, valid: Bool[Array, "y x"], seed: int) -> Bool[Array, "y x"]:
    """The cluster, among all pixels, whose mean CIELAB colour is reddest and yellowest; none without red tissue.

    As in the script, red tissue keeps its green and blue, its red is the stretched one, and all else is black.
    """
    tissue = _within(stretched, RED) & valid
    painted = np.where(tissue, np.stack([stretched[0] / 255, colours[1], colours[2]]), 0.0)
    hues = _lab(painted)[1:, valid].T
    if len(np.unique(hues, axis=0)) < CLUSTERS:
        return np.asarray(tissue)
    labels, centers = _clustered(hues, seed)
    chosen = np.zeros(valid.shape, dtype=bool)
    chosen[valid] = labels == int(np.argmax(centers.mean(1)))
    return np.asarray(chosen & tissue)


def _lab(colours: Colours) -> Float[Array, "3 y x"]:
    """CIELAB; scikit-image is slow to import."""
    from skimage.color import rgb2lab

    return np.asarray(rgb2lab(colours, channel_axis=0))


def _clustered(values: Float[Array, "pixels 2"], seed: int) -> tuple[Array, Float[Array, "clusters 2"]]:
    """Cluster of each value and the centers; scikit-learn is slow to import."""
    from sklearn.cluster import KMeans

    fitted = KMeans(CLUSTERS, n_init=REPLICATES, random_state=seed).fit(values)
    return np.asarray(fitted.labels_), np.asarray(fitted.cluster_centers_)


def nuclei(colours: Colours, stretched: Colours, pixels_per_micrometer: float) -> Bool[Array, "y x"]:
    """Where the nuclei are, grown by about a micrometer and with their holes filled.

    Our reading: one micrometer is a whole number of pixels, and at least one.
    """
    found = _within(stretched, NUCLEI)
    gray = np.tensordot(LUMINANCE, np.where(found, stretched / 255, 0), 1) * (colours.max(0) > 0)
    blurred = ndimage.gaussian_filter(gray, NUCLEUS_BLUR, truncate=2.0)
    large = _without_small(blurred > NUCLEUS_LEVEL, NUCLEUS_AREA * pixels_per_micrometer**2)
    distance = ndimage.distance_transform_edt(~large) if large.any() else np.full(large.shape, np.inf)
    return np.asarray(ndimage.binary_fill_holes(distance <= max(1, int(pixels_per_micrometer))))


def _within(colours: Colours, bounds: tuple[tuple[int, int], ...]) -> Bool[Array, "y x"]:
    inside = [(low < channel) & (channel < high) for channel, (low, high) in zip(colours, bounds, strict=True)]
    return np.asarray(np.logical_and.reduce(inside))


def _without_small(mask: Bool[Array, "y x"], area: float) -> Bool[Array, "y x"]:
    """The mask without pieces, connected along edges or corners, of fewer pixels than ``area``."""
    pieces, _ = ndimage.label(mask, np.ones((3, 3)))
    sizes = np.bincount(pieces.ravel())
    sizes[0] = 0
    return np.asarray((sizes >= area)[pieces] & mask)
