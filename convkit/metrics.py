"""Metrics, with Keras's names and definitions: means over all rows that were seen."""

from __future__ import annotations

from typing import Any

from convkit import geometry, graph, losses
from convkit.array import label_array
from convkit.geometry import Shape
from convkit.ops import common


class Metric:
    """Base class: a score per row of the last axis; what is shown is the mean over all rows.

    Args:
        name: the key in logs and in the history.
    """

    name = "metric"
    sparse = False  # whether y_true holds labels

    def __init__(self, name: str | None = None) -> None:
        if name is not None:
            self.name = name

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One score per row."""
        raise TypeError(f"{type(self).__name__}: a subclass of Metric must define call")

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        return float(self.call(y_true, y_pred).mean())

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _score(kernel: str, y_true: Any, y_pred: Any, sparse: bool) -> Any:
    if graph.is_symbolic([y_true, y_pred]):
        y_true, y_pred = graph.symbol_of(y_true), graph.symbol_of(y_pred)
    elif sparse:
        (y_pred,) = common.arguments(kernel, ("y_pred",), (y_pred,))
        y_true = label_array(kernel, "y_true", y_true, y_pred.shape[-1])
    else:
        y_true, y_pred = common.arguments(kernel, ("y_true", "y_pred"), (y_true, y_pred))
    spec, shape = geometry.loss(kernel, tuple(y_true.shape), tuple(y_pred.shape), sparse, False)
    n = None if y_pred.shape[0] is None else 1
    return graph.call(kernel, spec, n, [y_true, y_pred], [shape], common.dtype_of(y_pred))[0]


class CategoricalAccuracy(Metric):
    """How often the largest prediction is that of the largest target."""

    name = "categorical_accuracy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _score("categorical_accuracy", y_true, y_pred, False)


class SparseCategoricalAccuracy(Metric):
    """How often the largest prediction is that of the label."""

    name = "sparse_categorical_accuracy"
    sparse = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _score("sparse_categorical_accuracy", y_true, y_pred, True)


class BinaryAccuracy(Metric):
    """How often a target, 0 or 1, is (prediction > 0.5)."""

    name = "binary_accuracy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _score("binary_accuracy", y_true, y_pred, False)


class _OfLoss(Metric):
    loss: type[losses.Loss]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.loss().call(y_true, y_pred)


class MeanSquaredError(_OfLoss):
    """The mean of (y_pred - y_true)**2."""

    name = "mean_squared_error"
    loss = losses.MeanSquaredError


class MeanAbsoluteError(_OfLoss):
    """The mean of |y_pred - y_true|."""

    name = "mean_absolute_error"
    loss = losses.MeanAbsoluteError


NAMES: dict[str, type[Metric]] = {
    "categorical_accuracy": CategoricalAccuracy,
    "sparse_categorical_accuracy": SparseCategoricalAccuracy,
    "binary_accuracy": BinaryAccuracy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
}
_ACCURACY = ("accuracy", "acc")


def get(identifier: Any, y_pred: Shape, sparse: bool) -> Metric:
    """A metric from its name, a class or an instance.

    "accuracy" picks the kind as Keras does: binary where there is one output, sparse where the
    loss takes labels, else categorical. A name given is the name shown.

    Args:
        y_pred: the shape of predictions.
        sparse: whether the targets are labels.
    """
    if isinstance(identifier, Metric):
        return identifier
    if isinstance(identifier, type) and issubclass(identifier, Metric):
        return identifier()
    if not isinstance(identifier, str):
        raise TypeError(f"metrics.get: expected a name or a metric, got {identifier!r}")
    name = geometry.choice("metrics.get", "metric", identifier, (*_ACCURACY, *NAMES))
    if name not in _ACCURACY:
        metric = NAMES[name](name)
        if metric.sparse != sparse:
            kind = "labels" if sparse else "targets like the predictions"
            raise geometry.fail("metrics.get", f"a metric on {kind}, as the loss takes", name)
        return metric
    if sparse:
        return SparseCategoricalAccuracy(name)
    return BinaryAccuracy(name) if y_pred[-1] == 1 else CategoricalAccuracy(name)
