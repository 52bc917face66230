"""Convolutions and dense layers of float32 with factors rounded for tensor cores, on devices.

Factors are rounded to p bits of fraction, each by at most 2 ** -(p + 1) of its size; their products
and sums are float32. A GPU may cut off where it adds rather than round, hence the more for sums.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import pytest
import reference
from cases import CONV2D_LARGE, Case, arrays, conv, dense, upstream
from checkers import (
    assert_exact,
    assert_same_bits,
    assert_within,
    backward,
    expected,
    forward,
    gamma,
    narrowed,
    sizes,
)

import convkit
from convkit import _core, geometry, ops

pytestmark = pytest.mark.usefixtures("device_backend")

UNITS = {"tf32": 2.0**-11, "bf16": 2.0**-8}
CUT_OFF = 4  # roundings that an addition may cost

# None has so few filters, or so few rows, that kernels of their own do it in float32.
CASES = [
    conv("primes", (3, 7, 11, 5), (3, 2, 5, 37)),
    conv("aligned", (2, 8, 9, 32), (3, 3, 32, 64), padding="same"),
    conv("strided_dilated", (1, 13, 14, 6), (3, 3, 6, 33), strides=(2, 3), dilation_rate=(1, 2)),
    conv("groups", (2, 6, 5, 34), (3, 3, 17, 58), groups=2, padding="same"),
    conv("pointwise", (2, 5, 7, 19), (1, 1, 19, 65)),
    conv("one_value", (1, 1, 1, 1), (1, 1, 1, 1)),
    conv("empty_batch", (0, 6, 7, 3), (3, 3, 3, 26)),
    dense("primes", (13, 31), 37),
    dense("one_unit", (5, 17), 1),
    dense("several_slices", (33, 1300), 40),
    dense("many_rows", (270, 21), 70),
]
# So many values that the largest tiles are chosen.
LARGE = [
    conv("large_pointwise", (1, 100, 86, 16), (1, 1, 16, 128)),
    conv("large_pointwise_turned", (1, 100, 86, 128), (1, 1, 128, 16)),
    dense("large_kernel", (17, 1530), 1400),
]

every_case = pytest.mark.parametrize("case", CASES, ids=str)


@pytest.fixture(params=UNITS)
def precision(request: pytest.FixtureRequest) -> Iterator[str]:
    yield from _set(request.param)


@pytest.fixture
def restored() -> Iterator[None]:
    yield from _set("float32")


def _set(name: str) -> Iterator[str]:
    convkit.set_precision(name)
    yield name
    convkit.set_precision("float32")


def has_tensor_cores(backend: str) -> bool:
    return backend == "cuda_emulated" or _core.describe_device(backend)[0][1] >= (8, 0)


def counts(case: Case, y: np.ndarray) -> tuple[int, int, int]:
    """How many products are added up, at most, for one value of y, dx and dkernel."""
    kernel = case.shapes[1]
    groups = case.options.get("groups", 1)
    across = math.prod(kernel[:-2]) * kernel[-1] // groups
    return math.prod(kernel[:-1]) + 1, across, y[..., 0].size


def bound(count: int, unit: float) -> float:
    """Of a sum of `count` products, by the sum of their sizes."""
    factors = (1 + unit) ** 2
    return factors - 1 + factors * gamma(CUT_OFF * count, np.float32)


@pytest.mark.parametrize("case", [*CASES, *LARGE, CONV2D_LARGE[0]], ids=str)
def test_rounding_stays_within_its_bound(case, precision):
    unit = UNITS[precision]
    given, dy, y, gradients = expected(case)
    forth, back, over = counts(case, y)
    right = bound(forth, unit) * forward(case, sizes(given), module=reference)
    assert_within(forward(case, narrowed(given, np.float32)), y, right, np.float32)

    found = backward(case, dy.astype(np.float32), narrowed(given, np.float32))
    scales = backward(case, np.abs(dy), sizes(given), module=reference)
    # dbias is a sum of dy as it is.
    bounds = (bound(back, unit), bound(over, unit), gamma(over, np.float32))
    for actual, right, scale, most in zip(found, gradients, scales, bounds, strict=True):
        assert_within(actual, right, most * scale, np.float32)


@every_case
def test_small_integers_are_exact(case, precision):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, np.float32)), y, np.float32)
    found = backward(case, dy.astype(np.float32), narrowed(given, np.float32))
    for actual, right in zip(found, gradients, strict=True):
        assert_exact(actual, right, np.float32)


# Exactly between two neighbours: tf32 goes away from zero, bf16 to the even one.
@pytest.mark.parametrize(
    ("precision", "value", "rounded"),
    [
        ("tf32", 1 + 2**-11, 1 + 2**-10),
        ("tf32", -1 - 2**-11, -1 - 2**-10),
        ("tf32", 1 + 2**-11 - 2**-23, 1),
        ("tf32", np.inf, np.inf),
        ("tf32", np.nan, np.nan),
        ("bf16", 1 + 2**-8, 1),
        ("bf16", 1 + 2**-8 + 2**-23, 1 + 2**-7),
        ("bf16", 1 + 3 * 2**-8, 1 + 2**-6),
        ("bf16", -np.inf, -np.inf),
        ("bf16", np.nan, np.nan),
    ],
)
def test_factors_are_rounded_to_the_nearest(device_backend, restored, precision, value, rounded):
    if not has_tensor_cores(device_backend):
        pytest.skip("no tensor cores for these")
    convkit.set_precision(precision)
    values, ones = np.full((32, 1), value, np.float32), np.ones((1, 32), np.float32)
    assert_exact(ops.dense(values, ones), np.full((32, 32), rounded), np.float32)
    assert_exact(ops.dense(ones.T, values.T), np.full((32, 32), rounded), np.float32)


def results(case: Case, dtype: type = np.float32) -> list[np.ndarray]:
    given = arrays(case, dtype)
    y = forward(case, given)
    return [y, *backward(case, upstream(case, y.shape, dtype), given)]


def test_the_setting_acts_and_is_undone(device_backend, restored):
    for case in (CASES[1], CASES[3], CASES[-2]):
        before = results(case)
        for precision in UNITS:
            convkit.set_precision(precision)
            rounded = results(case)
            for actual, right in zip(rounded[:3], before[:3], strict=True):
                assert (actual != right).any() == has_tensor_cores(device_backend)
            for actual, right in zip(results(case), rounded, strict=True):
                assert_same_bits(actual, right)
        convkit.set_precision("float32")
        for actual, right in zip(results(case), before, strict=True):
            assert_same_bits(actual, right)


def test_float64_is_float64(restored):
    for case in (CASES[0], CASES[-2]):
        before = results(case, np.float64)
        for precision in UNITS:
            convkit.set_precision(precision)
            for actual, right in zip(results(case, np.float64), before, strict=True):
                assert_same_bits(actual, right)


@pytest.mark.parametrize("case", [CASES[1], LARGE[0]], ids=str)
def test_samples_do_not_depend_on_their_number(case, precision):
    """Nor on the tile, which is a smaller one for a part of the picture."""
    x, kernel, bias = arrays(case, np.float32)
    y = ops.conv2d(x, kernel, bias, padding="same")
    if case is CASES[1]:
        assert_same_bits(ops.conv2d(x[1:], kernel, bias, padding="same"), y[1:])
    else:
        part = np.ascontiguousarray(x[:, :9])
        assert_same_bits(ops.conv2d(part, kernel, bias, padding="same"), y[:, :9])


@pytest.mark.parametrize("pool", [(2, 2), (1, 2), (2, 1), (3, 3)])
def test_pooling_and_activation_have_the_bits_of_both_apart(precision, pool):
    case = CASES[1]
    given = arrays(case, np.float32)
    spec, (n, height, width, filters) = geometry.conv2d(
        "conv2d", *case.shapes, 1, case.options["padding"], 1, 1
    )
    relu = geometry.ACTIVATION_KINDS["relu"]
    together = _core.FusedConv2d(
        conv=spec, activation=relu, slope=0.0, pool_height=pool[0], pool_width=pool[1]
    )
    y = np.full((n, height // pool[0], width // pool[1], filters), np.nan, np.float32)
    _core.run_kernel("fused_conv2d", together, n, "float32", given, [y])
    assert_same_bits(y, ops.max_pool2d(ops.relu(forward(case, given)), pool))
