"""One random tissue, seen by two microscopes that share its structure and next to nothing else."""

from dataclasses import dataclass

import numpy as np

from modalign.data.tissue.canvas import Array, Canvas
from modalign.data.tissue.cells import Cells, draw_cells
from modalign.data.tissue.fibres import Fibres, draw_fibres
from modalign.data.tissue.rendering import bright_field, second_harmonic
from modalign.errors import InvalidInputError
from modalign.geometry import Grid
from modalign.image import Image, Labels, Points

COARSEST = 4.0
LABELS = {"lumen": 0, "stroma": 1, "collagen": 2, "nucleus": 3, "epithelium": 4, "red_cell": 5}


@dataclass(frozen=True)
class TissueOptions:
    """What the tissue is like, and how it is looked at."""

    shape: tuple[int, int] = (384, 384)
    """Number of pixels along y and x."""
    pixel_size: float = 0.5
    """Edge of a pixel, in micrometers."""
    fibre_density: float = 0.9
    """Length of fibre strands per area, in micrometers per square micrometer."""
    collagen_fraction: float = 0.4
    """Part of the fibres that is collagen, and so seen by second-harmonic generation."""
    nuclei_density: float = 5000.0
    """Nuclei outside of glands per square millimeter, before crowding removes some."""
    gland_density: float = 25.0
    """Glands per square millimeter."""
    stain_variation: float = 0.12
    """Relative variation of the dyes from one image to the next."""
    photons: float = 40.0
    """Photons a pixel from a collagen strand of mean brightness: fewer is noisier."""
    polarisation_degrees: float = 30.0
    """Polarisation of the second-harmonic laser, from the x axis towards the y axis: fibres across it are dim."""

    def __post_init__(self) -> None:
        if min(self.shape) < 1 or self.photons <= 0:
            raise InvalidInputError(
                f"a tissue needs pixels and photons, not shape {self.shape}, {self.photons} photons"
            )
        if not 0 < self.pixel_size <= COARSEST:
            raise InvalidInputError(f"pixel size must lie between 0 and {COARSEST} micrometers, not {self.pixel_size}")
        if min(self.fibre_density, self.nuclei_density, self.gland_density, self.stain_variation) < 0:
            raise InvalidInputError("densities and stain variation of a tissue must not be negative")
        if not 0 < self.collagen_fraction < 1:
            raise InvalidInputError(f"collagen fraction must lie between 0 and 1, not {self.collagen_fraction}")


@dataclass(frozen=True, eq=False)
class Tissue:
    """One tissue on one grid.

    Attributes:
        bright_field: H&E stained: red, green, blue, uint8.
        second_harmonic: Collagen only: one channel, uint8.
        labels: What each pixel is, by the numbers in ``LABELS``.
        points: Centres of the nuclei.
    """

    bright_field: Image
    second_harmonic: Image
    labels: Labels
    points: Points


def tissue(seed: int, options: TissueOptions = TissueOptions()) -> Tissue:
    """Grow a random tissue and look at it twice.

    The structure, the bright-field picture and the second-harmonic picture draw from generators of their own: other
    photons give the same tissue and the same bright-field picture.
    """
    structure_rng, bright_rng, harmonic_rng = np.random.default_rng(seed).spawn(3)
    canvas = Canvas(options.shape, options.pixel_size)
    polarisation = np.deg2rad(options.polarisation_degrees)
    fibres = draw_fibres(structure_rng, canvas, options.fibre_density, options.collagen_fraction, polarisation)
    cells = draw_cells(structure_rng, canvas, fibres.orientation, options.nuclei_density, options.gland_density)
    grid = Grid(options.shape, (options.pixel_size,) * 2, unit="micrometer")
    stained = bright_field(bright_rng, canvas, fibres, cells, options.stain_variation)
    harmonic = second_harmonic(harmonic_rng, canvas, fibres, cells, options.photons)
    labels = classify(fibres, cells)
    return Tissue(
        Image(stained, grid, ("red", "green", "blue")),
        Image(harmonic, grid, ("shg",)),
        Labels(labels, grid),
        landmarks(cells, labels, grid),
    )


def classify(fibres: Fibres, cells: Cells) -> Array:
    """``(y, x)``, uint8: what each pixel is, later rules over earlier ones."""
    labels = np.full(cells.nuclei.shape, LABELS["stroma"], np.uint8)
    labels[fibres.collagen > 0.5] = LABELS["collagen"]
    labels[cells.epithelium > 0.5] = LABELS["epithelium"]
    labels[cells.red_cells > 0.35] = LABELS["red_cell"]
    labels[cells.lumen > 0.5] = LABELS["lumen"]
    labels[cells.nuclei > 0.5] = LABELS["nucleus"]
    return labels


def landmarks(cells: Cells, labels: Array, grid: Grid) -> Points:
    """The nuclei, named in the order in which they were drawn."""
    y, x = np.rint(cells.centres).astype(int).T
    centres = cells.centres[labels[y, x] == LABELS["nucleus"]]
    names = tuple(f"nucleus-{i:04d}" for i in range(len(centres)))
    return Points(grid.index_to_world(centres), grid.unit, names)
