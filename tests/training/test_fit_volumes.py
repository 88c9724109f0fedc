"""Training on volumes: the rotations that the voxels allow, the plan that is told, and what comes of it."""

from dataclasses import replace

import numpy as np
import pytest

from modalign.data.pairs import Pair
from modalign.data.shelf import Shelf
from modalign.errors import TrainingError
from modalign.geometry import Grid
from modalign.image import Image
from modalign.nn import UNetOptions
from modalign.registration import sweeps
from modalign.testing.registration import textured_scene
from modalign.training import ComirOptions, TrainingProgress, fit_comir
from modalign.training.calibration import CalibrationOptions
from modalign.training.validation import ValidationOptions

TINY = ComirOptions(
    steps=2,
    patch=8,
    batch=4,
    network=UNetOptions((4, 6)),
    validation=ValidationOptions(times=1, draws=1),
    calibration=CalibrationOptions(0, 0, 0),
)


@pytest.fixture(autouse=True)
def _few_rotations(monkeypatch):
    """Validation by a search in wide steps, for speed: what it finds is tested elsewhere."""
    monkeypatch.setattr(sweeps, "ANGLE_STEPS", {2: 1.4, 3: 10.0})


def volumes(spacing: tuple[float, ...] = (1.0, 1.0, 1.0)) -> Pair:
    scene = textured_scene(3, feature=3.0).cropped((20, 20, 20), (40, 40, 40)).data
    grid = Grid(scene.shape[1:], spacing, unit="millimeter")
    return Pair("scene", Image(scene, grid), Image((200 - scene) ** 2, grid))


def trained(pair: Pair, options: ComirOptions) -> tuple[TrainingProgress, dict[str, object], Image]:
    told: list[TrainingProgress] = []
    model = fit_comir([pair], [], options, report=told.append).model
    return told[0], dict(model.card.training), model.encoder("moving").encode(pair.moving)


@pytest.mark.parametrize(
    ("spacing", "options", "group", "pixel_size"),
    [
        ((1.0, 1.0, 1.0), TINY, "O", (1.0, 1.0, 1.0)),
        ((2.0, 1.0, 1.0), TINY, "D4z", (2.0, 1.0, 1.0)),
        ((2.0, 1.0, 1.0), replace(TINY, group="C4z"), "C4z", (2.0, 1.0, 1.0)),
        ((2.0, 1.0, 1.0), replace(TINY, pixel_size=1.2), "O", (1.2, 1.2, 1.2)),
        ((1.0, 1.0, 1.0), replace(TINY, equivariance=False, max_memory=0.6), "C1", (1.0, 1.0, 1.0)),
    ],
)
def test_the_voxels_decide_which_rotations_are_followed(spacing, options, group, pixel_size):
    start, training, latents = trained(volumes(spacing), options)
    assert (start.step, start.group, training["group"]) == (0, group, group)
    assert str(start.plan) == training["plan"]
    assert "4 patches of 8 × 8 × 8 a step" in str(start.plan)
    assert training["steps"] == 2
    assert training["validation"]["count"] == 1
    assert latents.grid == volumes(spacing).fixed.grid
    assert np.isfinite(latents.data).all()
    assert start.chance == pytest.approx(np.log(7))
    assert tuple(training["options"]["network"]["widths"]) == (4, 6)
    assert pixel_size == (options.pixel_size,) * 3 or options.pixel_size is None


def test_a_group_that_the_voxels_do_not_allow_is_refused():
    with pytest.raises(TrainingError, match="O do not map pixels of 2 × 1 × 1 onto each other, as D4z does"):
        fit_comir([volumes((2.0, 1.0, 1.0))], [], replace(TINY, group="O"))


def test_near_misses_and_a_rim_leave_a_loss_that_falls():
    told: list[TrainingProgress] = []
    options = replace(TINY, steps=12, patch=12, rim=2, near_misses=3)
    fit_comir([volumes()], [], options, report=told.append)
    assert told[-1].chance == pytest.approx(np.log(10))
    assert np.isfinite(told[-1].loss)
    assert told[-1].loss < told[1].loss


def test_pixels_that_wait_in_files_train_the_same_model(tmp_path):
    options = replace(TINY, pixel_size=1.2, equivariance=False)
    pair = volumes((1.5, 1.0, 1.0))
    shelf = Shelf(tmp_path, 0.0)
    one, other = (fit_comir([pair], [], options, shelf=place).model for place in (Shelf(), shelf))
    assert shelf.on_disk > 0
    for side in ("fixed", "moving"):
        for a, b in zip(one.networks[side].parameters(), other.networks[side].parameters(), strict=True):
            np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


def test_a_patch_of_any_size_becomes_one_that_the_network_takes():
    started = []

    def stop_at_once(now):
        started.append(now.plan.patch)
        raise KeyboardInterrupt

    for wanted in (9, 8):
        with pytest.raises(KeyboardInterrupt):
            fit_comir([volumes()], [], replace(TINY, patch=wanted), report=stop_at_once)
    assert started == [8, 8]
    with pytest.raises(TrainingError, match="patches of 3 pixels are too small for the network, which needs 4"):
        fit_comir([volumes()], [], replace(TINY, patch=3))


def test_a_pixel_size_that_would_fill_the_memory_is_refused():
    with pytest.raises(TrainingError, match=r"pixels of 0.001 \(pixel_size\) would make 6.4e\+13 of pair 'scene'"):
        fit_comir([volumes()], [], replace(TINY, pixel_size=0.001))


@pytest.mark.parametrize(("choice", "own"), [(None, True), (False, False)])
def test_scans_have_ranges_of_their_own_unless_told_otherwise(choice, own):
    card = fit_comir([volumes()], [], replace(TINY, own_range=choice, equivariance=False)).model.card
    assert (card.fixed.scaling.own_range, card.moving.scaling.own_range) == (own, own)
