"""max_pool2d, avg_pool2d and their gradients."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import AVG_POOL2D, MAX_POOL2D, POOL2D_LARGE, arrays, upstream
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

FAR = 2**31 - 1  # the largest stride

every_max = pytest.mark.parametrize("case", MAX_POOL2D, ids=lambda case: case.name)
every_average = pytest.mark.parametrize("case", AVG_POOL2D, ids=lambda case: case.name)
every_case = pytest.mark.parametrize("case", [*MAX_POOL2D, *AVG_POOL2D], ids=str)


def window_cells(case) -> int:
    height, width = reference.pair(case.options.get("pool_size", 2))
    return height * width


@pytest.mark.parametrize("fill", ["distinct", "ties", "integers"])
@every_max
def test_maxima_and_their_gradients_are_exact(case, fill, dtype):
    given, _, y, _ = expected(case, fill)
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    dy = upstream(case, y.shape, np.float64, "integers")
    (right,) = backward(case, dy, given, module=reference)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_exact(actual, right, dtype)


@pytest.mark.parametrize(
    "case", [*AVG_POOL2D, *POOL2D_LARGE], ids=lambda case: f"{case.op}-{case.name}"
)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (right,) = expected(case)
    roundings = gamma(window_cells(case) + 3, dtype)
    scale = forward(case, sizes(given), module=reference)
    assert_within(forward(case, narrowed(given, dtype)), y, roundings * np.abs(scale), dtype)
    (scale,) = backward(case, np.abs(dy), given, module=reference)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_within(actual, right, roundings * scale, dtype)


def test_averages_over_a_power_of_two_are_exact(dtype, rng):
    x = rng.integers(-100, 100, size=(2, 8, 12, 17)).astype(dtype)
    y = x.reshape(2, 4, 2, 3, 4, 17).mean(axis=(2, 4), dtype=np.float64)
    assert_exact(ops.avg_pool2d(x, (2, 4)), y, dtype)


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


@pytest.mark.parametrize("options", [{"padding": 1}, {"padding": "same"}, {"ceil_mode": True}])
def test_padding_never_wins(options, dtype):
    x = np.full((1, 5, 5, 3), -7, dtype)
    y = ops.max_pool2d(x, 3, strides=2, **options)
    assert_exact(y, np.full(y.shape, -7.0), dtype)
    lowest = np.full((1, 5, 5, 3), -np.inf, dtype)
    assert_exact(ops.max_pool2d(lowest, 3, strides=2, **options), np.full(y.shape, -np.inf), dtype)
    dy = np.ones(y.shape, dtype)
    for flat in (x, lowest):
        dx = ops.max_pool2d_backward(dy, flat, 3, strides=2, **options)
        assert dx.sum() == dy.sum()


def test_the_first_maximum_takes_the_gradient(dtype):
    x = np.zeros((1, 4, 4, 17), dtype)
    x[:, 1, 2] = x[:, 1, 3] = x[:, 0, 3] = 5
    dx = ops.max_pool2d_backward(np.ones((1, 2, 2, 17), dtype), x)
    right = np.zeros(x.shape)
    right[:, 0, 0] = right[:, 0, 3] = right[:, 2, 0] = right[:, 2, 2] = 1
    assert_exact(dx, right, dtype)


def test_nan_wins_and_takes_the_gradient(dtype):
    x = np.arange(2 * 4 * 6 * 17, dtype=dtype).reshape(2, 4, 6, 17)
    x[0, 1, 2, 3] = x[0, 1, 3, 3] = np.nan
    x[1, 3, 5, 16] = np.nan
    y = ops.max_pool2d(x)
    assert_exact(y, reference.max_pool2d(x, 2), dtype)
    assert np.isnan(y).sum() == 2
    dy = np.ones(y.shape, dtype)
    assert_exact(ops.max_pool2d_backward(dy, x), reference.max_pool2d_backward(dy, x, 2)[0], dtype)


@pytest.mark.parametrize("channels", [1, 8])
def test_the_first_nan_of_a_large_window_wins(channels, dtype, rng):
    """Many threads share such a window, and each knows the first maximum of its part."""
    x = rng.normal(size=(1, 18, 32, channels)).astype(dtype)
    x[0, 3, 4] = x[0, 3, 11] = x[0, 7, 0] = np.nan
    x[0, 8, 31] = np.inf
    x[0, 9, 15, 0] = np.nan  # the last place of its window
    y = ops.max_pool2d(x, (9, 8))
    assert_exact(y, reference.max_pool2d(x, (9, 8)), dtype)
    assert np.isnan(y[..., 0]).tolist() == [
        [[True, True, False, False], [False, True, False, False]]
    ]
    dy = rng.integers(1, 9, y.shape).astype(dtype)
    (right,) = reference.max_pool2d_backward(dy, x, (9, 8))
    assert_exact(ops.max_pool2d_backward(dy, x, (9, 8)), right, dtype)


@pytest.mark.parametrize("strides", [(1, FAR), (FAR, 1), (FAR, FAR)])
def test_strides_beyond_the_picture_need_no_memory(strides, dtype, rng):
    x = rng.normal(size=(2, 5, 6, 3)).astype(dtype)
    shape = ops.max_pool2d(x, 3, strides=strides, padding=1).shape
    assert shape == (2, 5 if strides[0] == 1 else 1, 6 if strides[1] == 1 else 1, 3)
    dy = rng.integers(1, 9, shape).astype(dtype)
    (right,) = reference.max_pool2d_backward(dy, x, 3, strides=strides, padding=1)
    assert_exact(ops.max_pool2d_backward(dy, x, 3, strides=strides, padding=1), right, dtype)
    (right,) = reference.avg_pool2d_backward(dy, x, 3, strides=strides, padding=1)
    dx = ops.avg_pool2d_backward(dy, x, 3, strides=strides, padding=1)
    assert_within(dx, right, gamma(12, dtype) * np.abs(right), dtype)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 5, 6, 7, 8, 9, 13, 16, 17, 33])
@pytest.mark.parametrize("window", [2, 3])
def test_every_second_window_of_any_number_of_channels(window, channels, dtype, rng):
    """Ties, NaN and infinities, rows and columns that no window covers."""
    for height, width in [(3, 3), (5, 4), (8, 13), (11, 6), (12, 37)]:
        x = rng.integers(-2, 3, (3, height, width, channels)).astype(dtype)
        x[rng.random(x.shape) < 0.1] = -np.inf
        x[1][rng.random(x[1].shape) < 0.05] = np.nan
        x[2][rng.random(x[2].shape) < 0.02] = np.inf
        shape = (3, (height - window) // 2 + 1, (width - window) // 2 + 1, channels)
        dy = rng.integers(-9, 10, shape).astype(dtype)
        (right,) = reference.max_pool2d_backward(dy, x, window, strides=2)
        assert_exact(ops.max_pool2d_backward(dy, x, window, strides=2), right, dtype)
        (right,) = reference.avg_pool2d_backward(dy, x, window, strides=2)
        dx = ops.avg_pool2d_backward(dy, x, window, strides=2)
        assert_within(dx, right, gamma(6, dtype) * 36, dtype)


def test_nan_reaches_the_averages_over_it_and_no_others(dtype):
    x = np.ones((1, 7, 7, 17), dtype)
    x[0, 2, 2, 5] = np.nan
    y = ops.avg_pool2d(x, 3, strides=2)
    right = np.ones((1, 3, 3, 17))
    right[0, :2, :2, 5] = np.nan
    np.testing.assert_array_equal(np.isnan(y), np.isnan(right))


def test_same_padding_is_not_counted(dtype):
    ones = np.ones((1, 5, 5, 3), dtype)
    assert_exact(ops.avg_pool2d(ones, 2, padding="same"), np.ones((1, 3, 3, 3)), dtype)


def test_strides_default_to_the_window(rng):
    x = rng.normal(size=(1, 7, 9, 3))
    assert_same_bits(ops.max_pool2d(x, (2, 3)), ops.max_pool2d(x, (2, 3), strides=(2, 3)))
    assert_same_bits(ops.avg_pool2d(x, (2, 3)), ops.avg_pool2d(x, (2, 3), strides=(2, 3)))


@pytest.mark.parametrize("window", [(2**13, 2**12), (1, 2**24 + 1)])
def test_a_window_with_more_values_than_float32_can_number(window):
    """Backward numbers a window's places in the dtype of x; float32 is exact up to 2**24."""
    x = np.zeros((1, 1, 1, 1), np.float32)
    with pytest.raises(ValueError, match=r"pool_size .* at most"):
        ops.max_pool2d(x, window, padding="same")
