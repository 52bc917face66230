"""Metrics, with Keras's names and definitions: counters that every batch adds to."""

from __future__ import annotations

from typing import Any

from convkit import geometry, losses, registered
from convkit.geometry import Shape
from convkit.metrics.base import Metric
from convkit.metrics.counts import (
    AUC,
    F1Score,
    FalseNegatives,
    FalsePositives,
    FBetaScore,
    Precision,
    PrecisionAtRecall,
    Recall,
    RecallAtPrecision,
    SensitivityAtSpecificity,
    SpecificityAtSensitivity,
    TrueNegatives,
    TruePositives,
)
from convkit.metrics.matrices import (
    BinaryIoU,
    ConfusionMatrix,
    IoU,
    MeanIoU,
    OneHotIoU,
    OneHotMeanIoU,
)
from convkit.metrics.reductions import Mean, Sum
from convkit.metrics.rows import (
    BinaryAccuracy,
    BinaryCrossentropy,
    CategoricalAccuracy,
    CategoricalCrossentropy,
    CategoricalHinge,
    CosineSimilarity,
    FunctionMetric,
    Hinge,
    KLDivergence,
    LogCoshError,
    MeanAbsoluteError,
    MeanAbsolutePercentageError,
    MeanSquaredError,
    MeanSquaredLogarithmicError,
    Poisson,
    RootMeanSquaredError,
    SparseCategoricalAccuracy,
    SparseCategoricalCrossentropy,
    SparseTopKCategoricalAccuracy,
    SquaredHinge,
    TopKCategoricalAccuracy,
)

__all__ = [
    "AUC",
    "BinaryAccuracy",
    "BinaryCrossentropy",
    "BinaryIoU",
    "CategoricalAccuracy",
    "CategoricalCrossentropy",
    "CategoricalHinge",
    "ConfusionMatrix",
    "CosineSimilarity",
    "F1Score",
    "FBetaScore",
    "FalseNegatives",
    "FalsePositives",
    "FunctionMetric",
    "Hinge",
    "IoU",
    "KLDivergence",
    "LogCoshError",
    "Mean",
    "MeanAbsoluteError",
    "MeanAbsolutePercentageError",
    "MeanIoU",
    "MeanSquaredError",
    "MeanSquaredLogarithmicError",
    "Metric",
    "OneHotIoU",
    "OneHotMeanIoU",
    "Poisson",
    "Precision",
    "PrecisionAtRecall",
    "Recall",
    "RecallAtPrecision",
    "RootMeanSquaredError",
    "SensitivityAtSpecificity",
    "SparseCategoricalAccuracy",
    "SparseCategoricalCrossentropy",
    "SparseTopKCategoricalAccuracy",
    "SpecificityAtSensitivity",
    "SquaredHinge",
    "Sum",
    "TopKCategoricalAccuracy",
    "TrueNegatives",
    "TruePositives",
    "get",
]

# Of what needs no arguments.
NAMES: dict[str, type[Metric]] = {
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "binary_accuracy": BinaryAccuracy,
    "top_k_categorical_accuracy": TopKCategoricalAccuracy,
    "sparse_top_k_categorical_accuracy": SparseTopKCategoricalAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "root_mean_squared_error": RootMeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mape": MeanAbsolutePercentageError,
    "MAPE": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "msle": MeanSquaredLogarithmicError,
    "MSLE": MeanSquaredLogarithmicError,
    "log_cosh_error": LogCoshError,
    "log_cosh": LogCoshError,
    "cosine_similarity": CosineSimilarity,
    "kl_divergence": KLDivergence,
    "poisson": Poisson,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "categorical_hinge": CategoricalHinge,
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "BCE": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "true_positives": TruePositives,
    "false_positives": FalsePositives,
    "true_negatives": TrueNegatives,
    "false_negatives": FalseNegatives,
    "precision": Precision,
    "recall": Recall,
    "f1_score": F1Score,
    "fbeta_score": FBetaScore,
    "f_beta_score": FBetaScore,
    "auc": AUC,
    "binary_io_u": BinaryIoU,
    "confusion_matrix": ConfusionMatrix,
}
_ACCURACY = ("accuracy", "acc")


def get(identifier: Any, y_pred: Shape, sparse: bool) -> Metric:
    """A metric from its name, a class, an instance, its configuration
    ({"class_name": ..., "config": ...}), or a function of y_true and y_pred.

    "accuracy" picks the kind as Keras does: binary where there is one output, sparse where the
    loss takes labels, else categorical. A name given is the name shown, but for a class's.

    Args:
        y_pred: the shape of predictions.
        sparse: whether the targets are labels.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if isinstance(identifier, losses.Loss):
        return FunctionMetric(identifier.call, identifier.name, sparse=identifier.sparse)
    if isinstance(identifier, dict):
        return registered.made(identifier, "metrics")  # type: ignore[no-any-return]
    if callable(identifier) and not isinstance(identifier, type):
        return FunctionMetric(identifier)
    if not isinstance(identifier, str):
        raise TypeError(f"metrics.get: expected a name or a metric, got {identifier!r}")
    classes = {cls.__name__: cls for cls in NAMES.values()}
    if identifier in classes:
        return classes[identifier]()
    name = identifier
    if name not in (*_ACCURACY, *NAMES):
        known = {**dict.fromkeys(_ACCURACY), **NAMES}
        return get(registered.named("metrics.get", "metric", name, known), y_pred, sparse)
    if name not in _ACCURACY:
        metric = NAMES[name](name=name)
        if metric.sparse is not None and metric.sparse != sparse:
            kind = "labels" if sparse else "targets like the predictions"
            raise geometry.fail("metrics.get", f"a metric on {kind}, as the loss takes", name)
        return metric
    if sparse:
        return SparseCategoricalAccuracy(name)
    return BinaryAccuracy(name) if y_pred[-1] == 1 else CategoricalAccuracy(name)
