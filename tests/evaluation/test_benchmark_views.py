"""Every method of a benchmark sees one view, and its error is measured against what is known of that view."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from scipy import ndimage

from modalign.batch.work import Item, Outcome, perform
from modalign.data.displacement import DisplacedPair, DisplacementProtocol, displaced_pairs
from modalign.data.pairs import Pair
from modalign.errors import BatchError
from modalign.evaluation import corner_error
from modalign.evaluation.benchmark import plan as plans
from modalign.evaluation.benchmark.cases import CaseFiles
from modalign.evaluation.benchmark.plan import DO_NOTHING, EncoderPlan, RegistrarPlan
from modalign.evaluation.benchmark.protocols import Comir, MultiRegEval, Natural, Protocol
from modalign.evaluation.benchmark.task import ViewTask
from modalign.evaluation.benchmark.views import ViewPlan
from modalign.geometry import Grid, Rigid, Transform, as_rows, identity, rotation_matrix
from modalign.image import Image, Labels, Points
from modalign.io import read_image, write_image, write_labels, write_points, write_transform
from modalign.overlap import dice
from modalign.registration import Registration
from modalign.representation.handmade import GradientMagnitude

SPACING = (0.5, 0.8)


@dataclass(frozen=True)
class Teller:
    """A registrar that looks up what it is to answer, by the pixels that it is shown."""

    name: ClassVar[str] = "teller"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    answers: ClassVar[dict[bytes, Transform]] = {}
    shown: ClassVar[list[tuple[Image, Image]]] = []
    wrong_by: float = 0.0

    def register(self, fixed: Image, moving: Image) -> Registration:
        self.shown.append((fixed, moving))
        found = self.answers[moving.data.astype(np.float32).tobytes()]
        shift = Rigid(as_rows(np.eye(fixed.ndim)), (self.wrong_by, *(0.0,) * (fixed.ndim - 1)))
        return Registration("teller", "accepted", shift @ found, ("it was told",))


@dataclass(frozen=True)
class Refuser:
    """Keeps a transform that it does not trust."""

    name: ClassVar[str] = "refuser"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})
    keeps: bool = False

    def register(self, fixed: Image, moving: Image) -> Registration:
        kept = identity(fixed.ndim) if self.keeps else None
        return Registration("refuser", "refused", None, ("never sure",), rejected=kept)


@dataclass(frozen=True)
class Breaker:
    """Ends with an error."""

    name: ClassVar[str] = "breaker"
    ndims: ClassVar[frozenset[int]] = frozenset({2, 3})

    def register(self, fixed: Image, moving: Image) -> Registration:
        raise ZeroDivisionError("it broke")


STUBS = {"teller": Teller(), "refuser": Refuser(), "breaker": Breaker()}


@pytest.fixture(autouse=True)
def stubs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plans, "PEERS", STUBS)
    Teller.answers.clear()
    Teller.shown.clear()


@pytest.fixture
def case(tmp_path: Path, make_pair: Callable[..., Pair]) -> CaseFiles:
    """A pair of images with anisotropic pixels."""
    pair = make_pair(5, (110, 120))
    grid = Grid((110, 120), SPACING, unit="micrometer")
    for name, image in (("fixed", pair.fixed), ("moving", pair.moving)):
        write_image(tmp_path / f"{name}.tif", image.with_grid(grid))
    return CaseFiles("specimen 7", "animal 1", tmp_path / "fixed.tif", tmp_path / "moving.tif")


def view_plan(case: CaseFiles, protocol: Protocol, label: str = "", draw: int = 0, **more: Any) -> ViewPlan:
    values: dict[str, Any] = {"width": 48, "seed": 3, **more}
    return ViewPlan("tissue", case, protocol, label or protocol.labels[0], draw, **values)


def expected_pair(case: CaseFiles, protocol: DisplacementProtocol, draw: int) -> DisplacedPair:
    pairs = displaced_pairs(read_image(case.fixed), read_image(case.moving), protocol, case.name)
    return list(pairs)[draw]


def told(pair: DisplacedPair) -> None:
    Teller.answers[pair.moving.data.astype(np.float32).tobytes()] = pair.fixed_to_moving


def rows_of(view: ViewPlan, *methods: tuple[EncoderPlan, RegistrarPlan], folder: Path) -> list[dict[str, Any]]:
    return list(outcome_of(view, *methods, folder=folder).record["rows"])


def outcome_of(view: ViewPlan, *methods: tuple[EncoderPlan, RegistrarPlan], folder: Path) -> Outcome:
    task = ViewTask(view, methods, {})
    return perform(Item(task, task.digest()), folder)


def method(registrar: str = "teller", encoder: str = "identity", **options: Any) -> tuple[EncoderPlan, RegistrarPlan]:
    name = registrar + "".join(f" {value}" for value in options.values())
    return EncoderPlan(encoder, encoder), RegistrarPlan(name, registrar, options)


WIDE = replace(DisplacementProtocol.comir(48), max_rotation_degrees=20.0, draws=3, seed=3)
LEVEL = replace(DisplacementProtocol.multiregeval(48, 2), draws=3, seed=3)


@pytest.mark.parametrize(
    ("protocol", "label", "displacement"),
    [
        (Comir(20.0, draws=3), "±20°", WIDE),
        (MultiRegEval((1, 2), draws=3), "level 2", LEVEL),
        (Comir(20.0, draws=3, mirror_fraction=1.0), "±20°, mirrored", replace(WIDE, mirror_fraction=1.0)),
    ],
)
def test_a_view_is_the_displaced_pair_of_its_protocol(
    case: CaseFiles, protocol: Protocol, label: str, displacement: DisplacementProtocol
) -> None:
    for draw in (0, 2):
        view, pair = view_plan(case, protocol, label, draw).load(), expected_pair(case, displacement, draw)
        np.testing.assert_array_equal(view.fixed.data, pair.fixed.data)
        np.testing.assert_array_equal(view.moving.data, pair.moving.data)
        assert view.fixed.grid == pair.fixed.grid
        np.testing.assert_array_equal(view.truth.matrix, pair.fixed_to_moving.matrix)


def test_all_methods_see_the_same_pixels_and_the_truth_has_no_error(case: CaseFiles, tmp_path: Path) -> None:
    view, pair = view_plan(case, Comir(20.0, draws=2), draw=1), expected_pair(case, WIDE, 1)
    told(pair)
    methods = [method(), method(wrong_by=1.5), method("breaker"), method("refuser"), method("refuser", keeps=True)]
    rows = rows_of(view, *methods, folder=tmp_path)
    assert [row["method"] for row in rows] == [
        DO_NOTHING,
        *(f"identity / {name}" for name in ("teller", "teller 1.5", "breaker", "refuser", "refuser True")),
    ]
    first, *others = Teller.shown
    for fixed, moving in others:
        np.testing.assert_array_equal(fixed.data, first[0].data)
        np.testing.assert_array_equal(moving.data, first[1].data)
    nothing, truth, wrong, broken, refused, kept = rows
    assert (truth["error"], truth["error_pixels"]) == (pytest.approx(0, abs=1e-12), pytest.approx(0, abs=1e-10))
    width = (48 * SPACING[0] + 48 * SPACING[1]) / 2
    assert (wrong["error"], wrong["error_pixels"]) == (pytest.approx(1.5 / width), pytest.approx(1.5 / SPACING[0]))
    assert (broken["status"], broken["error"]) == ("failed", None)
    assert broken["reasons"] == ["ZeroDivisionError: it broke"]
    assert (refused["status"], refused["error"], refused["matrix"]) == ("refused", None, None)
    initial = corner_error(identity(2), pair.fixed_to_moving, pair.fixed.grid).mean
    assert (nothing["error"], nothing["error_pixels"]) == pytest.approx((initial.relative, initial.pixels))
    assert initial.relative > 0.01
    assert (kept["status"], kept["error"]) == ("refused", pytest.approx(initial.relative))  # judged by what it found
    assert nothing["truth"] == pair.fixed_to_moving.matrix.tolist()
    assert {(row["specimen"], row["pair"], row["draw"], row["dataset"]) for row in rows} == {
        ("animal 1", "specimen 7", 1, "tissue")
    }


def test_an_encoder_works_once_a_view_on_the_originals(
    case: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair, seen = expected_pair(case, WIDE, 0), []
    encode = GradientMagnitude.encode

    def counted(self: GradientMagnitude, image: Image) -> Image:
        seen.append(image)
        return encode(self, image)

    monkeypatch.setattr(GradientMagnitude, "encode", counted)
    methods = [method("refuser", "gradient"), method("refuser", "gradient", keeps=True), method("teller", "gradient")]
    Teller.answers[GradientMagnitude().encode(pair.moving).data.tobytes()] = pair.fixed_to_moving
    seen.clear()
    rows = rows_of(view_plan(case, Comir(20.0)), *methods, folder=tmp_path)
    assert len(seen) == 2
    np.testing.assert_array_equal(seen[0].data, pair.fixed.data)
    assert rows[-1]["error"] == pytest.approx(0, abs=1e-12)


@dataclass
class Counted:
    """How often each method worked, whichever object stands for it."""

    calls: list[str] = field(default_factory=list)

    def watch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        for kind in (Teller, Refuser):
            monkeypatch.setattr(kind, "register", self._noted(kind.register))

    def _noted(self, register: Callable[..., Registration]) -> Callable[..., Registration]:
        def noted(registrar: Any, fixed: Image, moving: Image) -> Registration:
            self.calls.append(registrar.name)
            return register(registrar, fixed, moving)

        return noted


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in row.items() if key not in ("cpu", "wall", "encoding_cpu")} for row in rows]


def test_a_row_that_is_done_is_not_made_again(case: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view, counted = view_plan(case, Comir(20.0)), Counted()
    told(expected_pair(case, WIDE, 0))
    counted.watch(monkeypatch)
    before = rows_of(view, method(), folder=tmp_path)
    assert counted.calls == ["teller"]
    after = rows_of(view, method("refuser"), method(), folder=tmp_path)
    assert counted.calls == ["teller", "refuser"]
    assert [after[0], after[2]] == before  # with the times of the first run
    assert rows_of(view, method(), folder=tmp_path) == before
    rows_of(view, method(), method("refuser", "gradient"), folder=tmp_path)
    assert counted.calls == ["teller", "refuser", "refuser"]
    rows_of(view, method(wrong_by=1.0), folder=tmp_path)
    assert counted.calls[3:] == ["teller"]
    assert len(rows_of(replace(view, seed=4), method("refuser"), folder=tmp_path)) == 2  # another view: all anew
    assert counted.calls[4:] == ["refuser"]


def test_a_view_that_is_killed_keeps_its_rows(case: CaseFiles, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    view, counted = view_plan(case, Comir(20.0)), Counted()
    told(expected_pair(case, WIDE, 0))
    methods = (method(), method("breaker"), method("refuser"))
    whole = rows_of(view, *methods, folder=tmp_path / "whole")

    def killed(registrar: Breaker, fixed: Image, moving: Image) -> Registration:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Breaker, "register", killed)
        with pytest.raises(KeyboardInterrupt):
            rows_of(view, *methods, folder=tmp_path / "parts")
    counted.watch(monkeypatch)
    (tmp_path / "parts" / view.name / "rows" / "half.json").write_text('{"half": ', encoding="utf-8")
    rows = rows_of(view, *methods, folder=tmp_path / "parts")
    assert counted.calls == ["refuser"]
    assert without_times(rows) == without_times(whole)


def test_a_view_that_cannot_be_made_says_why(case: CaseFiles, tmp_path: Path) -> None:
    case.moving.write_bytes(b"II*\0 and no more")
    outcome = outcome_of(view_plan(case, Comir()), method(), folder=tmp_path)
    assert outcome.status == "failed"
    assert str(case.moving) in outcome.record["reasons"][0]


NATURAL = Rigid.about(np.array([12.0, 20.0]), rotation_matrix(2, 12.0), np.array([2.0, -3.0]))


def test_a_mask_is_displaced_with_the_image_that_it_belongs_to(case: CaseFiles, tmp_path: Path) -> None:
    mask = np.ones((110, 120), dtype=np.uint8)
    mask[:, :50] = 0
    write_labels(tmp_path / "mask.png", Labels(mask, Grid(mask.shape)))
    view = view_plan(replace(case, mask=tmp_path / "mask.png"), Comir(20.0)).load()
    np.testing.assert_array_equal(view.fixed.mask, mask[31:79, 36:84] > 0)
    assert view.moving.mask is not None
    shown = np.argwhere(view.moving.mask).astype(float)
    original = view.truth.inverse().map_points(view.moving.grid.index_to_world(shown))
    assert (original[:, 1] > 49 * SPACING[1]).all()  # what the mask of the displaced image shows was shown before
    assert 0.4 < view.moving.mask.mean() < 0.95


def test_natural_misalignment_with_a_known_transform(case: CaseFiles, tmp_path: Path) -> None:
    grid = read_image(case.fixed).grid
    write_transform(tmp_path / "truth.json", NATURAL, fixed=grid, moving=grid)
    view = view_plan(replace(case, truth=tmp_path / "truth.json"), Natural(), width=None)
    Teller.answers[read_image(case.moving).data.astype(np.float32).tobytes()] = NATURAL
    nothing, right = rows_of(view, method(), folder=tmp_path)
    initial = corner_error(identity(2), NATURAL, grid).mean
    assert (nothing["error"], nothing["error_pixels"]) == pytest.approx((initial.relative, initial.pixels))
    assert right["error"] == pytest.approx(0, abs=1e-9)
    assert nothing["truth"] is None  # no displacement was drawn
    pixels = grid.without_unit()
    write_transform(tmp_path / "truth.json", NATURAL, fixed=pixels, moving=pixels)
    with pytest.raises(BatchError, match=r"images in pixel; the fixed image is in micrometer"):
        view.load()


def test_natural_misalignment_with_landmarks(case: CaseFiles, tmp_path: Path) -> None:
    fixed = np.array([[5.0, 9.0], [30.0, 12.0], [20.0, 60.0], [48.0, 70.0]])
    off = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0], [2.0, 0.0]])  # by 0, 5, 1 and 2 micrometers
    marks = {"fixed": fixed, "moving": NATURAL.map_points(fixed) + off}
    for side, points in marks.items():
        write_points(tmp_path / f"{side}.csv", Points(points, "micrometer"))
    named = replace(case, fixed_landmarks=tmp_path / "fixed.csv", moving_landmarks=tmp_path / "moving.csv")
    view = view_plan(named, Natural(), width=None)
    Teller.answers[read_image(case.moving).data.astype(np.float32).tobytes()] = NATURAL
    nothing, row, refused = rows_of(view, method(), method("refuser"), folder=tmp_path)
    height, width = 110 * SPACING[0], 120 * SPACING[1]
    assert (row["landmark_median"], row["landmark_maximum"]) == pytest.approx((1.5, 5.0))
    diagonal = np.hypot(height, width)
    assert (row["median_rtre"], row["maximum_rtre"]) == pytest.approx((1.5 / diagonal, 5 / diagonal))
    assert row["error"] == pytest.approx(1.5 / ((height + width) / 2))
    initial = np.median(np.linalg.norm(marks["moving"] - fixed, axis=1))
    assert nothing["landmark_median"] == pytest.approx(initial)
    assert refused["error"] is None


def test_landmarks_that_do_not_belong_together(case: CaseFiles, tmp_path: Path) -> None:
    for name, shape in (("six", (6, 2)), ("three", (3, 2)), ("space", (6, 3))):
        write_points(tmp_path / f"{name}.csv", Points(np.ones(shape), "micrometer"))
    for names, said in (
        (("six", "three"), "must hold the same points: 6 points in 2D and 3 points in 2D"),
        (("space", "space"), "holds points in 3D; the images are 2D"),
    ):
        fixed, moving = (tmp_path / f"{name}.csv" for name in names)
        named = replace(case, fixed_landmarks=fixed, moving_landmarks=moving)
        with pytest.raises(BatchError, match=said):
            view_plan(named, Natural(), width=None).load()


def test_a_label_map_that_does_not_fit_its_image(labelled: CaseFiles, tmp_path: Path) -> None:
    half = tmp_path / "half.png"
    write_labels(half, Labels(np.zeros((55, 120), dtype=np.uint8), Grid((55, 120))))
    with pytest.raises(
        BatchError, match=r"half.png: a label map of 55 × 120 pixels does not fit an image of 110 × 120"
    ):
        view_plan(replace(labelled, moving_labels=half), Comir(20.0)).load()


def test_natural_misalignment_of_which_nothing_is_known(case: CaseFiles) -> None:
    with pytest.raises(BatchError, match=r"nothing is known of the truth of 'specimen 7': name a truth or landmarks"):
        view_plan(case, Natural()).load()


def test_dice_by_hand() -> None:
    a = np.array([[0, 1, 1, 2], [0, 1, 3, 2]])
    b = np.array([[0, 1, 0, 2], [4, 1, 0, 2]])
    assert dice(a, b) == pytest.approx((2 * 2 / 5 + 1 + 0 + 0) / 4)
    assert dice(a, a) == 1
    assert dice(0 * a, 0 * a) == 1


@pytest.fixture
def labelled(case: CaseFiles, tmp_path: Path) -> CaseFiles:
    """The pair with a map of round cells; its file says nothing of pixel sizes."""
    noise = ndimage.gaussian_filter(np.random.default_rng(0).standard_normal((110, 120)), 5)
    cells, _ = ndimage.label(noise > noise.std())
    path = tmp_path / "cells.png"
    write_labels(path, Labels(cells.astype(np.uint8), Grid(cells.shape)))
    return replace(case, fixed_labels=path, moving_labels=path)


@pytest.mark.parametrize("mirrored", [0.0, 1.0])
def test_the_truth_brings_labels_back_onto_each_other(labelled: CaseFiles, mirrored: float) -> None:
    view = view_plan(labelled, Comir(20.0, mirror_fraction=mirrored)).load()
    assert view.labels is not None
    assert view.labels.fixed.data.max() > 1
    assert view.errors(view.truth)["dice"] == 1  # the inverse of the displacement undoes it before anything is sampled
    assert view.errors(identity(2))["dice"] < 0.7
    shifted = Rigid(as_rows(np.eye(2)), (0.0, 2 * SPACING[1])) @ view.truth
    assert 0.3 < view.errors(shifted)["dice"] < 0.97


def test_the_dice_of_natural_misalignment_is_that_of_the_moved_map(labelled: CaseFiles, tmp_path: Path) -> None:
    grid = read_image(labelled.fixed).grid
    write_transform(tmp_path / "truth.json", identity(2), fixed=grid, moving=grid)
    view = view_plan(replace(labelled, truth=tmp_path / "truth.json"), Natural()).load()
    assert view.labels is not None
    cells = view.labels.fixed.data
    moved = np.zeros_like(cells)
    moved[:, 4:] = cells[:, :-4]
    found = Rigid(as_rows(np.eye(2)), (0.0, -4 * SPACING[1]))
    assert view.errors(found)["dice"] == pytest.approx(dice(cells, moved))


def test_volumes_are_displaced_by_the_levels_in_3d(tmp_path: Path) -> None:
    noise = ndimage.gaussian_filter(np.random.default_rng(1).standard_normal((34, 36, 38)), 1.5).astype(np.float32)
    grid = Grid(noise.shape, (2.0, 0.7, 0.9), unit="micrometer")
    paths = [tmp_path / f"{side}.nii.gz" for side in ("fixed", "moving")]
    for path, data in zip(paths, (noise, np.abs(noise)), strict=True):
        write_image(path, Image(data[None], grid))
    case = CaseFiles("v", "v", *paths)
    view = view_plan(case, MultiRegEval((2,), draws=2), "level 2", 1, width=16)
    displacement = replace(DisplacementProtocol.multiregeval_volume((16, 16, 16), 2), draws=2, seed=3)
    pair = expected_pair(case, displacement, 1)
    told(pair)
    nothing, right = rows_of(view, method(), folder=tmp_path)
    assert right["error"] == pytest.approx(0, abs=1e-9)
    assert nothing["error"] == pytest.approx(
        corner_error(identity(3), pair.fixed_to_moving, pair.fixed.grid).mean.relative
    )
    assert [1 <= abs(angle) <= 2 for angle in pair.rotation_degrees[:2]] == [True, True]
    assert 5 <= abs(pair.rotation_degrees[2]) <= 10


def test_what_a_row_depends_on_is_in_the_digest(case: CaseFiles, tmp_path: Path) -> None:
    def digest(view: ViewPlan, *methods: tuple[EncoderPlan, RegistrarPlan], **more: Any) -> str:
        return ViewTask(view, methods or (method(),), {}, **more).digest()

    view = view_plan(case, Comir(20.0))
    others: Mapping[str, str] = {
        "seed": digest(replace(view, seed=1)),
        "width": digest(replace(view, width=40)),
        "draw": digest(replace(view, draw=1)),
        "protocol": digest(replace(view, protocol=Comir(20.0, mirror_fraction=0.5))),
        "options": digest(view, method(wrong_by=1.0)),
        "encoder": digest(view, method(encoder="gradient")),
        "refined": digest(view, (method()[0], replace(method()[1], refine_on_originals=True))),
        "verdict": digest(view, verdict=True),
        "same": digest(replace(view, protocol=Comir(20.0, datasets=("tissue",)))),
    }
    assert others["same"] == digest(view)
    assert len(set(others.values())) == len(others)
    write_image(case.moving, read_image(case.moving).with_data(read_image(case.moving).data + np.uint16(1)))
    assert digest(view) != others["same"]
