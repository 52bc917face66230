"""upsample2d and its gradient."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import UPSAMPLE2D, UPSAMPLE2D_LARGE, arrays, upstream
from checkers import (
    assert_exact,
    assert_same_bits,
    assert_within,
    backward,
    channels_first,
    check_differences,
    expected,
    forward,
    gamma,
    narrowed,
    sizes,
    to_first,
    to_last,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_case = pytest.mark.parametrize("case", UPSAMPLE2D, ids=lambda case: case.name)
nearest = [case for case in UPSAMPLE2D if case.options["interpolation"] == "nearest"]


@pytest.mark.parametrize("case", nearest, ids=lambda case: case.name)
def test_nearest_is_exact(case, dtype):
    given, dy, y, (right,) = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_exact(actual, right, dtype)


@pytest.mark.parametrize("case", [*UPSAMPLE2D, *UPSAMPLE2D_LARGE], ids=lambda case: case.name)
def test_rounding_stays_within_its_bound(case, dtype):
    """Weights are fractions of order one with a few roundings each, so also absolutely in error.

    The bound is that of the sum plus, per value, 4 u for each of the two weights of its products.
    """
    given, dy, y, (right,) = expected(case)
    height, width = reference.pair(case.options.get("size", 2))
    unit = np.finfo(dtype).eps / 2

    scale = forward(case, sizes(given), module=reference)
    weights = 8 * unit * np.abs(given[0]).max(initial=0)
    actual = forward(case, narrowed(given, dtype))
    assert_within(actual, y, gamma(8, dtype) * scale + 2 * weights, dtype)

    (scale,) = backward(case, np.abs(dy), given, module=reference)
    cells = 4 * height * width  # so many values of dy meet in one of dx
    weights = 8 * unit * np.abs(dy).max(initial=0) * cells
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_within(actual, right, gamma(cells + 8, dtype) * scale + weights, dtype)


@every_case
def test_gradients_match_differences(case):
    check_differences(case)


@every_case
def test_channels_first_gives_the_same_bits(case):
    given = arrays(case, np.float32)
    y = forward(case, given)
    swapped = channels_first(case, given)
    assert_same_bits(forward(case, swapped, data_format="channels_first"), to_first(y))
    dy = upstream(case, y.shape, np.float32)
    (dx,) = backward(case, dy, given)
    (found,) = backward(case, to_first(dy), swapped, data_format="channels_first")
    assert_same_bits(to_last(found), dx)


def test_bilinear_by_two_mixes_quarters(dtype):
    x = np.array([0, 4, 8], dtype).reshape(1, 1, 3, 1)
    y = ops.upsample2d(x, (1, 2), interpolation="bilinear")
    np.testing.assert_array_equal(y.ravel(), [0, 1, 3, 5, 7, 8])


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_nan_stays_near(interpolation, dtype):
    x = np.ones((1, 7, 9, 17), dtype)
    x[0, 3, 4, 5] = np.nan
    wrong = np.isnan(ops.upsample2d(x, 2, interpolation=interpolation))
    assert wrong[0, 6:8, 8:10, 5].all()
    wrong[0, 5:9, 7:11, 5] = False
    assert not wrong.any()
