"""``modalign apply``."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import prod
from pathlib import Path
from typing import Literal

import numpy as np
import tyro

from modalign.cli.console import keep_inputs, parse, progress, warn_unless_trusted
from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.io import (
    Compression,
    StoredTransform,
    can_be_tiled,
    open_tiled,
    read_grid,
    read_image,
    read_labels,
    read_points,
    read_transform,
    write_image,
    write_labels,
    write_points,
)
from modalign.warping import InMemory, Interpolation, Source, warp, warp_to_file

LARGE = 1 << 28
"""Bytes of pixels of the image or the result (256 MiB) from which on a TIFF or OME-Zarr is written while computed."""


@dataclass(frozen=True)
class Apply:
    """Bring an image, a label map or points of the moving image into the space of the fixed one."""

    image: tyro.conf.Positional[Path]
    """What to transform: an image, or a CSV file of points with the columns x, y (and z) in world units."""
    transform: tyro.conf.Positional[Path]
    """The transform, as 'modalign register' wrote it (.json), an ITK transform (.tfm), or a displacement field as ITK
    and ANTs know it (.nii.gz, .nrrd, .mha)."""
    out: Path = field(kw_only=True)
    """File to write."""
    like: Path | None = None
    """Image whose size and pixel size the result has; by default those of the fixed image, as the transform file tells
    them. Not needed for points."""
    labels: bool = False
    """The image is a label map: values are copied, never mixed."""
    interpolation: Interpolation = "linear"
    """How an image is sampled."""
    fill: tuple[float, ...] | None = None
    """Value outside the moving image, one for all channels or one a channel; by default white for bright colour
    images and 0 for others."""
    compression: Compression = "zlib"
    """How a large TIFF (more than 256 MiB, written in tiles with levels of lower resolution) is compressed;
    always without loss. zlib is read by more programs and takes more time, none takes more space. Smaller results are
    always compressed by zlib."""
    points_of: Literal["moving", "fixed"] = "moving"
    """Which image the points belong to: those of moving are brought to fixed, those of fixed to moving."""


def run(arguments: Sequence[str]) -> int:
    """Run the verb; returns the exit status."""
    command = parse(Apply, "apply", arguments, may_be_nan=("fill",))
    keep_inputs(command.out, (command.image, command.transform, *filter(None, [command.like])))
    stored = read_transform(command.transform)
    warn_unless_trusted(command.transform, stored)
    if command.image.suffix.lower() == ".csv":
        _apply_to_points(command, stored)
    else:
        _apply_to_image(command, stored)
    print(f"written to {command.out}")
    return 0


def _apply_to_points(command: Apply, stored: StoredTransform) -> None:
    origin, destination = (
        (stored.moving, stored.fixed) if command.points_of == "moving" else (stored.fixed, stored.moving)
    )
    mover = stored.transform.inverse() if command.points_of == "moving" else stored.transform
    points = read_points(command.image, unit=origin.unit if origin else "pixel")
    if points.coordinates.shape[1] != mover.ndim:
        raise InvalidInputError(
            f"{command.image} has points with {points.coordinates.shape[1]} coordinates, the transform is {mover.ndim}D"
        )
    mapped = replace(points.mapped(mover), unit=destination.unit if destination else points.unit)
    known = f"the unit of the {command.points_of} image" if origin else "as the transform tells no unit"
    written = "" if mapped.unit == points.unit else f"; written in {mapped.unit}s"
    print(f"note: coordinates are taken to be in {points.unit}s, {known}{written}", file=sys.stderr)
    write_points(command.out, mapped, like=command.image)


def _apply_to_image(command: Apply, stored: StoredTransform) -> None:
    ndim = stored.transform.ndim
    grids = _result_grids(command, stored)
    reader = open_tiled(command.image, ndim=ndim) if can_be_tiled(command.out) else None
    if reader is None:
        _apply_in_memory(command, stored, grids)
        return
    with reader:
        countable = not command.labels or (len(reader.channels) == 1 and reader.dtype.kind in "iu")
        if countable and _is_large(reader, grids[0]):
            _apply_tile_by_tile(command, stored, reader, grids)
            return
    _apply_in_memory(command, stored, grids)


def _is_large(image: Source, result: Grid) -> bool:
    pixels = max(prod(grid.shape) for grid in (image.grid, result))
    return pixels * len(image.channels) * image.dtype.itemsize > LARGE


def _apply_tile_by_tile(command: Apply, stored: StoredTransform, image: Source, grids: tuple[Grid, Grid]) -> None:
    like, fixed = grids
    with progress("apply") as advance:
        warp_to_file(
            command.out,
            image,
            like,
            stored.transform,
            space=(fixed, _in_space_of_moving(image.grid, stored, command.image)),
            interpolation=command.interpolation,
            labels=command.labels,
            fill=_fill(command, len(image.channels)),
            compression=command.compression,
            advance=lambda fraction: advance(fraction, ""),
        )


def _apply_in_memory(command: Apply, stored: StoredTransform, grids: tuple[Grid, Grid]) -> None:
    like, fixed = grids
    if command.labels:
        labels = read_labels(command.image, ndim=fixed.ndim)
        labels = replace(labels, grid=_in_space_of_moving(labels.grid, stored, command.image))
        write_labels(command.out, replace(labels.resampled(fixed, stored.transform), grid=like))
        return
    moving = read_image(command.image, ndim=fixed.ndim)
    if can_be_tiled(command.out) and _is_large(InMemory(moving), like):
        _apply_tile_by_tile(command, stored, InMemory(moving), grids)
        return
    moving = moving.with_grid(_in_space_of_moving(moving.grid, stored, command.image))
    fill = _fill(command, len(moving.data))
    warped = warp(moving, fixed, stored.transform, interpolation=command.interpolation, fill=fill)
    write_image(command.out, warped.with_grid(like))


def _fill(command: Apply, channels: int) -> tuple[float, ...] | None:
    """One value a channel; ``None`` for the usual one. Labels have 0 outside."""
    if command.fill is None or command.labels:
        return None
    fill = command.fill * channels if len(command.fill) == 1 else command.fill
    if len(fill) != channels:
        raise InvalidInputError(f"--fill needs one value, or one for each of the {channels} channels")
    return fill


def _result_grids(command: Apply, stored: StoredTransform) -> tuple[Grid, Grid]:
    """The grid of the result as its file tells it, and in the world of the transform."""
    if command.like is not None:
        like = read_grid(command.like, ndim=stored.transform.ndim)
        return like, _in_space_of(like, stored.fixed, command.like)
    if stored.fixed is None:
        raise InvalidInputError(f"{command.transform} does not tell the size of the fixed image; add --like FIXED")
    return stored.fixed, stored.fixed


def _in_space_of_moving(grid: Grid, stored: StoredTransform, path: Path) -> Grid:
    """The grid of the moving image in the world that the transform leads to.

    A displacement field from elsewhere knows the grid of the fixed image alone, and leads to the same world.
    """
    if stored.moving is not None or stored.fixed is None or grid.unit == stored.fixed.unit:
        return _in_space_of(grid, stored.moving, path)
    if "pixel" in (grid.unit, stored.fixed.unit):
        raise InvalidInputError(
            f"{path}: its pixel size is in {grid.unit}, and the displacement field is in {stored.fixed.unit}; give the "
            "file its pixel size, or use the transform that 'modalign register' wrote as .json"
        )
    return grid.in_unit(stored.fixed.unit)


def _in_space_of(grid: Grid, known: Grid | None, path: Path) -> Grid:
    """The grid in the world that the transform was found in.

    A file may have no pixel size where the transform was found with one (or the other way round): an array of the same
    size then lies on the stored grid.
    """
    if known is None:
        return grid
    if grid.shape == known.shape and grid.unit != known.unit:
        return known
    if grid.shape != known.shape and not np.allclose(grid.extent, known.extent, rtol=0.01):
        size, expected = (" × ".join(map(str, g.shape)) for g in (grid, known))
        print(f"note: {path} has {size} pixels; the transform was found for {expected}", file=sys.stderr)
    if grid.unit == known.unit:
        return grid
    if "pixel" in (grid.unit, known.unit):
        raise InvalidInputError(
            f"{path}: its pixel size is in {grid.unit}, the transform was found in {known.unit}, and the size "
            f"{grid.shape} is not that of the image it was found for ({known.shape}); give the file its pixel size"
        )
    return grid.in_unit(known.unit)
