"""Models that can be trained together. Importing this package does not import torch."""

from twopm_flower.models.base import (
    Arrays,
    ArraySpec,
    EvalMetrics,
    Layout,
    Metrics,
    Model,
    TrainMetrics,
)
from twopm_flower.models.centralised import fit_centralised
from twopm_flower.models.logistic_regression import (
    DEFAULTS,
    LogisticRegression,
    TrainingDefaults,
)
from twopm_flower.models.registry import create_model, model_names

__all__ = [
    "DEFAULTS",
    "ArraySpec",
    "Arrays",
    "EvalMetrics",
    "Layout",
    "LogisticRegression",
    "Metrics",
    "Model",
    "TrainMetrics",
    "TrainingDefaults",
    "create_model",
    "fit_centralised",
    "model_names",
]
