"""Metrics that are means of a score per row: accuracies, errors and losses."""

from __future__ import annotations

from collections.abc import Callable
from math import sqrt
from typing import Any

from convkit import _core, device, geometry, graph, losses, ops, registered
from convkit.array import device_labels, label_array
from convkit.metrics.base import Metric
from convkit.ops import common


def _score(kernel: str, y_true: Any, y_pred: Any, sparse: bool, k: int | None = None) -> Any:
    if graph.is_symbolic([y_true, y_pred]):
        y_true, y_pred = graph.symbol_of(y_true), graph.symbol_of(y_pred)
    elif sparse:
        (y_pred,) = common.arguments(kernel, ("y_pred",), (y_pred,))
        if device.is_device_array(y_true):
            y_true = device_labels(kernel, "y_true", y_true)
        else:
            y_true = label_array(kernel, "y_true", y_true, y_pred.shape[-1])
    else:
        y_true, y_pred = common.arguments(kernel, ("y_true", "y_pred"), (y_true, y_pred))
    spec, shape = geometry.loss(kernel, tuple(y_true.shape), tuple(y_pred.shape), sparse, False)
    if k is not None:
        spec = _core.TopK(rows=spec.rows, size=spec.size, inner=spec.inner, k=k)
    n = None if y_pred.shape[0] is None else 1
    return graph.call(kernel, spec, n, [y_true, y_pred], [shape], common.dtype_of(y_pred))[0]


# ---- accuracies ----------------------------------------------------------------------------------


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
    """How often a target, 0 or 1, is (prediction > threshold).

    Args:
        name, dtype: as of `Metric`.
        threshold: a number.
    """

    name = "binary_accuracy"

    def __init__(
        self, name: str | None = None, dtype: str | None = None, threshold: float = 0.5
    ) -> None:
        super().__init__(name, dtype)
        infinity = float("inf")
        self.threshold = geometry.number(self.name, "threshold", threshold, -infinity, infinity)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        if self.threshold != 0.5:
            # The kernel compares with a half. A power of two scales without rounding, so what was
            # above the threshold is far above that, and what was not is not.
            far = 2.0**64
            y_pred = ops.rescale(y_pred, far, -self.threshold * far)
        return _score("binary_accuracy", y_true, y_pred, False)


class TopKCategoricalAccuracy(Metric):
    """How often the prediction for the largest target is among the k largest.

    Args:
        k: at least 1.
        name, dtype: as of `Metric`.
    """

    name = "top_k_categorical_accuracy"

    def __init__(self, k: int = 5, name: str | None = None, dtype: str | None = None) -> None:
        super().__init__(name, dtype)
        self.k = geometry.integer(self.name, "k", k, 1)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _score("top_k_accuracy", y_true, y_pred, False, self.k)


class SparseTopKCategoricalAccuracy(Metric):
    """How often the prediction for the label is among the k largest.

    Args:
        k: at least 1.
        name, dtype: as of `Metric`.
        from_sorted_ids: False: predictions are numbers, not classes in the order of theirs.
    """

    name = "sparse_top_k_categorical_accuracy"
    sparse = True

    def __init__(
        self,
        k: int = 5,
        name: str | None = None,
        dtype: str | None = None,
        from_sorted_ids: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.k = geometry.integer(self.name, "k", k, 1)
        if from_sorted_ids:
            raise geometry.fail(self.name, "from_sorted_ids=False", from_sorted_ids)
        self.from_sorted_ids = False

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return _score("sparse_top_k_accuracy", y_true, y_pred, True, self.k)


# ---- losses --------------------------------------------------------------------------------------


class _OfLoss(Metric):
    loss: type[losses.Loss]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.loss().call(y_true, y_pred)


class MeanSquaredError(_OfLoss):
    """The mean of (y_pred - y_true)**2."""

    name = "mean_squared_error"
    loss = losses.MeanSquaredError


class RootMeanSquaredError(MeanSquaredError):
    """The square root of the mean of (y_pred - y_true)**2."""

    name = "root_mean_squared_error"

    def result(self) -> Any:
        return sqrt(super().result())


class MeanAbsoluteError(_OfLoss):
    """The mean of |y_pred - y_true|."""

    name = "mean_absolute_error"
    loss = losses.MeanAbsoluteError


class MeanAbsolutePercentageError(_OfLoss):
    """The mean of 100 * |y_true - y_pred| / max(|y_true|, 1e-7)."""

    name = "mean_absolute_percentage_error"
    loss = losses.MeanAbsolutePercentageError


class MeanSquaredLogarithmicError(_OfLoss):
    """The mean of (log(y_pred + 1) - log(y_true + 1))**2, both at least 1e-7."""

    name = "mean_squared_logarithmic_error"
    loss = losses.MeanSquaredLogarithmicError


class LogCoshError(_OfLoss):
    """The mean of log(cosh(y_pred - y_true))."""

    name = "logcosh"
    loss = losses.LogCosh


class KLDivergence(_OfLoss):
    """The mean over rows of sum(y_true * log(y_true / y_pred)), both kept between 1e-7 and 1."""

    name = "kl_divergence"
    loss = losses.KLDivergence


class Poisson(_OfLoss):
    """The mean of y_pred - y_true * log(y_pred + 1e-7)."""

    name = "poisson"
    loss = losses.Poisson


class Hinge(_OfLoss):
    """The mean of max(1 - y_true * y_pred, 0); y_true is -1 or 1, and 0 counts as -1."""

    name = "hinge"
    loss = losses.Hinge


class SquaredHinge(_OfLoss):
    """The mean of max(1 - y_true * y_pred, 0)**2; y_true is -1 or 1, and 0 counts as -1."""

    name = "squared_hinge"
    loss = losses.SquaredHinge


class CategoricalHinge(_OfLoss):
    """max(max((1 - y_true) * y_pred) - sum(y_true * y_pred) + 1, 0); y_true is one-hot."""

    name = "categorical_hinge"
    loss = losses.CategoricalHinge


class CosineSimilarity(Metric):
    """sum(y_true * y_pred) of vectors divided by their lengths: 1 is the same direction.

    Args:
        name, dtype: as of `Metric`.
        axis: along which a vector lies.
    """

    name = "cosine_similarity"

    def __init__(self, name: str | None = None, dtype: str | None = None, axis: int = -1) -> None:
        super().__init__(name, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.rescale(ops.cosine_similarity(y_true, y_pred, axis=self.axis), -1.0)


class BinaryCrossentropy(Metric):
    """The mean of -(t log p + (1 - t) log(1 - p)).

    Args:
        name, dtype: as of `Metric`.
        from_logits, label_smoothing: as of the loss.
    """

    name = "binary_crossentropy"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        self._loss = losses.BinaryCrossentropy(from_logits, label_smoothing)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._loss.call(y_true, y_pred)


class CategoricalCrossentropy(Metric):
    """The mean over rows of -sum(y_true * log(y_pred)).

    Args:
        name, dtype: as of `Metric`.
        from_logits, label_smoothing, axis: as of the loss.
    """

    name = "categorical_crossentropy"

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.label_smoothing = from_logits, label_smoothing
        self.axis = axis
        self._loss = losses.CategoricalCrossentropy(from_logits, label_smoothing, axis)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._loss.call(y_true, y_pred)


class SparseCategoricalCrossentropy(Metric):
    """The mean of -log(y_pred[label]).

    Args:
        name, dtype: as of `Metric`.
        from_logits, ignore_class, axis: as of the loss.
    """

    name = "sparse_categorical_crossentropy"
    sparse = True

    def __init__(
        self,
        name: str | None = None,
        dtype: str | None = None,
        from_logits: bool = False,
        ignore_class: int | None = None,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.from_logits, self.ignore_class, self.axis = from_logits, ignore_class, axis
        self._loss = losses.SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self._loss.call(y_true, y_pred)


class FunctionMetric(Metric):
    """The mean of a function of y_true and y_pred, made of `convkit.ops`, that gives one value per
    row.

    Args:
        function: or the name of one that was registered.
        name, dtype: as of `Metric`.
        sparse: whether y_true holds labels; None: either will do.
    """

    def __init__(
        self,
        function: Callable[[Any, Any], Any] | str,
        name: str | None = None,
        dtype: str | None = None,
        sparse: bool | None = None,
    ) -> None:
        made = registered.found(function, "ops") if isinstance(function, str) else function
        super().__init__(name or getattr(made, "__name__", "metric"), dtype)
        self.function = made
        self.sparse = sparse

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)
