"""conv2d and its gradients."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import CONV2D, CONV2D_LARGE, Case, arrays, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
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

every_case = pytest.mark.parametrize("case", CONV2D, ids=lambda case: case.name)


def products(case: Case, y: np.ndarray) -> tuple[int, int, int]:
    """How many values are added up, at most, for one value of y, dx, and dkernel or dbias."""
    height, width, channels, filters = case.shapes[1]
    groups = case.options.get("groups", 1)
    return height * width * channels + 1, height * width * filters // groups, y[..., 0].size


@every_case
@pytest.mark.usefixtures("direct_sums")
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        if right is None:
            assert actual is None
        else:
            assert_exact(actual, right, dtype)


@pytest.mark.parametrize("case", [*CONV2D, *CONV2D_LARGE], ids=lambda case: case.name)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, gradients = expected(case)
    counts = products(case, y)
    bound = gamma(counts[0], dtype) * forward(case, sizes(given), module=reference)
    assert_within(forward(case, narrowed(given, dtype)), y, bound, dtype)

    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    scales = backward(case, np.abs(dy), sizes(given), module=reference)
    counts = (counts[1], counts[2], counts[2])
    for actual, right, scale, count in zip(found, gradients, scales, counts, strict=True):
        if right is not None:
            assert_within(actual, right, gamma(count, dtype) * scale, dtype)


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
    dx, dkernel, dbias = backward(case, dy, given)
    found = backward(case, to_first(dy), swapped, data_format="channels_first")
    assert_same_bits(to_last(found[0]), dx)
    assert_same_bits(found[1], dkernel)
    if dbias is not None:
        assert_same_bits(found[2], dbias)


ACTIVATED = [
    replace(case, options={**case.options, "activation": name}, name=f"{case.name}_{name}")
    for case in CONV2D
    if case.name in ("prime_sizes", "padding_uneven", "no_bias", "depthwise", "empty_batch")
    for name in ("linear", "relu", "leaky_relu", "sigmoid", "tanh", "exp")
]


@pytest.mark.parametrize("case", ACTIVATED, ids=lambda case: case.name)
def test_activation_equals_the_op_after_it(case, dtype):
    given = arrays(case, dtype, "integers")
    plain = replace(case, options={**case.options, "activation": None})
    name = case.options["activation"]
    given[0] = given[0] / 64  # keeps exp in range; sums stay exact
    z = forward(plain, given)
    after = z if name == "linear" else getattr(ops, name)(z)
    y = forward(case, given)
    assert_within(y, after.astype(np.float64), gamma(8, dtype) * np.abs(after), dtype)

    dy = upstream(case, y.shape, dtype)
    dz = dy if name == "linear" else getattr(ops, f"{name}_backward")(dy, z)
    found = backward(case, dy, given)
    scales = backward(plain, np.abs(dz), sizes(given))
    counts = products(case, z)
    counts = (counts[1] + 8, counts[2] + 8, counts[2] + 8)
    rights = backward(plain, dz, given)
    for actual, right, scale, count in zip(found, rights, scales, counts, strict=True):
        if right is not None:
            bound = 2 * gamma(count, dtype) * scale.astype(np.float64)
            assert_within(actual, right.astype(np.float64), bound, dtype)


@pytest.mark.parametrize(
    "case", [case for case in ACTIVATED if case.shapes[0][0]], ids=lambda case: case.name
)
def test_gradients_through_an_activation_match_differences(case):
    given = arrays(case, np.float64)
    given[1] = given[1] / math.prod(case.shapes[1][:3])  # keeps exp in range
    y = forward(case, given)
    dy = upstream(case, y.shape)
    gradients = backward(case, dy, given)
    assert_gradients_match_differences(lambda a: forward(case, a), gradients, given, dy)


def test_nan_reaches_the_windows_over_it_and_no_others(dtype):
    case = next(case for case in CONV2D if case.name == "padding_uneven")
    given = arrays(case, dtype)
    given[0][0, 2, 3, 1] = np.nan
    y = forward(case, given, module=reference)
    assert 0 < np.isnan(y).sum() < y.size
    np.testing.assert_array_equal(np.isnan(forward(case, given)), np.isnan(y))


def test_nan_in_dy_reaches_the_gradients_it_takes_part_in(dtype):
    case = next(case for case in CONV2D if case.name == "strides_differ")
    given = arrays(case, dtype)
    y = forward(case, given)
    dy = upstream(case, y.shape, dtype)
    dy[1, 2, 3, 4] = np.nan
    rights = backward(case, dy, given, module=reference)
    for actual, right in zip(backward(case, dy, given), rights, strict=True):
        assert 0 < np.isnan(right).sum() < right.size
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(right))


def test_an_empty_batch_has_zero_gradients_for_weights(dtype):
    case = next(case for case in CONV2D if case.name == "empty_batch")
    given = arrays(case, dtype)
    y = forward(case, given)
    assert y.shape == (0, 6, 7, 6)
    dx, dkernel, dbias = backward(case, y, given)
    assert dx.shape == given[0].shape
    assert_exact(dkernel, np.zeros(case.shapes[1]), dtype)
    assert_exact(dbias, np.zeros(case.shapes[2]), dtype)


def test_a_vertical_edge_in_the_lecture_image(dtype):
    image = np.zeros((1, 6, 6, 1), dtype)
    image[:, :, :3] = 10
    kernel = np.tile(np.array([1, 0, -1], dtype), (3, 1)).reshape(3, 3, 1, 1)
    y = ops.conv2d(image, kernel)
    np.testing.assert_array_equal(y[0, :, :, 0], [[0, 30, 30, 0]] * 4)


@pytest.mark.parametrize("taps", [1, 3])
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(rng, taps, dtype):
    x = rng.standard_normal((40, 5, 6, 33)).astype(dtype)
    kernel, bias = (
        rng.standard_normal(shape).astype(dtype) for shape in ((taps, taps, 33, 96), (96,))
    )
    options = {"strides": 2 if taps == 3 else 1, "padding": "same"}
    y = ops.conv2d(x, kernel, bias, **options)
    for count in (1, 2, 3):
        assert_same_bits(ops.conv2d(x[:count], kernel, bias, **options), y[:count])


def test_padding_may_be_given_in_several_ways(rng):
    x, kernel = rng.normal(size=(1, 6, 7, 2)), rng.normal(size=(3, 3, 2, 4))
    full = ops.conv2d(x, kernel, padding=((1, 1), (1, 1)))
    for same in (1, (1, 1), [1, 1], [[1, 1], [1, 1]], "same", np.int64(1)):
        assert_same_bits(ops.conv2d(x, kernel, padding=same), full)
    none = ops.conv2d(x, kernel)
    for same in (0, (0, 0), "valid", ((0, 0), (0, 0))):
        assert_same_bits(ops.conv2d(x, kernel, padding=same), none)
