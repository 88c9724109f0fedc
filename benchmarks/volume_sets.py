"""The volumes of the studies: brains in several contrasts, and heads painted with random ones, split by subject."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from datasets import data_root
from scipy import ndimage

from modalign.data.pairs import Pair
from modalign.image import Image
from modalign.io import read_image

UNSEEN_HEADS = ("007", "008")
TRAINING_HEADS = ("001", "002", "003", "004", "005", "006")
PAINTINGS = 3
"""Times that every training head is painted."""
NOISE, BLUR = 40.0, 0.6
"""Standard deviations of the noise and, in voxels, of the smoothing of painted heads, whose intensities reach 1000."""


@dataclass(frozen=True)
class VolumeSet:
    """Two contrasts of some subjects.

    Attributes:
        folder: Of the image set; empty for painted heads.
        kinds: Folders of the fixed and of the moving contrast.
        train: Names of the subjects to train on.
        unseen: Names of the subjects to test on.
        width: Side of the displaced cubes, voxels.
        millimeters: Voxel size at which a model learns.
    """

    folder: str
    kinds: tuple[str, str]
    train: tuple[str, ...]
    unseen: tuple[str, ...]
    width: int
    millimeters: float

    def pairs(self, names: tuple[str, ...], paintings: int = 1) -> Iterator[Pair]:
        """The pairs of some subjects."""
        for name in names:
            if self.folder:
                fixed, moving = (read_image(data_root() / self.folder / kind / f"{name}.nii.gz") for kind in self.kinds)
                yield Pair(name, fixed, moving)
            else:
                yield from (painted_head(name, number) for number in range(paintings))


VOLUME_SETS = {
    "brain_t1_t2": VolumeSet("ms_brain_t1_t2_flair", ("t1", "t2"), ("001",), ("002",), 104, 2.0),
    "brain_t1_flair": VolumeSet("ms_brain_t1_t2_flair", ("t1", "flair"), ("001",), ("002",), 104, 2.0),
    "infant_t1_t2": VolumeSet("infant_t1_t2", ("t1", "t2"), ("003",), ("001",), 64, 1.2),
    "brain_t1_t2_exchanged": VolumeSet("ms_brain_t1_t2_flair", ("t1", "t2"), ("002",), ("001",), 104, 2.0),
    "brain_t1_flair_exchanged": VolumeSet("ms_brain_t1_t2_flair", ("t1", "flair"), ("002",), ("001",), 104, 2.0),
    "infant_t1_t2_exchanged": VolumeSet("infant_t1_t2", ("t1", "t2"), ("001",), ("003",), 64, 1.2),
    "painted_heads": VolumeSet("", ("one", "other"), TRAINING_HEADS, UNSEEN_HEADS, 104, 2.0),
}


def painted_head(name: str, number: int) -> Pair:
    """A head whose tissues have random intensities, twice: nothing but the anatomy is shared.

    The same head and number give the same two contrasts, others give others.
    """
    root = data_root() / "synthseg_label_maps"
    labels = read_image(root / "label" / f"{name}.nii.gz")
    values, classes = np.load(root / "generation_labels.npy"), np.load(root / "generation_classes.npy")
    rng = np.random.default_rng([int(name), number])
    table = np.zeros(int(values.max()) + 1, dtype=int)
    table[values.astype(int)] = classes
    tissue = table[labels.data[0].astype(int)]
    contrasts = []
    for _ in range(2):
        means = rng.uniform(50, 1000, int(classes.max()) + 1)
        means[table[0]] = 0  # air
        painted = ndimage.gaussian_filter(means[tissue].astype(np.float32), BLUR)
        painted += NOISE * rng.standard_normal(painted.shape, dtype=np.float32)
        contrasts.append(Image(np.clip(painted, 0, None)[None].astype(np.int16), labels.grid, ("painted",)))
    return Pair(f"{name}-{number}", *contrasts)
