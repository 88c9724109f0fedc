"""The full table of docs/results.md: every 2D set as files, a model for each, and the plans of what to run.

    python benchmarks/full_table.py --out results/table
    modalign benchmark results/table/plan.toml --out results/table/rows --workers 2
    modalign benchmark results/table/natural.toml --out results/table/natural --workers 2

Sets and models that are there are kept; the files of the sets are copies for this machine only.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import tyro
from datasets import UNSEEN_CORES, data_root, require_data
from views import SETS, model_of, unseen

from modalign.data.pairs import Pair
from modalign.geometry import Affine, as_rows
from modalign.image import Image, Points
from modalign.io import read_image, read_table, write_image, write_points, write_table, write_text, write_transform

NATURAL = "bf_shg_raw"
ENGINES = (
    "auto", "fft-search", "global-mi", "sift", "orb", "dense", "alpha-amd", "mutual-information", "ecc",
    "phase-correlation",
)  # fmt: skip
PEERS = ("simpleitk-mi", "opencv-ecc", "skimage-phase-correlation", "skimage-fourier-mellin")
SLOW_PEERS = ("elastix", "ants")
"""Peers that take longer than all others together: not on the hand-made representations of the large table."""
AFFINE = ("auto", "fft-search", "sift", "dense", "alpha-amd", "ecc", "mutual-information")
"""Engines that also find affine transforms."""
AFFINE_PEERS = ("simpleitk-mi", "elastix", "ants", "opencv-ecc")
DRAWS = {"bf_shg": 2, "phase_fluorescence": 2}
"""Displacements of a pair by the CoMIR protocol, where more than one; at each of the four levels it is one."""
HANDMADE = ("gradient", "self-similarity")


@dataclass(frozen=True)
class Study:
    """Where everything goes."""

    out: Path = field(kw_only=True)
    """Folder for the sets, the models and the plans."""
    models: Path | None = None
    """Folder of the models, one a set; by default in --out."""
    sets: tuple[str, ...] = tuple(SETS)
    """Only these sets."""


def main() -> None:
    """Write the sets and the plans, and train the models that are missing."""
    study = tyro.cli(Study)
    require_data()
    models = (study.models or study.out / "models").absolute()
    for name in study.sets:
        if not (study.out / "sets" / name / "pairs.csv").is_file():
            write_set(study.out / "sets" / name, unseen(name))
        if SETS[name].steps:
            model_of(name, models / name)
    write_text(study.out / "plan.toml", plan(study.sets, models))
    write_raw_cores(study.out / "sets" / NATURAL)
    write_stains(study.out / "sets" / "stains")
    write_text(study.out / "natural.toml", natural_plan(models))


def write_set(folder: Path, pairs: Sequence[Pair]) -> None:
    """Aligned pairs as files, and their table."""
    rows = []
    for pair in pairs:
        row = {"name": pair.name, "fixed": f"fixed_{pair.name}.tif", "moving": f"moving_{pair.name}.tif"}
        folder.mkdir(parents=True, exist_ok=True)
        write_image(folder / row["fixed"], pair.fixed)
        write_image(folder / row["moving"], pair.moving.with_grid(pair.fixed.grid))
        if pair.fixed.mask is not None:
            row["mask"] = f"mask_{pair.name}.tif"
            mask = pair.fixed.mask[None].astype(np.uint8) * np.uint8(255)
            write_image(folder / row["mask"], Image(mask, pair.fixed.grid))
        rows.append(row)
        print(f"\r{folder.name} {pair.name:<20}", end="", file=sys.stderr, flush=True)
    write_table(folder / "pairs.csv", rows)


def write_raw_cores(folder: Path) -> None:
    """Bright field as published against second harmonic, with the affine truth of the catalogue."""
    root, rows = data_root() / "bf_shg_tma", []
    folder.mkdir(parents=True, exist_ok=True)
    for record in read_table(root / "gt_affine.csv"):
        name = record["id"]
        if name not in UNSEEN_CORES:
            continue
        fixed, moving = root / "shg" / f"{name}.png", root / "bf_raw_unaligned" / f"{name}.png"
        grids = {"fixed": read_image(fixed).grid, "moving": read_image(moving).grid}
        write_transform(folder / f"truth_{name}.json", raw_truth(record), **grids)
        rows.append({"name": name, "fixed": fixed, "moving": moving, "truth": f"truth_{name}.json"})
    write_table(folder / "pairs.csv", rows)


def raw_truth(record: Mapping[str, str]) -> Affine:
    """From the aligned grid to the raw image in (y, x): the inverse of the map that the catalogue gives in (x, y)."""
    forward = np.eye(3)
    forward[:2] = [[float(record[f"a{i}{j}"]) for j in (2, 1, 3)] for i in (2, 1)]
    return Affine(as_rows(np.linalg.inv(forward)))


def write_stains(folder: Path) -> None:
    """Two consecutive sections in different stains, with landmarks."""
    root = data_root() / "histology_stains_landmarks" / "lesions"
    folder.mkdir(parents=True, exist_ok=True)
    row: dict[str, object] = {"name": "lesion"}
    for role, stain in (("fixed", "HE"), ("moving", "proSPC")):
        stem = f"Izd2-29-041-w35_{stain}"
        marks = read_table(root / f"{stem}.csv")
        points = Points(np.array([[float(mark["Y"]), float(mark["X"])] for mark in marks]))
        write_points(folder / f"{role}.csv", points)
        row |= {role: root / f"{stem}.jpg", f"{role}_landmarks": f"{role}.csv"}
    write_table(folder / "pairs.csv", [row])


def plan(sets: Sequence[str], models: Path) -> str:
    """Every encoder × every engine and peer, on displaced pairs."""
    trained = [name for name in sets if SETS[name].steps]
    lines = ["[benchmark]", "seed = 0", 'reference = "CoMIR / auto"']
    for name in sets:
        lines += table("datasets", name=name, pairs=f"sets/{name}/pairs.csv", width=SETS[name].width)
        lines += table("protocols", kind="comir", draws=DRAWS.get(name, 1), datasets=[name])
        lines += table("protocols", kind="multiregeval", datasets=[name])
    lines += encoders(models / "{dataset}", trained)
    lines += registrars((*ENGINES, *PEERS), {})
    lines += registrars(SLOW_PEERS, {}, encoders=["originals", "CoMIR"])
    lines += table("registrars", name="curvealign", encoders=["originals"], datasets=["bf_shg"])
    return "\n".join(lines) + "\n"


def natural_plan(models: Path) -> str:
    """Pairs as they were taken; engines with affine transforms."""
    lines = ["[benchmark]", "seed = 0", 'reference = "CoMIR / auto"']
    for name in (NATURAL, "stains"):
        lines += table("datasets", name=name, pairs=f"sets/{name}/pairs.csv")
    lines += table("protocols", kind="natural")
    lines += encoders(models / "bf_shg", [NATURAL])
    lines += registrars(("auto", "global-mi"), {})
    lines += registrars(AFFINE, {"transform": "affine"}, ", affine")
    wider = {"transform": "affine", "min_scale": 0.8, "max_scale": 1.25}
    lines += registrars(("auto",), wider, ", affine, scales 0.8 to 1.25")
    without_hand = {"encoders": ["originals", "CoMIR"]}
    lines += registrars((*PEERS, *SLOW_PEERS), {}, **without_hand)
    lines += registrars(AFFINE_PEERS, {"transform": "affine"}, ", affine", **without_hand)
    return "\n".join(lines) + "\n"


def encoders(model: Path, trained: Sequence[str]) -> list[str]:
    """Originals, hand-made representations and CoMIRs."""
    lines = table("encoders", name="originals", kind="identity")
    for kind in HANDMADE:
        lines += table("encoders", name=kind, kind=kind)
    return lines + table("encoders", name="CoMIR", kind="comir", model=str(model), datasets=list(trained))


def registrars(engines: Sequence[str], options: Mapping[str, object], suffix: str = "", **where: object) -> list[str]:
    """Rows of the plan for several engines with the same options."""
    rows = (
        table("registrars", name=f"{name}{suffix}", engine=name, options=dict(options), **where) for name in engines
    )
    return [line for row in rows for line in row]


def table(what: str, **values: object) -> list[str]:
    """One entry of a plan in TOML."""
    return ["", f"[[{what}]]", *(f"{key} = {toml(value)}" for key, value in values.items() if value != {})]


def toml(value: object) -> str:
    """A value in TOML: text, numbers, truth values, lists and inline tables of them."""
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {toml(item)}" for key, item in value.items()) + " }"
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return f'"{value}"' if isinstance(value, str) else str(value).lower()


if __name__ == "__main__":
    main()
