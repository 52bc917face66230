"""Convolution and dense layers: windows copied into the rows of a matrix, and a product."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray


def conv2d(
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    strides: int = 1,
    padding: str | int = "valid",
    activation: str | None = None,
    groups: int = 1,
) -> Array:
    """Padding a number, "valid", or "same" of an odd kernel at stride 1; activation None or
    "relu"."""
    if groups > 1:
        options = {"strides": strides, "padding": padding, "activation": activation}
        parts = _by_group(groups, x, kernel, bias)
        return np.concatenate([conv2d(*part, **options) for part in parts], -1)
    height, width, _, filters = kernel.shape
    windows = _windows(_pad(x, kernel, padding), height, width, strides)
    y = windows.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, filters)
    return _finish(y, bias, activation).reshape(*windows.shape[:3], filters)


def conv2d_backward(
    dy: Array,
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    strides: int = 1,
    padding: str | int = "valid",
    groups: int = 1,
) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a convolution without activation."""
    if groups > 1:
        parts = [
            conv2d_backward(*part, strides=strides, padding=padding)
            for part in _by_group(groups, dy, x, kernel, bias)
        ]
        dx, dkernel, dbias = (np.concatenate(some, -1) for some in zip(*parts, strict=True))
        return dx, dkernel, dbias
    height, width, channels, filters = kernel.shape
    rows, columns = (strides * size for size in dy.shape[1:3])
    padded = _pad(x, kernel, padding)
    windows = _windows(padded, height, width, strides).reshape(-1, height * width * channels)
    dy_rows = dy.reshape(-1, filters)
    dkernel = (windows.T @ dy_rows).reshape(kernel.shape)
    dwindows = dy_rows @ kernel.reshape(-1, filters).T
    dwindows = dwindows.reshape(*dy.shape[:3], height, width, channels)
    dpadded = np.zeros_like(padded)
    for i in range(height):
        for j in range(width):
            places = dpadded[:, i : i + rows : strides, j : j + columns : strides]
            places += dwindows[:, : places.shape[1], : places.shape[2], i, j]
    return _unpad(dpadded, x), dkernel, dy_rows.sum(0)


def _pad(x: Array, kernel: Array, padding: str | int) -> Array:
    if padding == "valid":
        return x
    n, height, width, channels = x.shape
    top, left = (
        padding if isinstance(padding, int) else kernel.shape[axis] // 2 for axis in (0, 1)
    )
    padded = np.zeros((n, height + 2 * top, width + 2 * left, channels), x.dtype)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _unpad(padded: Array, x: Array) -> Array:
    top, left = (padded.shape[1] - x.shape[1]) // 2, (padded.shape[2] - x.shape[2]) // 2
    return padded[:, top : top + x.shape[1], left : left + x.shape[2]]


def _windows(x: Array, height: int, width: int, stride: int = 1) -> Array:
    """A view (n, out_height, out_width, height, width, channels)."""
    windows = sliding_window_view(x, (height, width), (1, 2))[:, ::stride, ::stride]
    return windows.transpose(0, 1, 2, 4, 5, 3)


def _by_group(groups: int, *arrays: Array) -> Iterator[tuple[Array, ...]]:
    """Each group's part of the last axis of all arrays."""
    return zip(*(np.split(array, groups, -1) for array in arrays), strict=True)


def conv2d_transpose(
    x: Array,
    kernel: Array,
    bias: Array,
    *,
    strides: int,
    padding: str = "valid",
    activation: str | None = None,
) -> Array:
    """The kernel (height, width, filters, channels) is no smaller than the stride; "same" takes as
    much away above as below."""
    n, height, width, channels = x.shape
    rows, columns, filters, _ = kernel.shape
    values = x.reshape(-1, channels) @ kernel.reshape(-1, channels).T
    values = values.reshape(n, height, width, rows, columns, filters)
    y = np.zeros(
        (n, (height - 1) * strides + rows, (width - 1) * strides + columns, filters), x.dtype
    )
    for i in range(rows):
        for j in range(columns):
            y[:, i : i + height * strides : strides, j : j + width * strides : strides] += values[
                :, :, :, i, j
            ]
    cut_rows, cut_columns = _cuts(kernel, strides, padding)
    y = y[:, cut_rows : y.shape[1] - cut_rows, cut_columns : y.shape[2] - cut_columns]
    return _finish(y, bias, activation)


def conv2d_transpose_backward(
    dy: Array, x: Array, kernel: Array, bias: Array, *, strides: int, padding: str = "valid"
) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a transposed convolution without activation."""
    rows, columns, filters, channels = kernel.shape
    cut_rows, cut_columns = _cuts(kernel, strides, padding)
    whole = np.pad(dy, ((0, 0), (cut_rows, cut_rows), (cut_columns, cut_columns), (0, 0)))
    windows = _windows(whole, rows, columns, strides).reshape(-1, rows * columns * filters)
    dx = (windows @ kernel.reshape(-1, channels)).reshape(x.shape)
    dkernel = (windows.T @ x.reshape(-1, channels)).reshape(kernel.shape)
    return dx, dkernel, dy.sum((0, 1, 2))


def _cuts(kernel: Array, strides: int, padding: str) -> tuple[int, int]:
    if padding == "valid":
        return 0, 0
    return (kernel.shape[0] - strides) // 2, (kernel.shape[1] - strides) // 2


def depthwise_conv2d(
    x: Array, kernel: Array, bias: Array, *, padding: str = "valid", activation: str | None = None
) -> Array:
    """Stride 1, one filter for each channel."""
    return _finish(_channelwise(x, kernel, padding), bias, activation)


def _channelwise(x: Array, kernel: Array, padding: str) -> Array:
    padded = _pad(x, kernel, padding)
    height, width = (padded.shape[axis + 1] - kernel.shape[axis] + 1 for axis in (0, 1))
    y = np.zeros((len(x), height, width, x.shape[-1]), x.dtype)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            y += padded[:, i : i + height, j : j + width] * kernel[i, j, :, 0]
    return y


def depthwise_conv2d_backward(
    dy: Array, x: Array, kernel: Array, bias: Array, *, padding: str = "valid"
) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a depthwise convolution without activation."""
    return *_channelwise_backward(dy, x, kernel, padding), dy.sum((0, 1, 2))


def _channelwise_backward(dy: Array, x: Array, kernel: Array, padding: str) -> tuple[Array, Array]:
    _, height, width, _ = dy.shape
    padded = _pad(x, kernel, padding)
    dpadded, dkernel = np.zeros_like(padded), np.empty_like(kernel)
    for i in range(kernel.shape[0]):
        for j in range(kernel.shape[1]):
            part = np.s_[:, i : i + height, j : j + width]
            dpadded[part] += dy * kernel[i, j, :, 0]
            dkernel[i, j, :, 0] = (dy * padded[part]).sum((0, 1, 2))
    return _unpad(dpadded, x), dkernel


def separable_conv2d(
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array,
    bias: Array,
    *,
    padding: str = "valid",
    activation: str | None = None,
) -> Array:
    z = _channelwise(x, depthwise_kernel, padding)
    return _finish(z @ pointwise_kernel[0, 0], bias, activation)


def separable_conv2d_backward(
    dy: Array,
    x: Array,
    depthwise_kernel: Array,
    pointwise_kernel: Array,
    bias: Array,
    *,
    padding: str = "valid",
) -> tuple[Array, Array, Array, Array]:
    """(dx, ddepthwise_kernel, dpointwise_kernel, dbias), without activation."""
    z = _channelwise(x, depthwise_kernel, padding)
    rows = dy.reshape(-1, dy.shape[-1])
    dpointwise = (z.reshape(-1, z.shape[-1]).T @ rows).reshape(pointwise_kernel.shape)
    dz = (rows @ pointwise_kernel[0, 0].T).reshape(z.shape)
    dx, ddepthwise = _channelwise_backward(dz, x, depthwise_kernel, padding)
    return dx, ddepthwise, dpointwise, rows.sum(0)


def dense(x: Array, kernel: Array, bias: Array, *, activation: str | None = None) -> Array:
    return _finish(x @ kernel, bias, activation)


def dense_backward(dy: Array, x: Array, kernel: Array, bias: Array) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a dense layer without activation."""
    return dy @ kernel.T, x.T @ dy, dy.sum(0)


def _finish(y: Array, bias: Array, activation: str | None) -> Array:
    y += bias
    return np.maximum(y, 0, out=y) if activation == "relu" else y
