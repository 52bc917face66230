"""Pooling, global pooling, and up-sampling."""

from __future__ import annotations

from functools import cache

import numpy as np

from numpy_baseline import reduce

Array = np.ndarray


def max_pool2d(x: Array, pool_size: int = 2, *, strides: int | None = None) -> Array:
    first, *others = _places(x, pool_size, strides)
    y = first.copy()
    for place in others:
        np.maximum(y, place, out=y)
    return y


def max_pool2d_backward(
    dy: Array, x: Array, pool_size: int = 2, *, strides: int | None = None
) -> Array:
    y = max_pool2d(x, pool_size, strides=strides)
    dx = np.zeros_like(x)
    free = np.ones(dy.shape, bool)
    overlap = strides is not None and strides < pool_size
    pairs = zip(_places(x, pool_size, strides), _places(dx, pool_size, strides), strict=True)
    for place, dplace in pairs:
        hit = place == y
        hit &= free
        free ^= hit
        if overlap:
            dplace += dy * hit
        else:
            np.multiply(dy, hit, out=dplace)
    return dx


def avg_pool2d(x: Array, pool_size: int = 2, *, strides: int | None = None) -> Array:
    first, *others = _places(x, pool_size, strides)
    y = first.copy()
    for place in others:
        y += place
    y *= np.float32(1 / pool_size**2)
    return y


def avg_pool2d_backward(
    dy: Array, x: Array, pool_size: int = 2, *, strides: int | None = None
) -> Array:
    share, dx = dy * np.float32(1 / pool_size**2), np.zeros_like(x)
    for place in _places(dx, pool_size, strides):
        place += share
    return dx


def _places(x: Array, size: int, strides: int | None = None) -> list[Array]:
    """A view of x for each place in a window, (n, out_height, out_width, channels); windows lie
    side by side unless `strides` says otherwise."""
    step = strides or size
    height, width = ((length - size) // step * step + 1 for length in x.shape[1:3])
    return [
        x[:, i : i + height : step, j : j + width : step] for i in range(size) for j in range(size)
    ]


def _spread(y: Array, like: Array, size: int) -> Array:
    x = np.zeros_like(like)
    for place in _places(x, size):
        place[...] = y
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
        first, *others = _places(dy, size)
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
