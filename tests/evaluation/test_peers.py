"""The peers recover what is within the reach of their tools, whatever the grids, units and masks of the images."""

import subprocess
import sys
from dataclasses import dataclass, replace
from importlib.util import find_spec
from typing import ClassVar

import numpy as np
import pytest

from modalign.errors import DimensionError, InvalidInputError
from modalign.evaluation.peers import PEERS, Ants, Elastix, OpenCvEcc, Peer, SimpleItkMI, SkimagePhaseCorrelation
from modalign.evaluation.peers import SkimageFourierMellin as FourierMellin
from modalign.geometry import Affine, Grid, Linear, Rigid, corner_error, identity, rotation_matrix
from modalign.image import Image
from modalign.registration import Registrar
from modalign.testing.registration import known_pair, poor_pairs

pytestmark = pytest.mark.filterwarnings("ignore")  # what the tools warn of is their business

FEATURE = {2: 5.0, 3: 3.0}
"""Size of the texture, pixels: local methods reach no further."""
QUICK_ELASTIX = Elastix(iterations=100, start_rotations_degrees=(0.0,))
TRIED: dict[str, Peer] = {
    "simpleitk-mi": SimpleItkMI(),
    "elastix": QUICK_ELASTIX,
    "ants": Ants(sampling=0.3, iterations=(100, 50), shrink_factors=(2, 1), smoothing=(1, 0)),
    "opencv-ecc": OpenCvEcc(picture="intensity"),
    "skimage-phase-correlation": SkimagePhaseCorrelation(upsampling=20),
    "skimage-fourier-mellin": FourierMellin(),
}
POSES = {
    "skimage-phase-correlation": ((0.0, 0.02), (0.0, -0.04)),
    "skimage-fourier-mellin": ((20.0, 0.03), (-35.0, 0.05)),
}
TURNED_FEATURE = {"elastix": 3.0}
"""Where one start of a tool reaches further than that of the others."""
LOCAL = ((2.0, 0.02), (-4.0, -0.01))
"""Degrees, and shifts as a fraction of the width."""
TOLERANCE = {"skimage-phase-correlation": 0.7, "skimage-fourier-mellin": 1.0}
"""Pixels; phases find shifts of single pixels only, and angles in steps."""
MODULES = {name: method.module.partition(".")[0] for name, method in TRIED.items()}
MI = ("simpleitk-mi", "elastix", "ants")


def slowly(*case: object) -> object:
    """A case that is tried by default, unless it takes many seconds: elastix loads for so long, and ANTs in space."""
    return pytest.param(*case, marks=pytest.mark.slow if case[0] == "elastix" or case == ("ants", 3) else ())


CASES = [(name, ndim) for name, method in TRIED.items() for ndim in sorted(method.ndims)]
HERE = [slowly(*case) for case in CASES]
FEW = [slowly(name) for name in MI]


def tried(name: str) -> Peer:
    if find_spec(MODULES[name]) is None:
        pytest.skip(f"{name} needs the extra benchmark: pip install 'modalign[benchmark]'")
    return TRIED[name]


def pose(name: str, ndim: int, number: int = 0) -> tuple[Image, Image, Rigid]:
    smooth = 2.0 if name.startswith("skimage") else FEATURE[ndim]
    return known_pair(ndim, *POSES.get(name, LOCAL)[number], number, smooth)


def assert_found(name: str, fixed: Image, moving: Image, truth: Linear) -> None:
    result = tried(name).register(fixed, moving)
    assert result.fixed_to_moving is not None, result.reasons
    assert result.status == "unsure"
    off = corner_error(fixed.grid, result.fixed_to_moving, truth) / max(fixed.grid.spacing)
    assert off < TOLERANCE.get(name, 0.3)


def stored_sideways(image: Image) -> Image:
    """The same pixels at the same places of the world, with the last two axes of the array exchanged and one turned."""
    grid, axes = image.grid, [*range(image.ndim - 2), image.ndim - 1, image.ndim - 2]
    data = np.moveaxis(image.data, -1, -2)[..., ::-1]
    last = np.zeros(image.ndim)
    last[-2] = grid.shape[-2] - 1  # the new last axis is the old last but one, turned round
    direction = np.array(grid.direction)[:, axes]
    direction[:, -1] *= -1
    shape, spacing = (tuple(values[axis] for axis in axes) for values in (grid.shape, grid.spacing))
    turned = Grid(shape, spacing, tuple(grid.index_to_world(last)), tuple(map(tuple, direction)), grid.unit)
    return Image(np.ascontiguousarray(data), turned, image.channels)


def other_modality(image: Image) -> Image:
    """Brightness turned round and bent: no longer a linear relation."""
    values = image.data.astype(float)
    share = (values - values.min()) / np.ptp(values)
    return image.with_data((200 * (1 - share) ** 2 + 5).astype(np.float32))


@pytest.mark.parametrize(("name", "ndim"), HERE)
def test_identical_images_do_not_move(name: str, ndim: int) -> None:
    fixed, *_ = pose(name, ndim)
    assert_found(name, fixed, fixed, identity(ndim))


@pytest.mark.parametrize(("name", "ndim"), HERE)
def test_poses_in_reach_are_found_in_world_units(name: str, ndim: int) -> None:
    for number in range(2):
        assert_found(name, *pose(name, ndim, number))


@pytest.mark.parametrize(("name", "ndim"), HERE)
def test_directions_and_units_are_obeyed(name: str, ndim: int) -> None:
    fixed, moving, truth = pose(name, ndim)
    fixed, moving = (image.with_grid(replace(image.grid, unit="micrometer")) for image in (fixed, moving))
    sideways = stored_sideways(moving)
    centre = np.array([(n - 1) / 2 for n in moving.grid.shape])
    assert np.allclose(sideways.grid.center, moving.grid.index_to_world(centre))
    assert_found(name, fixed, sideways, truth)
    found = tried(name).register(fixed, sideways.with_grid(sideways.grid.in_unit("millimeter"))).candidate
    assert found is not None
    off = 1000 * found.map_points(fixed.grid.corners) - truth.map_points(fixed.grid.corners)
    assert np.linalg.norm(off, axis=1).mean() < TOLERANCE.get(name, 0.3) * max(fixed.grid.spacing)


@pytest.mark.parametrize(("name", "ndim"), [slowly(*case) for case in CASES if case[0] in (*MI, "opencv-ecc")])
def test_masked_pixels_do_not_count(name: str, ndim: int) -> None:
    """A third of the fixed image, in a corner, is bright rubbish that lies still in both images."""
    fixed, moving, truth = pose(name, ndim)
    images = []
    for image in (fixed, moving):
        corner = tuple(slice(0, n // 3) for n in image.grid.shape)
        data, mask = image.data.copy(), image.valid.copy()
        data[0][corner], mask[corner] = np.random.default_rng(0).uniform(0, 1000, data[0][corner].shape), False
        images.append(Image(data, image.grid, image.channels, mask))
    assert_found(name, *images, truth)


@pytest.mark.parametrize(("name", "ndim"), [slowly(*case) for case in CASES if case[0] in MI])
def test_mutual_information_crosses_modalities(name: str, ndim: int) -> None:
    fixed, moving, truth = pose(name, ndim)
    assert_found(name, fixed, other_modality(moving), truth)


@pytest.mark.parametrize("name", FEW)
def test_affine_transforms_are_found_where_asked_for(name: str) -> None:
    fixed, _, _ = known_pair(2, feature=FEATURE[2])
    matrix = np.diag([1.04, 0.97, 1.0])
    matrix[:2, 2] = fixed.grid.center - matrix[:2, :2] @ fixed.grid.center + 1.0
    truth = Affine.from_matrix(matrix)
    moving = fixed.resampled(fixed.grid, truth.inverse(), order=3)
    result = replace(tried(name), transform="affine").register(fixed, moving)
    assert result.candidate is not None
    assert corner_error(fixed.grid, result.candidate, truth) < 0.5


@pytest.mark.parametrize(("name", "ndim"), HERE)
def test_the_same_seed_gives_the_same_answer(name: str, ndim: int) -> None:
    fixed, moving, _ = pose(name, ndim)
    for image in (fixed, moving):
        image.data.setflags(write=False)
    first, second = (tried(name).register(fixed, moving) for _ in range(2))
    assert first == second


@pytest.mark.parametrize("name", [slowly(name) for name in TRIED])
def test_poor_and_unrelated_images_are_values_and_never_accepted(name: str) -> None:
    fixed, moving, _ = pose(name, 2)
    _, unrelated, _ = known_pair(2, seed=11)
    for pair in (*poor_pairs(fixed, moving).values(), (fixed, unrelated)):
        result = tried(name).register(*pair)
        assert result.status in ("unsure", "refused")
        assert result.reasons


@pytest.mark.parametrize("name", FEW)
def test_several_starts_reach_further_than_one(name: str) -> None:
    """A rotation that no single start of a local method finds on this texture."""
    fixed, moving, truth = known_pair(2, 22.0, 0.0, 3, TURNED_FEATURE.get(name, FEATURE[2]))
    one, several = (replace(tried(name), start_rotations_degrees=s) for s in ((0.0,), (0.0, -23.0, 23.0)))
    errors = []
    for method in (one, several):
        found = method.register(fixed, moving).candidate
        assert found is not None
        errors.append(corner_error(fixed.grid, found, truth))
    assert errors[1] < 0.5 < errors[0]


def test_every_peer_is_a_registrar_under_its_own_name() -> None:
    assert set(PEERS) == set(TRIED)
    for name, method in PEERS.items():
        assert isinstance(method, Registrar)
        assert method.name == name


def test_only_the_plane_is_left_to_tools_of_the_plane() -> None:
    volume = Image(np.random.default_rng(0).random((1, 16, 16, 16)), Grid((16,) * 3))
    with pytest.raises(DimensionError, match="opencv-ecc does not work on 3D"):
        PEERS["opencv-ecc"].register(volume, volume)


@dataclass(frozen=True)
class Absent(Elastix):
    module: ClassVar[str] = "a_module_that_nobody_has"


def test_a_missing_package_is_named_with_the_way_to_get_it() -> None:
    fixed, moving, _ = known_pair(2)
    with pytest.raises(InvalidInputError, match=r"needs the package itk-elastix: pip install 'modalign\[benchmark\]'"):
        Absent().register(fixed, moving)


@pytest.mark.parametrize("kind", [SimpleItkMI, Elastix, Ants])
def test_a_peer_without_a_start_is_refused(kind: type[SimpleItkMI]) -> None:
    with pytest.raises(InvalidInputError, match="start"):
        kind(start_rotations_degrees=())


def test_the_table_of_peers_imports_no_tool() -> None:
    code = (
        "import sys, modalign.evaluation.peers; print(sorted({'itk', 'ants', 'cv2', 'SimpleITK'} & set(sys.modules)))"
    )
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_rotations_count_from_the_centre_far_from_the_origin() -> None:
    """Tools of single precision, or which turn about the origin of the world, must not show here."""
    fixed, moving, truth = pose("simpleitk-mi", 2)
    away = Rigid.about(np.zeros(2), rotation_matrix(2, 0.0), np.array([1e5, -3e5]))

    def moved(image: Image) -> Image:
        return image.with_grid(replace(image.grid, origin=tuple(away.map_points(np.array(image.grid.origin)))))

    far = Rigid.from_matrix(away.matrix @ truth.matrix @ away.inverse().matrix)
    for name in ("simpleitk-mi", "ants", "opencv-ecc"):
        assert_found(name, moved(fixed), moved(moving), far)
