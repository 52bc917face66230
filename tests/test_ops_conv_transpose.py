"""conv2d_transpose, depthwise_conv2d, separable_conv2d and their gradients."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import reference
from cases import CONV2D_TRANSPOSE, DEPTHWISE_CONV2D, SEPARABLE_CONV2D, Case, arrays, upstream
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

CASES = [*CONV2D_TRANSPOSE, *DEPTHWISE_CONV2D, *SEPARABLE_CONV2D]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


def find(op: str, name: str) -> Case:
    return next(case for case in CASES if case.op == op and case.name == name)


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


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, gradients = expected(case)
    # No value has more terms, in all convolutions together: one for each weight, pixel of dy or
    # pixel of x.
    count = sum(a.size for a in given[1:] if a is not None) + dy.size + given[0].size
    bound = gamma(count, dtype) * forward(case, sizes(given), module=reference)
    assert_within(forward(case, narrowed(given, dtype)), y, bound, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    scales = backward(case, np.abs(dy), sizes(given), module=reference)
    for actual, right, scale in zip(found, gradients, scales, strict=True):
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
    dx, *rest = backward(case, dy, given)
    found = backward(case, to_first(dy), swapped, data_format="channels_first")
    assert_same_bits(to_last(found[0]), dx)
    for one, other in zip(found[1:], rest, strict=True):
        if other is None:
            assert one is None
        else:
            assert_same_bits(one, other)


ACTIVATED = [
    replace(find(op, name), options={**find(op, name).options, "activation": activation})
    for op, name in (
        ("conv2d_transpose", "strided_same"),
        ("conv2d_transpose", "no_bias"),
        ("depthwise_conv2d", "multiplied"),
        ("separable_conv2d", "strided"),
    )
    for activation in ("linear", "relu", "tanh")
]


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("case", ACTIVATED, ids=lambda c: f"{c}-{c.options['activation']}")
def test_activation_equals_the_op_after_it(case, data_format, dtype):
    given = arrays(case, dtype)
    given[0] = given[0] / 64
    if data_format == "channels_first":
        given = channels_first(case, given)
    plain = replace(case, options={**case.options, "activation": None})
    name = case.options["activation"]
    z = forward(plain, given, data_format=data_format)
    y = forward(case, given, data_format=data_format)
    assert_same_bits(y, z if name == "linear" else getattr(ops, name)(z))
    dy = upstream(case, y.shape, dtype)
    dz = dy if name == "linear" else getattr(ops, f"{name}_backward")(dy, z)
    rights = backward(plain, dz, given, data_format=data_format)
    for one, right in zip(backward(case, dy, given, data_format=data_format), rights, strict=True):
        if right is not None:
            assert_same_bits(one, right)


@pytest.mark.parametrize("case", ACTIVATED[1::3], ids=str)
def test_gradients_through_an_activation_match_differences(case):
    case = replace(case, options={**case.options, "activation": "tanh"})
    given = arrays(case, np.float64)
    given[0] = given[0] / 16
    y = forward(case, given)
    dy = upstream(case, y.shape)
    gradients = backward(case, dy, given)
    assert_gradients_match_differences(lambda a: forward(case, a), gradients, given, dy)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize("op", ["conv2d_transpose", "depthwise_conv2d", "separable_conv2d"])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_results_go_where_they_are_wanted(op, activation, data_format, dtype):
    case = find(op, "prime_sizes")
    case = replace(case, options={**case.options, "activation": activation})
    given = arrays(case, dtype)
    if data_format == "channels_first":
        given = channels_first(case, given)
    right = forward(case, given, data_format=data_format)
    out = np.full_like(right, np.nan)
    assert forward(case, given, data_format=data_format, out=out) is out
    assert_same_bits(out, right)
    dy = upstream(case, right.shape, dtype)
    rights = backward(case, dy, given, data_format=data_format)
    outs = tuple(np.full_like(value, np.nan) for value in rights)
    found = backward(case, dy, given, data_format=data_format, out=outs)
    for one, other, value in zip(found, outs, rights, strict=True):
        assert one is other
        assert_same_bits(one, value)


@pytest.mark.parametrize("op", ["conv2d_transpose", "depthwise_conv2d", "separable_conv2d"])
def test_gradients_nobody_needs_are_left_out(op, dtype):
    case = find(op, "prime_sizes")
    given = arrays(case, dtype)
    y = forward(case, given)
    full = backward(case, y, given)
    for which in range(len(given)):
        needs = tuple(i == which for i in range(len(given)))
        found = backward(case, y, given, needs=needs)
        assert [g is not None for g in found] == list(needs)
        assert_same_bits(found[which], full[which])


def test_it_is_the_gradient_of_the_convolution(rng):
    for strides, padding in ((1, "valid"), (2, "valid"), (2, "same"), (3, "same")):
        image, kernel = rng.normal(size=(2, 12, 12, 3)), rng.normal(size=(3, 3, 3, 5))
        y = ops.conv2d(image, kernel, strides=strides, padding=padding)
        dx, _, _ = ops.conv2d_backward(y, image, kernel, strides=strides, padding=padding)
        # What no window covers is in no output of the transposed one without output_padding.
        back = ops.conv2d_transpose(y, kernel, strides=strides, padding=padding)
        height, width = min(back.shape[1], 12), min(back.shape[2], 12)
        np.testing.assert_allclose(
            back[:, :height, :width], dx[:, :height, :width], rtol=0, atol=1e-12
        )


def test_a_nan_reaches_its_window_and_nothing_else(dtype):
    x = np.ones((1, 4, 4, 2), dtype)
    x[0, 1, 2, 0] = np.nan
    y = ops.conv2d_transpose(x, np.ones((2, 2, 3, 2), dtype), strides=2)
    right = np.zeros(y.shape, bool)
    right[:, 2:4, 4:6] = True
    np.testing.assert_array_equal(np.isnan(y), right)


def test_an_empty_batch_has_zero_gradients_for_weights(dtype):
    for op in ("conv2d_transpose", "depthwise_conv2d", "separable_conv2d"):
        case = find(op, "empty_batch")
        given = arrays(case, dtype)
        y = forward(case, given)
        assert y.shape[0] == 0
        dx, *rest = backward(case, y, given)
        assert dx.shape == given[0].shape
        for gradient, shape in zip(rest, case.shapes[1:], strict=True):
            assert_exact(gradient, np.zeros(shape), dtype)


X, KERNEL = np.ones((2, 5, 6, 3)), np.ones((3, 3, 4, 3))


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: ops.conv2d_transpose(X[0], KERNEL), ValueError, "x of shape"),
        (lambda: ops.conv2d_transpose(X, KERNEL[0]), ValueError, "kernel of shape"),
        (lambda: ops.conv2d_transpose(X, KERNEL[..., :2]), ValueError, "for 3 channels"),
        (lambda: ops.conv2d_transpose(X, KERNEL, np.ones(3)), ValueError, "bias of shape"),
        (lambda: ops.conv2d_transpose(X, KERNEL, padding="full"), ValueError, "padding"),
        (lambda: ops.conv2d_transpose(X, KERNEL, padding=1), ValueError, "padding"),
        (lambda: ops.conv2d_transpose(X, KERNEL, strides=0), ValueError, "strides"),
        (lambda: ops.conv2d_transpose(X, KERNEL, strides="two"), TypeError, "strides"),
        (lambda: ops.conv2d_transpose(X, KERNEL, output_padding=1), ValueError, "smaller than"),
        (
            lambda: ops.conv2d_transpose(X, KERNEL, strides=2, output_padding=(1, 2)),
            ValueError,
            "smaller than",
        ),
        (lambda: ops.conv2d_transpose(X, KERNEL, dilation_rate=0), ValueError, "dilation_rate"),
        (lambda: ops.conv2d_transpose(X, KERNEL, activation="rely"), ValueError, "activation"),
        (lambda: ops.conv2d_transpose(X[:, :0], KERNEL), ValueError, "at least 1 x 1"),
        (lambda: ops.conv2d_transpose(X, KERNEL[:0]), ValueError, "sizes of at least 1"),
        (
            lambda: ops.conv2d_transpose(
                X[:, :1], KERNEL[:2], padding="same", strides=2, output_padding=0
            ),
            ValueError,
            "an output of at least",
        ),
        (lambda: ops.conv2d_transpose(X, KERNEL, out=X), ValueError, "out of shape"),
        (lambda: ops.conv2d_transpose(X, None), TypeError, "kernel to be an array"),
        (lambda: ops.conv2d_transpose_backward(X, X, KERNEL), ValueError, "dy of shape"),
        (lambda: ops.depthwise_conv2d(X, KERNEL), ValueError, "kernel of shape"),
        (lambda: ops.depthwise_conv2d(X, KERNEL[0]), ValueError, "kernel of shape"),
        (lambda: ops.depthwise_conv2d(X[0], KERNEL), ValueError, "x of shape"),
        (
            lambda: ops.separable_conv2d(X, KERNEL[:, :, :3], KERNEL),
            ValueError,
            r"pointwise_kernel of shape \(1, 1, 9, filters\)",
        ),
        (lambda: ops.separable_conv2d(X, KERNEL[:, :, :3], X[0]), ValueError, "pointwise_kernel"),
    ],
)
def test_what_does_not_fit_is_named(call, error, message):
    with pytest.raises(error, match=message):
        call()
