"""Training: one options dataclass and one fit function a method."""

from modalign.training.comir import ComirOptions, TrainedComir, TrainingProgress, fit_comir

__all__ = ["ComirOptions", "TrainedComir", "TrainingProgress", "fit_comir"]
