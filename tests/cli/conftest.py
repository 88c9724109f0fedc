"""Files that the command line is tried on."""

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from modalign.cli.main import main
from modalign.data.pairs import Pair
from modalign.geometry import Rigid, rotation_matrix
from modalign.image import Image
from modalign.io import write_image, write_transform
from modalign.representation import ComirModel


class Ran(NamedTuple):
    """What one call of the command line did."""

    status: int
    out: str
    err: str


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str]) -> Callable[..., Ran]:
    """Runs the command line in this process."""

    def call(*arguments: object) -> Ran:
        status = main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        return Ran(status, captured.out, captured.err)

    return call


@pytest.fixture
def folders(tmp_path: Path, pairs: list[Pair]) -> tuple[Path, Path]:
    """Two folders of four aligned images each."""
    for pair in pairs:
        write_image(tmp_path / "colour" / f"{pair.name}.png", pair.fixed)
        write_image(tmp_path / "signal" / f"{pair.name}.tif", pair.moving)
    return tmp_path / "colour", tmp_path / "signal"


@pytest.fixture
def model(tmp_path: Path, untrained: ComirModel) -> Path:
    """A model folder for these images."""
    untrained.save(tmp_path / "model")
    return tmp_path / "model"


class Displaced(NamedTuple):
    """Two files of one modality that show one place, and the truth between them."""

    fixed: Path
    moving: Path
    truth: Path


@pytest.fixture
def displaced(tmp_path: Path, make_pair: Callable[..., Pair]) -> Displaced:
    """A turned and shifted view of one texture."""
    full = make_pair(3, (240, 250)).fixed
    fixed = full.cropped((60, 60), (120, 130))
    fixed_to_moving = Rigid.about(fixed.grid.center, rotation_matrix(2, 17.0), np.array([5.0, -9.0]))
    moving = full.resampled(fixed.grid, fixed_to_moving.inverse(), order=3)
    # a file knows nothing of its place in the full image: both begin at zero
    origin = np.array(fixed.grid.origin)
    there, back = (Rigid(((1.0, 0.0), (0.0, 1.0)), tuple(sign * origin)) for sign in (1, -1))
    local = back @ fixed_to_moving @ there
    paths = Displaced(tmp_path / "fixed.png", tmp_path / "moving.png", tmp_path / "truth.json")
    write_image(paths.fixed, Image(fixed.data, fixed.grid.without_unit(), fixed.channels))
    write_image(paths.moving, Image(moving.data, fixed.grid.without_unit(), fixed.channels))
    write_transform(paths.truth, local, fixed=fixed.grid.without_unit(), moving=fixed.grid.without_unit())
    return paths
