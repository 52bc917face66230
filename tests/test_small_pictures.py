"""conv2d and its gradient of pictures so small that much of each window lies outside: a product
for each tap."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from cases import Case, arrays, conv, upstream
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    backward,
    expected,
    forward,
    narrowed,
)

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")


def small(
    name: str,
    x: tuple[int, int, int],
    kernel: tuple[int, int, int, int],
    padding: str | int | tuple = "same",
    **options,
) -> Case:
    """Images (N, H, W)."""
    shape = (*x, kernel[2])
    return conv(name, shape, kernel, padding=padding, **options)


CASES = [
    small("two_by_two", (9, 2, 2), (3, 3, 64, 64)),
    small("three_by_three", (5, 3, 3), (3, 3, 65, 70)),
    small("four_by_four", (3, 4, 4), (3, 3, 48, 49)),
    small("one_row", (7, 1, 5), (3, 3, 50, 33)),
    small("one_column", (7, 6, 1), (3, 3, 50, 17)),
    small("one_pixel", (40, 1, 1), (5, 3, 51, 48)),
    small("one_filter", (13, 2, 3), (3, 3, 55, 1)),
    small("one_channel_of_dy", (13, 2, 3), (3, 3, 1, 55)),
    small("deep", (6, 2, 2), (3, 3, 300, 34)),
    small("deep_dy", (6, 2, 2), (3, 3, 34, 300)),
    small("large_kernel", (6, 3, 4), (7, 5, 48, 48)),
    small("even_kernel", (6, 3, 2), (2, 4, 48, 52)),
    small("no_bias", (20, 2, 2), (3, 3, 48, 48), bias=False),
    small("strided", (7, 3, 4), (3, 3, 48, 48), strides=2),
    small("strides_differ", (7, 4, 6), (3, 5, 48, 48), strides=(1, 3)),
    small("dilated", (7, 4, 5), (3, 3, 48, 48), dilation_rate=(3, 2)),
    small("dilated_strided", (5, 5, 4), (3, 3, 48, 48), dilation_rate=2, strides=(2, 3), padding=2),
    small("padding_uneven", (7, 2, 3), (3, 3, 48, 48), ((0, 2), (3, 1))),
    small("padding_beyond_window", (5, 2, 2), (2, 2, 48, 48), 3),
    small("many_samples", (131, 2, 2), (3, 3, 48, 48)),
    small("many_rows", (40, 4, 8), (5, 5, 48, 48)),
    small("nothing_inside", (3, 2, 2), (2, 2, 48, 48), 5, strides=100),
    small("empty_batch", (0, 2, 2), (3, 3, 48, 48)),
]


def summed(case: Case) -> Case:
    """The case by products, not by Winograd's method."""
    return replace(case, options={**case.options, "algorithm": "product"})


by_name = {case.name: summed(case) for case in CASES}
every_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    case = summed(case)
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        if right is not None:
            assert_exact(actual, right, dtype)


@pytest.mark.parametrize("name", ["two_by_two", "one_row", "dilated", "padding_uneven"])
def test_gradients_match_differences(name):
    case = by_name[name]
    given = arrays(case)
    dy = upstream(case, forward(case, given).shape)
    assert_gradients_match_differences(
        lambda some: forward(case, some), backward(case, dy, given), given, dy
    )


@pytest.mark.parametrize("name", ["two_by_two", "deep", "deep_dy", "many_samples", "strided"])
def test_threads_change_no_bit(name, dtype, threads):
    case = by_name[name]
    given = arrays(case, dtype)
    results = []
    for count in (1, 2, 3, 7):
        threads(count)
        y = forward(case, given)
        results.append((y, *backward(case, upstream(case, y.shape, dtype), given)))
    for others in results[1:]:
        for one, other in zip(results[0], others, strict=True):
            assert_same_bits(other, one)


@pytest.mark.parametrize("name", ["two_by_two", "deep", "deep_dy", "one_pixel", "strided"])
@pytest.mark.parametrize("together", [1, 3])
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(name, together, dtype):
    """One or few samples of forward are computed in another way (few_pixels.h)."""
    case = by_name[name]
    given = arrays(case, dtype)
    y = forward(case, given)
    dy = upstream(case, y.shape, dtype)
    dx = backward(case, dy, given)[0]
    for i in range(0, len(y), together):
        some = slice(i, i + together)
        part = [given[0][some], *given[1:]]
        assert_same_bits(forward(case, part), y[some])
        assert_same_bits(backward(case, dy[some], part)[0], dx[some])


def test_more_samples_than_are_packed_at_a_time(dtype, rng):
    n = 400 if dtype == np.float32 else 300
    x = rng.integers(-3, 4, (n, 2, 2, 512)).astype(dtype)
    kernel = rng.integers(-3, 4, (3, 3, 512, 40)).astype(dtype)
    y = ops.conv2d(x, kernel, padding="same", algorithm="product")
    right = np.einsum("npqc,pqcf->nf", x, kernel[1:, 1:], optimize=True)
    assert_exact(y[:, 0, 0], right, dtype)
    right = np.einsum("npqc,pqcf->nf", x, kernel[:2, :2], optimize=True)
    assert_exact(y[:, 1, 1], right, dtype)


def test_what_lies_outside_meets_nothing(dtype):
    """In one sample alone, zeros stand for it."""
    case = by_name["one_pixel"]
    given = arrays(case, dtype)
    right = forward(case, given)
    given[1][0] = np.inf
    assert_same_bits(forward(case, given), right)


@pytest.mark.parametrize("side", [1, 2])
def test_they_are_planned_so(side):
    found = ops.plan("conv2d", (16, side, side, 256), (3, 3, 256, 256), padding="same")
    assert found["forward"] == found["backward_input"] == "product"
