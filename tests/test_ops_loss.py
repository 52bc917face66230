"""The losses and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import LOSSES, Case
from checkers import (
    assert_exact,
    assert_within,
    backward,
    check_differences,
    expected,
    forward,
    gamma,
    narrowed,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

FUNCTION = 8  # what exp and log may be off by, in units of rounding
EPSILON = reference.EPSILON


def bounds(case: Case, given, dy: np.ndarray, dtype) -> tuple:
    """How far the loss and its two gradients may be from the true ones."""
    y_true, y_pred = given
    count = y_pred.shape[-1]
    unit = np.finfo(dtype).eps / 2
    few = gamma(count + FUNCTION + 4, dtype)
    dy = np.abs(dy)[..., None]
    if case.op.startswith("mean"):
        scale = forward(case, given, module=reference)
        dpred = np.abs(backward(case, dy[..., 0], given, module=reference)[1])
        return few * scale, few * dpred, few * dpred
    if case.op.startswith("binary"):
        return binary_bounds(case, y_true, y_pred, dy / max(count, 1), unit, few)
    if case.op.startswith("sparse"):
        y_true = reference.one_hot(y_true, y_pred)
    return categorical_bounds(case, y_true, y_pred, dy, unit, few)


def binary_bounds(case, y_true, y_pred, dy, unit, few):
    if case.options.get("from_logits"):
        size = np.abs(y_pred) + 1
        share = reference.sigmoid(y_pred)
        loss = 2 * few * (size * (1 + np.abs(y_true))).mean(axis=-1)
        return loss, 2 * FUNCTION * unit * size * dy, few * (share + np.abs(y_true)) * dy
    p = np.clip(y_pred, EPSILON, 1 - EPSILON)
    wrong_log = FUNCTION * unit * (np.abs(np.log(p)) + np.abs(np.log1p(-p))) + 2 * unit / (1 - p)
    weight = np.abs(y_true) + np.abs(1 - y_true)
    logs = np.abs(np.log(p)) + np.abs(np.log1p(-p))
    loss = (weight * (wrong_log + few * logs)).mean(axis=-1)
    slope = np.abs(y_true) / p + np.abs(1 - y_true) / (1 - p)
    return loss, 2 * (wrong_log + few * logs) * dy, few * slope * dy


def categorical_bounds(case, y_true, y_pred, dy, unit, few):
    weight = np.abs(y_true)
    log_p = reference.log_probabilities(y_pred, case.options.get("from_logits"))
    if case.options.get("from_logits"):
        shift = y_pred - y_pred.max(axis=-1, keepdims=True)
        spread = 2 * np.abs(shift).max(axis=-1, keepdims=True) * unit + few
        wrong_log = 2 * spread + FUNCTION * unit * (np.abs(shift) + np.abs(log_p))
        total = weight.sum(axis=-1, keepdims=True)
        dpred = 2 * (spread + few) * (np.exp(log_p) * total + weight) * dy
    else:
        wrong_log = few + FUNCTION * unit * np.abs(log_p)
        total = y_pred.sum(axis=-1, keepdims=True)
        slope = weight * total / y_pred
        mean = (slope * y_pred / total).sum(axis=-1, keepdims=True)
        dpred = 2 * few * (slope + mean) / total * dy
    loss = (weight * (wrong_log + few * np.abs(log_p))).sum(axis=-1)
    return loss, 2 * wrong_log * dy, dpred


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, loss, gradients = expected(case)
    limits = bounds(case, given, dy, dtype)
    actual = forward(case, narrowed(given, dtype))
    assert actual.shape == given[1].shape[:-1]
    assert_within(actual, loss, limits[0], dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for got, right, limit in zip(found, gradients, limits[1:], strict=True):
        if right is None:
            assert got is None
        else:
            assert_within(got, right, limit, dtype)


@pytest.mark.parametrize("case", LOSSES, ids=str)
def test_gradients_match_differences(case):
    check_differences(case)


def test_hand_worked_values(dtype):
    """Numbers of the kind found in Keras's own documentation, worked out by hand."""
    y_true = np.array([[0, 1, 0], [0, 0, 1]], dtype)
    y_pred = np.array([[0.05, 0.95, 0], [0.1, 0.8, 0.1]], dtype)
    unit = float(np.finfo(np.float32).eps)
    right = np.array([-np.log(0.95), -np.log(0.1)])
    assert_within(ops.categorical_crossentropy(y_true, y_pred), right, 8 * unit, dtype)
    labels = np.array([1, 2])
    assert_within(ops.sparse_categorical_crossentropy(labels, y_pred), right, 8 * unit, dtype)

    y_true, y_pred = np.array([[0, 1], [0, 0]], dtype), np.array([[0.6, 0.4], [0.4, 0.6]], dtype)
    right = -np.array([2 * np.log(0.4), np.log(0.6) + np.log(0.4)]) / 2
    assert_within(ops.binary_crossentropy(y_true, y_pred), right, 8 * unit, dtype)

    y_true, y_pred = np.array([[0, 1], [0, 0]], dtype), np.array([[1, 1], [1, 0.5]], dtype)
    assert_exact(ops.mean_squared_error(y_true, y_pred), np.array([0.5, 0.625]), dtype)
    assert_exact(ops.mean_absolute_error(y_true, y_pred), np.array([0.5, 0.75]), dtype)


def test_certain_predictions_are_clipped(dtype):
    """A probability of zero for what happened costs -log(1e-7), not infinity, and has no slope."""
    y_true, y_pred = np.array([[0, 1, 0]], dtype), np.array([[1, 0, 0]], dtype)
    unit = float(np.finfo(dtype).eps) / 2
    cost = np.array([-np.log(EPSILON)])
    loss = ops.categorical_crossentropy(y_true, y_pred)
    assert_within(loss, cost, 32 * unit * cost, dtype)
    _, dpred = ops.categorical_crossentropy_backward(np.ones(1, dtype), y_true, y_pred)
    assert_exact(dpred, np.zeros((1, 3)), dtype)

    y_true, y_pred = np.array([[1, 0]], dtype), np.array([[0, 0]], dtype)
    loss = ops.binary_crossentropy(y_true, y_pred)
    right = -(np.log(EPSILON) + np.log1p(-EPSILON)) / 2
    assert_within(loss, np.array([right]), 32 * unit * right, dtype)
    _, dpred = ops.binary_crossentropy_backward(np.ones(1, dtype), y_true, y_pred)
    assert_exact(dpred, np.zeros((1, 2)), dtype)


@pytest.mark.parametrize("huge", [1e3, 1e20])
def test_huge_logits_stay_finite(huge, dtype):
    y_true, logits = np.array([[0, 1]], dtype), np.array([[huge, -huge]], dtype)
    unit = float(np.finfo(dtype).eps) / 2
    for name, right in (("categorical_crossentropy", 2 * huge), ("binary_crossentropy", huge)):
        loss = getattr(ops, name)(y_true, logits, from_logits=True)
        assert_within(loss, np.array([right]), 16 * unit * right, dtype)
        dy = np.ones(1, dtype)
        _, dpred = getattr(ops, f"{name}_backward")(dy, y_true, logits, from_logits=True)
        scale = 1 if name.startswith("categorical") else 0.5
        assert_exact(dpred, np.array([[scale, -scale]]), dtype)


def test_absolute_error_has_no_slope_at_zero(dtype):
    same = np.ones((1, 4), dtype)
    for gradient in ops.mean_absolute_error_backward(np.ones(1, dtype), same, same):
        assert_exact(gradient, np.zeros((1, 4)), dtype)


@pytest.mark.parametrize(
    "case", [case for case in LOSSES if case.name.startswith("classes")], ids=str
)
def test_nan_takes_its_row_and_no_other(case, dtype):
    given = narrowed(expected(case)[0], dtype)
    given[1][3, 9] = np.nan
    wrong = np.isnan(forward(case, given))
    np.testing.assert_array_equal(wrong, np.arange(5) == 3)


@pytest.mark.parametrize("integer", [np.uint8, np.int32, np.int64, np.uint16])
def test_labels_may_be_any_integers(integer, dtype, rng):
    y_pred = rng.uniform(0.1, 1, size=(7, 10)).astype(dtype)
    labels = rng.integers(0, 10, size=7)
    right = ops.sparse_categorical_crossentropy(labels, y_pred)
    assert_exact(ops.sparse_categorical_crossentropy(labels.astype(integer), y_pred), right, dtype)


def test_labels_may_be_whole_floats(dtype, rng):
    y_pred = rng.uniform(0.1, 1, size=(7, 10)).astype(dtype)
    labels = rng.integers(0, 10, size=7)
    right = ops.sparse_categorical_crossentropy(labels, y_pred)
    assert_exact(ops.sparse_categorical_crossentropy(labels.astype(float), y_pred), right, dtype)
