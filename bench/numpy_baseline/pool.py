"""Pooling without overlap, global pooling, and up-sampling."""

from __future__ import annotations

from functools import cache

import numpy as np

from numpy_baseline import reduce

Array = np.ndarray


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


def global_avg_pool2d(x: Array) -> Array:
    return reduce.mean(x, (1, 2))


def global_avg_pool2d_backward(dy: Array, x: Array) -> Array:
    return reduce.mean_backward(dy, x, (1, 2))


def global_max_pool2d(x: Array) -> Array:
    return reduce.max(x, (1, 2))


def global_max_pool2d_backward(dy: Array, x: Array) -> Array:
    return reduce.max_backward(dy, x, (1, 2))
