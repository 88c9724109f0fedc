"""What a pair depends on is in its hash: the content of its files and its options, and nothing else."""

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from modalign.batch.pairs import PairTask, content_hash
from modalign.batch.registration import RegistrationJob
from modalign.registration import Deform, Features, FftSearch


@pytest.fixture
def task(tmp_path: Path) -> PairTask:
    """A pair with a model."""
    for name in ("fixed.png", "moving.png", "model/model.json", "model/fixed.safetensors"):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(name, encoding="utf-8")
    job = RegistrationJob(tmp_path / "fixed.png", tmp_path / "moving.png", model=tmp_path / "model")
    return PairTask("p", job)


def test_the_networks_of_an_engine_count_by_their_content(task: PairTask, tmp_path: Path) -> None:
    folder = tmp_path / "net"
    folder.mkdir()
    (folder / "model.json").write_text("{}", encoding="utf-8")
    for method in (Deform(network=str(folder)), Deform(similarity="deepsim", features=str(folder))):
        with_network = replace(task, job=replace(task.job, engine="deform", method=method))
        assert folder in with_network.job.files
        before = with_network.digest()
        os.utime(folder / "model.json", ns=(1, 2))
        (folder / "model.json").write_text('{"trained": "anew"}', encoding="utf-8")
        assert with_network.digest() != before
        (folder / "model.json").write_text("{}", encoding="utf-8")
    assert len(replace(task, job=replace(task.job, engine="sift", method=Features())).job.files) == len(task.job.files)


def change_content(name: str) -> Callable[[PairTask, Path], PairTask]:
    def change(task: PairTask, folder: Path) -> PairTask:
        path = folder / name
        path.write_text(path.read_text(encoding="utf-8").swapcase(), encoding="utf-8")
        os.utime(path, ns=(1, 10**18))
        return task

    return change


def change_job(**options: object) -> Callable[[PairTask, Path], PairTask]:
    return lambda task, folder: replace(task, job=replace(task.job, **options))


def remove(task: PairTask, folder: Path) -> PairTask:
    task.job.moving.unlink()
    return task


CHANGES: dict[str, Callable[[PairTask, Path], PairTask]] = {
    "fixed": change_content("fixed.png"),
    "moving": change_content("moving.png"),
    "weights of the model": change_content("model/fixed.safetensors"),
    "no model": change_job(model=None),
    "pixel size": change_job(fixed_pixel_size=(2.0,)),
    "unit": change_job(unit="millimeter"),
    "engine option": change_job(method=FftSearch(max_rotation_degrees=12)),
    "interpolation": change_job(interpolation="cubic"),
    "file gone": remove,
    "kept files": lambda task, folder: replace(task, keep=("report",)),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=list(CHANGES))
def test_change_of_content_or_options_shows(
    change: Callable[[PairTask, Path], PairTask], task: PairTask, tmp_path: Path
) -> None:
    before = task.digest()
    assert change(task, tmp_path).digest() != before


def test_masks_are_told_apart(task: PairTask, tmp_path: Path) -> None:
    mask = tmp_path / "fixed.png"
    fixed, moving = (replace(task, job=replace(task.job, **{role: mask})) for role in ("fixed_mask", "moving_mask"))
    assert len({task.digest(), fixed.digest(), moving.digest()}) == 3


def test_place_and_time_of_files_do_not_matter(task: PairTask, tmp_path: Path) -> None:
    before = task.digest()
    os.utime(task.job.fixed, ns=(7, 7))
    task.job.moving.rename(tmp_path / "renamed.png")
    moved = replace(task, name="other", job=replace(task.job, moving=tmp_path / "renamed.png"))
    assert moved.digest() == before
    assert replace(task, keep=task.keep[::-1], job=moved.job).digest() == before


def test_what_cannot_be_read_has_a_hash_as_well(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    assert content_hash(tmp_path / "none.png") == content_hash(tmp_path / ("x" * 5000))
    assert content_hash(tmp_path / "images") != content_hash(tmp_path / "none.png")  # and it is not read through
