"""concatenate, add and their gradients: copies and single sums, so exact."""

from __future__ import annotations

import numpy as np
import pytest
from cases import ADD, CONCATENATE
from checkers import assert_exact, backward, check_differences, expected, forward, narrowed

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_case = pytest.mark.parametrize("case", [*CONCATENATE, *ADD], ids=str)


@every_case
def test_values_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        assert_exact(actual, right, dtype)


@every_case
def test_gradients_match_differences(case):
    check_differences(case)


def test_nan_stays_where_it_is(dtype):
    a, b = np.ones((3, 17), dtype), np.ones((3, 17), dtype)
    a[1, 16] = np.nan
    assert np.argwhere(np.isnan(ops.add(a, b))).tolist() == [[1, 16]]
    assert np.argwhere(np.isnan(ops.concatenate([b, a]))).tolist() == [[1, 33]]


def test_gradients_of_add_are_arrays_of_their_own(dtype):
    dy, x = np.ones((2, 3), dtype), np.zeros((2, 3), dtype)
    first, second = ops.add_backward(dy, x, x)
    first[...] = 7
    assert_exact(second, np.ones((2, 3)), dtype)
    assert_exact(dy, np.ones((2, 3)), dtype)


def test_concatenating_one_array_copies_it(dtype):
    x = np.ones((2, 3), dtype)
    y = ops.concatenate([x])
    y[...] = 7
    assert_exact(x, np.ones((2, 3)), dtype)
