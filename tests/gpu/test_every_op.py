"""Every op on CuPy arrays, against the processor's on NumPy arrays."""

from __future__ import annotations

from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from cases import CASES, LARGE, arrays, upstream
from checkers import backward, forward

from convkit import device

# Of the largest value that comes out. What a sum of products may differ by is held to a derived
# bound by the tests of each op, which run on the GPU's kernels too.
TOLERANCE = {np.float32: 2e-5, np.float64: 1e-12}


def up(given: list, cp: Any) -> list:
    return [None if array is None else cp.asarray(array) for array in given]


def assert_close(found: Any, expected: Any, dtype: Any, cp: Any) -> None:
    if expected is None:
        assert found is None
        return
    assert isinstance(found, cp.ndarray) and found.dtype == dtype
    bound = TOLERANCE[dtype] * max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(device.to_numpy(found), expected, TOLERANCE[dtype], bound)


@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_values_and_gradients_are_the_processors(case, dtype, cp):
    given = arrays(case, dtype)
    y = forward(case, given)
    dy = upstream(case, y.shape, dtype)
    there = up(given, cp)
    assert_close(forward(case, there), y, dtype, cp)
    expected = backward(case, dy, given)
    for found, right in zip(backward(case, cp.asarray(dy), there), expected, strict=True):
        assert_close(found, right, dtype, cp)
    for array, before in zip(there, given, strict=True):
        if array is not None:
            np.testing.assert_array_equal(device.to_numpy(array), before)
