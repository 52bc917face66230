"""Positive controls: each judge must catch a planted error of the kind it is there for."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import CONV2D, MAX_POOL2D, Case, arrays, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    assert_within,
    backward,
    disguises,
    expected,
    forward,
    gamma,
    guarded,
    sizes,
)


def named(table: list[Case], name: str) -> Case:
    return next(case for case in table if case.name == name)


def wrong(judge, *arguments) -> None:
    with pytest.raises(AssertionError):
        judge(*arguments)


def test_exact_sees_a_tail_that_was_not_computed():
    _, _, y, _ = expected(named(CONV2D, "tails_of_lanes"), "integers")
    assert_exact(y.copy(), y, np.float64)
    cut = y.copy()
    cut[..., 32:] = 0
    wrong(assert_exact, cut, y, np.float64)


def test_exact_sees_padding_on_the_wrong_side():
    case = named(CONV2D, "padding_uneven")
    given, _, y, _ = expected(case, "integers")
    (top, bottom), (left, right) = case.options["padding"]
    for padding in (((bottom, top), (left, right)), ((top, bottom), (right, left))):
        wrong(assert_exact, reference.conv2d(*given, padding=padding), y, np.float64)


def test_exact_sees_an_uneven_pixel_before_rather_than_after():
    case = named(CONV2D, "same_even_kernel")
    given, _, y, _ = expected(case, "integers")
    wrong(assert_exact, reference.conv2d(*given, padding=((2, 1), (1, 0))), y, np.float64)
    assert_exact(reference.conv2d(*given, padding=((1, 2), (0, 1))), y, np.float64)


def test_exact_sees_nan_shape_and_type():
    right = np.arange(6.0).reshape(2, 3)
    spoilt = right.copy()
    spoilt[1, 2] = np.nan
    wrong(assert_exact, spoilt, right, np.float64)
    wrong(assert_exact, right, spoilt, np.float64)
    assert_exact(spoilt.copy(), spoilt, np.float64)
    wrong(assert_exact, right.T, right, np.float64)
    wrong(assert_exact, right.astype(np.float32), right, np.float64)
    wrong(assert_exact, right.tolist(), right, np.float64)


@pytest.mark.parametrize("case", [case for case in CONV2D if case.shapes[0][0]], ids=str)
def test_the_bound_sees_one_product_left_out(case):
    """The bound is proven, so it may be wide; not so wide that a lost product slips through."""
    given, _, y, _ = expected(case)
    height, width, channels, _ = case.shapes[1]
    bound = gamma(height * width * channels + 1, np.float32)
    bound = bound * forward(case, sizes(given), module=reference)
    assert_within(y.astype(np.float32), y, bound, np.float32)
    lost = given[1].copy()
    lost[height // 2, width // 2, -1] = 0
    short = forward(case, [given[0], lost, given[2]], module=reference)
    wrong(assert_within, short.astype(np.float32), y, bound, np.float32)


def test_the_bound_refuses_nan_and_half_precision():
    right = np.random.default_rng(0).normal(size=100)
    bound = gamma(10, np.float32) * np.abs(right)
    assert_within(right.astype(np.float32), right, bound, np.float32)
    wrong(assert_within, right.astype(np.float16).astype(np.float32), right, bound, np.float32)
    spoilt = right.astype(np.float32)
    spoilt[99] = np.nan
    wrong(assert_within, spoilt, right, bound, np.float32)


def test_same_bits_sees_the_last_bit_and_the_sign_of_zero():
    right = np.array([1.0, 0.0], np.float32)
    assert_same_bits(right.copy(), right)
    wrong(assert_same_bits, np.nextafter(right, np.float32(2)), right)
    wrong(assert_same_bits, np.array([1.0, -0.0], np.float32), right)


@pytest.mark.parametrize("which", [0, 1, 2])
def test_differences_see_one_wrong_value_in_any_gradient(which):
    case = named(CONV2D, "prime_sizes")
    given = arrays(case)
    y = forward(case, given, module=reference)
    dy = upstream(case, y.shape)
    gradients = list(backward(case, dy, given, module=reference))

    def run(changed):
        return forward(case, changed, module=reference)

    assert_gradients_match_differences(run, gradients, given, dy)
    gradients[which] = gradients[which].copy()
    gradients[which].flat[-1] += 0.01
    wrong(assert_gradients_match_differences, run, gradients, given, dy)


def test_differences_see_a_gradient_sent_to_the_last_maximum():
    case = named(MAX_POOL2D, "overlapping")
    given = arrays(case)
    y = forward(case, given, module=reference)
    dy = upstream(case, y.shape)
    (right,) = backward(case, dy, given, module=reference)

    def run(changed):
        return forward(case, changed, module=reference)

    assert_gradients_match_differences(run, [right], given, dy)
    shifted = np.roll(right, 1, axis=2)
    wrong(assert_gradients_match_differences, run, [shifted], given, dy)


def test_ties_tell_the_first_maximum_from_the_last():
    case = named(MAX_POOL2D, "overlapping")
    given, dy, _, (right,) = expected(case, "ties")
    turned = [given[0][:, ::-1, ::-1]]
    (last,) = backward(case, dy[:, ::-1, ::-1], turned, module=reference)
    wrong(assert_exact, last[:, ::-1, ::-1], right, np.float64)


def test_guards_notice_a_write_on_either_side():
    for place in (66, 67 + 6):
        array, intact = guarded(np.zeros((2, 3), np.float32))
        assert intact()
        array.base[place] = 1
        assert not intact()


def test_disguises_have_the_same_values_in_other_memory():
    array = np.random.default_rng(0).normal(size=(2, 3, 5)).astype(np.float32)
    kinds = dict(disguises(array))
    for disguised in kinds.values():
        np.testing.assert_array_equal(disguised, array)
    assert not kinds["read-only"].flags.writeable
    assert not kinds["byte-swapped"].dtype.isnative
    assert not kinds["unaligned"].flags.aligned
    for name in ("Fortran order", "every other value", "negative strides"):
        assert not kinds[name].flags.c_contiguous
