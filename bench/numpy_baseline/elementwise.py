"""Element by element, of one array and of two."""

from __future__ import annotations

import numpy as np

Array = np.ndarray
SELU_SCALE, SELU_ALPHA = np.float32(1.0507009873554805), np.float32(1.6732632423543772)
ROOT_HALF, ROOT_2_PI = np.float32(np.sqrt(0.5)), np.float32(np.sqrt(2 / np.pi))
CUBIC = np.float32(0.044715)  # of the approximation of gelu


# ---- of one array --------------------------------------------------------------------------------
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


def elu(x: Array) -> Array:
    return np.where(x > 0, x, np.expm1(np.minimum(x, 0)))


def elu_backward(dy: Array, x: Array) -> Array:
    return dy * np.exp(np.minimum(x, 0))


def selu(x: Array) -> Array:
    return SELU_SCALE * np.where(x > 0, x, SELU_ALPHA * np.expm1(np.minimum(x, 0)))


def selu_backward(dy: Array, x: Array) -> Array:
    return SELU_SCALE * dy * np.where(x > 0, 1, SELU_ALPHA * np.exp(np.minimum(x, 0)))


def softplus(x: Array) -> Array:
    return np.maximum(x, 0) + np.log1p(np.exp(-np.abs(x)))


def softplus_backward(dy: Array, x: Array) -> Array:
    return dy * sigmoid(x)


def softsign(x: Array) -> Array:
    return x / (1 + np.abs(x))


def softsign_backward(dy: Array, x: Array) -> Array:
    return dy / np.square(1 + np.abs(x))


def silu(x: Array) -> Array:
    return x * sigmoid(x)


def silu_backward(dy: Array, x: Array) -> Array:
    y = sigmoid(x)
    return dy * y * (1 + x * (1 - y))


def gelu(x: Array, approximate: bool = False) -> Array:
    if approximate:
        return np.float32(0.5) * x * (1 + np.tanh(ROOT_2_PI * (x + CUBIC * x * x * x)))
    return x * _normal_below(x)


def gelu_backward(dy: Array, x: Array, approximate: bool = False) -> Array:
    if approximate:
        squares = x * x
        t = np.tanh(ROOT_2_PI * x * (1 + CUBIC * squares))
        slope = (1 - t * t) * ROOT_2_PI * (1 + 3 * CUBIC * squares)
        return dy * np.float32(0.5) * (1 + t + x * slope)
    density = np.float32(1 / np.sqrt(2 * np.pi)) * np.exp(np.float32(-0.5) * x * x)
    return dy * (_normal_below(x) + x * density)


def _normal_below(x: Array) -> Array:
    """P(z <= x) with z standard normal, to 1e-7 by Abramowitz and Stegun, 7.1.26: NumPy has no
    error function."""
    z = np.abs(x) * ROOT_HALF
    t = 1 / (1 + np.float32(0.3275911) * z)
    tail = np.full_like(t, 1.061405429)
    for factor in (-1.453152027, 1.421413741, -0.284496736, 0.254829592):
        tail *= t
        tail += np.float32(factor)
    tail *= t * np.exp(-z * z) * np.float32(0.5)
    return np.where(x < 0, tail, 1 - tail)


def hard_sigmoid(x: Array) -> Array:
    return np.clip(x * np.float32(1 / 6) + np.float32(0.5), 0, 1)


def hard_sigmoid_backward(dy: Array, x: Array) -> Array:
    return dy * np.float32(1 / 6) * (np.abs(x) < 3)


def hard_swish(x: Array) -> Array:
    return x * hard_sigmoid(x)


def hard_swish_backward(dy: Array, x: Array) -> Array:
    slope = x * np.float32(1 / 3) + np.float32(0.5)
    return dy * np.where(x <= -3, 0, np.where(x >= 3, 1, slope))


def relu6(x: Array) -> Array:
    return np.clip(x, 0, 6)


def relu6_backward(dy: Array, x: Array) -> Array:
    return dy * ((x > 0) & (x < 6))


def mish(x: Array) -> Array:
    return x * np.tanh(softplus(x))


def mish_backward(dy: Array, x: Array) -> Array:
    t = np.tanh(softplus(x))
    return dy * (t + x * sigmoid(x) * (1 - t * t))


def clip(x: Array, x_min: float, x_max: float) -> Array:
    return np.clip(x, np.float32(x_min), np.float32(x_max))


def clip_backward(dy: Array, x: Array, x_min: float, x_max: float) -> Array:
    return dy * ((x >= np.float32(x_min)) & (x <= np.float32(x_max)))


def absolute(x: Array) -> Array:
    return np.abs(x)


def absolute_backward(dy: Array, x: Array) -> Array:
    return dy * np.sign(x)


def square(x: Array) -> Array:
    return x * x


def square_backward(dy: Array, x: Array) -> Array:
    return 2 * dy * x


def sqrt(x: Array) -> Array:
    return np.sqrt(x)


def sqrt_backward(dy: Array, x: Array) -> Array:
    return np.float32(0.5) * dy / np.sqrt(x)


def log(x: Array) -> Array:
    return np.log(x)


def log_backward(dy: Array, x: Array) -> Array:
    return dy / x


# ---- of two arrays: of one shape, or the second a row of channels --------------------------------
def add(a: Array, b: Array) -> Array:
    return a + b


def add_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    """(da, db), copies as every gradient is."""
    return dy.copy(), dy.copy()


def subtract(a: Array, b: Array) -> Array:
    return a - b


def subtract_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    return dy.copy(), -dy


def multiply(a: Array, b: Array) -> Array:
    return a * b


def multiply_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    db = dy * a
    return dy * b, db if b.shape == a.shape else db.reshape(-1, b.size).sum(0)


def divide(a: Array, b: Array) -> Array:
    return a / b


def divide_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    da = dy / b
    return da, -da * a / b


def maximum(a: Array, b: Array) -> Array:
    return np.maximum(a, b)


def maximum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    first = a >= b
    return dy * first, dy * ~first


def minimum(a: Array, b: Array) -> Array:
    return np.minimum(a, b)


def minimum_backward(dy: Array, a: Array, b: Array) -> tuple[Array, Array]:
    first = a <= b
    return dy * first, dy * ~first
