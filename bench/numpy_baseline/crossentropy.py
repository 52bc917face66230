"""Cross-entropies, over the last axis; probabilities of classes are divided by their sum first."""

from __future__ import annotations

import numpy as np

from numpy_baseline.elementwise import sigmoid
from numpy_baseline.norm import log_softmax, softmax

Array = np.ndarray
EPSILON = np.float32(1e-7)


def categorical_crossentropy(
    target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    logs = log_softmax(prediction) if from_logits else np.log(_inside(_shares(prediction)))
    return -(target * logs).sum(-1)


def categorical_crossentropy_backward(
    dloss: Array, target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    if from_logits:
        share = softmax(prediction) * target.sum(-1, keepdims=True)
        return (share - target) * dloss[:, None]
    sums = prediction.sum(-1, keepdims=True)
    slope = target.sum(-1, keepdims=True) - target / _inside(prediction / sums)
    return slope / sums * dloss[:, None]


def sparse_categorical_crossentropy(
    target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    rows = np.arange(len(target))
    if from_logits:
        return -log_softmax(prediction)[rows, target]
    return -np.log(_inside(_shares(prediction)[rows, target]))


def sparse_categorical_crossentropy_backward(
    dloss: Array, target: Array, prediction: Array, *, from_logits: bool = False
) -> Array:
    rows = np.arange(len(target))
    if from_logits:
        dx = softmax(prediction)
        dx[rows, target] -= 1
        dx *= dloss[:, None]
        return dx
    sums = prediction.sum(-1)
    dx = np.repeat((dloss / sums)[:, None], prediction.shape[-1], -1)
    dx[rows, target] -= dloss / _inside(prediction[rows, target] / sums) / sums
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


def binary_focal_crossentropy(
    target: Array, prediction: Array, *, gamma: float = 2.0, from_logits: bool = False
) -> Array:
    p = _inside(sigmoid(prediction) if from_logits else prediction)
    wrong, entropy = _wrong_and_entropy(target, p)
    return (wrong ** np.float32(gamma) * entropy).mean(-1)


def binary_focal_crossentropy_backward(
    dloss: Array,
    target: Array,
    prediction: Array,
    *,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> Array:
    p = _inside(sigmoid(prediction) if from_logits else prediction)
    wrong, entropy = _wrong_and_entropy(target, p)
    power = wrong ** np.float32(gamma - 1)
    slope = np.float32(gamma) * power * (1 - 2 * target) * entropy
    slope += power * wrong * (p - target) / (p * (1 - p))
    if from_logits:
        slope *= p * (1 - p)
    return slope * (dloss / np.float32(prediction.shape[-1]))[:, None]


def _wrong_and_entropy(target: Array, p: Array) -> tuple[Array, Array]:
    """The share of each prediction that is wrong, and its cross-entropy."""
    wrong = target * (1 - p) + (1 - target) * p
    return wrong, -(target * np.log(p) + (1 - target) * np.log(1 - p))


def categorical_focal_crossentropy(
    target: Array,
    prediction: Array,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> Array:
    p = _inside(softmax(prediction) if from_logits else _shares(prediction))
    return -(np.float32(alpha) * (1 - p) ** np.float32(gamma) * target * np.log(p)).sum(-1)


def categorical_focal_crossentropy_backward(
    dloss: Array,
    target: Array,
    prediction: Array,
    *,
    alpha: float = 0.25,
    gamma: float = 2.0,
    from_logits: bool = False,
) -> Array:
    p = _inside(softmax(prediction) if from_logits else _shares(prediction))
    rest = 1 - p
    slope = np.float32(gamma) * np.log(p) - rest / p
    slope *= np.float32(alpha) * rest ** np.float32(gamma - 1) * target * dloss[:, None]
    among = slope - (slope * p).sum(-1, keepdims=True)
    return p * among if from_logits else among / prediction.sum(-1, keepdims=True)


def _shares(prediction: Array) -> Array:
    return prediction / prediction.sum(-1, keepdims=True)


def _inside(p: Array) -> Array:
    return np.clip(p, EPSILON, 1 - EPSILON)
