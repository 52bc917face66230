"""Normalisation, softmax, and PReLU."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
EPSILON = np.float32(1e-3)


def batch_norm(
    x: Array, gamma: Array, beta: Array, mean: Array | None = None, variance: Array | None = None
) -> Array:
    """By the batch's own moments, or by given ones."""
    if mean is None or variance is None:
        mean, variance = _moments(x.reshape(-1, x.shape[-1]))
    scale = gamma / np.sqrt(variance + EPSILON)
    y = x * scale
    y += beta - mean * scale
    return y


def batch_norm_backward(
    dy: Array,
    x: Array,
    gamma: Array,
    beta: Array,
    mean: Array | None = None,
    variance: Array | None = None,
) -> tuple[Array, Array, Array]:
    """(dx, dgamma, dbeta); moments that are given are constants."""
    rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, x.shape[-1])
    fixed = mean is not None
    if mean is None or variance is None:
        mean, variance = _moments(rows)
    scale = 1 / np.sqrt(variance + EPSILON)
    normal = (rows - mean) * scale
    dgamma, dbeta = (drows * normal).sum(0), drows.sum(0)
    if fixed:
        return (drows * (gamma * scale)).reshape(x.shape), dgamma, dbeta
    share = np.float32(1 / len(rows))
    dx = drows - dbeta * share
    dx -= normal * (dgamma * share)
    dx *= gamma * scale
    return dx.reshape(x.shape), dgamma, dbeta


def _moments(rows: Array) -> tuple[Array, Array]:
    mean = rows.mean(0)
    return mean, np.square(rows - mean).mean(0)


def layer_norm(x: Array, gamma: Array, beta: Array) -> Array:
    y, _ = _normal(x)
    y *= gamma
    y += beta
    return y


def layer_norm_backward(
    dy: Array, x: Array, gamma: Array, beta: Array
) -> tuple[Array, Array, Array]:
    normal, scale = _normal(x)
    rows = dy.reshape(-1, x.shape[-1])
    dgamma, dbeta = (rows * normal.reshape(rows.shape)).sum(0), rows.sum(0)
    dx = dy * gamma
    slope = (dx * normal).mean(-1, keepdims=True)
    dx -= dx.mean(-1, keepdims=True)
    dx -= normal * slope
    dx *= scale
    return dx, dgamma, dbeta


def _normal(x: Array) -> tuple[Array, Array]:
    y = x - x.mean(-1, keepdims=True)
    scale = 1 / np.sqrt(np.square(y).mean(-1, keepdims=True) + EPSILON)
    y *= scale
    return y, scale


def prelu(x: Array, alpha: Array) -> Array:
    return np.where(x > 0, x, alpha * x)


def prelu_backward(dy: Array, x: Array, alpha: Array) -> tuple[Array, Array]:
    """(dx, dalpha) of an alpha that is shared by all places of a channel."""
    positive = x > 0
    dx = np.where(positive, dy, alpha * dy)
    dalpha = np.where(positive, 0, dy * x).reshape(-1, alpha.size).sum(0)
    return dx, dalpha.reshape(alpha.shape)


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
