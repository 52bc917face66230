"""conv2d and its gradients by Winograd's method, with the error that winograd_conv.h states.

That bound is the product of three: what the transforms may blow up, the roundings on the way, and,
for each channel, the largest value in a window's patch times the sum of the weights' sizes.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pytest
import reference
from checkers import assert_exact, assert_same_bits, assert_within, gamma

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

# (outputs of a window, taps) over an axis: winograd_error.
ERRORS = {(2, 3): 16, (4, 3): 176, (2, 5): 205}
ROUNDINGS = 32  # of the transforms
FILLS = ("normal", "alternating", "one_huge", "cancelling")


class Shape(NamedTuple):
    n: int
    height: int
    width: int
    channels: int
    taps: int
    filters: int
    pads: tuple[tuple[int, int], tuple[int, int]]

    @property
    def out(self) -> tuple[int, int]:
        down, right = (sum(pad) - self.taps + 1 for pad in self.pads)
        return self.height + down, self.width + right


def even(pad: int) -> tuple[tuple[int, int], tuple[int, int]]:
    return (pad, pad), (pad, pad)


SHAPES = [
    Shape(1, 7, 7, 64, 3, 64, even(1)),
    Shape(3, 9, 11, 3, 3, 5, even(1)),
    Shape(1, 5, 13, 17, 3, 33, even(0)),
    Shape(2, 8, 8, 65, 3, 1, even(2)),
    Shape(1, 3, 3, 1, 3, 6, even(1)),
    Shape(3, 11, 7, 33, 3, 65, ((1, 0), (0, 1))),
    Shape(2, 13, 9, 70, 3, 130, ((1, 1), (2, 1))),  # several blocks of channels and filters
    Shape(1, 4, 3, 67, 3, 144, even(1)),  # few windows: one or four
    Shape(3, 2, 2, 33, 3, 48, even(1)),
    Shape(5, 17, 19, 6, 3, 16, even(1)),  # several strips
    Shape(9, 28, 29, 8, 3, 8, even(1)),  # several slots of windows
    Shape(3, 9, 9, 16, 5, 20, even(2)),
    Shape(1, 12, 7, 33, 5, 70, even(0)),
    Shape(3, 6, 6, 65, 5, 3, even(4)),
    Shape(5, 17, 19, 6, 5, 16, ((2, 0), (3, 4))),
    Shape(2, 3, 1, 35, 5, 64, even(2)),
    Shape(7, 3, 4, 35, 5, 64, even(2)),  # few windows in a sample, not in the batch
    Shape(7, 5, 4, 35, 3, 64, even(1)),
]
every_shape = pytest.mark.parametrize(
    ("shape", "outputs"),
    [(shape, outputs) for shape in SHAPES for outputs in (2, 4) if (outputs, shape.taps) in ERRORS],
    ids=str,
)


def values(rng: np.random.Generator, shape: tuple[int, ...], fill: str) -> np.ndarray:
    """Values that float32 holds, of an image (N, H, W, C)."""
    found = rng.standard_normal(shape)
    if fill == "alternating":
        signs = (-1.0) ** np.add.outer(np.arange(shape[1]), np.arange(shape[2]))
        found = 1e4 * signs[None, :, :, None] * (1 + 1e-3 * found)
    elif fill == "one_huge":
        found *= 1e-3
        found[:, shape[1] // 2, shape[2] // 3] = 1e6
    elif fill == "cancelling":
        half = shape[3] // 2
        found[..., half : 2 * half] = -found[..., :half] * (1 + 1e-4)
    return found.astype(np.float32).astype(np.float64)


def arrays(shape: Shape, fill: str = "normal", seed: int = 5) -> tuple[np.ndarray, ...]:
    """x, kernel, bias and dy in float64; channels of "cancelling" have equal weights."""
    rng = np.random.default_rng(seed)
    x = values(rng, (shape.n, shape.height, shape.width, shape.channels), fill)
    size = (shape.taps, shape.taps, shape.channels, shape.filters)
    kernel = rng.standard_normal(size).astype(np.float32).astype(np.float64)
    if fill == "cancelling":
        half = shape.channels // 2
        kernel[:, :, half : 2 * half] = kernel[:, :, :half]
    bias = rng.standard_normal(shape.filters).astype(np.float32).astype(np.float64)
    return x, kernel, bias, values(rng, (shape.n, *shape.out, shape.filters), fill)


# ---- the bound -----------------------------------------------------------------------------------


def largest_in_patches(
    x: np.ndarray, pads: tuple[int, int], out: tuple[int, int], outputs: int, taps: int
) -> np.ndarray:
    """The largest |x| of the patch of every window: (N, rows, columns, C)."""
    rows, columns = (-(-size // outputs) for size in out)
    height, width = (outputs * count + taps - 1 for count in (rows, columns))
    padded = np.zeros((len(x), height, width, x.shape[3]))
    high, wide = min(x.shape[1], height - pads[0]), min(x.shape[2], width - pads[1])
    padded[:, pads[0] : pads[0] + high, pads[1] : pads[1] + wide] = np.abs(x[:, :high, :wide])
    side = outputs + taps - 1
    windows = np.lib.stride_tricks.sliding_window_view(padded, (side, side), axis=(1, 2))
    return windows[:, ::outputs, ::outputs].max(axis=(4, 5))


def forward_bound(x, kernel, pads, out, outputs, dtype) -> np.ndarray:
    taps, channels = kernel.shape[0], kernel.shape[2]
    patches = largest_in_patches(x, pads, out, outputs, taps)
    sizes = patches @ np.abs(kernel).sum(axis=(0, 1))
    spread = sizes.repeat(outputs, axis=1).repeat(outputs, axis=2)[:, : out[0], : out[1]]
    return ERRORS[outputs, taps] * gamma(channels + ROUNDINGS, dtype) * spread


def input_bound(shape: Shape, kernel, dy, outputs, dtype) -> np.ndarray:
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    pads = tuple(shape.taps - 1 - pad[0] for pad in shape.pads)
    return forward_bound(dy, turned, pads, (shape.height, shape.width), outputs, dtype)


def kernel_bound(shape: Shape, x, dy, outputs, dtype) -> np.ndarray:
    pads = (shape.pads[0][0], shape.pads[1][0])
    patches = largest_in_patches(x, pads, shape.out, outputs, shape.taps)
    rows, columns = patches.shape[1:3]
    whole = np.zeros((shape.n, rows * outputs, columns * outputs, shape.filters))
    whole[:, : shape.out[0], : shape.out[1]] = np.abs(dy)
    sums = whole.reshape(shape.n, rows, outputs, columns, outputs, -1).sum(axis=(2, 4))
    sizes = np.einsum("nrqc,nrqf->cf", patches, sums)
    count = shape.n * rows * columns + ROUNDINGS
    return ERRORS[outputs, shape.taps] * gamma(count, dtype) * sizes


# ---- tests ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("fill", FILLS)
@every_shape
def test_errors_stay_within_what_is_stated(shape, fill, outputs, dtype):
    x, kernel, bias, dy = arrays(shape, fill)
    options = {"padding": shape.pads}
    algorithm = f"winograd{outputs}"
    pads = (shape.pads[0][0], shape.pads[1][0])
    given = [array.astype(dtype) for array in (x, kernel, bias)]

    y = ops.conv2d(*given, **options, algorithm=algorithm)
    right = reference.conv2d(x, kernel, bias, **options)
    bound = forward_bound(x, kernel, pads, shape.out, outputs, dtype)
    assert_within(y, right, bound + gamma(2, dtype) * (np.abs(right) + np.abs(bias)), dtype)

    found = ops.conv2d_backward(dy.astype(dtype), *given, **options, algorithm=algorithm)
    dx, dkernel, dbias = reference.conv2d_backward(dy, x, kernel, bias, **options)
    assert_within(found[0], dx, input_bound(shape, kernel, dy, outputs, dtype), dtype)
    assert_within(found[1], dkernel, kernel_bound(shape, x, dy, outputs, dtype), dtype)
    sizes = np.abs(dy).sum(axis=(0, 1, 2))
    assert_within(found[2], dbias, gamma(dy[..., 0].size, dtype) * sizes, dtype)


@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape.taps == 3], ids=str)
def test_small_integers_are_exact_in_windows_of_two(shape, dtype):
    rng = np.random.default_rng(3)
    drawn = [rng.integers(-4, 5, array.shape) for array in arrays(shape)]
    x, kernel, bias, dy = (array.astype(dtype) for array in drawn)
    options = {"padding": shape.pads}
    y = ops.conv2d(x, kernel, bias, **options, algorithm="winograd2")
    assert_exact(y, reference.conv2d(x, kernel, bias, **options), dtype)
    found = ops.conv2d_backward(dy, x, kernel, bias, **options, algorithm="winograd2")
    right = reference.conv2d_backward(dy, x, kernel, bias, **options)
    for actual, exact in zip(found, right, strict=True):
        assert_exact(actual, exact, dtype)


@every_shape
def test_bits_do_not_depend_on_the_number_of_threads(shape, outputs, threads):
    x, kernel, bias, dy = (array.astype(np.float32) for array in arrays(shape))
    options = {"padding": shape.pads, "algorithm": f"winograd{outputs}"}
    threads(1)
    expected = [
        ops.conv2d(x, kernel, bias, **options),
        *ops.conv2d_backward(dy, x, kernel, bias, **options),
    ]
    for count in (2, 3, 7):
        threads(count)
        found = [
            ops.conv2d(x, kernel, bias, **options),
            *ops.conv2d_backward(dy, x, kernel, bias, **options),
        ]
        for actual, right in zip(found, expected, strict=True):
            assert_same_bits(actual, right)


@every_shape
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(shape, outputs):
    x, kernel, bias, dy = (array.astype(np.float32) for array in arrays(shape))
    options = {"padding": shape.pads, "algorithm": f"winograd{outputs}"}
    y = ops.conv2d(x, kernel, bias, **options)
    dx = ops.conv2d_backward(dy, x, kernel, bias, **options)[0]
    for i in range(shape.n):
        one = slice(i, i + 1)
        assert_same_bits(ops.conv2d(x[one], kernel, bias, **options), y[one])
        found = ops.conv2d_backward(dy[one], x[one], kernel, bias, **options)[0]
        assert_same_bits(found, dx[one])


@pytest.mark.parametrize(("outputs", "taps"), ERRORS)
def test_a_nan_spoils_the_outputs_of_its_windows_alone(outputs, taps, dtype):
    shape = Shape(2, 12, 13, 5, taps, 7, even(taps // 2))
    x, kernel, bias, _ = (array.astype(dtype) for array in arrays(shape))
    options = {"padding": shape.pads, "algorithm": f"winograd{outputs}"}
    y = ops.conv2d(x, kernel, bias, **options)
    x[1, 6, 5, 2] = np.nan
    spoilt = ops.conv2d(x, kernel, bias, **options)
    window = np.zeros(y.shape, bool)
    reach = taps // 2
    window[1, 6 - reach : 7 + reach, 5 - reach : 6 + reach] = True
    assert np.isnan(spoilt[window]).all()
    patches = np.zeros(y.shape, bool)
    for row in range(0, 12, outputs):
        for column in range(0, 13, outputs):
            if (
                row - reach <= 6 < row + outputs + reach
                and column - reach <= 5 < column + outputs + reach
            ):
                patches[1, row : row + outputs, column : column + outputs] = True
    assert_same_bits(spoilt[~patches], y[~patches])


@pytest.mark.parametrize(("outputs", "taps", "most"), [(2, 3, 1.0), (4, 3, 3.0), (2, 5, 2.5)])
def test_usual_errors_are_a_small_multiple_of_those_of_the_sums(outputs, taps, most):
    shape = Shape(4, 24, 24, 64, taps, 32, even(taps // 2))
    x, kernel, bias, _ = arrays(shape)
    right = reference.conv2d(x, kernel, bias, padding=shape.pads)
    given = [array.astype(np.float32) for array in (x, kernel, bias)]
    sums, found = (
        ops.conv2d(*given, padding=shape.pads, algorithm=algorithm)
        for algorithm in ("direct", f"winograd{outputs}")
    )
    typical = [np.sqrt(np.mean((y - right) ** 2)) for y in (sums, found)]
    assert typical[1] <= most * typical[0]
