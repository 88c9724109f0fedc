"""The networks of the deformable benchmark: feature extractors, and networks that deform, learnt on the tuning images.

    python benchmarks/deformable_models.py features --out results/deformable_models
    python benchmarks/deformable_models.py networks --out results/deformable_models
    python benchmarks/deformable_models.py convergence --out results/deformable_models   # table of what was learnt when

The networks that look through features need the extractors first. One model folder each, named SET-KIND or
SET-net-SIMILARITY; those that are there already are kept. The last training images of each set are
kept aside to choose the best weights on. No test image takes part.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal

import numpy as np
import tyro
from datasets import data_root, require_data
from deformable import USUAL, WEIGHTS_OF, merged, read_flat

from modalign.data.labelled import LabelKind, LabelledImage
from modalign.image import Image, Labels
from modalign.io import read_image, read_json, read_labels
from modalign.training import DeformOptions, FeatureOptions, fit_deform, fit_features

SEGMENTED: dict[str, LabelKind] = {
    "sections": "classes",
    "slices": "instances",
    "frames": "instances",
    "hippocampi": "classes",
}


@dataclass(frozen=True)
class Study:
    """What to train."""

    what: tyro.conf.Positional[Literal["features", "networks", "convergence"]]
    """Train feature extractors, or networks that deform; or tell how well the networks did while they were trained."""
    out: Path = field(kw_only=True)
    """Folder for the models."""
    sets: tuple[str, ...] = ("sections", "slices", "frames", "hippocampi")
    """Which sets."""
    kinds: tuple[str, ...] = ("seg", "ae")
    """With labels, and without."""
    similarities: tuple[str, ...] = ("mse", "ncc", "ncc-sup", "nmi", "mind", "deepsim-ae", "deepsim-seg")
    """What the networks that deform are trained by."""
    steps: int = 1200
    """Training steps of the extractors."""
    minutes: float = 3.0
    """Of training each network: the same for all, whatever a step costs."""


def sections() -> list[LabelledImage]:
    """Sections 001 to 008."""
    root = data_root() / "sstem_drosophila_vnc"
    names = [f"{k:03d}.png" for k in range(1, 9)]
    return [LabelledImage(n[:3], read_image(root / "raw" / n), merged(read_labels(root / "label" / n))) for n in names]


def slices() -> list[LabelledImage]:
    """Slices 0 to 34."""
    root = data_root() / "fibsem_gala"
    image, labels = read_image(root / "image" / "train.tif"), read_labels(root / "label" / "train.tif")
    grid = read_flat(image).grid
    return [
        LabelledImage(f"{z:03d}", Image(image.data[:, z], grid), Labels(labels.data[z].astype(np.int32), grid))
        for z in range(35)
    ]


def frames() -> list[LabelledImage]:
    """Frames 001 to 016; their labels come from another network."""
    root = data_root() / "t98g_phase_timelapse" / "timelapse"
    names = [f"{k:03d}" for k in range(1, 17)]
    return [
        LabelledImage(n, read_image(root / "image" / f"{n}.png"), read_labels(root / "instance_predicted" / f"{n}.png"))
        for n in names
    ]


def hippocampi() -> list[LabelledImage]:
    """Subjects 001 to 096."""
    root = data_root() / "msd_hippocampus"
    files = {n: [root / part / f"{n:03d}.nii.gz" for part in ("image", "label")] for n in range(1, 97)}
    return [
        LabelledImage(f"{n:03d}", read_image(image), read_labels(label))
        for n, (image, label) in files.items()
        if image.is_file()
    ]


IMAGES: dict[str, Callable[[], list[LabelledImage]]] = {
    "sections": sections,
    "slices": slices,
    "frames": frames,
    "hippocampi": hippocampi,
}


SUPERVISION = 1.0
"""Weight of the labels beside correlation, as published."""


def main() -> None:
    """Train what the command line asks for and is not there yet."""
    study = tyro.cli(Study)
    if study.what == "convergence":
        print(convergence(study))
        return
    require_data()
    for name in study.sets:
        images = IMAGES[name]()
        kept = max(2, len(images) // 8)
        training, validation = images[:-kept], images[-kept:]
        if study.what == "features":
            extractors(study, name, training, validation)
        else:
            networks(study, name, training, validation)


def extractors(study: Study, name: str, training: Sequence[LabelledImage], validation: Sequence[LabelledImage]) -> None:
    """The feature extractors of a set."""
    for kind in study.kinds:
        folder = study.out / f"{name}-{kind}"
        if folder.is_dir():
            continue
        seen = [
            [one if kind == "seg" else replace(one, labels=None) for one in some] for some in (training, validation)
        ]
        options = FeatureOptions(steps=study.steps, labels_are=SEGMENTED[name])
        trained = fit_features(*seen, options)
        trained.model.save(folder)
        tell(folder, trained.message, trained.fitted.seconds)


def networks(study: Study, name: str, training: Sequence[LabelledImage], validation: Sequence[LabelledImage]) -> None:
    """The networks of a set; labels of the validation images choose the best weights of each."""
    for kind in study.similarities:
        folder = study.out / f"{name}-net-{kind}"
        if folder.is_dir():
            continue
        similarity, _, rest = kind.partition("-")
        options = DeformOptions(
            minutes=study.minutes,
            pairing="subjects" if name == "hippocampi" else "neighbours",
            reach={"slices": 3}.get(name, 1),
            similarity=similarity,  # type: ignore[arg-type]  # one of them
            features=str(study.out / f"{name}-{rest}") if similarity == "deepsim" else "",
            weight=WEIGHTS_OF.get((name, kind), USUAL[kind]),
            pixel_size=2.0 if name == "hippocampi" else 0.0,
            supervision=SUPERVISION if rest == "sup" else 0.0,
            labels_are=SEGMENTED[name],
        )
        trained = fit_deform(training, validation, options)
        trained.model.save(folder)
        tell(folder, trained.message, trained.fitted.seconds)


def convergence(study: Study) -> str:
    """Dice of the validation pairs before, and at each validation while a network was trained."""
    lines = []
    for name in study.sets:
        for kind in study.similarities:
            card = study.out / f"{name}-net-{kind}" / "model.json"
            if not card.is_file():
                continue
            training = read_json(card)["training"]
            if not lines:
                times = [f"{entry['seconds']:.0f} s" for entry in training["history"]]
                lines += [f"| set | trained by | before | {' | '.join(times)} |", "|---" * (3 + len(times)) + "|"]
            scores = [f"{entry['score']:.3f}" for entry in training["history"]]
            lines.append(f"| {name} | {kind} | {training['score_before']:.3f} | {' | '.join(scores)} |")
    return "\n".join(lines)


def tell(folder: Path, message: str, seconds: float) -> None:
    """How a training went."""
    print(f"{folder.name}: {message} ({seconds:.0f} s)", file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
