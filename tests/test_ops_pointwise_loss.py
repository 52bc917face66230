"""The losses beyond cross-entropies and plain errors, and their gradients."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import reference
from cases import POINTWISE_LOSSES, Case, arrays, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_within,
    backward,
    expected,
    forward,
    gamma,
    narrowed,
)

from convkit import graph, ops

pytestmark = pytest.mark.usefixtures("backend")

EPSILON = reference.EPSILON
OWN = [case for case in POINTWISE_LOSSES if "crossentropy" not in case.op or "focal" in case.op]
FUNCTION = 32  # roundings within a term: some exponentials and logarithms, each of a few units


@functools.cache
def reach(case: Case, gradient: bool) -> np.ndarray:
    """How far a result moves where each argument is off by itself and by 1, times a small number.

    What a kernel rounds, 1 - p or t log p, are arguments and functions of them; so the result is
    that of arguments which are off by so many roundings. Slopes are those of the reference.
    """
    given, dy, y, gradients = expected(case)
    step = 1e-6

    def run(changed: list[np.ndarray]) -> np.ndarray:
        if gradient:
            return backward(case, dy, changed, module=reference)[1]
        return forward(case, changed, module=reference)

    total = np.abs(gradients[1] if gradient else y)
    for which in (0, 1):
        for place in np.ndindex(given[0].shape):
            changes = []
            for sign in (step, -step):
                moved = given[which].copy()
                moved[place] += sign
                changes.append(run([moved, given[1]] if which == 0 else [given[0], moved]))
            size = abs(given[0][place]) + abs(given[1][place]) + 1.0
            total = total + np.abs(changes[0] - changes[1]) / (2.0 * step) * size
    return total


def steady(case: Case) -> bool:
    """Hinges turn where a target is 0: their slope by the targets says nothing."""
    return "hinge" not in case.op or case.op == "categorical_hinge"


def bound(case: Case, gradient: bool, dtype: Any) -> Any:
    given, dy, _, _ = expected(case)
    count = given[0].size // max(1, len(dy)) + FUNCTION
    if steady(case):
        return gamma(count, dtype) * reach(case, gradient)
    t, p = np.abs(given[0]), np.abs(given[1])
    largest = (t + 1.0) * (p + 2.0) ** 2  # of terms, and of slopes
    if gradient:
        return gamma(count, dtype) * largest * np.abs(dy)[..., None]
    return gamma(count, dtype) * largest.mean(axis=-1)


@pytest.mark.parametrize("case", OWN, ids=str)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, loss, gradients = expected(case)
    found = forward(case, narrowed(given, dtype))
    assert_within(found, loss, bound(case, False, dtype), dtype)
    no_target, dpred = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert no_target is None
    assert_within(dpred, gradients[1], bound(case, True, dtype), dtype)


@pytest.mark.parametrize("case", [c for c in OWN if not c.name.startswith("one_value")], ids=str)
def test_gradients_match_differences(case):
    y_true, y_pred = arrays(case, np.float64)
    dy = upstream(case, forward(case, [y_true, y_pred]).shape)
    gradient = backward(case, dy, [y_true, y_pred])[1]
    assert_gradients_match_differences(
        lambda a: forward(case, [y_true, *a]), [gradient], [y_pred], dy
    )


@pytest.mark.parametrize(
    "case", [c for c in POINTWISE_LOSSES if "crossentropy" in c.op and "focal" not in c.op], ids=str
)
def test_crossentropies_over_another_axis(case, dtype):
    given, dy, loss, gradients = expected(case)
    unit = 64 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(forward(case, narrowed(given, dtype)), loss, rtol=unit, atol=unit)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for got, right in zip(found, gradients, strict=True):
        np.testing.assert_allclose(got, right, rtol=unit, atol=unit * np.abs(right).max())


# ---- where functions turn ------------------------------------------------------------------------


def test_zeros_and_ones_are_sides_of_a_hinge(dtype):
    y_pred = np.array([[0.5, -2.0, 3.0, 1.0]], dtype)
    sides = np.array([[-1, 1, 1, -1]], dtype)
    for name in ("hinge", "squared_hinge"):
        right = getattr(ops, name)(sides, y_pred)
        assert_exact(getattr(ops, name)(np.array([[0, 1, 1, 0]]), y_pred), right, dtype)
    assert_exact(ops.hinge(sides, y_pred), np.array([(1.5 + 3 + 0 + 2) / 4]), dtype)
    _, dpred = ops.hinge_backward(np.ones(1, dtype), sides, y_pred)
    assert_exact(dpred, np.array([[0.25, -0.25, 0, 0.25]]), dtype)


def test_no_slope_where_a_margin_is_just_kept(dtype):
    one = np.ones((1, 2), dtype)
    for name in ("hinge", "squared_hinge"):
        _, dpred = getattr(ops, f"{name}_backward")(np.ones(1, dtype), one, one)
        assert_exact(dpred, np.zeros((1, 2)), dtype)
    hot, y_pred = np.array([[1, 0, 0]], dtype), np.array([[3, 2, 1]], dtype)
    _, dpred = ops.categorical_hinge_backward(np.ones(1, dtype), hot, y_pred)
    assert_exact(dpred, np.zeros((1, 3)), dtype)


def test_the_first_of_equal_predictions_takes_the_gradient(dtype):
    hot, y_pred = np.array([[0, 1, 0, 0]], dtype), np.array([[2, 0, 2, 2]], dtype)
    _, dpred = ops.categorical_hinge_backward(np.ones(1, dtype), hot, y_pred)
    assert_exact(dpred, np.array([[1, -1, 0, 0]]), dtype)


def test_huber_bends_at_delta(dtype):
    y_true, y_pred = np.zeros((1, 4), dtype), np.array([[2, -2, 2.5, -4]], dtype)
    loss = ops.huber(y_true, y_pred, delta=2)
    assert_exact(loss, np.array([(2 + 2 + 3 + 6) / 4]), dtype)
    _, dpred = ops.huber_backward(np.full(1, 4, dtype), y_true, y_pred, delta=2)
    assert_exact(dpred, np.array([[2, -2, 2, -2]]), dtype)


def test_equal_values_cost_nothing_and_have_no_slope(dtype):
    same = np.array([[0.25, 0.5, 1.0]], dtype)
    for name in (
        "huber",
        "log_cosh",
        "mean_absolute_percentage_error",
        "mean_squared_logarithmic_error",
    ):
        assert_exact(getattr(ops, name)(same, same), np.zeros(1), dtype)
        _, dpred = getattr(ops, f"{name}_backward")(np.ones(1, dtype), same, same)
        assert_exact(dpred, np.zeros((1, 3)), dtype)
    assert_exact(ops.kl_divergence(same, same), np.zeros(1), dtype)


@pytest.mark.parametrize(
    "op", ["kl_divergence", "binary_focal_crossentropy", "categorical_focal_crossentropy"]
)
def test_what_is_clipped_has_no_slope(op, dtype):
    y_true, y_pred = np.array([[0, 1]], dtype), np.array([[1, 0]], dtype)
    if op == "kl_divergence":
        y_pred[0, 0] = 1.5
    loss = getattr(ops, op)(y_true, y_pred, **({"gamma": 0.0} if "focal" in op else {}))
    assert np.isfinite(loss).all() and loss[0] > 3
    options = {"gamma": 0.0} if "focal" in op else {}
    _, dpred = getattr(ops, f"{op}_backward")(np.ones(1, dtype), y_true, y_pred, **options)
    assert_exact(dpred, np.zeros((1, 2)), dtype)


@pytest.mark.parametrize("gamma_", [0.0, 0.5, 1.0, 2.0, 5.0])
def test_certain_and_right_is_finite_whatever_gamma(gamma_, dtype):
    y_true = np.array([[0, 1]], dtype)
    for options, y_pred in (({}, [[0, 1]]), ({"from_logits": True}, [[-200, 200]])):
        given = (y_true, np.array(y_pred, dtype))
        for op in ("binary_focal_crossentropy", "categorical_focal_crossentropy"):
            assert np.isfinite(getattr(ops, op)(*given, gamma=gamma_, **options)).all()
            run = getattr(ops, f"{op}_backward")
            _, dpred = run(np.ones(1, dtype), *given, gamma=gamma_, **options)
            assert np.isfinite(dpred).all()


def test_no_gamma_is_no_focus(rng, dtype):
    t, p = rng.uniform(0, 1, (5, 6)).astype(dtype), rng.uniform(0.1, 0.9, (5, 6)).astype(dtype)
    unit = 16 * float(np.finfo(dtype).eps)
    found = ops.binary_focal_crossentropy(t, p, gamma=0)
    np.testing.assert_allclose(found, ops.binary_crossentropy(t, p), rtol=unit)
    found = ops.categorical_focal_crossentropy(t, p, gamma=0, alpha=1)
    np.testing.assert_allclose(found, ops.categorical_crossentropy(t, p), rtol=unit)


def test_small_differences_keep_their_digits_in_log_cosh(dtype):
    d = np.array([[1e-3], [1e-5], [0.5], [1.0], [30.0]], dtype)
    right = np.log1p(2 * np.sinh(d.astype(np.float64) / 2) ** 2)[:, 0]
    unit = 8 * float(np.finfo(dtype).eps)
    np.testing.assert_allclose(ops.log_cosh(np.zeros_like(d), d), right, rtol=unit)


def test_vectors_of_no_length_have_no_direction(dtype):
    zero, other = np.zeros((1, 3), dtype), np.array([[3, 0, 4]], dtype)
    assert_exact(ops.cosine_similarity(other, zero), np.zeros(1), dtype)
    assert_exact(ops.cosine_similarity(zero, other), np.zeros(1), dtype)
    _, dpred = ops.cosine_similarity_backward(np.ones(1, dtype), other, zero)
    assert_within(dpred, -other / 5 * 1e7, 8, dtype)


def test_masks_that_are_alike_have_no_dice_loss(rng):
    masks = rng.integers(0, 2, (3, 4, 5, 1)).astype(float)
    masks[:, 0, 0] = 1
    for axis in (None, (1, 2, 3)):
        loss = ops.dice(masks, masks, axis=axis)
        assert loss.shape == (3,)
        np.testing.assert_allclose(loss, 0, atol=1e-6)
        np.testing.assert_allclose(ops.dice(masks, 1 - masks, axis=axis), 1, atol=1e-6)


@pytest.mark.parametrize("case", [c for c in OWN if c.name.startswith("classes")], ids=str)
def test_nan_takes_its_row_and_no_other(case, dtype):
    given = narrowed(expected(case)[0], dtype)
    given[1][3, 9] = np.nan
    loss = forward(case, given)
    _, dpred = backward(case, np.ones_like(loss), given)
    rows = np.arange(5) == 3
    if case.op == "dice" and not case.options:  # over all rows
        rows[:] = True
    np.testing.assert_array_equal(np.isnan(loss), rows)
    np.testing.assert_array_equal(np.isnan(dpred).any(axis=-1), rows)


# ---- arguments -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", sorted({case.op for case in OWN}))
def test_arguments_that_do_not_fit_are_errors(op):
    function, back = getattr(ops, op), getattr(ops, f"{op}_backward")
    y = np.zeros((2, 3))
    with pytest.raises(ValueError, match=rf"{op}: expected y_true of shape \(2, 3\)"):
        function(np.zeros((2, 4)), y)
    with pytest.raises(TypeError, match=f"{op}: expected y_true to be an array"):
        function(None, y)
    with pytest.raises(ValueError, match=f"{op}_backward: expected dy of shape"):
        back(np.zeros((2, 2)), y, y)
    with pytest.raises(ValueError, match=f"{op}_backward: expected needs"):
        back(np.zeros(2), y, y, needs=(True,))
    with pytest.raises(ValueError, match=f"{op}: expected y_pred with at least one axis"):
        function(np.float64(1), np.float64(1))
    if op != "dice":
        with pytest.raises(ValueError, match="at least one value"):
            function(np.zeros((2, 0)), np.zeros((2, 0)))


@pytest.mark.parametrize(
    ("op", "options", "message"),
    [
        ("huber", {"delta": -1.0}, "0 <= delta"),
        ("huber", {"delta": "x"}, "delta to be a number"),
        ("binary_focal_crossentropy", {"gamma": -1.0}, "0 <= gamma"),
        ("categorical_focal_crossentropy", {"alpha": [0.1, 0.2]}, "alpha to be a number"),
        ("cosine_similarity", {"axis": 2}, "axis between -2 and 1"),
        ("cosine_similarity", {"axis": 0.5}, "axis to be an integer"),
        ("cosine_similarity", {"axis": True}, "axis to be an integer"),
        ("dice", {"axis": (0, 0)}, "axes that stand together"),
        ("dice", {"axis": ()}, "axes that stand together"),
        ("dice", {"axis": [1, 5]}, "axis between"),
    ],
)
def test_options_that_do_not_fit_are_errors(op, options, message):
    y = np.zeros((2, 3))
    with pytest.raises((ValueError, TypeError), match=f"{op}: expected {message}"):
        getattr(ops, op)(y, y, **options)


def test_axes_must_stand_together():
    y = np.zeros((2, 3, 4))
    with pytest.raises(ValueError, match="dice: expected axes that stand together"):
        ops.dice(y, y, axis=(0, 2))


def test_samples_are_no_axis_of_a_model():
    y = graph.Symbol((None, 3), "float32", place="fed")
    with pytest.raises(ValueError, match="other than that of the samples"):
        ops.dice(y, y, axis=(0, 1))
    assert ops.dice(y, y).shape == (None,)
    assert ops.dice(y, y, axis=1).shape == (None,)
