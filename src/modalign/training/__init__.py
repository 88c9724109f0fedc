"""Training: one options dataclass and one fit function a method."""

from modalign.training.comir import TrainedComir, TrainingProgress, fit_comir
from modalign.training.deform import DeformOptions, TrainedDeform, fit_deform
from modalign.training.features import FeatureOptions, TrainedFeatures, fit_features
from modalign.training.loop import FitProgress, Fitted
from modalign.training.memory import MemoryPlan
from modalign.training.options import ComirOptions

__all__ = [
    "ComirOptions",
    "DeformOptions",
    "FeatureOptions",
    "FitProgress",
    "Fitted",
    "MemoryPlan",
    "TrainedComir",
    "TrainedDeform",
    "TrainedFeatures",
    "TrainingProgress",
    "fit_comir",
    "fit_deform",
    "fit_features",
]
