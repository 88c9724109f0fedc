"""Length units as files spell them, and pixel sizes made from them."""

from collections.abc import Sequence
from dataclasses import dataclass

from modalign.geometry import Grid
from modalign.geometry.grid import METERS, Unit

COARSEST_MICROSCOPE = 0.1
"""Millimetres: smaller lengths in units that no grid has (centimetres, inches) are told in micrometres."""
COARSEST_SCAN = 50e-6
"""Metres: a print resolution (72, 96, 300 dpi) means larger pixels than this, a microscope smaller ones."""

_SPELLINGS: dict[tuple[Unit, float], str] = {
    ("nanometer", 0.1): "Å å angstrom ångström",
    ("nanometer", 1.0): "nm nanometer nanometre nanometers nanometres",
    ("micrometer", 1.0): "µm μm um \\u00b5m micron microns micrometer micrometre micrometers micrometres",
    ("millimeter", 1.0): "mm millimeter millimetre millimeters millimetres",
    ("millimeter", 10.0): "cm centimeter centimetre centimeters centimetres",
    ("millimeter", 25.4): 'in inch inches "',
    ("meter", 1.0): "m meter metre meters metres",
    ("pixel", 1.0): "pixel pixels px voxel voxels",
}
_UNITS = {word: unit for unit, words in _SPELLINGS.items() for word in words.split()}


@dataclass(frozen=True)
class Length:
    """A length as a file gives it: a number and the word for its unit."""

    value: float
    unit: str

    def known(self) -> tuple[float, Unit] | None:
        """The number in a unit that grids know; ``None`` where the number or the word makes no sense."""
        unit = _UNITS.get(self.unit.strip().lower())
        if unit is None or not 0 < self.value < float("inf"):
            return None
        name, factor = unit
        value = self.value * factor
        if name == "millimeter" and factor != 1.0 and value < COARSEST_MICROSCOPE:
            return value * METERS["millimeter"] / METERS["micrometer"], "micrometer"
        return value, name


def parse_unit(word: str) -> Unit | None:
    """The unit that a word means, for units that grids know themselves (not centimetres or inches)."""
    unit, factor = _UNITS.get(word.strip().lower(), (None, 1.0))
    return unit if factor == 1.0 else None


def sized_grid(shape: Sequence[int], sizes: Sequence[Length | None]) -> Grid | None:
    """A grid at the origin with one pixel size an axis (array order), in the unit of the last axis.

    ``None`` where a size is missing or makes no sense: a pixel size that is known along some axes only is not known.
    """
    known = [size.known() if size else None for size in sizes]
    if any(size is None for size in known):
        return None
    values, units = zip(*(size for size in known if size), strict=True)
    if len(set(units)) > 1 and "pixel" in units:
        return None
    unit: Unit = units[-1]
    factors = [1.0 if u == unit else METERS[u] / METERS[unit] for u in units]
    return Grid(tuple(shape), tuple(v * f for v, f in zip(values, factors, strict=True)), unit=unit)


def is_print_resolution(grid: Grid) -> bool:
    """Whether pixel sizes this coarse are a note for a printer rather than a measurement."""
    return grid.unit != "pixel" and min(grid.spacing) * METERS[grid.unit] > COARSEST_SCAN
