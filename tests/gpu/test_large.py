"""Arrays of more than 2**31 elements: offsets that 32 bits do not hold.

Many images, and one image that large, for each kind of kernel. Inputs repeat a table whose length
is a prime, so that any part of them is known without the rest; whole blocks of images, at both
ends, at random, and where the offsets pass 2**31, are compared with what the processor makes of
them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest

from convkit import device, ops

MANY = 2**31 + 2**16  # elements of the largest array of a test, at least
ROOM = 512 << 20  # bytes of workspaces and blocks
BLOCKS = 6
BLOCK_ELEMENTS = 1 << 16
PERIOD = 1_000_003  # prime


class Repeated:
    """An array of `shape` that holds a table again and again."""

    def __init__(self, cp: Any, shape: tuple[int, ...], seed: int) -> None:
        rng = np.random.default_rng(seed)
        self.shape = shape
        self._table = rng.uniform(-2, 2, PERIOD).astype(np.float32)
        table = cp.asarray(self._table)
        count = math.prod(shape)
        self.array = cp.empty(shape, np.float32)
        flat = self.array.reshape(count)
        for begin in range(0, count, PERIOD):
            size = min(PERIOD, count - begin)
            flat[begin : begin + size][...] = table[:size]

    def block(self, axis: int, begin: int, end: int) -> np.ndarray:
        """A part of it on the host; along axis 1 where axis 0 has length one."""
        row = math.prod(self.shape[axis + 1 :])
        flat = self._table[np.arange(begin * row, end * row) % PERIOD]
        return flat.reshape(*self.shape[:axis], end - begin, *self.shape[axis + 1 :])


def need(cp: Any, elements: int) -> None:
    """Skips where there is no room for so many values of float32."""
    cp.get_default_memory_pool().free_all_blocks()
    wanted = 4 * elements + ROOM
    free = cp.cuda.runtime.memGetInfo()[0]
    if free < wanted:
        pytest.skip(f"needs {wanted >> 30} GiB on the GPU, {free >> 30} GiB are free")


def blocks(length: int, row: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of parts of an axis whose steps are `row` elements wide: at both ends, around
    element 2**31, and at random."""
    size = max(1, min(length, BLOCK_ELEMENTS // row))
    border = max(0, min(2**31 // row - size // 2, length - size))
    random = np.random.default_rng(1).integers(0, length - size + 1, BLOCKS - 3)
    for begin in (0, border, length - size, *map(int, random)):
        yield begin, begin + size


def part(array: Any, axis: int, begin: int, end: int) -> np.ndarray:
    rows = array[begin:end] if axis == 0 else array[:, begin:end]
    return device.to_numpy(rows)


def compare(
    call: Callable[..., Any], given: list[Repeated], axis: int, scales: list[int], exact: bool
) -> None:
    """Holds `call` on the whole arrays to the same call on blocks of them.

    `scales`: how many rows along `axis` an array has for each row of the thinnest one; the last
    is the result's.
    """
    y = call(*[one.array for one in given])
    thinnest = given[0].shape[axis] // scales[0]
    row = max(
        math.prod(shape[axis + 1 :]) * s
        for shape, s in zip([*(one.shape for one in given), y.shape], scales, strict=True)
    )
    for begin, end in blocks(thinnest, row):
        pieces = [
            one.block(axis, s * begin, s * end) for one, s in zip(given, scales, strict=False)
        ]
        expected = call(*pieces)
        found = part(y, axis, scales[-1] * begin, scales[-1] * end)
        if exact:
            np.testing.assert_array_equal(found, expected)
        else:
            np.testing.assert_allclose(found, expected, 1e-5, 1e-5)


def images(side: int, channels: int) -> tuple[int, int, int, int]:
    """So many images that they have MANY elements."""
    return (-(-MANY // (side * side * channels)), side, side, channels)


def one_image(channels: int, multiple: int = 2) -> tuple[int, int, int, int]:
    """A single one with as many."""
    width = multiple * (math.isqrt(MANY // channels) // multiple)
    height = -(-MANY // (width * channels * multiple)) * multiple
    return (1, height, width, channels)


def smaller(shape: tuple[int, ...]) -> tuple[int, ...]:
    """What pools of 2 x 2 make of it."""
    return (shape[0], shape[1] // 2, shape[2] // 2, shape[3])


SHAPES = pytest.mark.parametrize(
    ("shape", "axis"),
    [(images(32, 6), 0), (images(28, 16), 0), (one_image(1), 1), (one_image(16), 1)],
    ids=["6_channels", "16_channels", "one_image", "one_image_16_channels"],
)


@SHAPES
@pytest.mark.parametrize("op", ["max_pool2d", "avg_pool2d"])
def test_pooling(cp, op, shape, axis):
    count = math.prod(shape)
    need(cp, 2 * count + count // 2)
    x = Repeated(cp, shape, 0)
    factor = 2 if axis == 1 else 1
    compare(getattr(ops, op), [x], axis, [factor, 1], op == "max_pool2d")
    dy = Repeated(cp, smaller(shape), 1)
    backward = getattr(ops, f"{op}_backward")
    compare(backward, [dy, x], axis, [1, factor, factor], op == "max_pool2d")


@SHAPES
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_upsampling(cp, interpolation, shape, axis):
    if interpolation == "bilinear" and axis == 1:
        pytest.skip("rows of a bilinear image depend on their neighbours")
    count = math.prod(shape)
    need(cp, 2 * count + count // 2)
    factor = 2 if axis == 1 else 1

    def up(x: Any) -> Any:
        return ops.upsample2d(x, 2, interpolation=interpolation)

    def down(dy: Any, x: Any) -> Any:
        return ops.upsample2d_backward(dy, x, 2, interpolation=interpolation)

    x, dy = Repeated(cp, smaller(shape), 0), Repeated(cp, shape, 1)
    compare(up, [x], axis, [1, factor], interpolation == "nearest")
    compare(down, [dy, x], axis, [factor, 1, 1], False)


@pytest.mark.parametrize("op", ["relu", "leaky_relu", "sigmoid", "tanh", "exp"])
def test_activations(cp, op):
    shape = (-(-MANY // 64), 64)
    need(cp, 3 * math.prod(shape))
    x = Repeated(cp, shape, 0)
    compare(getattr(ops, op), [x], 0, [1, 1], False)
    before = Repeated(cp, shape, 0)  # the same values
    out = getattr(ops, op)(x.array, out=x.array)
    assert out is x.array
    for begin, end in blocks(*shape):
        expected = getattr(ops, op)(before.block(0, begin, end))
        np.testing.assert_allclose(part(out, 0, begin, end), expected, 1e-5, 1e-5)


@pytest.mark.parametrize("op", ["relu", "tanh", "softmax", "log_softmax"])
def test_gradients_of_activations(cp, op):
    shape = (-(-MANY // 10), 10)
    need(cp, 4 * math.prod(shape))
    dy, x = Repeated(cp, shape, 0), Repeated(cp, shape, 1)
    compare(getattr(ops, f"{op}_backward"), [dy, x], 0, [1, 1, 1], False)


def test_softmax_of_columns(cp):
    shape = (-(-MANY // 640), 10, 64)
    need(cp, 2 * math.prod(shape))
    compare(lambda x: ops.softmax(x, axis=1), [Repeated(cp, shape, 0)], 0, [1, 1], False)


def test_joining(cp):
    whole, half = (-(-MANY // 64), 64), (-(-MANY // 64), 32)
    need(cp, 3 * math.prod(whole))
    a, b = Repeated(cp, whole, 0), Repeated(cp, whole, 1)
    compare(ops.add, [a, b], 0, [1, 1, 1], True)
    del b
    c, d = Repeated(cp, half, 2), Repeated(cp, half, 3)
    compare(lambda c, d: ops.concatenate([c, d]), [c, d], 0, [1, 1, 1], True)
    for which in range(2):
        compare(
            lambda dy, c, d, which=which: ops.concatenate_backward(dy, [c, d])[which],
            [a, c, d],
            0,
            [1, 1, 1, 1],
            True,
        )


def test_dense_rows(cp):
    shape, units = (-(-MANY // 8), 8), 4
    need(cp, math.prod(shape) * 3)
    x = Repeated(cp, shape, 0)
    kernel = np.random.default_rng(2).normal(size=(8, units)).astype(np.float32)
    bias = np.arange(units, dtype=np.float32)

    def forward(x: Any) -> Any:
        there = isinstance(x, cp.ndarray)
        return ops.dense(x, *[cp.asarray(a) if there else a for a in (kernel, bias)])

    def backward(dy: Any, x: Any) -> Any:
        k = cp.asarray(kernel) if isinstance(x, cp.ndarray) else kernel
        return ops.dense_backward(dy, x, k, needs=(True, False, False))[0]

    compare(forward, [x], 0, [1, 1], False)
    dy = Repeated(cp, (shape[0], units), 1)
    compare(backward, [dy, x], 0, [1, 1, 1], False)


def test_gradients_of_weights_see_every_row(cp):
    """Only a few rows of dy, far apart, are not zero."""
    shape, units = (-(-MANY // 8), 8), 4
    need(cp, math.prod(shape) * 2)
    x, kernel = Repeated(cp, shape, 0), cp.zeros((8, units), np.float32)
    dy = cp.zeros((shape[0], units), np.float32)
    rng = np.random.default_rng(3)
    expected, sums = np.zeros((8, units)), np.zeros(units)
    for row in (0, 2**31 // 8 - 1, 2**31 // 8, shape[0] - 1, *rng.integers(0, shape[0], 3)):
        row = min(int(row), shape[0] - 1)
        values = rng.normal(size=(1, units)).astype(np.float32)
        before = device.to_numpy(dy[row : row + 1])
        dy[row : row + 1][...] = cp.asarray(values)
        expected += x.block(0, row, row + 1).T @ (values - before)
        sums += values[0] - before[0]
    _, dkernel, dbias = ops.dense_backward(dy, x.array, kernel, cp.zeros(units, np.float32))
    np.testing.assert_allclose(device.to_numpy(dkernel), expected, 1e-5, 1e-5)
    np.testing.assert_allclose(device.to_numpy(dbias), sums, 1e-5, 1e-5)


def test_convolutions(cp):
    shape, filters = images(28, 4), 4
    need(cp, math.prod(shape) * 3)
    kernel = np.random.default_rng(2).normal(size=(3, 3, 4, filters)).astype(np.float32)

    def forward(x: Any) -> Any:
        k = cp.asarray(kernel) if isinstance(x, cp.ndarray) else kernel
        return ops.conv2d(x, k, padding="same", activation="relu")

    def backward(dy: Any, x: Any) -> Any:
        k = cp.asarray(kernel) if isinstance(x, cp.ndarray) else kernel
        return ops.conv2d_backward(dy, x, k, padding="same", needs=(True, False, False))[0]

    x = Repeated(cp, shape, 0)
    dy = Repeated(cp, shape, 1)
    compare(forward, [x], 0, [1, 1], False)
    compare(backward, [dy, x], 0, [1, 1, 1], False)


def test_losses(cp):
    shape = (-(-MANY // 10), 10)
    need(cp, 3 * math.prod(shape))
    target, logits = Repeated(cp, shape, 0), Repeated(cp, shape, 1)
    compare(ops.mean_squared_error, [target, logits], 0, [1, 1, 1], False)
    compare(
        lambda t, p: ops.binary_crossentropy(t, p, from_logits=True),
        [target, logits],
        0,
        [1, 1, 1],
        False,
    )
