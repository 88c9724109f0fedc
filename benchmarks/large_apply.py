"""CPU time and peak memory of ``modalign apply`` on a large RGB image, tile by tile and in memory.

    python benchmarks/large_apply.py --folder /tmp/large

The input is a tiled TIFF: bright-field tissue of the generator, repeated, with camera noise that does not repeat, so
that it compresses as little as a photograph. It is made once and stays in the folder. Each run is a process of its own;
its times and memory are those that the operating system counted for it. Three times the size of the image is needed on
disk, and about as much in memory for the run in memory.
"""

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import tifffile

from modalign.data.tissue import TissueOptions, tissue
from modalign.geometry import Affine, Grid, Rigid, rotation_matrix
from modalign.io import write_transform

PERIOD, TILE, MICROMETERS = 1024, 512, 0.5
STARTER = """
import os, sys
null = os.open(os.devnull, os.O_WRONLY)
silent = [(os.POSIX_SPAWN_DUP2, null, 1), (os.POSIX_SPAWN_DUP2, null, 2)]
process = os.posix_spawn(sys.argv[1], sys.argv[1:], os.environ, file_actions=silent)
_, status, used = os.wait4(process, 0)
print(os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime, used.ru_maxrss)
"""
IN_MEMORY = (
    "import sys, modalign.cli.apply as a; a.LARGE = 1 << 60; from modalign.cli.main import main; sys.exit(main())"
)


def tiles(side: int) -> Iterator[np.ndarray]:
    """The tiles of the input, row by row."""
    rng = np.random.default_rng(0)
    clean = tissue(0, TissueOptions(shape=(PERIOD, PERIOD))).bright_field.data.astype(np.float32)
    noise = rng.normal(0, 2.5, (3, 2 * TILE, 2 * TILE)).astype(np.float32)
    for y in range(0, side, TILE):
        for x in range(0, side, TILE):
            part = clean[:, y % PERIOD :, x % PERIOD :][:, :TILE, :TILE]
            dy, dx = rng.integers(0, TILE, 2)
            noisy = np.clip(part + noise[:, dy : dy + TILE, dx : dx + TILE], 0, 255)
            yield np.ascontiguousarray(np.moveaxis(noisy.astype(np.uint8), 0, -1))


def make_input(path: Path, side: int, compression: str) -> None:
    """Write the input unless it is there."""
    if path.exists():
        return
    options = {"photometric": "rgb", "tile": (TILE, TILE), "maxworkers": 1, "resolutionunit": "CENTIMETER"}
    per_centimeter = 1e4 / MICROMETERS
    with tifffile.TiffWriter(path) as writer:
        writer.write(
            tiles(side),
            shape=(side, side, 3),
            dtype=np.uint8,
            compression=None if compression == "none" else compression,
            resolution=(per_centimeter, per_centimeter),
            **options,
        )


def make_transform(path: Path, side: int, kind: str, degrees: float) -> None:
    """A turn about the middle, for ``affine`` with unequal scales and a shear."""
    grid = Grid((side, side), (MICROMETERS, MICROMETERS), unit="micrometer")
    turn = Rigid.about(grid.center, rotation_matrix(2, degrees), np.array([12.3, -20.7]))
    shear = np.array([[1.01, 0.015], [0.0, 0.985]])
    sheared = np.eye(3)
    sheared[:2, :2], sheared[:2, 2] = shear, grid.center - shear @ grid.center
    write_transform(
        path, turn if kind == "rigid" else Affine.from_matrix(turn.matrix @ sheared), fixed=grid, moving=grid
    )


def measure(arguments: list[str], pixels: int) -> str:
    """Run a process; its speed and memory in words.

    It is started by a small one, because a process inherits the peak memory of the one that it was forked from.
    """
    started = subprocess.run(
        [sys.executable, "-S", "-c", STARTER, *arguments], capture_output=True, text=True, check=True
    )
    status, cpu, kibibytes = (float(word) for word in started.stdout.split())
    if status:
        return f"failed with status {status:.0f}"
    return f"{cpu:7.2f} CPU-s  {pixels / cpu / 1e6:6.1f} Mpx/CPU-s  {kibibytes / 1024:7.0f} MiB"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--kind", choices=("rigid", "affine"), default="affine")
    parser.add_argument("--degrees", type=float, default=7.0)
    parser.add_argument("--input-compression", choices=("none", "zlib", "zstd", "jpeg"), default="none")
    parser.add_argument("--compression", nargs="+", default=["zstd", "zlib", "none"])
    parser.add_argument("--in-memory", action="store_true", help="also measure the ordinary path")
    chosen = parser.parse_args()
    chosen.folder.mkdir(parents=True, exist_ok=True)
    image = chosen.folder / f"input-{chosen.side}-{chosen.input_compression}.tif"
    make_input(image, chosen.side, chosen.input_compression)
    transform, out = chosen.folder / "transform.json", chosen.folder / "out.ome.tif"
    make_transform(transform, chosen.side, chosen.kind, chosen.degrees)
    verb = ["apply", str(image), str(transform), "--out", str(out)]
    for compression in chosen.compression:
        run = [sys.executable, "-m", "modalign", *verb, "--compression", compression]
        size = f"{measure(run, chosen.side**2)}"
        print(f"tile by tile, {compression:5s} {size}  {out.stat().st_size / 1e6:7.0f} MB on disk", flush=True)
    if chosen.in_memory:
        print(f"in memory, zlib     {measure([sys.executable, '-c', IN_MEMORY, *verb], chosen.side**2)}")


if __name__ == "__main__":
    main()
