"""rescale and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
from cases import RESCALE
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
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_case = pytest.mark.parametrize("case", RESCALE, ids=str)


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (right,) = expected(case)
    scale, offset = case.options["scale"], case.options.get("offset", 0.0)
    # The options are rounded, the product and the sum.
    size = np.abs(given[0] * scale) + abs(offset)
    assert_within(forward(case, narrowed(given, dtype)), y, gamma(3, dtype) * size, dtype)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_within(actual, right, gamma(3, dtype) * np.abs(right), dtype)


@every_case
def test_gradients_match_differences(case):
    check_differences(case)


def test_whole_numbers_are_exact(dtype):
    x = np.arange(-20, 20, dtype=dtype)
    assert_exact(ops.rescale(x, 3), 3.0 * np.arange(-20, 20), dtype)
    assert_exact(ops.rescale(x, -0.5, 7), 7 - 0.5 * np.arange(-20, 20), dtype)


def test_nan_and_infinity_stay_where_they_are(dtype):
    x = np.linspace(-2, 2, 37).astype(dtype)
    x[[0, 17, 36]] = np.nan, np.inf, -np.inf
    y = ops.rescale(x, 0.25, 1)
    np.testing.assert_array_equal(np.isnan(y), np.isnan(x))
    assert (y[17], y[36]) == (np.inf, -np.inf)


def test_it_works_in_place(dtype, rng):
    x = rng.normal(size=(5, 13)).astype(dtype)
    right = ops.rescale(x, 0.3, -1)
    assert ops.rescale(x, 0.3, -1, out=x) is x
    assert_same_bits(x, right)
