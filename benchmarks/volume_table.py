"""The table of volumes of docs/results.md: a model for each set, one for its slices, and the plan of what to run.

    python benchmarks/volume_table.py --out results/volumes
    modalign benchmark results/volumes/plan.toml --out results/volumes/rows --workers 2

Models that are there are kept; the sets are lists of the files of the image sets, but for painted heads, which are
written.
"""

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatch
from pathlib import Path
from time import perf_counter, process_time

import tyro
from datasets import data_root, require_data
from full_table import registrars, table, write_set
from volume_sets import PAINTINGS, VOLUME_SETS

from modalign.data.pairs import Pair
from modalign.geometry import Grid
from modalign.image import Image
from modalign.io import write_table, write_text
from modalign.nn import UNetOptions
from modalign.training import ComirOptions, TrainingProgress, fit_comir
from modalign.training.calibration import CalibrationOptions
from modalign.training.validation import ValidationOptions

NETWORK = UNetOptions((8, 16, 32))
STEPS = 900
REGISTRARS = {
    ("originals", "CoMIR"): ("mutual-information",),
    ("originals",): ("global-mi", "simpleitk-mi", "elastix", "ants"),
    ("CoMIR", "slices"): ("fft-search",),
    ("CoMIR",): ("auto", "dense", "alpha-amd", "ecc"),
}
"""Engines and peers on each kind of representation."""
SLICED = ("brain_t1_t2",)
"""Sets that are represented slice by slice as well."""
SLOW = {"global-mi": ("brain_t1_t2",), "simpleitk-mi": ("brain_t1_t2", "infant*")}
"""Engines and peers that take long, and the only sets that they are tried on."""
SLICE_STEPS = 200
EVERY_SLICE = 4
"""One of so many slices is a training image of the model of slices."""


@dataclass(frozen=True)
class Study:
    """Where everything goes."""

    out: Path = field(kw_only=True)
    """Folder for the sets, the models and the plan."""
    sets: tuple[str, ...] = tuple(VOLUME_SETS)
    """Only these sets."""
    draws: int = 1
    """Displacements of every unseen subject at each level."""
    wide_draws: int = 2
    """Displacements of every unseen subject by up to 90°."""


def main() -> None:
    """Train what is missing and write the plan."""
    study = tyro.cli(Study)
    require_data()
    out = study.out.absolute()
    for name in study.sets:
        if not (out / "sets" / name / "pairs.csv").is_file():
            write_files(out / "sets" / name, name)
        train_volumes(name, out / "models" / name)
        if name in SLICED:
            train_slices(name, out / "slices" / name)
    write_text(out / "plan.toml", plan(study, out))


def write_files(folder: Path, name: str) -> None:
    """The table of the unseen pairs of a set."""
    kind = VOLUME_SETS[name]
    if not kind.folder:
        write_set(folder, list(kind.pairs(kind.unseen)))
        return
    folder.mkdir(parents=True, exist_ok=True)
    root = data_root().absolute() / kind.folder
    paths = ({"name": n} | dict(zip(("fixed", "moving"), kind.kinds, strict=True)) for n in kind.unseen)
    rows = [{k: v if k == "name" else root / v / f"{row['name']}.nii.gz" for k, v in row.items()} for row in paths]
    write_table(folder / "pairs.csv", rows)


def options(steps: int, **more: object) -> ComirOptions:
    """Training without validation: the unseen pairs take no part, and the last model is kept."""
    return ComirOptions(
        steps=steps,
        validation=ValidationOptions(times=1, draws=1, most_pairs=1),
        calibration=CalibrationOptions(0, 0, 0),
        **more,  # type: ignore[arg-type]
    )


def train_volumes(name: str, folder: Path, **more: object) -> None:
    """A 3D model."""
    kind = VOLUME_SETS[name]
    pairs = kind.pairs(kind.train, PAINTINGS)
    chosen = options(STEPS, pixel_size=kind.millimeters, patch=16, network=NETWORK, **more)
    train(folder, pairs, chosen)


def train_slices(name: str, folder: Path) -> None:
    """A 2D model of the slices across the first axis, at the voxel size of the volumes."""
    kind = VOLUME_SETS[name]
    pairs = (piece for pair in kind.pairs(kind.train) for piece in slices(pair))
    train(folder, pairs, options(SLICE_STEPS))


def slices(pair: Pair) -> list[Pair]:
    """Slices from the middle half of a volume."""
    count = pair.fixed.grid.shape[0]
    plane = Grid(pair.fixed.grid.shape[1:], pair.fixed.grid.spacing[1:], unit=pair.fixed.grid.unit)

    def cut(image: Image, k: int) -> Image:
        return Image(image.data[:, k], plane, image.channels)

    numbers = range(count // 4, 3 * count // 4, EVERY_SLICE)
    return [Pair(f"{pair.name}-{k:03d}", cut(pair.fixed, k), cut(pair.moving, k)) for k in numbers]


def train(folder: Path, pairs: Iterable[Pair], chosen: ComirOptions) -> None:
    """Train and save a model, unless it is there."""
    if (folder / "model.json").is_file():
        return

    def tell(now: TrainingProgress) -> None:
        print(f"\r{folder.name} {now.step} {now.loss:.3f} of {now.chance:.3f}", end="", file=sys.stderr, flush=True)

    wall, cpu = perf_counter(), process_time()
    outcome = fit_comir(list(pairs), [], chosen, report=tell)
    print(f"\n{folder.name}: {outcome.message} {perf_counter() - wall:.0f} s, {process_time() - cpu:.0f} CPU-s")
    outcome.model.save(folder)


def plan(study: Study, out: Path) -> str:
    """Every engine and peer on originals, and engines on representations."""
    lines = ["[benchmark]", "seed = 0", 'reference = "CoMIR / auto, refined on originals"', "verdict = true"]
    for name in study.sets:
        lines += table("datasets", name=name, pairs=f"sets/{name}/pairs.csv", width=VOLUME_SETS[name].width)
    lines += table("protocols", kind="multiregeval", draws=study.draws)
    lines += table("protocols", kind="comir", max_rotation_degrees=90, draws=study.wide_draws)
    lines += table("encoders", name="originals", kind="identity")
    lines += table("encoders", name="CoMIR", kind="comir", model=str(out / "models" / "{dataset}"))
    sliced = [name for name in study.sets if name in SLICED]
    if sliced:
        entry = {"kind": "comir-slices", "model": f"{out}/slices/{{dataset}}", "datasets": sliced}
        lines += table("encoders", name="slices", **entry)
    for kinds, engines in REGISTRARS.items():
        encoders = [kind for kind in kinds if sliced or kind != "slices"]
        for name in engines:
            sets = [one for one in study.sets if name not in SLOW or any(fnmatch(one, kind) for kind in SLOW[name])]
            lines += registrars((name,), {}, encoders=encoders, datasets=sets) if sets else []
    refined = {"engine": "auto", "encoders": ["CoMIR"], "refine_on_originals": True}
    lines += table("registrars", name="auto, refined on originals", **refined)
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
