"""The verdict: probabilities, statuses, reasons, and what no probability may overrule."""

import math
from dataclasses import replace

import numpy as np
import pytest

from modalign.errors import InvalidInputError
from modalign.geometry import Rigid, as_rows
from modalign.registration import FftSearch, Judge, Registration, register
from modalign.registration.calibration import FEATURES, GENERAL, Calibration, features
from modalign.registration.evidence import Evidence, gather
from modalign.registration.novelty import LatentStatistics
from modalign.registration.verify import judged, reasons
from modalign.testing.registration import known_pair, known_pose

GOOD = Evidence(0.8, 0.7, 25.0, 1.0, 20.0, 0.002, 0.002, 0.001, 60.0, 40.0, 0.9, 1.0, 0.0, 0.0)
BAD = Evidence(0.2, 0.05, 2.0, 0.05, 18.0, 0.08, 0.08, 0.02, 3.0, 1.5, 0.6, 0.9, 0.0, 0.0)


def test_the_general_calibration_tells_good_from_bad() -> None:
    assert GENERAL.probability(GOOD) > GENERAL.accept > GENERAL.refuse > GENERAL.probability(BAD)
    assert 0 <= GENERAL.probability(BAD) < GENERAL.probability(GOOD) <= 1


def test_the_probability_is_the_logistic_function_of_the_features() -> None:
    rng = np.random.default_rng(0)
    center, scale, weights = (tuple(rng.uniform(0.5, 2, len(FEATURES)).tolist()) for _ in range(3))
    calibration = Calibration(tuple(FEATURES), center, scale, weights, -3.0)
    odds = sum(w * (f - c) / s for w, f, c, s in zip(weights, features(GOOD), center, scale, strict=True)) - 3.0
    assert calibration.probability(GOOD) == pytest.approx(1 / (1 + math.exp(-odds)))


def test_a_calibration_survives_being_saved() -> None:
    assert Calibration.from_dict(GENERAL.to_dict()) == GENERAL


def test_a_calibration_for_other_evidence_is_refused() -> None:
    saved = GENERAL.to_dict()
    with pytest.raises(InvalidInputError, match="other evidence"):
        Calibration.from_dict({**saved, "names": [*saved["names"][:-1], "phase of the moon"]})
    with pytest.raises(InvalidInputError, match="damaged"):
        Calibration.from_dict({"nonsense": 1})


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "accepted"),
        ({"overlap": 0.1}, "refused"),
        ({"scale": math.log(3)}, "unsure"),
        ({"shear": math.log(1.8)}, "unsure"),
        ({"novelty": 9.0}, "unsure"),
        ({"echo": 0.97}, "unsure"),
        ({"overlap": math.nan}, "refused"),
    ],
)
def test_no_probability_overrules_what_is_implausible(change: dict[str, float], expected: str) -> None:
    assert judged(0.99, replace(GOOD, **change), GENERAL) == expected


def test_what_is_not_a_number_is_not_trusted() -> None:
    assert judged(math.nan, GOOD, GENERAL) == "refused"


def test_reasons_speak_plainly() -> None:
    assert "20 of 20 parts of the image agree with it" in reasons("accepted", GOOD)
    assert reasons("refused", BAD)[0] == "only 1 of 18 parts of the image agree with it"
    assert "model" in reasons("refused", BAD)[-1]
    assert "overlay" in reasons("unsure", BAD)[-1]


def test_right_registrations_are_accepted_and_wrong_ones_refused() -> None:
    fixed, moving, truth = known_pair(2)
    judge = Judge()
    found = Registration("test", "unsure", truth, ("?",))
    assert judge.judge(found, fixed, moving).status == "accepted"
    wrong = judge.judge(replace(found, fixed_to_moving=known_pose(2, 50, 0.1)), fixed, moving)
    assert wrong.status == "refused"
    assert wrong.fixed_to_moving is None
    assert wrong.candidate == known_pose(2, 50, 0.1)
    assert wrong.confidence is not None
    assert wrong.confidence < 0.5


def test_what_a_method_refused_can_be_rehabilitated_and_what_it_lost_cannot() -> None:
    fixed, moving, truth = known_pair(2)
    refused = Registration.judged("test", "refused", truth, ("too few matches",), {})
    assert Judge().judge(refused, fixed, moving).status == "accepted"
    lost = Registration("test", "refused", None, ("no key points",))
    verdict = Judge().judge(lost, fixed, moving)
    assert (verdict.status, verdict.confidence, verdict.reasons) == ("refused", 0.0, ("no key points",))


def test_unrelated_images_are_refused_whatever_the_search_finds() -> None:
    for seed in range(3):
        fixed, *_ = known_pair(2, seed=seed)
        _, moving, _ = known_pair(2, seed=seed + 20)
        found = register(fixed, moving, FftSearch(max_rotation_degrees=40))
        assert Judge().judge(found, fixed, moving).status == "refused"


def test_little_overlap_is_refused() -> None:
    fixed, moving, truth = known_pair(2)
    far = Rigid(as_rows(np.eye(2)), (0.93 * fixed.grid.extent[0], 0.0))
    found = Registration("test", "accepted", truth @ far, ("?",))
    verdict = Judge().judge(found, fixed, moving)
    assert verdict.status == "refused"
    assert any("overlap" in reason for reason in verdict.reasons)


def test_a_model_without_calibration_says_so() -> None:
    fixed, moving, truth = known_pair(2)
    found = Registration("test", "unsure", truth, ("?",), notes=("the pixel size is a guess",))
    verdict = Judge.of_model(None).judge(found, fixed, moving)
    assert verdict.notes[0] == "the pixel size is a guess"
    assert "no calibration of its own" in verdict.notes[1]


def test_damaged_calibrations_are_named() -> None:
    with pytest.raises(InvalidInputError, match="damaged"):
        Judge.of_model({"verdict": None})


def test_images_unlike_those_of_training_are_not_accepted() -> None:
    fixed, moving, truth = known_pair(2)
    usual = LatentStatistics.fit([fixed])
    shifted = fixed.with_data(fixed.data + 20 * fixed.data.std())
    found = Registration("test", "accepted", truth, ("?",))
    judge = Judge(latents=(usual, LatentStatistics.fit([moving])))
    assert judge.judge(found, fixed, moving).status == "accepted"
    verdict = judge.judge(found, shifted, moving)
    assert verdict.status == "unsure"
    assert any("unlike" in reason for reason in verdict.reasons)
    assert gather(shifted, moving, truth).novelty == 0
