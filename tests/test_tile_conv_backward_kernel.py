"""The gradients of a convolution's kernel and bias on tiles."""

from __future__ import annotations

import numpy as np
import pytest
import reference
from cases import CONV2D, Case, conv, values
from checkers import (
    assert_exact,
    assert_same_bits,
    assert_within,
    backward,
    expected,
    gamma,
    narrowed,
    sizes,
)
from tiles import TILE, Descent, gradient_to_tiles, to_tiles

from convkit import _core, geometry

pytestmark = pytest.mark.usefixtures("backend")

# Filters in the lanes in blocks of every width, alone and with others left over; short and long
# runs of terms; so many rows that they are taken in several bands.
WIDTHS = [
    conv(f"filters_{filters}", (5, 6, 7, channels), (3, 3, channels, filters), padding="same")
    for filters, channels in (
        (8, 10),
        (10, 3),
        (16, 6),
        (20, 5),
        (24, 17),
        (40, 8),
        (50, 3),
        (84, 2),
        (120, 3),
    )
]
BANDS = [
    conv("bands_one_channel", (3, 61, 40, 1), (5, 5, 1, 6), padding="same"),
    conv("bands_few_filters", (2, 47, 31, 9), (3, 3, 9, 3), strides=(1, 2)),
    conv("bands_filters_in_lanes", (2, 43, 41, 6), (3, 3, 6, 16), padding=1),
    conv("bands_half_register", (2, 53, 41, 8), (3, 3, 8, 8), padding=1),
]
MORE = [
    conv("one_pixel", (3, 5, 5, 16), (5, 5, 16, 21)),
    conv("wide_groups", (2, 7, 6, 40), (3, 3, 20, 70), groups=2, dilation_rate=2, padding=(3, 2)),
    conv("beyond_the_picture", (2, 3, 2, 3), (3, 3, 3, 17), padding=5),
]
BATCHES = [
    case
    for case in [*CONV2D, *WIDTHS, *BANDS]
    if case.name
    in (
        "prime_sizes",
        "padding_uneven",
        "groups",
        "dilated_strided",
        "lenet_first",
        "lenet_second",
        "filters_24",
        "filters_50",
        "bands_half_register",
    )
]
every_case = pytest.mark.parametrize("case", [*CONV2D, *WIDTHS, *MORE], ids=lambda case: case.name)


def spec_of(case: Case):
    options = {"strides": 1, "padding": "valid", "dilation_rate": 1, "groups": 1, **case.options}
    return geometry.conv2d("conv2d", *case.shapes[:2], None, **options)[0]


def gradients(case: Case, dy: np.ndarray, x: np.ndarray, before: list) -> list:
    """What the kernel leaves in copies of `before` (dkernel, dbias or None)."""
    spec, n = spec_of(case), len(x)
    inputs = [gradient_to_tiles(dy), to_tiles(x)] if n else [dy, x]
    outputs = [None if array is None else array.copy() for array in before]
    name = "tile_conv2d_backward_kernel"
    return _core.run_kernel(name, spec, n, str(x.dtype), inputs, outputs)


def zeros(case: Case, dtype: type) -> list:
    return [None if shape is None else np.zeros(shape, dtype) for shape in case.shapes[1:]]


@every_case
def test_integers_are_added_exactly(case, dtype):
    given, dy, _, (_, *rights) = expected(case, "integers")
    rng = np.random.default_rng(1)
    before = [
        None if array is None else values(array.shape, "integers", rng).astype(dtype)
        for array in zeros(case, dtype)
    ]
    found = gradients(case, dy.astype(dtype), given[0].astype(dtype), before)
    for actual, right, held in zip(found, rights, before, strict=True):
        if held is None:
            assert actual is None
        else:
            assert_exact(actual, right + held, dtype)


@every_case
def test_the_first_tiles_of_a_program_store_their_sums(case, dtype):
    case = case.batch(37 if case.shapes[0][1] < 20 else 18)
    given, dy, _, (_, *rights) = expected(case, "integers")
    x, dy = given[0].astype(dtype), dy.astype(dtype)
    kernel, bias = "tile_conv2d_backward_kernel", "bias" if rights[1] is not None else None
    found = Descent(kernel, spec_of(case), x, dy, [("kernel", bias)]).run(len(x), len(x))
    for actual, right in zip(found.values(), rights, strict=False):
        assert_exact(actual, right.ravel(), dtype)


@pytest.mark.parametrize("n", [1, 5, 16, 37])
@pytest.mark.parametrize("case", BATCHES, ids=lambda case: case.name)
def test_any_number_of_samples(case, n, dtype):
    case = case.batch(n)
    given, dy, _, (_, *rights) = expected(case, "integers")
    found = gradients(case, dy.astype(dtype), given[0].astype(dtype), zeros(case, dtype))
    for actual, right in zip(found, rights, strict=True):
        assert_exact(actual, right, dtype)


@pytest.mark.parametrize("case", [*CONV2D, *WIDTHS, *BANDS, *MORE], ids=lambda case: case.name)
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (_, *rights) = expected(case)
    found = gradients(case, dy.astype(dtype), given[0].astype(dtype), zeros(case, dtype))
    _, *scales = backward(case, np.abs(dy), sizes(given), module=reference)
    for actual, right, scale in zip(found, rights, scales, strict=True):
        if right is not None:
            bound = gamma(y[..., 0].size + TILE, dtype) * scale
            assert_within(actual, right, bound, dtype)


@every_case
def test_dkernel_needs_no_dbias(case):
    (given, dy), dtype = expected(case)[:2], np.float32
    x, dy = given[0].astype(dtype), dy.astype(dtype)
    dkernel, dbias = zeros(case, dtype)[0], np.zeros(case.shapes[1][3], dtype)
    with_bias = gradients(case, dy, x, [dkernel, dbias])
    without = gradients(case, dy, x, [dkernel, None])
    assert_same_bits(without[0], with_bias[0])


@pytest.mark.parametrize("filters", [5, 8, 16, 33])
def test_nan_reaches_the_gradients_it_takes_part_in_and_no_others(filters, dtype):
    case = conv("nan", (3, 8, 9, 3), (3, 3, 3, filters), strides=2)
    given, dy, _, _ = expected(case)
    x, dy = given[0].astype(dtype), dy.astype(dtype)
    x[1, 0, 2, 1] = np.nan
    dy[2, 1, 3, filters - 1] = np.nan
    _, *rights = backward(case, dy, [x, *narrowed(given[1:], dtype)], module=reference)
    for actual, right in zip(gradients(case, dy, x, zeros(case, dtype)), rights, strict=True):
        assert 0 < np.isnan(right).sum() < right.size
        np.testing.assert_array_equal(np.isnan(actual), np.isnan(right))
