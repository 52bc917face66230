"""depthwise_conv2d and its gradients by windows of 3 x 3, which have a form of their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from cases import Case, arrays, upstream
from checkers import assert_exact, assert_same_bits, backward, expected, forward, narrowed

pytestmark = pytest.mark.usefixtures("backend")


def windows(x: tuple[int, int, int, int], padding: Any) -> Case:
    """Images (N, H, W, C) and a filter for each channel."""
    channels = x[-1]
    shapes = (x, (3, 3, channels, 1), (channels,))
    return Case("depthwise_conv2d", f"{x}_{padding}".replace(" ", ""), shapes, {"padding": padding})


# Rows and columns that fill no pair and no block, strips of columns, parts of registers, padding
# that is uneven and more than a window is wide.
SHAPES = [
    *((1, size, size, 3) for size in range(1, 10)),
    *((3, 5, width, 17) for width in (31, 32, 33, 37, 67)),
    *((2, 7, 4, channels) for channels in (1, 6, 33, 65, 130)),
    (1, 35, 33, 16),
]
CASES = [
    *(windows(x, "same") for x in SHAPES),
    *(windows(x, "valid") for x in SHAPES if min(x[1:3]) >= 3),
    *(windows((2, 5, 6, 5), padding) for padding in (((1, 2), (0, 1)), ((4, 0), (5, 3)))),
]
every_case = pytest.mark.parametrize("case", CASES, ids=str)


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(forward(case, narrowed(given, dtype)), y, dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    for actual, right in zip(found, gradients, strict=True):
        assert_exact(actual, right, dtype)


@pytest.mark.parametrize("x", [(5, 13, 37, 70), (1, 61, 33, 20)], ids=str)
def test_any_number_of_threads_gives_the_same_bits(x, dtype, threads):
    case = windows(x, "same")
    given = arrays(case, dtype)
    found = []
    for count in (1, 2, 3, 7):
        threads(count)
        y = forward(case, given)
        found.append([y, *backward(case, upstream(case, y.shape, dtype), given)])
    for others in found[1:]:
        for other, one in zip(others, found[0], strict=True):
            assert_same_bits(other, one)


def test_a_batch_past_the_caches_gives_the_bits_of_its_samples():
    """Large results are written in another way, and their sources fetched ahead."""
    case = windows((9, 83, 89, 64), "same")
    x, kernel, bias = arrays(case, np.float32)
    x = np.round(x * 8)
    y = forward(case, [x, kernel, bias])
    dy = np.round(upstream(case, y.shape, np.float32) * 8)
    dx, dkernel, dbias = backward(case, dy, [x, kernel, bias])
    sums = [np.zeros_like(dkernel), np.zeros_like(dbias)]
    for i in range(len(x)):
        one = [x[i : i + 1], kernel, bias]
        assert_same_bits(y[i : i + 1], forward(case, one))
        found, *others = backward(case, dy[i : i + 1], one)
        assert_same_bits(dx[i : i + 1], found)
        for total, other in zip(sums, others, strict=True):
            total += other
    assert_same_bits(dkernel, sums[0])
    assert_same_bits(dbias, sums[1])
