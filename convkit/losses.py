"""Losses, with Keras's names and definitions.

A loss gives one value per row of the last axis; training takes the mean over all of them
(Keras's "sum_over_batch_size"). Where a prediction comes out of a softmax (or a sigmoid, for the
binary cross-entropies), the loss is worked out from what went in, as TensorFlow does: the same
function, without the rounding of probabilities close to 0 and 1.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import device, geometry, graph, ops, registered
from convkit.configuration import Configured
from convkit.geometry import Shape
from convkit.graph import Symbol
from convkit.ops import (
    categorical_hinge,
    common,
    hinge,
    kl_divergence,
    log_cosh,
    mean_absolute_error,
    mean_absolute_percentage_error,
    mean_squared_error,
    mean_squared_logarithmic_error,
    poisson,
    squared_hinge,
)

MEAN = "sum_over_batch_size"
REDUCTIONS = (MEAN, "mean", "mean_with_sample_weight", "sum", "none")


class Loss(Configured):
    """Base class: a function of y_true and y_pred that gives one value per row.

    Called on arrays it gives the mean over all rows as a float.

    Args:
        name: what messages call it; None: the class's.
        reduction: what a call on arrays does with the values, each times its sample's weight:
            "sum_over_batch_size" or "mean" (over all of them), "mean_with_sample_weight" (their sum
            by that of the weights), "sum", "none" or None (an array of them).
        dtype: "float32" or "float64", which arrays are converted to; None: as they are.
    """

    name = "loss"
    sparse = False  # whether y_true holds labels
    reduction: str | None = MEAN
    dtype: str | None = None

    def __init__(
        self, name: str | None = None, reduction: str | None = MEAN, dtype: str | None = None
    ) -> None:
        if name is not None:
            self.name = name
        if reduction is not None:
            geometry.choice(self.name, "reduction", reduction, REDUCTIONS)
        self.reduction = reduction
        if dtype is not None:
            self.dtype = geometry.choice(self.name, "dtype", dtype, ("float32", "float64"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One value per row, made of functions of `convkit.ops`."""
        raise TypeError(f"{type(self).__name__}: a subclass of Loss must define call")

    def __call__(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> Any:
        """The reduced loss: a float, or an array where the reduction is "none".

        Args:
            y_true, y_pred: arrays.
            sample_weight: a number for each sample, or each value of the loss.
        """
        if self.dtype is not None and not device.is_device_array(y_pred):
            y_pred = np.asarray(y_pred, self.dtype)
            y_true = y_true if self.sparse else np.asarray(y_true, self.dtype)
        values = self.call(y_true, y_pred)
        values = device.to_numpy(values) if device.is_device_array(values) else values
        if sample_weight is None and self.reduction in (MEAN, "mean", "mean_with_sample_weight"):
            return float(np.mean(values))
        weights = np.ones((), values.dtype)
        if sample_weight is not None:
            weights = weights_of(self.name, sample_weight, values)
        values = values * weights
        if self.reduction in (None, "none"):
            return values
        total = float(np.sum(values))
        if self.reduction == "sum":
            return total
        count: float = values.size
        if self.reduction == "mean_with_sample_weight" and sample_weight is not None:
            count = float(np.sum(np.broadcast_to(weights, values.shape)))
        return total / count if count else 0.0

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        """Fails with a message for users of `fit` where targets do not fit predictions."""
        expected = y_pred[:-1] if self.sparse else y_pred
        if y_true[1:] != expected[1:]:
            raise geometry.fail(
                self.name, f"targets of shape {expected} for predictions of shape {y_pred}", y_true
            )

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


def weights_of(name: str, sample_weight: Any, values: np.ndarray) -> np.ndarray:
    """Weights that broadcast with values: one for each, or for each sample."""
    weights = np.asarray(sample_weight, values.dtype)
    if weights.ndim == values.ndim + 1 and weights.shape[-1] == 1:
        weights = weights[..., 0]
    if weights.shape != values.shape[: weights.ndim]:
        raise geometry.fail(name, f"sample_weight of shape {values.shape[:1]}", weights.shape)
    return weights.reshape(*weights.shape, *[1] * (values.ndim - weights.ndim))


class _Plain(Loss):
    """A loss without arguments of its own."""

    def __init__(
        self, reduction: str | None = MEAN, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name, reduction, dtype)


# ---- cross-entropies -----------------------------------------------------------------------------


class _CrossEntropy(Loss):
    """A loss of probabilities, or of the logits behind them.

    Args:
        from_logits: whether the model's last layer has no softmax or sigmoid.
        axis: that of the classes.
    """

    from_logits: bool
    axis: int

    def __init__(
        self,
        from_logits: bool,
        axis: int,
        reduction: str | None,
        name: str | None,
        dtype: str | None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.from_logits = bool(from_logits)
        self.axis = axis

    def inputs(self, y_pred: Any, kernel: str) -> tuple[Any, bool]:
        """The logits behind y_pred where it is the recorded result of `kernel`."""
        if self.from_logits or not isinstance(y_pred, Symbol):
            return y_pred, self.from_logits
        source = graph.root(y_pred)
        node = source.node
        if node is None or node.kernel != kernel or source.shape != y_pred.shape:
            return y_pred, False
        if kernel == "softmax":
            over, _ = geometry.loss_over(self.name, y_pred.shape, y_pred.shape, self.axis)
            sizes = (over.rows, over.size, over.inner)
            if sizes != (node.spec.outer, node.spec.size, node.spec.inner):
                return y_pred, False
        if kernel == "activation" and node.spec.kind != geometry.ACTIVATION_KINDS["sigmoid"]:
            return y_pred, False
        return node.inputs[0], True


class _Smoothing(_CrossEntropy):
    label_smoothing: float

    def __init__(
        self,
        from_logits: bool,
        label_smoothing: float,
        axis: int,
        reduction: str | None,
        name: str | None,
        dtype: str | None,
    ) -> None:
        super().__init__(from_logits, axis, reduction, name, dtype)
        self.label_smoothing = geometry.number(self.name, "label_smoothing", label_smoothing, 0, 1)

    def smoothed(self, y_true: Any, y_pred: Any, shares: int | None) -> tuple[Any, Any]:
        """Targets with a share taken from each and given in equal parts to all (Szegedy et al.,
        2016), and predictions.

        Args:
            shares: how many parts; None: one for each class.
        """
        if not self.label_smoothing:
            return y_true, y_pred
        y_true, y_pred = common.arguments(self.name, ("y_true", "y_pred"), (y_true, y_pred))
        part = self.label_smoothing / (shares or y_true.shape[-1])
        return ops.rescale(y_true, 1.0 - self.label_smoothing, part), y_pred


class CategoricalCrossentropy(_Smoothing):
    """-sum(y_true * log(y_pred)); y_true is one-hot or any weights, taken as they are.

    Args:
        from_logits: whether the model's last layer has no softmax.
        label_smoothing: a share, 0 .. 1, of each target that is given to all classes alike.
        axis: that of the classes.
        reduction, name, dtype: as of `Loss`.
    """

    name = "categorical_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = self.smoothed(y_true, y_pred, None)
        values, from_logits = self.inputs(y_pred, "softmax")
        return ops.categorical_crossentropy(y_true, values, from_logits=from_logits, axis=self.axis)

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
        ignore_class: None; a class that is left out is not supported.
        reduction, name, dtype: as of `Loss`.
        axis: that of the classes: the last, -1.
    """

    name = "sparse_categorical_crossentropy"
    sparse = True

    def __init__(
        self,
        from_logits: bool = False,
        ignore_class: int | None = None,
        reduction: str | None = MEAN,
        axis: int = -1,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, axis, reduction, name, dtype)
        if ignore_class is not None:
            raise geometry.fail(self.name, "no ignore_class", ignore_class)
        if axis != -1:
            raise geometry.fail(self.name, "axis -1, the last", axis)
        self.ignore_class = ignore_class

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


class BinaryCrossentropy(_Smoothing):
    """The mean of -(t log p + (1 - t) log(1 - p)); y_true is between 0 and 1.

    Args:
        from_logits: whether the model's last layer has no sigmoid.
        label_smoothing: a share, 0 .. 1, by which targets are moved towards a half.
        axis: the one that the mean is taken over.
        reduction, name, dtype: as of `Loss`.
    """

    name = "binary_crossentropy"

    def __init__(
        self,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = self.smoothed(y_true, y_pred, 2)
        values, from_logits = self.inputs(y_pred, "activation")
        return ops.binary_crossentropy(y_true, values, from_logits=from_logits, axis=self.axis)


class BinaryFocalCrossentropy(_Smoothing):
    """The binary cross-entropy, in which what is right already counts little (Lin et al., 2018).

    Args:
        apply_class_balancing: whether targets of 1 have the weight alpha, those of 0 1 - alpha.
        alpha: at least 0.
        gamma: at least 0; the larger, the less counts what is right.
        from_logits: whether the model's last layer has no sigmoid.
        label_smoothing: a share, 0 .. 1, by which targets are moved towards a half.
        axis: the one that the mean is taken over.
        reduction, name, dtype: as of `Loss`.
    """

    name = "binary_focal_crossentropy"

    def __init__(
        self,
        apply_class_balancing: bool = False,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.apply_class_balancing = bool(apply_class_balancing)
        self.alpha = geometry.number(self.name, "alpha", alpha, 0, float("inf"))
        self.gamma = geometry.number(self.name, "gamma", gamma, 0, float("inf"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        y_true, y_pred = self.smoothed(y_true, y_pred, 2)
        values, from_logits = self.inputs(y_pred, "activation")
        return ops.binary_focal_crossentropy(
            y_true,
            values,
            apply_class_balancing=self.apply_class_balancing,
            alpha=self.alpha,
            gamma=self.gamma,
            from_logits=from_logits,
            axis=self.axis,
        )


class CategoricalFocalCrossentropy(_Smoothing):
    """-sum(alpha * (1 - p)**gamma * y_true * log(p)): what is right already counts little.

    Args:
        alpha: a factor, at least 0.
        gamma: at least 0; the larger, the less counts what is right.
        from_logits: whether the model's last layer has no softmax.
        label_smoothing: a share, 0 .. 1, of each target that is given to all classes alike.
        axis: that of the classes.
        reduction, name, dtype: as of `Loss`.
    """

    name = "categorical_focal_crossentropy"

    def __init__(
        self,
        alpha: float = 0.25,
        gamma: float = 2.0,
        from_logits: bool = False,
        label_smoothing: float = 0.0,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(from_logits, label_smoothing, axis, reduction, name, dtype)
        self.alpha = geometry.number(self.name, "alpha", alpha, 0, float("inf"))
        self.gamma = geometry.number(self.name, "gamma", gamma, 0, float("inf"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        # Keras clips probabilities here, whatever they come from.
        y_true, y_pred = self.smoothed(y_true, y_pred, None)
        return ops.categorical_focal_crossentropy(
            y_true,
            y_pred,
            alpha=self.alpha,
            gamma=self.gamma,
            from_logits=self.from_logits,
            axis=self.axis,
        )


class KLDivergence(_Plain):
    """sum(y_true * log(y_true / y_pred)), both kept between 1e-7 and 1."""

    name = "kl_divergence"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.kl_divergence(y_true, y_pred)


class Poisson(_Plain):
    """The mean of y_pred - y_true * log(y_pred + 1e-7)."""

    name = "poisson"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.poisson(y_true, y_pred)


# ---- errors --------------------------------------------------------------------------------------


class _Difference(_Plain):
    """A loss of the difference between targets and predictions, both numbers of any kind."""

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        if integers and y_true[1:] == y_pred[1:-1] and y_true != y_pred:
            raise ValueError(
                f"{self.name}: expected targets of shape {y_pred}, got integers of shape {y_true}; "
                f"for classes, make them one-hot with convkit.utils.to_categorical(y, {y_pred[-1]})"
            )
        super().check_target(y_true, y_pred, integers)


class MeanSquaredError(_Difference):
    """The mean of (y_pred - y_true)**2."""

    name = "mean_squared_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_squared_error(y_true, y_pred)


class MeanAbsoluteError(_Difference):
    """The mean of |y_pred - y_true|."""

    name = "mean_absolute_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_absolute_error(y_true, y_pred)


class MeanAbsolutePercentageError(_Difference):
    """The mean of 100 * |y_true - y_pred| / max(|y_true|, 1e-7)."""

    name = "mean_absolute_percentage_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_absolute_percentage_error(y_true, y_pred)


class MeanSquaredLogarithmicError(_Difference):
    """The mean of (log(y_pred + 1) - log(y_true + 1))**2, both at least 1e-7."""

    name = "mean_squared_logarithmic_error"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.mean_squared_logarithmic_error(y_true, y_pred)


class LogCosh(_Difference):
    """The mean of log(cosh(y_pred - y_true)): squared for small differences, else absolute."""

    name = "log_cosh"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.log_cosh(y_true, y_pred)


class Huber(Loss):
    """The mean of d**2 / 2 for differences d up to delta, of delta * d - delta**2 / 2 beyond.

    Args:
        delta: at least 0.
        reduction, name, dtype: as of `Loss`.
    """

    name = "huber_loss"

    def __init__(
        self,
        delta: float = 1.0,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.delta = geometry.number(self.name, "delta", delta, 0, float("inf"))

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.huber(y_true, y_pred, delta=self.delta)


class CosineSimilarity(Loss):
    """-sum(y_true * y_pred) of vectors divided by their lengths: -1 is the same direction.

    Args:
        axis: along which a vector lies.
        reduction, name, dtype: as of `Loss`.
    """

    name = "cosine_similarity"

    def __init__(
        self,
        axis: int = -1,
        reduction: str | None = MEAN,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.cosine_similarity(y_true, y_pred, axis=self.axis)


# ---- margins and masks ---------------------------------------------------------------------------


class Hinge(_Plain):
    """The mean of max(1 - y_true * y_pred, 0); y_true is -1 or 1, and 0 counts as -1."""

    name = "hinge"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.hinge(y_true, y_pred)


class SquaredHinge(_Plain):
    """The mean of max(1 - y_true * y_pred, 0)**2; y_true is -1 or 1, and 0 counts as -1."""

    name = "squared_hinge"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.squared_hinge(y_true, y_pred)


class CategoricalHinge(_Plain):
    """max(max((1 - y_true) * y_pred) - sum(y_true * y_pred) + 1, 0); y_true is one-hot."""

    name = "categorical_hinge"

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.categorical_hinge(y_true, y_pred)


class Dice(Loss):
    """1 - 2 * sum(y_true * y_pred) / (sum(y_true) + sum(y_pred) + 1e-7), for masks.

    Args:
        reduction, name: as of `Loss`.
        axis: the axes that sums are taken over, (1, 2, 3) for each image on its own. None: the
            whole batch; then the loss of a batch is no mean of those of its parts.
        dtype: as of `Loss`.
    """

    name = "dice"

    def __init__(
        self,
        reduction: str | None = MEAN,
        name: str | None = None,
        axis: Any = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, reduction, dtype)
        self.axis = tuple(axis) if isinstance(axis, (list, tuple)) else axis

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return ops.dice(y_true, y_pred, axis=self.axis)


class _Function(Loss):
    """A user's own function of y_true and y_pred, made of `convkit.ops`.

    Args:
        function: or the name of one that was registered.
    """

    def __init__(self, function: Callable[[Any, Any], Any] | str) -> None:
        made = registered.found(function, "ops") if isinstance(function, str) else function
        super().__init__(getattr(made, "__name__", "loss"))
        self.function = made

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.function(y_true, y_pred)

    def check_target(self, y_true: Shape, y_pred: Shape, integers: bool) -> None:
        """The function's own business."""


# ---- as functions, one value per row -------------------------------------------------------------


def categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`CategoricalCrossentropy` without its reduction."""
    return CategoricalCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def sparse_categorical_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    ignore_class: int | None = None,
    axis: int = -1,
) -> Any:
    """`SparseCategoricalCrossentropy` without its reduction."""
    loss = SparseCategoricalCrossentropy(from_logits, ignore_class, axis=axis)
    return loss.call(y_true, y_pred)


def binary_crossentropy(
    y_true: Any,
    y_pred: Any,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`BinaryCrossentropy` without its reduction."""
    return BinaryCrossentropy(from_logits, label_smoothing, axis).call(y_true, y_pred)


def binary_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    apply_class_balancing: bool = False,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`BinaryFocalCrossentropy` without its reduction."""
    loss = BinaryFocalCrossentropy(
        apply_class_balancing, alpha, gamma, from_logits, label_smoothing, axis
    )
    return loss.call(y_true, y_pred)


def categorical_focal_crossentropy(
    y_true: Any,
    y_pred: Any,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
    label_smoothing: float = 0.0,
    axis: int = -1,
) -> Any:
    """`CategoricalFocalCrossentropy` without its reduction."""
    loss = CategoricalFocalCrossentropy(alpha, gamma, from_logits, label_smoothing, axis)
    return loss.call(y_true, y_pred)


def huber(y_true: Any, y_pred: Any, delta: float = 1.0) -> Any:
    """`Huber` without its reduction."""
    return Huber(delta).call(y_true, y_pred)


def cosine_similarity(y_true: Any, y_pred: Any, axis: int = -1) -> Any:
    """`CosineSimilarity` without its reduction."""
    return CosineSimilarity(axis).call(y_true, y_pred)


def dice(y_true: Any, y_pred: Any, axis: Any = None) -> Any:
    """`Dice` without its reduction; with axis=None the same value for each sample."""
    return Dice(axis=axis).call(y_true, y_pred)


# ---- by name -------------------------------------------------------------------------------------

NAMES: dict[str, type[Loss]] = {
    "binary_crossentropy": BinaryCrossentropy,
    "bce": BinaryCrossentropy,
    "BCE": BinaryCrossentropy,
    "binary_focal_crossentropy": BinaryFocalCrossentropy,
    "categorical_crossentropy": CategoricalCrossentropy,
    "categorical_focal_crossentropy": CategoricalFocalCrossentropy,
    "sparse_categorical_crossentropy": SparseCategoricalCrossentropy,
    "kl_divergence": KLDivergence,
    "kld": KLDivergence,
    "KLD": KLDivergence,
    "poisson": Poisson,
    "mean_squared_error": MeanSquaredError,
    "mse": MeanSquaredError,
    "MSE": MeanSquaredError,
    "mean_absolute_error": MeanAbsoluteError,
    "mae": MeanAbsoluteError,
    "MAE": MeanAbsoluteError,
    "mean_absolute_percentage_error": MeanAbsolutePercentageError,
    "mape": MeanAbsolutePercentageError,
    "MAPE": MeanAbsolutePercentageError,
    "mean_squared_logarithmic_error": MeanSquaredLogarithmicError,
    "msle": MeanSquaredLogarithmicError,
    "MSLE": MeanSquaredLogarithmicError,
    "log_cosh": LogCosh,
    "huber": Huber,
    "cosine_similarity": CosineSimilarity,
    "hinge": Hinge,
    "squared_hinge": SquaredHinge,
    "categorical_hinge": CategoricalHinge,
    "dice": Dice,
}
_FUNCTIONS: dict[Any, type[Loss]] = {
    categorical_hinge: CategoricalHinge,
    hinge: Hinge,
    kl_divergence: KLDivergence,
    log_cosh: LogCosh,
    mean_absolute_error: MeanAbsoluteError,
    mean_absolute_percentage_error: MeanAbsolutePercentageError,
    mean_squared_error: MeanSquaredError,
    mean_squared_logarithmic_error: MeanSquaredLogarithmicError,
    poisson: Poisson,
    squared_hinge: SquaredHinge,
    binary_crossentropy: BinaryCrossentropy,
    binary_focal_crossentropy: BinaryFocalCrossentropy,
    categorical_crossentropy: CategoricalCrossentropy,
    categorical_focal_crossentropy: CategoricalFocalCrossentropy,
    cosine_similarity: CosineSimilarity,
    dice: Dice,
    huber: Huber,
    sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
    ops.binary_crossentropy: BinaryCrossentropy,
    ops.binary_focal_crossentropy: BinaryFocalCrossentropy,
    ops.categorical_crossentropy: CategoricalCrossentropy,
    ops.categorical_focal_crossentropy: CategoricalFocalCrossentropy,
    ops.cosine_similarity: CosineSimilarity,
    ops.dice: Dice,
    ops.huber: Huber,
    ops.sparse_categorical_crossentropy: SparseCategoricalCrossentropy,
}


def get(identifier: Any) -> Loss:
    """A loss from its name, a class, an instance, its configuration
    ({"class_name": ..., "config": ...}), or a function of y_true and y_pred."""
    if isinstance(identifier, Loss):
        return identifier
    if isinstance(identifier, dict):
        return registered.made(identifier, "losses")  # type: ignore[no-any-return]
    if isinstance(identifier, str):
        names = {**NAMES, **{cls.__name__: cls for cls in NAMES.values()}}
        if identifier not in names:
            return get(registered.named("losses.get", "loss", identifier, names))
        return names[identifier]()
    if isinstance(identifier, type) and issubclass(identifier, Loss):
        return identifier()
    if callable(identifier):
        return _FUNCTIONS[identifier]() if identifier in _FUNCTIONS else _Function(identifier)
    raise TypeError(f"losses.get: expected a name, a loss or a function, got {identifier!r}")
