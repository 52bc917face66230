"""Metrics made of how many predictions are right and wrong above a threshold.

Targets are 0 or 1; anything that is not 0 counts as 1. A prediction is positive where it is larger
than the threshold. Counts are whole numbers, so they do not depend on the order of batches.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core, geometry, ops
from convkit.geometry import Shape
from convkit.graph import Node, Variable
from convkit.metrics.base import Metric, is_labels, per_sample
from convkit.ops import common

EPSILON = 1e-7
TRUE_POSITIVES, FALSE_POSITIVES, TRUE_NEGATIVES, FALSE_NEGATIVES = range(4)
ALL_OF_EQUAL_ONES = 1  # ThresholdCounts.largest
INFINITY = float("inf")


def share(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    """part / whole, 0 where there is nothing."""
    found: np.ndarray = np.divide(part, whole, out=np.zeros(np.shape(whole)), where=whole != 0)
    return found


def levels_of(name: str, thresholds: Any, default: float) -> list[float]:
    """Thresholds, one or several, between 0 and 1; a default where there are none."""
    if thresholds is None:
        return [default]
    listed = thresholds if isinstance(thresholds, (list, tuple, np.ndarray)) else [thresholds]
    if not len(listed):
        raise geometry.fail(name, "at least one threshold", "none")
    return [geometry.between(name, "thresholds", one, 0, 1) for one in listed]


def evenly_spaced(levels: Sequence[float]) -> bool:
    """Whether thresholds stand at equal distances from 0 to 1; then predictions are taken for
    shares, what is larger than 1 for 1, as Keras does."""
    count = len(levels)
    return count >= 3 and bool(
        np.allclose(levels, np.arange(count) / (count - 1), rtol=1e-5, atol=EPSILON)
    )


class ThresholdMetric(Metric):
    """Counts of true and false positives and negatives for each threshold.

    Attributes:
        levels: the thresholds that predictions are compared with.
        per_column: whether the values of the last axis are counted apart.
        largest: as of ThresholdCounts in csrc/specs.h: 1: the largest of a row alone are
            positive; -k: the k largest.
    """

    levels: list[float]
    per_column = False
    largest = 0

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        if y_true != y_pred:
            raise geometry.fail(
                self.name, f"targets like the predictions, of shape {y_pred}", f"shape {y_true}"
            )
        columns = _columns(y_pred) if self.per_column else 1
        self.counts = self.add_variable("counts", (4, len(self.levels), columns))
        self._limits = Variable(np.sort(self.levels), f"{self.name} thresholds", trainable=False)

    def record(self, y_true: Any, y_pred: Any) -> list[Node]:
        if is_labels(y_true):
            raise geometry.fail(self.name, "targets like the predictions", "labels")
        columns = _columns(y_pred.shape)
        spec = _core.ThresholdCounts(
            rows=per_sample(y_pred.shape) // columns,
            columns=columns,
            thresholds=len(self.levels),
            per_column=int(self.per_column),
            largest=self.largest,
        )
        return self.add(
            "threshold_counts",
            spec,
            [y_true, y_pred, self._limits],
            self.counts,
            common.dtype_of(y_pred),
        )

    def counted(self) -> np.ndarray:
        """(4, thresholds, columns), the thresholds in their order."""
        if not self.variables:
            return np.zeros((4, len(self.levels), 1))
        sorted_counts = self.counts.host()
        found: np.ndarray = np.empty_like(sorted_counts)
        found[:, np.argsort(self.levels, kind="stable")] = sorted_counts
        return found


def _columns(shape: Shape) -> int:
    columns = shape[-1] if len(shape) > 1 else 1
    if not columns:
        raise geometry.fail("metric", "predictions with at least one value per row", shape)
    return columns


def _single(values: np.ndarray) -> Any:
    """The number where there is one threshold, else an array."""
    return float(values[0]) if len(values) == 1 else values


# ---- counts as they are --------------------------------------------------------------------------


class _Count(ThresholdMetric):
    which: int

    def __init__(
        self, thresholds: Any = None, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        self.levels = levels_of(self.name, thresholds, 0.5)
        if evenly_spaced(self.levels):
            self.levels[-1] = INFINITY

    def result(self) -> Any:
        return _single(self.counted()[self.which, :, 0])


class TruePositives(_Count):
    """How many predictions are above the threshold, and should be.

    Args:
        thresholds: a number between 0 and 1, or several (then the result is an array); None: 0.5.
        name, dtype: as of `Metric`.
    """

    name = "true_positives"
    which = TRUE_POSITIVES


class FalsePositives(_Count):
    """How many predictions are above the threshold, and should not be; as `TruePositives`."""

    name = "false_positives"
    which = FALSE_POSITIVES


class TrueNegatives(_Count):
    """How many predictions are not above the threshold, as it should be; as `TruePositives`."""

    name = "true_negatives"
    which = TRUE_NEGATIVES


class FalseNegatives(_Count):
    """How many predictions are not above the threshold, and should be; as `TruePositives`."""

    name = "false_negatives"
    which = FALSE_NEGATIVES


# ---- precision and recall ------------------------------------------------------------------------


class _Share(ThresholdMetric):
    """True positives as a share of them and of `other`."""

    other: int

    def __init__(
        self,
        thresholds: Any = None,
        top_k: int | None = None,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        self.thresholds = thresholds
        self.top_k = None if top_k is None else geometry.integer(self.name, "top_k", top_k, 1)
        self.class_id = class_id
        self.levels = levels_of(self.name, thresholds, 0.5 if top_k is None else -INFINITY)
        if evenly_spaced(self.levels):
            self.levels[-1] = INFINITY
        self.per_column = class_id is not None
        self.largest = 0 if self.top_k is None else -self.top_k

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        if self.class_id is not None:
            geometry.axis_index(f"{self.name}: class_id", self.class_id, _columns(y_pred))
        super().build(y_true, y_pred)

    def result(self) -> Any:
        column = 0 if self.class_id is None or not self.variables else self.class_id
        counts = self.counted()[:, :, column]
        right = counts[TRUE_POSITIVES]
        return _single(share(right, right + counts[self.other]))


class Precision(_Share):
    """How many of the positive predictions are right.

    Args:
        thresholds: a number between 0 and 1, or several (then the result is an array). None: 0.5,
            or none at all with top_k.
        top_k: only the k largest predictions of a row are positive.
        class_id: counts this place of the last axis alone.
        name, dtype: as of `Metric`.
    """

    name = "precision"
    other = FALSE_POSITIVES


class Recall(_Share):
    """How many of those that should be positive are found; arguments as of `Precision`."""

    name = "recall"
    other = FALSE_NEGATIVES


class FBetaScore(ThresholdMetric):
    """(1 + beta**2) * precision * recall / (beta**2 * precision + recall), per class.

    Args:
        average: None (an array, one score per class), "macro" (their mean), "weighted" (their mean
            by how often each class occurs), "micro" (all classes counted together).
        beta: above 0; recall counts beta times as much as precision.
        threshold: above 0, up to 1; None: the largest of a row is positive.
        name, dtype: as of `Metric`.
    """

    name = "fbeta_score"

    def __init__(
        self,
        average: str | None = None,
        beta: float = 1.0,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(name, dtype)
        if average is not None:
            geometry.choice(self.name, "average", average, ("micro", "macro", "weighted"))
        self.average = average
        self.beta = geometry.number(self.name, "beta", beta, 0, INFINITY)
        if not self.beta:
            raise geometry.fail(self.name, "beta above 0", beta)
        self.threshold = threshold
        if threshold is None:
            # Keras takes a row of zeros for one without a largest.
            self.levels, self.largest = [1e-9], ALL_OF_EQUAL_ONES
        else:
            self.levels = [geometry.between(self.name, "threshold", threshold, 0, 1)]
            if not threshold:
                raise geometry.fail(self.name, "a threshold above 0", threshold)
        self.per_column = average != "micro"

    def result(self) -> Any:
        counts = self.counted()[:, 0]
        right = counts[TRUE_POSITIVES]
        precision = right / (right + counts[FALSE_POSITIVES] + EPSILON)
        recall = right / (right + counts[FALSE_NEGATIVES] + EPSILON)
        square = self.beta**2
        scores = precision * recall / (square * precision + recall + EPSILON) * (1 + square)
        if self.average is None:
            return scores
        if self.average == "weighted":
            weights = right + counts[FALSE_NEGATIVES]
            return float(np.sum(scores * weights / (weights.sum() + EPSILON)))
        return float(scores.mean())


class F1Score(FBetaScore):
    """2 * precision * recall / (precision + recall), per class; arguments as of `FBetaScore`."""

    name = "f1_score"

    def __init__(
        self,
        average: str | None = None,
        threshold: float | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(average, 1.0, threshold, name, dtype)


# ---- one measure where another is good enough ----------------------------------------------------


class _At(ThresholdMetric):
    def __init__(
        self,
        value: float,
        what: str,
        num_thresholds: int,
        class_id: int | None,
        name: str | None,
        dtype: str | None,
    ) -> None:
        super().__init__(name, dtype)
        self._value = geometry.between(self.name, what, value, 0, 1)
        count = geometry.integer(self.name, "num_thresholds", num_thresholds, 1)
        self.num_thresholds = count
        self.class_id = class_id
        self.per_column = class_id is not None
        self.levels = [0.5] if count == 1 else [i / (count - 1) for i in range(count)]
        if count > 1:
            self.levels[-1] = INFINITY

    def _best(self, held: str, wanted: str) -> float:
        column = 0 if self.class_id is None or not self.variables else self.class_id
        tp, fp, tn, fn = self.counted()[:, :, column]
        rates = {
            "sensitivity": share(tp, tp + fn),
            "specificity": share(tn, tn + fp),
            "precision": share(tp, tp + fp),
        }
        return float(np.max(rates[wanted], where=rates[held] >= self._value, initial=0.0))


class SensitivityAtSpecificity(_At):
    """The best share of what should be positive that is found, where the specificity is reached.

    Args:
        specificity: 0 .. 1, the share of what should be negative that is.
        num_thresholds: how many thresholds between 0 and 1 are tried.
        class_id: counts this place of the last axis alone.
        name, dtype: as of `Metric`.
    """

    name = "sensitivity_at_specificity"

    def __init__(
        self,
        specificity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(specificity, "specificity", num_thresholds, class_id, name, dtype)
        self.specificity = self._value

    def result(self) -> Any:
        return self._best("specificity", "sensitivity")


class SpecificityAtSensitivity(_At):
    """The best share of what should be negative that is, where the sensitivity is reached.

    Args:
        sensitivity: 0 .. 1, the share of what should be positive that is found.
        num_thresholds, class_id, name, dtype: as of `SensitivityAtSpecificity`.
    """

    name = "specificity_at_sensitivity"

    def __init__(
        self,
        sensitivity: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(sensitivity, "sensitivity", num_thresholds, class_id, name, dtype)
        self.sensitivity = self._value

    def result(self) -> Any:
        return self._best("sensitivity", "specificity")


class PrecisionAtRecall(_At):
    """The best precision where the recall is reached.

    Args:
        recall: 0 .. 1.
        num_thresholds, class_id, name, dtype: as of `SensitivityAtSpecificity`.
    """

    name = "precision_at_recall"

    def __init__(
        self,
        recall: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(recall, "recall", num_thresholds, class_id, name, dtype)
        self.recall = self._value

    def result(self) -> Any:
        return self._best("sensitivity", "precision")


class RecallAtPrecision(_At):
    """The best recall where the precision is reached.

    Args:
        precision: 0 .. 1.
        num_thresholds, class_id, name, dtype: as of `SensitivityAtSpecificity`.
    """

    name = "recall_at_precision"

    def __init__(
        self,
        precision: float,
        num_thresholds: int = 200,
        class_id: int | None = None,
        name: str | None = None,
        dtype: str | None = None,
    ) -> None:
        super().__init__(precision, "precision", num_thresholds, class_id, name, dtype)
        self.precision = self._value

    def result(self) -> Any:
        return self._best("precision", "sensitivity")


# ---- area under a curve --------------------------------------------------------------------------


class AUC(ThresholdMetric):
    """The area under a curve of pairs, one for each threshold.

    Args:
        num_thresholds: how many thresholds, at equal distances, the curve is made of.
        curve: "ROC" (recall over the share of false positives) or "PR" (precision over recall).
        summation_method: "interpolation", "minoring" (the lower of two neighbours) or "majoring".
            Between points of "PR" true positives are interpolated (Davis and Goadrich, 2006).
        name, dtype: as of `Metric`.
        thresholds: in place of num_thresholds: those between 0 and 1.
        multi_label: whether each place of the last axis has a curve of its own; their areas'
            mean is the result.
        num_labels: how many there are, with multi_label; None: as many as predictions have.
        label_weights: of the places of the last axis: in the mean with multi_label, else in the
            counts.
        from_logits: whether predictions are to go through a sigmoid.
    """

    name = "auc"

    def __init__(
        self,
        num_thresholds: int = 200,
        curve: str = "ROC",
        summation_method: str = "interpolation",
        name: str | None = None,
        dtype: str | None = None,
        thresholds: Sequence[float] | None = None,
        multi_label: bool = False,
        num_labels: int | None = None,
        label_weights: Sequence[float] | None = None,
        from_logits: bool = False,
    ) -> None:
        super().__init__(name, dtype)
        self.curve = geometry.choice(self.name, "curve", str(curve).upper(), ("ROC", "PR"))
        self.summation_method = geometry.choice(
            self.name,
            "summation_method",
            str(summation_method).lower(),
            ("interpolation", "minoring", "majoring"),
        )
        self.thresholds = None if thresholds is None else [float(one) for one in thresholds]
        if thresholds is None:
            count = geometry.integer(self.name, "num_thresholds", num_thresholds, 2)
            inner = [i / (count - 1) for i in range(1, count - 1)]
        else:
            inner = sorted(levels_of(self.name, self.thresholds, 0.5))
        self.num_thresholds = len(inner) + 2
        if thresholds is None or evenly_spaced([0.0, *inner, 1.0]):
            self.levels = [-INFINITY, *inner, INFINITY]
        else:
            self.levels = [-EPSILON, *inner, 1 + EPSILON]
        if num_labels is not None and not multi_label:
            raise geometry.fail(self.name, "num_labels only with multi_label", num_labels)
        self.multi_label = bool(multi_label)
        self.num_labels = num_labels
        self.label_weights = None if label_weights is None else [float(w) for w in label_weights]
        self.from_logits = bool(from_logits)
        self.per_column = self.multi_label or label_weights is not None

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        columns = _columns(y_pred)
        if self.num_labels not in (None, columns):
            raise geometry.fail(self.name, f"{self.num_labels} predictions per row", columns)
        if self.label_weights is not None and len(self.label_weights) != columns:
            raise geometry.fail(self.name, f"{columns} label_weights", len(self.label_weights))
        super().build(y_true, y_pred)

    def record(self, y_true: Any, y_pred: Any) -> list[Node]:
        if self.from_logits:
            y_pred = ops.sigmoid(y_pred)
        return super().record(y_true, y_pred)

    def result(self) -> Any:
        counts = self.counted()
        weights = None if not self.variables else self.label_weights
        if not self.multi_label:
            counts = counts.sum(axis=-1) if weights is None else counts @ np.array(weights)
            return float(self._area(*counts[..., None])[0])
        areas = self._area(*counts)
        if weights is None:
            return float(areas.mean())
        return float(np.average(areas, weights=weights)) if sum(weights) else 0.0

    def _area(self, tp: np.ndarray, fp: np.ndarray, tn: np.ndarray, fn: np.ndarray) -> np.ndarray:
        """Of each column; arrays (thresholds, columns)."""
        recall = share(tp, tp + fn)
        if self.curve == "ROC":
            x, y = share(fp, fp + tn), recall
        elif self.summation_method == "interpolation":
            return self._interpolated(tp, fp, fn)
        else:
            x, y = recall, share(tp, tp + fp)
        if self.summation_method == "interpolation":
            heights = (y[:-1] + y[1:]) / 2
        else:
            choose = np.minimum if self.summation_method == "minoring" else np.maximum
            heights = choose(y[:-1], y[1:])
        area: np.ndarray = ((x[:-1] - x[1:]) * heights).sum(axis=0)
        return area

    @staticmethod
    def _interpolated(tp: np.ndarray, fp: np.ndarray, fn: np.ndarray) -> np.ndarray:
        positive = tp + fp
        rise, run = tp[:-1] - tp[1:], positive[:-1] - positive[1:]
        slope = share(rise, np.maximum(run, 0))
        intercept = tp[1:] - slope * positive[1:]
        ratio = np.ones_like(run)
        both = (positive[:-1] > 0) & (positive[1:] > 0)
        np.divide(positive[:-1], positive[1:], out=ratio, where=both)
        parts = share(slope * (rise + intercept * np.log(ratio)), tp[1:] + fn[1:])
        area: np.ndarray = parts.sum(axis=0)
        return area
