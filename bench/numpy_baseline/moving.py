"""Joining, padding, cropping, other orders of axes, and repetition."""

from __future__ import annotations

import numpy as np

Array = np.ndarray


def concatenate(arrays: list[Array], axis: int = -1) -> Array:
    return np.concatenate(arrays, axis)


def concatenate_backward(dy: Array, arrays: list[Array], axis: int = -1) -> list[Array]:
    ends = np.cumsum([array.shape[axis] for array in arrays])[:-1]
    return [np.ascontiguousarray(part) for part in np.split(dy, ends, axis)]


def pad2d(x: Array, padding: int) -> Array:
    return np.pad(x, ((0, 0), (padding, padding), (padding, padding), (0, 0)))


def pad2d_backward(dy: Array, x: Array, padding: int) -> Array:
    return dy[:, padding:-padding, padding:-padding].copy()


def crop2d(x: Array, cropping: int) -> Array:
    return pad2d_backward(x, x, cropping)


def crop2d_backward(dy: Array, x: Array, cropping: int) -> Array:
    return pad2d(dy, cropping)


def permute(x: Array, axes: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(x.transpose(0, *axes))


def permute_backward(dy: Array, x: Array, axes: tuple[int, ...]) -> Array:
    return np.ascontiguousarray(dy.transpose(np.argsort((0, *axes))))


def repeat(x: Array, repeats: int, axis: int) -> Array:
    return np.repeat(x, repeats, axis)


def repeat_backward(dy: Array, x: Array, repeats: int, axis: int) -> Array:
    before, after = x.shape[: axis + 1], x.shape[axis + 1 :]
    return dy.reshape(*before, repeats, *after).sum(axis + 1)
