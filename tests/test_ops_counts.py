"""The kernels behind metrics that count: top-k accuracy, confusion matrix, thresholds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkers import assert_exact, guarded

import convkit
from convkit import _core

pytestmark = pytest.mark.usefixtures("backend")

ROWS = [(1, 1), (37, 1), (5, 3), (2, 7), (0, 4)]
COLUMNS = [1, 2, 3, 10, 67]


def run(kernel: str, spec: Any, n: int, inputs: list[np.ndarray], counts: np.ndarray) -> np.ndarray:
    """The counters after a call, which began at `counts`; nothing beside them is touched."""
    inside = [guarded(array)[0] for array in inputs]
    after, untouched = guarded(counts)
    dtype = next(a.dtype.name for a in inputs[1:] if a.dtype.kind == "f")
    _core.run_kernel(kernel, spec, n, dtype, [*inside, after], [])
    assert untouched()
    return after


def classes(values: np.ndarray) -> np.ndarray:
    """The first maximum of each row; of one column whether it is 0.5 or more."""
    return (values[..., 0] >= 0.5).astype(int) if values.shape[-1] == 1 else values.argmax(axis=-1)


# ---- top k ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("k", [1, 3, 100])
@pytest.mark.parametrize("inner", [1, 5])
@pytest.mark.parametrize("size", [1, 2, 10, 67, 700])
def test_top_k_counts_what_is_larger(size, inner, k, dtype, rng):
    n, rows = 7, 3
    shape = (n, rows, size, inner)
    y_pred = rng.integers(0, 6, shape).astype(dtype)
    y_pred[rng.random(shape) < 0.02] = np.nan
    y_true = rng.integers(0, 3, shape).astype(dtype)
    labels = rng.integers(-1, size + 1, (n, rows, inner)).astype(np.int32)
    for kernel, target in (("top_k_accuracy", y_true), ("sparse_top_k_accuracy", labels)):
        place = y_true.argmax(axis=2) if target is y_true else labels
        known = (place >= 0) & (place < size)
        own = np.take_along_axis(y_pred, np.where(known, place, 0)[:, :, None], 2)
        larger = (~(y_pred <= own)).sum(axis=2)
        right = (known & ~np.isnan(own[:, :, 0]) & (larger < k)).astype(float)
        score, untouched = guarded(np.full(right.shape, 7, dtype))
        spec = _core.TopK(rows=rows, size=size, inner=inner, k=k)
        inputs = [guarded(array)[0] for array in (target, y_pred)]
        _core.run_kernel(kernel, spec, n, np.dtype(dtype).name, inputs, [score])
        assert untouched()
        assert_exact(score, right, dtype)


# ---- confusion matrix ----------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "rows"), ROWS)
@pytest.mark.parametrize("columns", COLUMNS)
def test_a_confusion_matrix_counts_pairs(n, rows, columns, dtype, rng):
    shape = (n, rows, columns)
    y_pred = (rng.integers(0, 7, shape) / 8).astype(dtype)  # with ties
    y_true = (rng.integers(0, 9, shape) / 8).astype(dtype)
    count = max(2, columns)
    labels = rng.integers(-1, count + 1, shape[:2]).astype(np.int32)
    spec = _core.Confusion(rows=rows, columns=columns)
    for kernel, target in (("confusion_matrix", y_true), ("sparse_confusion_matrix", labels)):
        before = rng.integers(0, 5, (count, count)).astype(float)
        right = before.copy()
        for t, p in zip(
            (classes(y_true) if target is y_true else labels).ravel(),
            classes(y_pred).ravel(),
            strict=True,
        ):
            if 0 <= t < count:
                right[t, p] += 1
        assert_exact(run(kernel, spec, n, [target, y_pred], before), right, np.float64)


def test_nan_counts_as_the_largest_prediction(dtype):
    y_pred = np.array([[[0.2, np.nan, 0.9]], [[np.nan, 0.1, np.nan]]], dtype)
    labels = np.array([[2], [1]], np.int32)
    spec = _core.Confusion(rows=1, columns=3)
    found = run("sparse_confusion_matrix", spec, 2, [labels, y_pred], np.zeros((3, 3)))
    assert_exact(found, np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0.0]]), np.float64)


# ---- thresholds ----------------------------------------------------------------------------------


def positive(p: np.ndarray, threshold: float, largest: int) -> np.ndarray:
    if largest == 1:
        top = p.max(axis=-1, keepdims=True)
        return (p >= top) & (np.abs(p) > threshold)
    above = p > threshold
    if largest < 0:
        order = np.argsort(-p, axis=-1, kind="stable")
        rank = np.argsort(order, axis=-1, kind="stable")
        above &= rank < -largest
    return above


@pytest.mark.parametrize("largest", [0, 1, -1, -3, -100])
@pytest.mark.parametrize("per_column", [0, 1])
@pytest.mark.parametrize("levels", [1, 3, 200])
@pytest.mark.parametrize(("n", "rows", "columns"), [(1, 1, 1), (37, 1, 5), (3, 4, 17), (0, 1, 2)])
def test_thresholds_count_what_is_above_them(
    n, rows, columns, levels, per_column, largest, dtype, rng
):
    shape = (n, rows, columns)
    y_pred = (rng.integers(-2, 11, shape) / 8).astype(dtype)  # some are thresholds, some alike
    y_true = rng.choice([0.0, 0.0, 1.0, 0.25], shape).astype(dtype)
    thresholds = np.sort(rng.integers(-8, 24, levels) / 16).astype(np.float64)
    spec = _core.ThresholdCounts(
        rows=rows, columns=columns, thresholds=levels, per_column=per_column, largest=largest
    )
    before = rng.integers(0, 9, (4, levels, columns if per_column else 1)).astype(float)
    right = before.copy()
    true = y_true != 0
    for i, threshold in enumerate(thresholds):
        above = positive(y_pred, threshold, largest)
        for kind, which in enumerate((true & above, ~true & above, ~true & ~above, true & ~above)):
            counts = which.sum(axis=(0, 1))
            right[kind, i] += counts if per_column else counts.sum()
    found = run("threshold_counts", spec, n, [y_true, y_pred, thresholds], before)
    assert_exact(found, right, np.float64)


def test_thresholds_are_compared_in_the_type_of_predictions(dtype):
    y_pred = np.array([[0.1, 0.7]], dtype)
    spec = _core.ThresholdCounts(rows=1, columns=2, thresholds=2, per_column=0, largest=0)
    inputs = [np.ones((1, 2), dtype), y_pred, np.array([0.1, 0.7])]
    found = run("threshold_counts", spec, 1, inputs, np.zeros((4, 2, 1)))
    assert_exact(found[0, :, 0], np.array([1.0, 0.0]), np.float64)


def test_what_is_no_number_is_not_positive(dtype):
    y_pred = np.array([[np.nan, 0.5, np.inf, -np.inf]], dtype)
    for largest, right in ((0, [0, 1, 1, 0]), (-3, [0, 1, 1, 0]), (-1, [0, 0, 1, 0])):
        spec = _core.ThresholdCounts(rows=1, columns=4, thresholds=1, per_column=1, largest=largest)
        inputs = [np.ones((1, 4), dtype), y_pred, np.array([0.25])]
        found = run("threshold_counts", spec, 1, inputs, np.zeros((4, 1, 4)))
        assert_exact(found[0, 0], np.array(right, float), np.float64)


def test_any_number_of_threads_counts_alike(threads, rng):
    shape = (1 << 14, 1, 10)
    y_true, y_pred = (rng.uniform(size=shape).astype(np.float32) for _ in range(2))
    y_true = np.where(y_true > 0.5, np.float32(1), np.float32(0))
    limits = np.linspace(0, 1, 200)
    spec = _core.ThresholdCounts(rows=1, columns=10, thresholds=200, per_column=1, largest=0)
    matrix = _core.Confusion(rows=1, columns=10)
    found = []
    for count in (1, 2, 3):
        threads(count)
        inputs = [y_true, y_pred]
        found.append(
            (
                run(
                    "threshold_counts", spec, len(y_true), [*inputs, limits], np.zeros((4, 200, 10))
                ),
                run("confusion_matrix", matrix, len(y_true), inputs, np.zeros((10, 10))),
            )
        )
    assert convkit.get_num_threads() == 3
    for counts, pairs in found[1:]:
        assert_exact(counts, found[0][0], np.float64)
        assert_exact(pairs, found[0][1], np.float64)
    assert found[0][1].sum() == len(y_true)
    assert found[0][0].sum() == 200 * y_pred.size


@pytest.mark.parametrize("columns", [150, 1000])
def test_more_classes_than_fit_in_a_block(columns, rng):
    y_pred = rng.uniform(size=(300, 1, columns)).astype(np.float32)
    labels = rng.integers(0, columns, (300, 1)).astype(np.int32)
    right = np.zeros((columns, columns))
    np.add.at(right, (labels[:, 0], y_pred[:, 0].argmax(-1)), 1)
    spec = _core.Confusion(rows=1, columns=columns)
    found = run("sparse_confusion_matrix", spec, 300, [labels, y_pred], np.zeros(right.shape))
    assert_exact(found, right, np.float64)
