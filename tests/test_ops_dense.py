"""dense and its gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import DENSE, DENSE_LARGE, Case, arrays, dense, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    assert_within,
    backward,
    check_differences,
    expected,
    forward,
    gamma,
    narrowed,
    sizes,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_case = pytest.mark.parametrize("case", DENSE, ids=lambda case: case.name)


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        if right is None:
            assert actual is None
        else:
            assert_exact(actual, right, dtype)


# Where b does not fit the caches as a whole, in the one product or the other, and where c does not.
BEYOND_CACHES = [
    dense("kernel", (33, 1030), 1100),
    dense("gradient_of_kernel", (1000, 33), 1100),
    dense("few_rows", (5, 2048), 2048),
    dense("one_row", (1, 2048), 2048),
]


@pytest.mark.parametrize("case", BEYOND_CACHES, ids=lambda case: case.name)
def test_integers_are_exact_beyond_the_caches(case, backend, threads):
    if backend.startswith("cuda"):
        pytest.skip("a matter of the processor's caches")
    threads(2)
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, np.float32)), y, np.float32)
    found = backward(case, dy.astype(np.float32), narrowed(given, np.float32))
    for actual, right in zip(found, gradients, strict=True):
        if right is not None:
            assert_exact(actual, right, np.float32)


@pytest.mark.parametrize("case", [*DENSE, *DENSE_LARGE], ids=lambda case: case.name)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, gradients = expected(case)
    inputs, units = case.shapes[1]
    bound = gamma(inputs + 1, dtype) * forward(case, sizes(given), module=reference)
    assert_within(forward(case, narrowed(given, dtype)), y, bound, dtype)

    rows = math.prod(case.shapes[0][:-1])
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    scales = backward(case, np.abs(dy), sizes(given), module=reference)
    for actual, right, scale, count in zip(
        found, gradients, scales, (units, rows, rows), strict=True
    ):
        if right is not None:
            assert_within(actual, right, gamma(count, dtype) * scale, dtype)


@every_case
def test_gradients_match_differences(case):
    check_differences(case)


def activated(name: str) -> Case:
    return Case("dense", name, ((5, 7), (7, 17), (17,)), {"activation": name})


ACTIVATED = [
    activated(name)
    for name in (
        "linear",
        "relu",
        "leaky_relu",
        "sigmoid",
        "tanh",
        "exp",
        "softmax",
        "log_softmax",
    )
]


@pytest.mark.parametrize("case", ACTIVATED, ids=lambda case: case.name)
def test_activation_equals_the_op_after_it(case, dtype):
    given = arrays(case, dtype, "integers")
    given[0] = given[0] / 64  # keeps exp in range; sums stay exact
    plain = replace(case, options={})
    z = forward(plain, given)
    after = z if case.name == "linear" else getattr(ops, case.name)(z)
    y = forward(case, given)
    assert_within(y, after.astype(np.float64), gamma(8, dtype) * np.abs(after), dtype)

    dy = upstream(case, y.shape, dtype)
    dz = dy if case.name == "linear" else getattr(ops, f"{case.name}_backward")(dy, z)
    rights = backward(plain, dz, given)
    scales = backward(plain, np.abs(dz), sizes(given))
    for actual, right, scale in zip(backward(case, dy, given), rights, scales, strict=True):
        bound = 2 * gamma(17 + 8, dtype) * scale.astype(np.float64)
        assert_within(actual, right.astype(np.float64), bound, dtype)


@pytest.mark.parametrize("case", ACTIVATED, ids=lambda case: case.name)
def test_gradients_through_an_activation_match_differences(case):
    given = arrays(case, np.float64)
    given[1] = given[1] / 7
    y = forward(case, given)
    dy = upstream(case, y.shape)
    gradients = backward(case, dy, given)
    assert_gradients_match_differences(lambda a: forward(case, a), gradients, given, dy)


def test_nan_stays_in_its_row_and_column(dtype, rng):
    x, kernel = rng.normal(size=(5, 7)).astype(dtype), rng.normal(size=(7, 33)).astype(dtype)
    x[3, 6] = np.nan
    kernel[0, 32] = np.nan
    right = np.zeros((5, 33), bool)
    right[3] = right[:, 32] = True
    np.testing.assert_array_equal(np.isnan(ops.dense(x, kernel)), right)


# Units that fill a part of a register, one and two of every instruction set; depths around those
# from which they are multiplied in lanes and chains, and of one segment and several.
FEW_UNITS = [
    (inputs, units)
    for units in (1, 2, 3, 5, 7, 8, 10, 12, 13, 15, 16, 17, 23, 31, 32, 33)
    for inputs in (67, 513)
]


@pytest.mark.parametrize(
    ("inputs", "units"),
    [(3, 5), (400, 120), (517, 263), (700, 1), (15, 10), (33, 10), (1031, 10), *FEW_UNITS],
)
def test_a_row_has_the_same_bits_alone_and_among_others(inputs, units, backend, dtype, rng):
    if backend.startswith("cuda"):
        pytest.skip("a promise of the processor's kernels")
    x, kernel, bias = (
        rng.normal(size=size).astype(dtype) for size in ((70, inputs), (inputs, units), (units,))
    )
    dy = rng.normal(size=(70, units)).astype(dtype)
    y = ops.dense(x, kernel, bias)
    for n in (1, 2, 5, 13, 64, 65):
        assert_same_bits(ops.dense(x[:n], kernel, bias), y[:n])

    def dx(n: int) -> np.ndarray:
        return ops.dense_backward(dy[:n], x[:n], kernel, bias, needs=(True, False, False))[0]

    for few, many in ((range(1, 5), 4), ((5, 13, 64, 65), 70)):
        for n in few:
            assert_same_bits(dx(n), dx(many)[:n])


@pytest.mark.parametrize("units", [1, 10, 16, 17, 32])
def test_few_units_and_a_long_input(units, backend, threads, rng):
    """Segments of one row, and many rows, go to several threads; the sums do not depend on it."""
    if backend.startswith("cuda"):
        pytest.skip("a promise of the processor's kernels")
    inputs = 40_009
    x = rng.standard_normal((45, inputs), np.float32)
    kernel = rng.standard_normal((inputs, units), np.float32)
    bias = rng.standard_normal(units, np.float32)
    threads(1)
    y = ops.dense(x, kernel, bias)
    right = x.astype(float) @ kernel + bias
    # A value is at most 512 products, 80 segments and 16 chains one after the other.
    scale = np.abs(x).astype(float) @ np.abs(kernel) + np.abs(bias)
    assert_within(y, right, gamma(700, np.float32) * scale, np.float32)
    for count in (1, 2, 3, 7):
        threads(count)
        for n in (1, 3, 8, 9, 45):
            assert_same_bits(ops.dense(x[:n], kernel, bias), y[:n])
            relu = ops.dense(x[:n], kernel, bias, activation="relu")
            assert_same_bits(relu, np.maximum(y[:n], 0))


def test_nan_and_infinity_stay_in_their_row_and_column(dtype, rng):
    x, kernel = rng.normal(size=(20, 71)).astype(dtype), rng.normal(size=(71, 10)).astype(dtype)
    x[3, 70], x[11, 0] = np.nan, np.inf
    kernel[69, 9] = np.nan
    right = np.zeros((20, 10), bool)
    right[3] = right[:, 9] = True
    for n in (4, 20):
        y = ops.dense(x[:n], kernel)
        np.testing.assert_array_equal(np.isnan(y), right[:n])
        assert n < 12 or np.isinf(y[11, :9]).all()


def test_an_empty_batch_has_zero_gradients_for_weights(dtype):
    case = next(case for case in DENSE if case.name == "empty_batch")
    given = arrays(case, dtype)
    y = forward(case, given)
    assert y.shape == (0, 3)
    dx, dkernel, dbias = backward(case, y, given)
    assert dx.shape == (0, 6)
    assert_exact(dkernel, np.zeros((6, 3)), dtype)
    assert_exact(dbias, np.zeros(3), dtype)


@pytest.mark.parametrize("shape", [(2903, 2903), (1024, 8209)])
def test_a_kernel_beyond_the_caches(shape, backend, rng, threads):
    """Of one row: the bits are those of more rows, and of any number of threads."""
    inputs, units = shape
    kernel = rng.standard_normal(shape, np.float32)
    assert kernel.nbytes >= 32 << 20  # csrc/cpu/dense.cpp
    x = rng.standard_normal((2, inputs), np.float32)
    bias = rng.standard_normal(units, np.float32)
    y = ops.dense(x, kernel, bias)
    for count in (1, 2, 3):
        threads(count)
        assert_same_bits(ops.dense(x[:1], kernel, bias), y[:1])
        relu = ops.dense(x[:1], kernel, bias, activation="relu")
        assert_same_bits(relu, np.maximum(y[:1], 0))
