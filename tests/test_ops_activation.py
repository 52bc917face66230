"""relu, leaky_relu, sigmoid, tanh, exp, softmax, log_softmax and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import ACTIVATIONS, SOFTMAXES, Case
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

# What exp, log and tanh may be off by, in units of rounding: libraries promise 1 to 4 ulp.
FUNCTION = 8


def forward_bound(case: Case, x: np.ndarray, y: np.ndarray, dtype) -> np.ndarray:
    """How far the op may be from the true y."""
    unit = np.finfo(dtype).eps / 2
    if case.op in ("relu", "leaky_relu"):  # the slope and the product are rounded
        return gamma(2, dtype) * np.abs(y)
    if case.op in ("sigmoid", "tanh", "exp"):
        return (FUNCTION + 4) * unit * np.abs(y)
    relative, shift, count = softmax_terms(case, x, unit)
    if case.op == "softmax":
        return relative * y
    return relative + FUNCTION * unit * (np.abs(shift) + np.log(max(count, 1)))


def softmax_terms(case: Case, x: np.ndarray, unit: float):
    """Relative error of exp(x - max) over its sum, x - max, and how many are summed."""
    axis = case.options.get("axis", -1)
    count = x.shape[axis]
    shift = x - x.max(axis=axis, keepdims=True)
    span = np.abs(shift).max(axis=axis, keepdims=True)
    return (2 * span + 2 * FUNCTION + count + 4) * unit, shift, count


def backward_bound(case: Case, dy: np.ndarray, x: np.ndarray, y: np.ndarray, dtype) -> np.ndarray:
    """How far the gradient may be from the true one; kernels work it out from y."""
    unit = np.finfo(dtype).eps / 2
    size = np.abs(dy)
    if case.op in ("relu", "leaky_relu"):
        return gamma(2, dtype) * size
    if case.op in ("sigmoid", "exp"):
        return 3 * (FUNCTION + 4) * unit * size * y
    if case.op == "tanh":  # 1 - y * y loses digits where y is near one
        return 3 * (FUNCTION + 4) * unit * size
    axis = case.options.get("axis", -1)
    relative, _, count = softmax_terms(case, x, unit)
    if case.op == "softmax":
        scale = size + (size * y).sum(axis=axis, keepdims=True)
        return 3 * y * (relative + gamma(count + 3, dtype)) * scale
    error = forward_bound(case, x, y, dtype) + gamma(count + FUNCTION + 3, dtype)
    return 2 * unit * size + 2 * error * np.exp(y) * size.sum(axis=axis, keepdims=True)


@pytest.mark.parametrize("case", [*ACTIVATIONS, *SOFTMAXES], ids=str)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (right,) = expected(case)
    bound = forward_bound(case, given[0], y, dtype)
    assert_within(forward(case, narrowed(given, dtype)), y, bound, dtype)
    bound = backward_bound(case, dy, given[0], y, dtype)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_within(actual, right, bound, dtype)


@pytest.mark.parametrize("case", [*ACTIVATIONS, *SOFTMAXES], ids=str)
def test_gradients_match_differences(case):
    check_differences(case, "normal")


def test_relu_is_exact(dtype):
    x = np.array([-np.inf, -2, -1e-30, -0.0, 0.0, 1e-30, 3, np.inf], dtype)
    assert_exact(ops.relu(x), np.maximum(x, 0).astype(np.float64), dtype)
    dx = ops.relu_backward(np.full(8, 5, dtype), x)
    assert_exact(dx, np.array([0, 0, 0, 0, 0, 5, 5, 5.0]), dtype)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh", "exp"])
def test_nan_stays_where_it_is(name, dtype):
    x = np.linspace(-2, 2, 37).astype(dtype)
    x[[0, 17, 36]] = np.nan
    np.testing.assert_array_equal(np.isnan(getattr(ops, name)(x)), np.isnan(x))


@pytest.mark.parametrize("name", ["softmax", "log_softmax"])
def test_nan_takes_its_whole_row(name, dtype):
    x = np.linspace(-2, 2, 3 * 37).astype(dtype).reshape(3, 37)
    x[1, 36] = np.nan
    wrong = np.isnan(getattr(ops, name)(x))
    assert wrong[1].all()
    assert not wrong[[0, 2]].any()


def test_extremes_are_the_limits(dtype):
    x = np.array([-np.inf, -1e30, -1e4, 1e4, 1e30, np.inf], dtype)
    low, high = [0.0] * 3, [1.0] * 3
    assert_exact(ops.sigmoid(x), np.array(low + high), dtype)
    assert_exact(ops.tanh(x), np.array([-1.0] * 3 + high), dtype)
    assert_exact(ops.exp(x), np.array(low + [np.inf] * 3), dtype)
    assert_exact(ops.sigmoid_backward(np.ones(6, dtype), x), np.zeros(6), dtype)
    assert_exact(ops.tanh_backward(np.ones(6, dtype), x), np.zeros(6), dtype)


def test_exp_over_its_whole_range(dtype):
    """Also the ends, where the scale of a result must be put together with care."""
    info = np.finfo(dtype)
    low, high = np.log(float(info.tiny)), np.log(float(info.max))
    x = np.linspace(low + 1e-3, high - 1e-3, 4001).astype(dtype)
    y = np.exp(x.astype(np.float64))
    assert_within(ops.exp(x), y, (FUNCTION * float(info.eps) / 2) * y, dtype)


def test_tanh_and_sigmoid_keep_their_digits_near_zero(dtype):
    x = (np.logspace(-20, 0, 101) * np.where(np.arange(101) % 2, 1, -1)).astype(dtype)
    unit = float(np.finfo(dtype).eps) / 2
    for name in ("tanh", "sigmoid"):
        y = getattr(reference, name)(x.astype(np.float64))
        assert_within(getattr(ops, name)(x), y, (FUNCTION + 4) * unit * np.abs(y), dtype)


# For np.longdouble, on some machines no longer than float64: hence the half unit granted below.
TRUE_FUNCTIONS = {
    "exp": np.exp,
    "sigmoid": lambda x: np.where(x < 0, np.exp(x), 1) / (1 + np.exp(-np.abs(x))),
    "tanh": np.tanh,
}


@pytest.mark.parametrize(
    ("name", "low", "high", "units"),
    [("exp", -30, 6, 2), ("sigmoid", -30, 6, 3), ("tanh", -30, 5, 2), ("tanh", -4, 5, 2)],
)
def test_functions_are_right_to_the_last_places(name, low, high, units, dtype):
    """Between 2^low and 2^high on both sides of zero, in units in the last place of the result."""
    half = np.logspace(low, high, 20011, base=2).astype(dtype)
    x = np.concatenate([-half, half])
    y = TRUE_FUNCTIONS[name](x.astype(np.longdouble))
    unit = np.spacing(np.abs(y).astype(dtype)).astype(np.longdouble)
    assert (np.abs(getattr(ops, name)(x) - y) / unit).max() < units + 0.5


def test_tanh_is_odd_and_stays_within_one(dtype):
    size = np.concatenate([np.logspace(-40, 30, 10007), np.linspace(0, 25, 10007)]).astype(dtype)
    y = ops.tanh(size)
    np.testing.assert_array_equal(ops.tanh(-size), -y)
    assert np.abs(y).max() == 1
    zeros = ops.tanh(np.array([0.0, -0.0], dtype))
    np.testing.assert_array_equal(np.signbit(zeros), [False, True])


def test_tanh_of_a_tiny_number_is_that_number(dtype):
    info = np.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.tiny / 4, info.tiny, 3e-30, 1e-9], dtype)
    np.testing.assert_array_equal(ops.tanh(x), x)


def test_softmax_of_huge_and_of_masked_values(dtype):
    x = np.array([[1e30, 1e30, -1e30], [3, -np.inf, 3], [-1e30, -1e30, -1e30]], dtype)
    y = np.array([[0.5, 0.5, 0], [0.5, 0, 0.5], [1 / 3, 1 / 3, 1 / 3]])
    unit = float(np.finfo(dtype).eps) / 2
    assert_within(ops.softmax(x), y, 16 * unit, dtype)
    log_y = ops.log_softmax(x)
    assert log_y[1, 1] == -np.inf
    log_y[1, 1] = 0
    right = np.array(
        [[-np.log(2), -np.log(2), -2e30], [-np.log(2), 0, -np.log(2)], [-np.log(3)] * 3]
    )
    assert_within(log_y, right, 16 * unit * np.maximum(np.abs(right), 1), dtype)


def test_rows_of_softmax_sum_to_one(dtype, rng):
    y = ops.softmax(rng.normal(size=(7, 1000)).astype(dtype))
    assert_within(y.sum(axis=1, dtype=np.float64), np.ones(7), gamma(1100, dtype), np.float64)


@pytest.mark.parametrize("name", ["relu", "leaky_relu", "sigmoid", "tanh", "exp"])
def test_a_single_number_is_an_array_of_no_axes(name, dtype):
    y = getattr(ops, name)(np.array(0.5, dtype))
    assert y.shape == ()
    assert y.dtype == dtype
    assert y[()] == getattr(ops, name)(np.array([0.5], dtype))[0]
