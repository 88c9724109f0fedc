"""Evaluation: errors of one transform, and statistics of many.

The small experiment that makes many is in :mod:`modalign.evaluation.study`, apart because it imports registration.
"""

from modalign.evaluation.metrics import (
    TOLERANCES,
    CornerError,
    LandmarkError,
    LandmarkEvaluation,
    Length,
    Success,
    Tolerance,
    TruthEvaluation,
    corner_error,
    evaluate_against_truth,
    evaluate_landmarks,
    landmark_error,
)
from modalign.evaluation.statistics import (
    Interval,
    bootstrap_interval,
    median_error,
    success_curve,
    success_rate,
)

__all__ = [
    "TOLERANCES",
    "CornerError",
    "Interval",
    "LandmarkError",
    "LandmarkEvaluation",
    "Length",
    "Success",
    "Tolerance",
    "TruthEvaluation",
    "bootstrap_interval",
    "corner_error",
    "evaluate_against_truth",
    "evaluate_landmarks",
    "landmark_error",
    "median_error",
    "success_curve",
    "success_rate",
]
