"""pad2d, crop2d, permute, repeat and their gradients: copies, and sums of a few integers."""

from __future__ import annotations

import numpy as np
import pytest
from cases import CROP2D, MOVE_LARGE, PAD2D, PERMUTE, REPEAT
from checkers import (
    assert_exact,
    assert_same_bits,
    backward,
    check_differences,
    expected,
    forward,
    guarded,
    narrowed,
    to_first,
    to_last,
)
from tiles import from_tiles, to_tiles

from convkit import _core, geometry, ops

pytestmark = pytest.mark.usefixtures("backend")

ALL = [*PAD2D, *CROP2D, *PERMUTE, *REPEAT]
every_case = pytest.mark.parametrize("case", [*ALL, *MOVE_LARGE], ids=str)


@every_case
def test_values_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    out, untouched = guarded(np.full(y.shape, np.nan, dtype))
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    assert_exact(forward(case, narrowed(given, dtype), out=out), y, dtype)
    assert untouched()
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        assert_exact(actual, right, dtype)


@pytest.mark.parametrize("case", ALL, ids=str)
def test_gradients_match_differences(case):
    check_differences(case)


@pytest.mark.parametrize("case", [*PAD2D, *CROP2D], ids=str)
def test_channels_first(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    x, dy = (to_first(array.astype(dtype)) for array in (given[0], dy))
    found = forward(case, [x], data_format="channels_first")
    assert_exact(to_last(found), y, dtype)
    (dx,) = backward(case, dy, [x], data_format="channels_first")
    assert_exact(to_last(dx), gradients[0], dtype)


def test_every_bit_is_copied(dtype):
    x = np.array([np.nan, np.inf, -0.0, -np.inf, 1e-30, 7], dtype).reshape(1, 2, 3, 1)
    assert_same_bits(ops.crop2d(ops.pad2d(x, ((1, 2), (3, 0))), ((1, 2), (3, 0))), x)
    assert_same_bits(ops.permute(x, (2, 1, 3)), np.ascontiguousarray(x.transpose(0, 2, 1, 3)))
    assert_same_bits(ops.repeat(x, 2, axis=1), np.repeat(x, 2, axis=1))


def test_an_unchanged_order_is_a_copy(dtype):
    x = np.ones((2, 3, 4), dtype)
    y = ops.permute(x, (1, 2))
    y[...] = 7
    assert_exact(x, np.ones((2, 3, 4)), dtype)


@pytest.mark.parametrize("case", [*PAD2D, *PERMUTE], ids=str)
@pytest.mark.parametrize("n", [1, 16, 19])
def test_a_tile_is_a_sample_with_more_channels(case, n, dtype, rng):
    """As the programs call these kernels, depth-first."""
    x = rng.normal(size=(n, *case.shapes[0][1:])).astype(dtype)
    right = forward(case, [x])
    tiles = to_tiles(x)
    if case.op == "pad2d":
        spec, _ = geometry.pad2d("pad2d", x.shape, case.options["padding"])
        spec = with_values(spec, channels=16 * spec.channels)
    else:
        spec, _ = geometry.permute("permute", x.shape, case.options["axes"])
        spec = with_values(spec, inner=16 * spec.inner)
    shape = (len(tiles), *right.shape[1:], 16)
    (y,) = _core.run_kernel(case.op, spec, len(tiles), np.dtype(dtype).name, [tiles], [shape])
    assert_same_bits(from_tiles(y, n), right)


def with_values(spec, **changed):
    names = [name for name in dir(spec) if not name.startswith("_")]
    values = {name: getattr(spec, name) for name in names}
    return type(spec)(**{k: v for k, v in values.items() if isinstance(v, int)} | changed)


X = np.zeros((2, 5, 6, 3), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: ops.pad2d(X[0], 1), "pad2d: expected x of shape (N, H, W, C), got (5, 6, 3)"),
        (lambda: ops.pad2d(X, -1), "pad2d: expected padding to be at least 0, got -1"),
        (lambda: ops.pad2d(X, (1, 2, 3)), "pad2d: expected padding to be an integer, a pair or"),
        (lambda: ops.pad2d(X, 1.5), "pad2d: expected padding to be an integer or two"),
        (lambda: ops.pad2d(X, ((1, 2, 3), 1)), "pad2d: expected padding to be an integer or two"),
        (lambda: ops.pad2d(X, 2**31), "pad2d: expected padding to be at most"),
        (lambda: ops.pad2d(X, 1, data_format="HWC"), "pad2d: expected data_format to be one of"),
        (lambda: ops.pad2d_backward(X, X, 1), "pad2d_backward: expected dy of shape (2, 7, 8, 3)"),
        (lambda: ops.crop2d(X, (2, 3)), "crop2d: expected cropping that leaves a part of 5 x 6"),
        (lambda: ops.crop2d(X, ((5, 0), 0)), "crop2d: expected cropping that leaves a part of"),
        (lambda: ops.crop2d(X, "same"), "crop2d: expected cropping to be an integer or two"),
        (lambda: ops.crop2d_backward(X, X, 1), "crop2d_backward: expected dy of shape (2, 3, 4"),
        (lambda: ops.permute(X, (1, 2)), "permute: expected axes that are 1 .. 3 in some order"),
        (lambda: ops.permute(X, (0, 1, 2)), "permute: expected each of axes to be at least 1"),
        (lambda: ops.permute(X, (1, 2, 2)), "permute: expected axes that are 1 .. 3 in some"),
        (lambda: ops.permute(X, 1), "permute: expected axes that are 1 .. 3 in some order"),
        (
            lambda: ops.permute(np.zeros((1, 2, 2, 2, 2, 2)), (5, 4, 3, 2, 1)),
            "permute: expected at most 4 axes that change places",
        ),
        (
            lambda: ops.permute_backward(X, X, (2, 1, 3)),
            "permute_backward: expected dy of shape (2, 6, 5, 3)",
        ),
        (lambda: ops.repeat(X, 0), "repeat: expected repeats to be at least 1, got 0"),
        (lambda: ops.repeat(X, 2, axis=4), "repeat: expected axis between -4 and 3, got 4"),
        (lambda: ops.repeat(np.float32(3), 2), "repeat: expected x with at least one axis"),
        (lambda: ops.repeat_backward(X, X, 2), "repeat_backward: expected dy of shape (2, 5, 6, 6"),
    ],
)
def test_what_does_not_fit_is_said(call, message):
    with pytest.raises((ValueError, TypeError)) as caught:
        call()
    assert str(caught.value).startswith(message)
