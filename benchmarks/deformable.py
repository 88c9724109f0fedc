"""Deformable registration measured: labels of neighbouring sections, of frames, and of subjects, before and after.

    python benchmarks/deformable.py --part tuning --out results/deformable      # which weight, on training images
    python benchmarks/deformable.py --part test --out results/deformable        # those weights, on unseen images

Sets: ``sections`` (ssTEM of fly nerve cord, neighbours), ``slices`` (FIB-SEM, three slices apart), ``frames`` (phase
contrast, neighbours), ``hippocampi`` (MRI of two subjects, grids centred on each other). Labels are mapped by nearest
neighbour and compared over those above 0 that either map has. Peers need the extra ``benchmark``. Rows are kept in
``tuning.csv`` and ``test.csv``; to repeat a row, delete it. CPU seconds are those of the process: give it one thread
(``OMP_NUM_THREADS=1 ITK_GLOBAL_DEFAULT_NUMBER_OF_THREADS=1``). The last column compares Dice with ANTs SyN case by
case: mean difference, and p of Wilcoxon's signed-rank test.
"""

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import process_time
from typing import Any, Literal, TypeAlias

import numpy as np
import tyro
from datasets import data_root, require_data
from deformable_peers import Run, ants_syn, elastix_bspline
from scipy.stats import wilcoxon

from modalign.evaluation.statistics import bootstrap_interval
from modalign.geometry import Transform, deformation, identity
from modalign.image import Image, Labels
from modalign.io import read_image, read_labels, read_table, write_table
from modalign.overlap import dice, hausdorff95
from modalign.registration import Auto, Deform, register
from modalign.registration.similarity_choice import WEIGHTS, SimilarityName

Part: TypeAlias = Literal["tuning", "test"]
Case: TypeAlias = tuple[str, Image, Image, Labels, Labels]
"""Name, fixed and moving image, and their labels."""
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
"""Weights that are tried, times the usual one of each similarity."""
USUAL = {
    **WEIGHTS,
    "ncc-sup": WEIGHTS["ncc"],
    "deepsim-ae": WEIGHTS["deepsim"],
    "deepsim-seg": WEIGHTS["deepsim"],
}
"""Weights of the regulariser."""
WEIGHTS_OF: dict[tuple[str, str], float] = {}
"""Those that were better on the tuning images of a set."""
CLASSES = {**dict.fromkeys((0, 32, 64, 96, 128), 1), 159: 2, 191: 3, 223: 4, 255: 5}
"""Of the fly's nerve cord: membrane of any direction, glia, mitochondrion, synapse, inside of cells."""
KEYS = ("set", "case", "method", "weight", "noise")
FEWEST_TO_TEST = 4
"""Cases; of fewer no test says anything."""


@dataclass(frozen=True)
class Study:
    """What to measure."""

    part: Part
    """Weights on training images, or the usual weights on unseen ones."""
    out: Path = field(kw_only=True)
    """Folder for the results."""
    sets: tuple[str, ...] = ("sections", "slices", "frames", "hippocampi")
    """Which sets."""
    similarities: tuple[str, ...] = ("mse", "ncc", "nmi", "mind", "deepsim-ae", "deepsim-seg")
    """Which similarities; ncc-sup is for networks alone."""
    methods: tuple[str, ...] = ("identity", "affine", "ants", "elastix", "pair")
    """Among identity, affine, ants, elastix, pair and network; tuning is of pair alone."""
    models: Path = Path("results/deformable_models")
    """What deformable_models.py has trained."""
    most: int = 100
    """Cases of each set at most."""
    noise: tuple[float, ...] = (0.0,)
    """Standard deviations of noise added to both images, whose intensities run from 0 to 1."""


def sections(part: Part) -> Iterator[Case]:
    """Neighbouring sections: 001 to 008 to tune on, 009 to 012 to test on."""
    root = data_root() / "sstem_drosophila_vnc"
    for n in {"tuning": (1, 3, 5), "test": (9, 10, 11)}[part]:
        images = [read_image(root / "raw" / f"{k:03d}.png") for k in (n, n + 1)]
        labels = [merged(read_labels(root / "label" / f"{k:03d}.png")) for k in (n, n + 1)]
        yield f"{n:03d}", *images, *labels  # type: ignore[misc]


def merged(labels: Labels) -> Labels:
    """The classes of the fly's nerve cord, one number each."""
    table = np.zeros(256, np.int32)
    for value, number in CLASSES.items():
        table[value] = number
    return replace(labels, data=table[labels.data])


def slices(part: Part) -> Iterator[Case]:
    """Slices three apart: 0 to 34 to tune on, 35 to 49 to test on."""
    root = data_root() / "fibsem_gala"
    image, labels = read_image(root / "image" / "train.tif"), read_labels(root / "label" / "train.tif")
    for z in {"tuning": (0, 10, 20), "test": (35, 38, 41, 44)}[part]:
        planes = [z, z + 3]
        grid = read_flat(image).grid
        yield (
            f"{z:03d}",
            *(Image(image.data[:, k], grid) for k in planes),
            *(Labels(labels.data[k].astype(np.int32), grid) for k in planes),
        )  # type: ignore[misc]


def read_flat(image: Image) -> Image:
    """The first slice of a volume, on a grid of its own."""
    from modalign.geometry import Grid

    return Image(image.data[:, 0], Grid(image.grid.shape[1:]))


def frames(part: Part) -> Iterator[Case]:
    """Neighbouring frames: 001 to 016 to tune on, 017 to 024 to test on; cells against background."""
    root = data_root() / "t98g_phase_timelapse" / "timelapse"
    for n in {"tuning": (1, 6, 11), "test": range(17, 24)}[part]:
        images = [read_image(root / "image" / f"{k:03d}.png") for k in (n, n + 1)]
        labels = [read_labels(root / "instance_predicted" / f"{k:03d}.png") for k in (n, n + 1)]
        yield f"{n:03d}", *images, *(replace(one, data=(one.data > 0).astype(np.int32)) for one in labels)  # type: ignore[misc]


def hippocampi(part: Part) -> Iterator[Case]:
    """Subjects against subjects: of 001 to 096 to tune on, 097 to 120 to test on, first with last."""
    root = data_root() / "msd_hippocampus"
    numbers = {"tuning": [*range(1, 7), *range(91, 97)], "test": [*range(97, 121)]}[part]
    for one, other in zip(numbers[: len(numbers) // 2], reversed(numbers), strict=False):
        images = [read_image(root / "image" / f"{k:03d}.nii.gz") for k in (one, other)]
        labels = [read_labels(root / "label" / f"{k:03d}.nii.gz") for k in (one, other)]
        grid = images[1].grid
        origin = tuple((np.array(grid.origin) + images[0].grid.center - grid.center).tolist())
        moved = replace(grid, origin=origin)
        yield f"{one:03d}", images[0], images[1].with_grid(moved), labels[0], replace(labels[1], grid=moved)


SETS: dict[str, Callable[[Part], Iterator[Case]]] = {
    "sections": sections,
    "slices": slices,
    "frames": frames,
    "hippocampi": hippocampi,
}


def main() -> None:
    """Measure what the command line asks for and is not there yet."""
    study = tyro.cli(Study)
    require_data()
    table = study.out / f"{study.part}.csv"
    rows: list[dict[str, Any]] = list(read_table(table)) if table.is_file() else []
    known = {tuple(str(row[key]) for key in KEYS) for row in rows}
    for name in study.sets:
        for number, case in enumerate(SETS[name](study.part)):
            if number >= study.most:
                break
            for noise in study.noise:
                for method, weight, run in methods(study, name):
                    key = (name, case[0], method, f"{weight:g}", f"{noise:g}")
                    if key in known:
                        continue
                    rows.append(dict(zip(KEYS, key, strict=True)) | measured(noisy(case, noise), run))
                    write_table(table, rows)
                    print(f"\r{' '.join(key)}        ", end="", file=sys.stderr, flush=True)
    print(f"\n{summary(rows)}")


def methods(study: Study, name: str) -> Iterator[tuple[str, float, Run]]:
    """Each method with its weight, for a set."""
    if study.part == "test" and "identity" in study.methods:
        yield "identity", 0.0, lambda fixed, _: (identity(fixed.ndim), {})
    if study.part == "test" and "affine" in study.methods:
        yield "affine", 0.0, affine
    if study.part == "test" and "ants" in study.methods:
        yield "ANTs SyN", 0.0, ants_syn
    if study.part == "test" and "elastix" in study.methods:
        yield "elastix B-spline", 0.0, elastix_bspline()
    for kind in study.similarities:
        usual = WEIGHTS_OF.get((name, kind), USUAL[kind])
        for factor in FACTORS if study.part == "tuning" else (1.0,):
            chosen = similarity(study.models, name, kind)
            if "pair" in study.methods and kind != "ncc-sup":
                method = Deform("none", *chosen, weight=usual * factor, check_back=False)
                yield f"deform {kind}", usual * factor, deformer(method)
        if "network" in study.methods:
            network = str(study.models / f"{name}-net-{kind}")
            told = Deform("none", *chosen, network=network, weight=usual, steps=0, check_back=False)
            yield f"network {kind}", usual, deformer(told)
            yield f"network {kind} refined", usual, deformer(replace(told, steps=40))


def similarity(models: Path, name: str, kind: str) -> tuple[SimilarityName, str]:
    """The similarity and the features of a kind such as ``deepsim-seg``."""
    metric, _, rest = kind.partition("-")
    return metric, str(models / f"{name}-{rest}") if metric == "deepsim" else ""  # type: ignore[return-value]


def affine(fixed: Image, moving: Image) -> tuple[Transform, Mapping[str, float]]:
    """Our linear alignment; where it is refused, none."""
    found = register(fixed, moving, Auto(transform="affine", max_rotation_degrees=20))
    return found.fixed_to_moving or identity(fixed.ndim), {}


def deformer(method: Deform) -> Run:
    """Our engine."""

    def run(fixed: Image, moving: Image) -> tuple[Transform, Mapping[str, float]]:
        found = register(fixed, moving, method)
        assert found.candidate is not None, found.reasons
        return found.candidate, found.stats

    return run


def noisy(case: Case, sigma: float) -> Case:
    """A case with Gaussian noise on both images, after their intensities were brought to 0 to 1."""
    name, fixed, moving, *labels = case
    if not sigma:
        return case
    rng, images = np.random.default_rng(int(name)), []
    for image in (fixed, moving):
        values = image.data.astype(np.float32)
        low, high = np.percentile(values, (0.5, 99.5))
        scaled = np.clip((values - low) / (high - low), 0, 1)
        images.append(image.with_data((scaled + sigma * rng.standard_normal(values.shape)).astype(np.float32)))
    return name, *images, *labels  # type: ignore[return-value]


def measured(case: Case, run: Run) -> dict[str, Any]:
    """One case by one method."""
    _, fixed, moving, fixed_labels, moving_labels = case
    started = process_time()
    found, stats = run(fixed, moving)
    seconds = process_time() - started
    warped = moving_labels.resampled(fixed_labels.grid, found).data
    shape = deformation(found, fixed.grid)
    return {
        "dice": round(dice(fixed_labels.data, warped), 5),
        "hd95": round(hausdorff95(fixed_labels.data, warped, fixed.grid.spacing), 4),
        "folded": f"{shape.folded:.3g}",
        "folded_volume": f"{shape.folded_volume:.3g}",
        "sd_log": round(shape.sd_log, 4),
        "steps": int(stats.get("steps", 0)),
        "cpu_seconds": round(seconds, 2),
    }


def summary(rows: Sequence[Mapping[str, Any]]) -> str:
    """Means over the cases of each set."""
    titles = ("set", "method", "weight", "noise", "Dice", "HD95", "folded", "SDlogJ", "CPU-s", "cases", "ANTs SyN")
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    groups: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(str(row[k]) for k in KEYS if k != "case"), []).append(row)
    for key, some in groups.items():
        values = {name: np.array([float(row[name]) for row in some]) for name in COLUMNS}
        span = bootstrap_interval(values["dice"], [str(row["case"]) for row in some], lambda v: float(np.mean(v)))
        lines.append(
            f"| {' | '.join(key)} | {values['dice'].mean():.4f} ({span.low:.3f}–{span.high:.3f}) "
            f"| {values['hd95'].mean():.2f} | {values['folded'].mean():.3%} | {values['sd_log'].mean():.3f} "
            f"| {values['cpu_seconds'].mean():.1f} | {len(some)} "
            f"| {paired(some, groups.get((key[0], 'ANTs SyN', '0', key[3]), []))} |"
        )
    return "\n".join(lines)


def paired(ours: Sequence[Mapping[str, Any]], theirs: Sequence[Mapping[str, Any]]) -> str:
    """The mean difference in Dice over the cases that both have, and whether it may be chance."""
    known = {str(row["case"]): float(row["dice"]) for row in theirs}
    apart = [float(row["dice"]) - known[str(row["case"])] for row in ours if str(row["case"]) in known]
    if not any(apart):
        return ""
    test = f" (p = {wilcoxon(apart).pvalue:.2g})" if len(apart) >= FEWEST_TO_TEST else ""
    return f"{np.mean(apart):+.3f}{test}"


COLUMNS = ("dice", "hd95", "folded", "sd_log", "cpu_seconds")

if __name__ == "__main__":
    main()
