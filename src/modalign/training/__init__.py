"""Training: one options dataclass and one fit function a method."""

from modalign.training.comir import TrainedComir, TrainingProgress, fit_comir
from modalign.training.memory import MemoryPlan
from modalign.training.options import ComirOptions

__all__ = ["ComirOptions", "MemoryPlan", "TrainedComir", "TrainingProgress", "fit_comir"]
