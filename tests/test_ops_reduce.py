"""Sums, means, maxima and minima over axes, and global pooling; and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import GLOBAL_POOL2D, REDUCE, REDUCE_LARGE, Case
from checkers import (
    assert_exact,
    assert_same_bits,
    assert_within,
    backward,
    check_differences,
    expected,
    forward,
    gamma,
    narrowed,
    to_first,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_case = pytest.mark.parametrize("case", [*REDUCE, *GLOBAL_POOL2D, *REDUCE_LARGE], ids=str)
KINDS = ("sum", "mean", "max", "min")


def is_extreme(case: Case) -> bool:
    return case.op in ("max", "min", "global_max_pool2d")


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (right,) = expected(case)
    x = given[0]
    actual = forward(case, narrowed(given, dtype))
    (dx,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    if is_extreme(case):
        assert_exact(actual, y, dtype)
        assert_exact(dx, right.astype(dtype).astype(np.float64), dtype)
        return
    count = x.size // max(y.size, 1) + 3
    assert_within(
        actual, y, gamma(count, dtype) * forward(case, [np.abs(x)], module=reference), dtype
    )
    assert_within(dx, right, gamma(3, dtype) * np.abs(right), dtype)


@pytest.mark.parametrize("case", [*REDUCE, *GLOBAL_POOL2D], ids=str)
def test_gradients_match_differences(case):
    check_differences(case)


@every_case
def test_ties_go_to_the_first(case, dtype):
    if not is_extreme(case):
        return
    given, dy, y, (right,) = expected(case, "ties")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    (dx,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_exact(dx, right, dtype)


@pytest.mark.parametrize("shape", [(5, 67), (5, 67, 3), (3, 11, 37)])
@pytest.mark.parametrize("name", KINDS)
def test_nan_takes_its_column(name, shape, dtype):
    x = np.linspace(-2, 2, int(np.prod(shape))).astype(dtype).reshape(shape)
    x[1, 5] = np.nan
    x[2, 6:] = np.nan
    wrong = np.isnan(getattr(ops, name)(x, 1))
    assert np.unique(np.argwhere(wrong)[:, 0]).tolist() == [1, 2]
    assert wrong[1:3].all()
    if name in ("max", "min"):
        dx = getattr(ops, f"{name}_backward")(np.ones_like(wrong, dtype), x, 1)
        assert (dx[1, 5] == 1).all()
        assert (dx[2, 6] == 1).all()
        assert (dx.sum(axis=1) == 1).all()


@pytest.mark.parametrize("name", ["max", "min"])
def test_infinities_are_values(name, dtype):
    for value in (np.inf, -np.inf):
        x = np.full((3, 50), value, dtype)
        assert_exact(getattr(ops, name)(x, 1), np.full(3, value), dtype)
        dx = getattr(ops, f"{name}_backward")(np.ones(3, dtype), x, 1)
        assert_exact(dx, np.eye(1, 50).repeat(3, axis=0), dtype)


@pytest.mark.parametrize("name", KINDS)
def test_a_number_is_its_own_reduction(name, dtype):
    x = np.array(2.5, dtype)
    y = getattr(ops, name)(x)
    assert y.shape == ()
    assert y == 2.5
    assert getattr(ops, f"{name}_backward")(np.array(3, dtype), x) == 3


def test_a_sum_of_nothing_is_zero(dtype):
    assert_exact(ops.sum(np.ones((0, 3), dtype), 0), np.zeros(3), dtype)
    assert_exact(ops.sum(np.ones((3, 0), dtype), 1), np.zeros(3), dtype)
    assert ops.sum_backward(np.ones(3, dtype), np.ones((3, 0), dtype), 1).shape == (3, 0)


@pytest.mark.parametrize("name", ["global_avg_pool2d", "global_max_pool2d"])
@pytest.mark.parametrize("keepdims", [False, True])
def test_channels_first(name, keepdims, dtype, rng):
    x = rng.normal(size=(3, 7, 5, 6)).astype(dtype)
    op, derivative = getattr(ops, name), getattr(ops, f"{name}_backward")
    first = to_first(x)
    y = op(x, keepdims=keepdims)
    found = op(first, data_format="channels_first", keepdims=keepdims)
    assert found.shape == ((3, 6, 1, 1) if keepdims else (3, 6))
    count = gamma(64, dtype) * np.abs(x).mean(axis=(1, 2))
    assert_within(found.reshape(3, 6), y.reshape(3, 6).astype(np.float64), count, dtype)
    dy = rng.normal(size=(3, 6)).astype(dtype)
    dx = derivative(dy.reshape(y.shape), x, keepdims=keepdims)
    found = derivative(
        dy.reshape(found.shape), first, data_format="channels_first", keepdims=keepdims
    )
    assert_same_bits(found, to_first(dx))


@pytest.mark.parametrize("shape", [(200003,), (3, 70001), (70001, 3), (5003, 19), (300, 1100)])
def test_bits_do_not_depend_on_threads(shape, threads, dtype, rng):
    x = rng.normal(size=shape).astype(dtype)
    axis = len(shape) - 1 if shape[0] == 3 else 0
    found = []
    for count in (1, 2, 5):
        threads(count)
        found.append([getattr(ops, name)(x, axis) for name in KINDS])
    for others in found[1:]:
        for one, other in zip(found[0], others, strict=True):
            assert_same_bits(one, other)


@pytest.mark.parametrize("shape", [(7, 7, 64), (49, 3), (5000, 3), (5000, 1), (3, 2, 1)])
def test_bits_of_a_sample_do_not_depend_on_the_others(shape, dtype, rng):
    x = rng.normal(size=(9, *shape)).astype(dtype)
    axis = tuple(range(1, len(shape)))
    y = ops.sum(x, axis)
    for i in (0, 5, 8):
        assert_same_bits(ops.sum(x[i : i + 1], axis), y[i : i + 1])


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.sum(x, 3), ValueError, "sum: expected axis between -3 and 2, got 3"),
        (lambda x: ops.mean(x, (0, -3)), ValueError, "mean: expected each axis once"),
        (lambda x: ops.max(x, 1.0), TypeError, "max: expected axis to be an integer"),
        (lambda x: ops.max(x[:, :0]), ValueError, "max: expected at least one value along the"),
        (lambda x: ops.mean(x[:0], 0), ValueError, "mean: expected at least one value along the"),
        (lambda x: ops.sum_backward(x, x, 1), ValueError, r"sum_backward: expected dy of shape"),
        (
            lambda x: ops.global_avg_pool2d(x),
            ValueError,
            r"global_avg_pool2d: expected x of shape \(N, H, W, C\), got \(3, 4, 5\)",
        ),
        (
            lambda x: ops.global_max_pool2d(x[None], data_format="first"),
            ValueError,
            "global_max_pool2d: expected data_format to be one of",
        ),
        (
            lambda x: ops.global_max_pool2d_backward(x[0], x[None], data_format="channels_first"),
            ValueError,
            r"expected dy of shape \(1, 3\), that of the result, got \(4, 5\)",
        ),
        (
            lambda x: ops.min(x, 0, out=np.zeros((4, 4), np.float32)),
            ValueError,
            r"min: expected out of shape \(4, 5\)",
        ),
    ],
)
def test_what_does_not_fit_fails_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((3, 4, 5), np.float32))
