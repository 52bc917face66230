"""The ops in plain NumPy, as a good user of it would write them: the baselines of bench_ops.py.

Names and arguments are those of `convkit.ops`, with the options that the benchmarks use. Arrays
are float32 and channels last: x (n, height, width, channels), kernels (height, width, inputs,
outputs) and (inputs, outputs). Convolutions copy their windows into the rows of a matrix and
multiply; pools do not overlap. Gradients of losses are those of the prediction alone.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

Array = np.ndarray
EPSILON = np.float32(1e-7)


# ---- convolution and dense ----------------------------------------------------------------------
def conv2d(
    x: Array, kernel: Array, bias: Array, *, padding: str = "valid", activation: str | None = None
) -> Array:
    """Stride 1; padding "valid" or "same" of an odd kernel; activation None or "relu"."""
    height, width, _, filters = kernel.shape
    windows = _windows(_pad(x, kernel, padding), height, width)
    y = windows.reshape(-1, kernel[..., 0].size) @ kernel.reshape(-1, filters)
    return _finish(y, bias, activation).reshape(*windows.shape[:3], filters)


def conv2d_backward(
    dy: Array, x: Array, kernel: Array, bias: Array, *, padding: str = "valid"
) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a convolution without activation."""
    height, width, channels, filters = kernel.shape
    padded = _pad(x, kernel, padding)
    columns = _windows(padded, height, width).reshape(-1, height * width * channels)
    dy_rows = dy.reshape(-1, filters)
    dkernel = (columns.T @ dy_rows).reshape(kernel.shape)
    dcolumns = dy_rows @ kernel.reshape(-1, filters).T
    dcolumns = dcolumns.reshape(*dy.shape[:3], height, width, channels)
    dpadded = np.zeros_like(padded)
    for i in range(height):
        for j in range(width):
            dpadded[:, i : i + dy.shape[1], j : j + dy.shape[2]] += dcolumns[:, :, :, i, j]
    top, left = (padded.shape[1] - x.shape[1]) // 2, (padded.shape[2] - x.shape[2]) // 2
    dx = dpadded[:, top : top + x.shape[1], left : left + x.shape[2]]
    return dx, dkernel, dy_rows.sum(0)


def _pad(x: Array, kernel: Array, padding: str) -> Array:
    if padding == "valid":
        return x
    n, height, width, channels = x.shape
    top, left = kernel.shape[0] // 2, kernel.shape[1] // 2
    padded = np.zeros((n, height + 2 * top, width + 2 * left, channels), x.dtype)
    padded[:, top : top + height, left : left + width] = x
    return padded


def _windows(x: Array, height: int, width: int) -> Array:
    """A view (n, out_height, out_width, height, width, channels)."""
    return sliding_window_view(x, (height, width), (1, 2)).transpose(0, 1, 2, 4, 5, 3)


def dense(x: Array, kernel: Array, bias: Array, *, activation: str | None = None) -> Array:
    return _finish(x @ kernel, bias, activation)


def dense_backward(dy: Array, x: Array, kernel: Array, bias: Array) -> tuple[Array, Array, Array]:
    """(dx, dkernel, dbias) of a dense layer without activation."""
    return dy @ kernel.T, x.T @ dy, dy.sum(0)


def _finish(y: Array, bias: Array, activation: str | None) -> Array:
    y += bias
    return np.maximum(y, 0, out=y) if activation == "relu" else y


# ---- pooling and up-sampling --------------------------------------------------------------------
def max_pool2d(x: Array, pool_size: int = 2) -> Array:
    first, *others = _corners(x, pool_size)
    y = first.copy()
    for corner in others:
        np.maximum(y, corner, out=y)
    return y


def max_pool2d_backward(dy: Array, x: Array, pool_size: int = 2) -> Array:
    y = max_pool2d(x, pool_size)
    dx = np.zeros_like(x)
    free = np.ones(dy.shape, bool)
    for corner, dcorner in zip(_corners(x, pool_size), _corners(dx, pool_size), strict=True):
        hit = corner == y
        hit &= free
        free ^= hit
        np.multiply(dy, hit, out=dcorner)
    return dx


def avg_pool2d(x: Array, pool_size: int = 2) -> Array:
    first, *others = _corners(x, pool_size)
    y = first.copy()
    for corner in others:
        y += corner
    y *= np.float32(1 / pool_size**2)
    return y


def avg_pool2d_backward(dy: Array, x: Array, pool_size: int = 2) -> Array:
    return _spread(dy * np.float32(1 / pool_size**2), x, pool_size)


def _corners(x: Array, size: int) -> list[Array]:
    """A view of x for each place in a window, (n, height / size, width / size, channels)."""
    height, width = x.shape[1] // size * size, x.shape[2] // size * size
    return [x[:, i:height:size, j:width:size] for i in range(size) for j in range(size)]


def _spread(y: Array, like: Array, size: int) -> Array:
    x = np.zeros_like(like)
    for corner in _corners(x, size):
        corner[...] = y
    return x


def upsample2d(x: Array, size: int = 2, *, interpolation: str = "nearest") -> Array:
    n, height, width, channels = x.shape
    if interpolation == "nearest":
        return _spread(x, np.empty((n, height * size, width * size, channels), x.dtype), size)
    return _resize(x, _bilinear(height, size), _bilinear(width, size))


def upsample2d_backward(
    dy: Array, x: Array, size: int = 2, *, interpolation: str = "nearest"
) -> Array:
    if interpolation == "nearest":
        first, *others = _corners(dy, size)
        dx = first.copy()
        for corner in others:
            dx += corner
        return dx
    return _resize(dy, _bilinear(x.shape[1], size).T, _bilinear(x.shape[2], size).T)


def _resize(x: Array, rows: Array, columns: Array) -> Array:
    n, height, width, channels = x.shape
    x = rows @ x.reshape(n, height, width * channels)
    return columns @ x.reshape(n, -1, width, channels)


@cache
def _bilinear(length: int, size: int) -> Array:
    """The matrix (length * size, length) of linear interpolation between half-pixel centres."""
    place = np.clip((np.arange(length * size) + 0.5) / size - 0.5, 0, length - 1)
    low = np.minimum(place.astype(int), length - 2)
    matrix = np.zeros((length * size, length), np.float32)
    every = np.arange(length * size)
    matrix[every, low + 1] = place - low
    matrix[every, low] += 1 - matrix[every, low + 1]
    return matrix


# ---- element by element -------------------------------------------------------------------------
def relu(x: Array) -> Array:
    return np.maximum(x, 0)


def relu_backward(dy: Array, x: Array) -> Array:
    return dy * (x > 0)


def leaky_relu(x: Array, negative_slope: float = 0.2) -> Array:
    return np.maximum(x, np.float32(negative_slope) * x)


def leaky_relu_backward(dy: Array, x: Array, negative_slope: float = 0.2) -> Array:
    return np.where(x > 0, dy, np.float32(negative_slope) * dy)


def sigmoid(x: Array) -> Array:
    y = np.exp(-np.abs(x))
    return np.where(x >= 0, 1, y) / (1 + y)


def sigmoid_backward(dy: Array, x: Array) -> Array:
    y = sigmoid(x)
    return dy * y * (1 - y)


def tanh(x: Array) -> Array:
    return np.tanh(x)


def tanh_backward(dy: Array, x: Array) -> Array:
    y = np.tanh(x)
    return dy * (1 - y * y)


def exp(x: Array) -> Array:
    return np.exp(x)


def exp_backward(dy: Array, x: Array) -> Array:
    return dy * np.exp(x)


def rescale(x: Array, *, scale: float, offset: float) -> Array:
    y = x * np.float32(scale)
    y += np.float32(offset)
    return y


def rescale_backward(dy: Array, x: Array, *, scale: float, offset: float) -> Array:
    return dy * np.float32(scale)


def add(a: Array, b: Array) -> Array:
    return a + b


def add_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(da, db), copies as every gradient is."""
    return dy.copy(), dy.copy()


def concatenate(arrays: list[Array], axis: int = -1) -> Array:
    return np.concatenate(arrays, axis)


def concatenate_backward(dy: Array, arrays: list[Array], axis: int = -1) -> list[Array]:
    ends = np.cumsum([array.shape[axis] for array in arrays])[:-1]
    return [np.ascontiguousarray(part) for part in np.split(dy, ends, axis)]


# ---- softmax and losses: over the last axis -----------------------------------------------------
def softmax(x: Array) -> Array:
    y = np.exp(x - x.max(-1, keepdims=True))
    y /= y.sum(-1, keepdims=True)
    return y


def softmax_backward(dy: Array, x: Array) -> Array:
    y = softmax(x)
    return y * (dy - (dy * y).sum(-1, keepdims=True))


def log_softmax(x: Array) -> Array:
    x = x - x.max(-1, keepdims=True)
    x -= np.log(np.exp(x).sum(-1, keepdims=True))
    return x


def log_softmax_backward(dy: Array, x: Array) -> Array:
    return dy - softmax(x) * dy.sum(-1, keepdims=True)


def categorical_crossentropy(
    target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    logs = log_softmax(prediction) if from_logits else np.log(_inside(prediction))
    return -(target * logs).sum(-1)


def categorical_crossentropy_backward(
    dloss: Array, target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    if from_logits:
        share = softmax(prediction) * target.sum(-1, keepdims=True)
        return (share - target) * dloss[:, None]
    return -target / _inside(prediction) * dloss[:, None]


def sparse_categorical_crossentropy(
    target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    rows = np.arange(len(target))
    if from_logits:
        return -log_softmax(prediction)[rows, target]
    return -np.log(_inside(prediction[rows, target]))


def sparse_categorical_crossentropy_backward(
    dloss: Array, target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    rows = np.arange(len(target))
    if from_logits:
        dx = softmax(prediction)
        dx[rows, target] -= 1
        dx *= dloss[:, None]
        return dx
    dx = np.zeros_like(prediction)
    dx[rows, target] = -dloss / _inside(prediction[rows, target])
    return dx


def binary_crossentropy(target: Array, prediction: Array, *, from_logits: bool = False) -> Array:
    if from_logits:
        x = prediction
        return (np.maximum(x, 0) - x * target + np.log1p(np.exp(-np.abs(x)))).mean(-1)
    p = _inside(prediction)
    return -(target * np.log(p) + (1 - target) * np.log(1 - p)).mean(-1)


def binary_crossentropy_backward(
    dloss: Array, target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    scale = (dloss / np.float32(prediction.shape[-1]))[:, None]
    if from_logits:
        return (sigmoid(prediction) - target) * scale
    p = _inside(prediction)
    return (p - target) / (p * (1 - p)) * scale


def mean_squared_error(target: Array, prediction: Array) -> Array:
    return np.square(prediction - target).mean(-1)


def mean_squared_error_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    return (prediction - target) * (dloss * np.float32(2 / prediction.shape[-1]))[:, None]


def mean_absolute_error(target: Array, prediction: Array) -> Array:
    return np.abs(prediction - target).mean(-1)


def mean_absolute_error_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    scale = dloss * np.float32(1 / prediction.shape[-1])
    return np.sign(prediction - target) * scale[:, None]


def _inside(p: Array) -> Array:
    return np.clip(p, EPSILON, 1 - EPSILON)
