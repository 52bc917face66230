"""Losses other than cross-entropies, over the last axis."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
EPSILON = np.float32(1e-7)


def mean_squared_error(target: Array, prediction: Array) -> Array:
    return np.square(prediction - target).mean(-1)


def mean_squared_error_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    return (prediction - target) * (dloss * np.float32(2 / prediction.shape[-1]))[:, None]


def mean_absolute_error(target: Array, prediction: Array) -> Array:
    return np.abs(prediction - target).mean(-1)


def mean_absolute_error_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    scale = dloss * np.float32(1 / prediction.shape[-1])
    return np.sign(prediction - target) * scale[:, None]


def mean_absolute_percentage_error(target: Array, prediction: Array) -> Array:
    return 100 * (np.abs(target - prediction) / np.maximum(np.abs(target), EPSILON)).mean(-1)


def mean_absolute_percentage_error_backward(
    dloss: Array, target: Array, prediction: Array
) -> Array:
    signs = np.sign(prediction - target) / np.maximum(np.abs(target), EPSILON)
    return signs * _share(100 * dloss, prediction)


def mean_squared_logarithmic_error(target: Array, prediction: Array) -> Array:
    return np.square(_log_difference(target, prediction)).mean(-1)


def mean_squared_logarithmic_error_backward(
    dloss: Array, target: Array, prediction: Array
) -> Array:
    slope = 2 * _log_difference(target, prediction) / (prediction + 1)
    return slope * (prediction > EPSILON) * _share(dloss, prediction)


def _log_difference(target: Array, prediction: Array) -> Array:
    return np.log1p(np.maximum(prediction, EPSILON)) - np.log1p(np.maximum(target, EPSILON))


def huber(target: Array, prediction: Array, *, delta: float = 1.0) -> Array:
    off, most = np.abs(prediction - target), np.float32(delta)
    return np.where(off <= most, off * off / 2, most * off - most * most / 2).mean(-1)


def huber_backward(dloss: Array, target: Array, prediction: Array, *, delta: float = 1.0) -> Array:
    return np.clip(prediction - target, -delta, delta) * _share(dloss, prediction)


def log_cosh(target: Array, prediction: Array) -> Array:
    off = np.abs(prediction - target)
    return (off + np.log1p(np.exp(-2 * off)) - np.float32(np.log(2))).mean(-1)


def log_cosh_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    return np.tanh(prediction - target) * _share(dloss, prediction)


def poisson(target: Array, prediction: Array) -> Array:
    return (prediction - target * np.log(prediction + EPSILON)).mean(-1)


def poisson_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    return (1 - target / (prediction + EPSILON)) * _share(dloss, prediction)


def kl_divergence(target: Array, prediction: Array) -> Array:
    target, prediction = np.clip(target, EPSILON, 1), np.clip(prediction, EPSILON, 1)
    return (target * np.log(target / prediction)).sum(-1)


def kl_divergence_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    inside = (prediction >= EPSILON) & (prediction <= 1)
    return -np.clip(target, EPSILON, 1) / prediction * inside * dloss[:, None]


def hinge(target: Array, prediction: Array) -> Array:
    return np.maximum(1 - _signs(target) * prediction, 0).mean(-1)


def hinge_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    signs = _signs(target)
    return -signs * (signs * prediction < 1) * _share(dloss, prediction)


def squared_hinge(target: Array, prediction: Array) -> Array:
    return np.square(np.maximum(1 - _signs(target) * prediction, 0)).mean(-1)


def squared_hinge_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    signs = _signs(target)
    return -2 * signs * np.maximum(1 - signs * prediction, 0) * _share(dloss, prediction)


def _signs(target: Array) -> Array:
    """-1 for 0, 1 for 1."""
    return 2 * target - 1


def categorical_hinge(target: Array, prediction: Array) -> Array:
    others = ((1 - target) * prediction).max(-1)
    return np.maximum(others - (target * prediction).sum(-1) + 1, 0)


def categorical_hinge_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    rest = (1 - target) * prediction
    rows, best = np.arange(len(rest)), rest.argmax(-1)
    active = dloss * (rest[rows, best] - (target * prediction).sum(-1) + 1 > 0)
    dx = -target * active[:, None]
    dx[rows, best] += (1 - target[rows, best]) * active
    return dx


def cosine_similarity(target: Array, prediction: Array) -> Array:
    return -(_unit(target)[0] * _unit(prediction)[0]).sum(-1)


def cosine_similarity_backward(dloss: Array, target: Array, prediction: Array) -> Array:
    to, (at, length) = _unit(target)[0], _unit(prediction)
    along = (to * at).sum(-1, keepdims=True)
    return (at * along - to) / length * dloss[:, None]


def _unit(x: Array) -> tuple[Array, Array]:
    """Vectors of length 1, and the lengths that they had."""
    length = np.maximum(np.sqrt(np.square(x).sum(-1, keepdims=True)), EPSILON)
    return x / length, length


def dice(target: Array, prediction: Array, *, axis: int | None = None) -> Array:
    """Over the last axis, or over all: the same for each sample then."""
    both, total = (target * prediction).sum(axis), (target.sum(axis) + prediction.sum(axis))
    loss = 1 - 2 * both / (total + EPSILON)
    return np.full(len(target), loss, target.dtype) if axis is None else loss


def dice_backward(
    dloss: Array, target: Array, prediction: Array, *, axis: int | None = None
) -> Array:
    keep = axis is not None
    both = (target * prediction).sum(axis, keepdims=keep)
    total = target.sum(axis, keepdims=keep) + prediction.sum(axis, keepdims=keep) + EPSILON
    slope = 2 * (both / total - target) / total
    return slope * (dloss[:, None] if keep else dloss.sum())


def _share(dloss: Array, prediction: Array) -> Array:
    """The gradient of each value of a mean over the last axis."""
    return (dloss * np.float32(1 / prediction.shape[-1]))[:, None]
