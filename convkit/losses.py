"""Losses, with Keras's names and definitions.

A loss gives one value per row of the last axis; training takes the mean over all of them
(Keras's "sum_over_batch_size"). Where a prediction comes out of a softmax (or a sigmoid, for the
binary cross-entropy), the loss is worked out from what went in, as TensorFlow does: the same
function, without the rounding of probabilities close to 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import geometry, graph, ops
from convkit.geometry import Shape
from convkit.graph import Symbol
from convkit.ops import (
    binary_crossentropy,
    categorical_crossentropy,
    mean_absolute_error,
    mean_squared_error,
    sparse_categorical_crossentropy,
)


class Loss:
    """Base class: a function of y_true and y_pred that gives one value per row.

    Called on arrays it gives the mean over all rows as a float.
    """

    name = "loss"
    sparse = False  # whether y_true holds labels

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per row, made of functions of `convkit.ops`."""
        raise TypeError(f"{type(self).__name__}: a subclass of Loss must define call")

    def __call__(self, y_true: Any, y_pred: Any) -> float:
        return float(np.mean(self.call(y_true, y_pred)))

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        """Fails with a message for users of `fit` where targets do not fit predictions."""
        expected = y_pred[:-1] if self.sparse else y_pred
        if y_true[1:] != expected[1:]:
            raise geometry.fail(
                self.name, f"targets of shape {expected} for predictions of shape {y_pred}", y_true
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class _CrossEntropy(Loss):
    def __init__(self, from_logits: bool = False) -> None:
        self.from_logits = bool(from_logits)

    def inputs(self, y_pred: Any, kernel: str) -> tuple[Any, bool]:
        """The logits behind y_pred where it is the recorded result of `kernel`."""
        if self.from_logits or not isinstance(y_pred, Symbol):
            return y_pred, self.from_logits
        source = graph.root(y_pred)
        node = source.node
        if node is None or node.kernel != kernel or source.shape != y_pred.shape:
            return y_pred, False
        # Over the last axis, that is.
        if kernel == "softmax" and (node.spec.inner != 1 or node.spec.size != y_pred.shape[-1]):
            return y_pred, False
        if kernel == "activation" and node.spec.kind != geometry.ACTIVATION_KINDS["sigmoid"]:
            return y_pred, False
        return node.inputs[0], True


class CategoricalCrossentropy(_CrossEntropy):
    """-sum(y_true * log(y_pred)); y_true is one-hot or any weights, taken as they are.

    Args:
        from_logits: whether the model's last layer has no softmax.
    """

    name = "categorical_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        values, from_logits = self.inputs(y_pred, "softmax")
        return ops.categorical_crossentropy(y_true, values, from_logits=from_logits)

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        if y_true[1:] in (y_pred[1:-1], (*y_pred[1:-1], 1)) and y_true[1:] != y_pred[1:]:
            raise ValueError(
                f"categorical_crossentropy: expected one-hot targets of shape {y_pred}, got labels "
                f'of shape {y_true}; use loss="sparse_categorical_crossentropy", or '
                f"convkit.utils.to_categorical(y, {y_pred[-1]})"
            )
        super().check_target(y_true, y_pred, integers)


class SparseCategoricalCrossentropy(_CrossEntropy):
    """-log(y_pred[label]); y_true holds labels 0 .. classes - 1.

    Args:
        from_logits: whether the model's last layer has no softmax.
    """

    name = "sparse_categorical_crossentropy"
    sparse = True

    def call(self, y_true: Any, y_pred: Any) -> Any:
        values, from_logits = self.inputs(y_pred, "softmax")
        return ops.sparse_categorical_crossentropy(y_true, values, from_logits=from_logits)

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        if y_true == y_pred and y_pred[-1] != 1:
            raise ValueError(
                f"sparse_categorical_crossentropy: expected labels of shape {y_pred[:-1]}, got "
                f'targets of shape {y_true}; use loss="categorical_crossentropy", or y.argmax(-1)'
            )
        super().check_target(y_true, y_pred, integers)


class BinaryCrossentropy(_CrossEntropy):
    """The mean of -(t log p + (1 - t) log(1 - p)); y_true is between 0 and 1.

    Args:
        from_logits: whether the model's last layer has no sigmoid.
    """

    name = "binary_crossentropy"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        values, from_logits = self.inputs(y_pred, "activation")
        return ops.binary_crossentropy(y_true, values, from_logits=from_logits)


class MeanSquaredError(Loss):
    """The mean of (y_pred - y_true)**2."""

    name = "mean_squared_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_squared_error(y_true, y_pred)

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        if integers and y_true[1:] == y_pred[1:-1] and y_true != y_pred:
            raise ValueError(
                f"{self.name}: expected targets of shape {y_pred}, got integers of shape {y_true}; "
                f"for classes, make them one-hot with convkit.utils.to_categorical(y, {y_pred[-1]})"
            )
        super().check_target(y_true, y_pred, integers)


class MeanAbsoluteError(MeanSquaredError):
    """The mean of |y_pred - y_true|."""

    name = "mean_absolute_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_absolute_error(y_true, y_pred)


class _Function(Loss):
    """A user's own function of y_true and y_pred, made of `convkit.ops`."""

    def __init__(self, function: Callable[[Any, Any], Any]) -> None:
        self.function = function
        self.name = getattr(function, "__name__", "loss")

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        """The function's own business."""


NAMES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
}
_FUNCTIONS = {
    binary_crossentropy: BinaryCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    mean_squared_error: MeanSquaredError,
    mean_absolute_error: MeanAbsoluteError,
}


def get(identifier: Any) -> Loss:
    """A loss from its name, a class, an instance, or a function of y_true and y_pred."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, str):
        names = {**NAMES, **{cls.__name__: cls for cls in NAMES.values()}}
        return names[geometry.choice("losses.get", "loss", identifier, tuple(names))]()
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return _FUNCTIONS[identifier]() if identifier in _FUNCTIONS else _Function(identifier)
    raise TypeError(f"losses.get: expected a name, a loss or a function, got {identifier!r}")
