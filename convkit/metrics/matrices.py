"""Metrics made of a confusion matrix: how often which class is taken for which."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core, geometry
from convkit.geometry import Shape
from convkit.graph import Node, Symbol
from convkit.metrics.base import Metric, is_labels, per_sample
from convkit.metrics.counts import EPSILON, ThresholdMetric
from convkit.ops import common


class MatrixMetric(Metric):
    """A confusion matrix: rows are targets, columns predictions."""

    sparse: bool | None = None

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        self.matrix = self.add_variable("matrix", (self._classes(y_pred),) * 2)

    def record(self, y_true: Any, y_pred: Any) -> list[Node]:
        columns = y_pred.shape[-1] if len(y_pred.shape) > 1 else 1
        rows = per_sample(y_pred.shape) // columns
        expected = rows if is_labels(y_true) else rows * columns
        if per_sample(y_true.shape) != expected:
            raise geometry.fail(
                self.name, f"targets for predictions of shape {y_pred.shape}", y_true.shape
            )
        kernel = "sparse_confusion_matrix" if is_labels(y_true) else "confusion_matrix"
        spec = _core.Confusion(rows=rows, columns=columns)
        return self.add(kernel, spec, [y_true, y_pred], self.matrix, common.dtype_of(y_pred))

    def _classes(self, y_pred: Shape) -> int:
        columns = y_pred[-1] if len(y_pred) > 1 else 1
        if not columns:
            raise geometry.fail(self.name, "predictions of at least one class", y_pred)
        return 2 if columns == 1 else columns


class ConfusionMatrix(MatrixMetric):
    """How often each class was taken for each: the result is an array (classes, classes) of whole
    numbers, a row for each class of the targets. Logs do not show it; after `evaluate`, `result`
    does.

    Predictions are numbers for each class, of which the largest counts, or one number, which is
    class 1 from 0.5 on. Targets are labels or like the predictions.

    Args:
        num_classes: how many; None: as many as predictions have.
        name, dtype: as of `Metric`.

    Example:
        >>> counts = convkit.metrics.ConfusionMatrix()
        >>> model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy", counts])
        >>> model.evaluate(x, y)
        >>> counts.result()
    """

    name = "confusion_matrix"

    def __init__(
        self, num_classes: int | None = None, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name, dtype)
        self.num_classes = num_classes
        if num_classes is not None:
            self.num_classes = geometry.integer(self.name, "num_classes", num_classes, 1)

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        found = self._classes(y_pred)
        if self.num_classes not in (None, found):
            raise geometry.fail(self.name, f"predictions of {self.num_classes} classes", y_pred)
        super().build(y_true, y_pred)

    def result(self) -> Any:
        if not self.variables:
            return np.zeros((self.num_classes or 0,) * 2, np.int64)
        return self.matrix.host().astype(np.int64)


# ---- intersection over union ---------------------------------------------------------------------


def intersection_over_union(matrix: np.ndarray, classes: Sequence[int]) -> float:
    """The mean over those of these classes that occur."""
    right = np.diag(matrix)
    union = (matrix.sum(axis=0) + matrix.sum(axis=1) - right)[list(classes)]
    there = union > 1e-9
    shares = np.where(there, right[list(classes)] / (union + EPSILON), 0.0)
    return float(shares.sum() / (there.sum() + EPSILON))


class IoU(MatrixMetric):
    """How far areas overlap: true positives / (true positives + false positives + false negatives),
    the mean over some classes. Classes that do not occur are left out.

    Args:
        num_classes: how many there are.
        target_class_ids: which classes count.
        name, dtype: as of `Metric`.
        ignore_class: a class of the targets that does not count; None: all do. Those outside
            0 .. num_classes - 1 never do.
        sparse_y_true: whether targets are classes; otherwise they have a number for each class.
        sparse_y_pred: whether predictions are classes. Those of a model have a number for each
            class: sparse_y_pred=False.
        axis: that of the classes: the last, -1.
    """

    name = "io_u"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        super().__init__(name, dtype)
        self.num_classes = geometry.integer(self.name, "num_classes", num_classes, 1)
        self.target_class_ids = [
            geometry.integer(self.name, "target_class_ids", one, 0) for one in target_class_ids
        ]
        if max(self.target_class_ids, default=0) >= self.num_classes:
            raise geometry.fail(
                self.name,
                f"target_class_ids below {self.num_classes}",
                max(self.target_class_ids),
            )
        if axis != -1:
            raise geometry.fail(self.name, "axis -1, the last", axis)
        self.ignore_class = ignore_class
        self.sparse_y_true = bool(sparse_y_true)
        self.sparse_y_pred = bool(sparse_y_pred)
        self.axis = axis
        self.sparse = self.sparse_y_true

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        self.matrix = self.add_variable("matrix", (self.num_classes,) * 2)

    def record(self, y_true: Any, y_pred: Any) -> list[Node]:
        if isinstance(y_pred, Symbol):
            if self.sparse_y_pred:
                raise geometry.fail(
                    self.name, "sparse_y_pred=False for a model's predictions", "True"
                )
            if is_labels(y_true) != self.sparse_y_true:
                found = "labels" if is_labels(y_true) else "others"
                expected = "labels" if self.sparse_y_true else "targets like the predictions"
                raise geometry.fail(self.name, f"{expected}, as sparse_y_true says", found)
        if self.num_classes == 1 or y_pred.shape[-1] != self.num_classes:
            raise geometry.fail(
                self.name, f"predictions of {self.num_classes} classes", y_pred.shape
            )
        return super().record(y_true, y_pred)

    def update_state(self, y_true: Any, y_pred: Any) -> None:
        if not self.sparse_y_pred:
            super().update_state(y_true, y_pred)
            return
        predicted = np.asarray(y_pred).astype(np.int64).ravel()
        right = np.asarray(y_true)
        right = right.argmax(axis=-1) if not self.sparse_y_true else right
        right = right.astype(np.int64).ravel()
        if right.shape != predicted.shape:
            raise geometry.fail(self.name, f"{right.size} predictions", predicted.size)
        self.ensure_built(right.shape, predicted.shape)
        known = np.ones(right.shape, bool)
        for classes in (right, predicted):
            known &= (classes >= 0) & (classes < self.num_classes)
        pairs = right[known] * self.num_classes + predicted[known]
        counts = np.bincount(pairs, minlength=self.num_classes**2)
        self.matrix.assign(self.matrix.host() + counts.reshape(self.matrix.shape))

    def labels(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """As of `Metric`; what is no class becomes -1, which no kernel counts."""
        if y_true.shape == (*y_pred.shape[:-1], 1):
            y_true = y_true[..., 0]
        known = (y_true >= 0) & (y_true < self.num_classes)
        return np.where(known, y_true, -1).astype(np.int32)

    def result(self) -> Any:
        if not self.variables:
            return 0.0
        matrix = self.matrix.numpy()
        if self.ignore_class is not None and 0 <= self.ignore_class < self.num_classes:
            matrix[self.ignore_class] = 0
        return intersection_over_union(matrix, self.target_class_ids)


class MeanIoU(IoU):
    """`IoU` of all classes; arguments as there."""

    name = "mean_io_u"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_true: bool = True,
        sparse_y_pred: bool = True,
        axis: int = -1,
    ) -> None:
        every = range(geometry.integer(self.name, "num_classes", num_classes, 1))
        super().__init__(
            num_classes, every, name, dtype, ignore_class, sparse_y_true, sparse_y_pred, axis
        )


class OneHotIoU(IoU):
    """`IoU` of targets with a number for each class; arguments as there."""

    name = "one_hot_io_u"

    def __init__(
        self,
        num_classes: int,
        target_class_ids: Sequence[int],
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(
            num_classes, target_class_ids, name, dtype, ignore_class, False, sparse_y_pred, axis
        )


class OneHotMeanIoU(MeanIoU):
    """`MeanIoU` of targets with a number for each class; arguments as there."""

    name = "one_hot_mean_io_u"

    def __init__(
        self,
        num_classes: int,
        name: str | None = None,
        dtype: str | None = None,
        ignore_class: int | None = None,
        sparse_y_pred: bool = False,
        axis: int = -1,
    ) -> None:
        super().__init__(num_classes, name, dtype, ignore_class, False, sparse_y_pred, axis)


class BinaryIoU(ThresholdMetric):
    """`IoU` of two classes; a prediction is class 1 from the threshold on.

    Args:
        target_class_ids: which of 0 and 1 count.
        threshold: a number.
        name, dtype: as of `Metric`.
    """

    name = "binary_io_u"

    def __init__(
        self,
        target_class_ids: Sequence[int] = (0, 1),
        threshold: float = 0.5,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.target_class_ids = [
            geometry.integer(self.name, "target_class_ids", one, 0) for one in target_class_ids
        ]
        if max(self.target_class_ids, default=0) > 1:
            raise geometry.fail(self.name, "target_class_ids of 0 and 1", self.target_class_ids)
        infinity = float("inf")
        self.threshold = geometry.number(self.name, "threshold", threshold, -infinity, infinity)
        # What is at least the threshold is above the number before it.
        self.levels = [float(np.nextafter(np.float32(self.threshold), np.float32(-infinity)))]

    def result(self) -> Any:
        tp, fp, tn, fn = self.counted()[:, 0, 0]
        return intersection_over_union(np.array([[tn, fp], [fn, tp]]), self.target_class_ids)
