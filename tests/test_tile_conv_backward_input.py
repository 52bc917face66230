"""The convolution's gradient of its input on tiles."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import reference
import winograd
from cases import CONV2D, Case, conv, upstream
from checkers import assert_exact, assert_within, backward, expected, gamma, guarded, sizes
from tiles import TILE, from_tiles, gradient_to_tiles

from convkit import _core, geometry

pytestmark = pytest.mark.usefixtures("backend")

# What the shared table lacks: blocks of pixels and channels that end within a block.
MORE = [
    conv("blocks_of_pixels", (1, 3, 23, 4), (3, 3, 4, 5), padding="same"),
    conv("seven_channels", (1, 6, 5, 7), (2, 4, 7, 3)),
    conv("one_pixel_seen", (1, 9, 9, 6), (1, 1, 6, 16), strides=9),
    conv("strided_blocks", (1, 7, 31, 6), (4, 5, 6, 3), strides=(2, 3), padding=((2, 0), (1, 3))),
    conv("depthwise_strided", (1, 7, 9, 20), (3, 2, 1, 20), groups=20, strides=2, padding=1),
    conv("depthwise_dilated", (1, 9, 8, 3), (3, 3, 1, 3), groups=3, dilation_rate=(2, 3)),
    # Winograd's windows of 2 x 2: sizes that they do not fill, borders on every side.
    conv("windows_even", (1, 14, 14, 24), (3, 3, 24, 40), padding="same"),
    conv("windows_valid", (1, 16, 14, 48), (3, 3, 48, 33)),
    conv("windows_prime_channels", (1, 14, 15, 17), (3, 3, 17, 37), padding=1),
    conv("windows_padded", (1, 13, 14, 40), (3, 3, 40, 40), padding=2),
    conv("windows_uneven", (1, 12, 13, 40), (3, 3, 40, 40), padding=((0, 2), (3, 1))),
    conv("windows_small", (1, 7, 7, 64), (3, 3, 64, 64), padding="same"),
    conv("large_windows_even", (1, 12, 14, 24), (5, 5, 24, 40), padding="same"),
    conv("large_windows_uneven", (1, 12, 13, 33), (5, 5, 33, 24), padding=((0, 4), (3, 1))),
    conv("large_windows_prime_channels", (1, 9, 11, 17), (5, 5, 17, 37), padding=4),
]
SAMPLES = (5, 16, 37, 1)
CASES = [
    case.batch(n)
    for case, n in zip([*CONV2D, *MORE], itertools.cycle(SAMPLES), strict=False)
    if case.shapes[0][0]
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.shapes[0][0]}")


def spec_of(case: Case):
    options = case.options
    return geometry.conv2d(
        "conv2d",
        *case.shapes,
        options.get("strides", 1),
        options.get("padding", "valid"),
        options.get("dilation_rate", 1),
        options.get("groups", 1),
    )[0]


def run(case: Case, dy: np.ndarray, kernel: np.ndarray, dtype: type) -> np.ndarray:
    """dx, from arrays with NaN around them into one full of NaN."""
    n, *shape = case.shapes[0]
    dx, dx_intact = guarded(np.full((-(-n // TILE), *shape, TILE), np.nan, dtype))
    tiles, dy_intact = guarded(gradient_to_tiles(dy.astype(dtype)))
    weights, kernel_intact = guarded(kernel.astype(dtype))
    name = np.dtype(dtype).name
    spec = spec_of(case)
    _core.run_kernel("tile_conv2d_backward_input", spec, n, name, [tiles, weights], [dx])
    assert dx_intact() and dy_intact() and kernel_intact()
    dead = np.moveaxis(dx, -1, 1).reshape(-1, *shape)[n:]
    assert np.isfinite(dead).all(), "lanes without a sample"
    return from_tiles(dx, n)


def may_round(case: Case, dy: np.ndarray, kernel: np.ndarray, dtype: type) -> np.ndarray | None:
    """By how much dx may be wrong where Winograd's large windows may be used; else None."""
    spec = spec_of(case)
    if not winograd.may_be_used(spec):
        return None
    return winograd.bound(*winograd.of_gradient(dy, kernel, spec), dtype)


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, _, gradients = expected(case, "integers")
    wrong = may_round(case, dy, given[1], dtype)
    dx = run(case, dy, given[1], dtype)
    if wrong is None:
        assert_exact(dx, gradients[0], dtype)
    else:
        assert_within(dx, gradients[0], wrong, dtype)


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, _, gradients = expected(case)
    height, width, _, filters = case.shapes[1]
    count = height * width * filters // case.options.get("groups", 1)
    scale = backward(case, np.abs(dy), sizes(given), module=reference)[0]
    wrong = may_round(case, dy, given[1], dtype)
    limit = gamma(count, dtype) * scale if wrong is None else wrong
    assert_within(run(case, dy, given[1], dtype), gradients[0], limit, dtype)


@pytest.mark.parametrize(
    "name",
    [
        "prime_sizes",
        "depthwise_strided",
        "groups_same_strided",
        "windows_valid",
        "large_windows_uneven",
    ],
)
def test_samples_do_not_depend_on_their_number(name, dtype):
    case = next(case for case in CASES if case.name == name).batch(37)
    given, dy, _, _ = expected(case)
    all_at_once = run(case, dy, given[1], dtype)
    for n in SAMPLES:
        alone = run(case.batch(n), dy[:n], given[1], dtype)
        assert alone.tobytes() == np.ascontiguousarray(all_at_once[:n]).tobytes()


@pytest.mark.parametrize(
    "name",
    [
        "strides_differ",
        "depthwise_strided",
        "windows_valid",
        "windows_uneven",
        "large_windows_uneven",
    ],
)
def test_nan_reaches_the_pixels_that_took_part_and_no_others(name, dtype):
    case = next(case for case in CASES if case.name == name).batch(18)
    given, dy, _, _ = expected(case)
    dy = dy.copy()
    dy[17, 2, 3, 1] = np.nan
    right = backward(case, dy, given, module=reference)[0]
    assert 0 < np.isnan(right).sum() < right[17].size
    dx = run(case, dy, given[1], dtype)
    np.testing.assert_array_equal(np.isnan(dx), np.isnan(right))


def test_pixels_that_no_output_sees_are_zero(dtype):
    case = conv("rows_never_read", (3, 8, 9, 3), (3, 3, 3, 4), strides=4)
    given, _, y, _ = expected(case)
    dx = run(case, upstream(case, y.shape), given[1], dtype)
    assert not dx[:, 3].any() and not dx[:, 7].any() and not dx[:, :, 3].any()
    assert math.prod(dx[:, :3, :3].shape) == np.count_nonzero(dx[:, :3, :3])


def test_no_samples_are_no_work(dtype):
    case = conv("empty_batch", (0, 6, 7, 3), (3, 3, 3, 6), padding="same")
    assert run(case, np.zeros((0, 6, 7, 6)), np.ones((3, 3, 3, 6)), dtype).shape == (0, 6, 7, 3)
