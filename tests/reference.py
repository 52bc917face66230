"""Naive float64 references of every op and of its gradients, in plain NumPy.

They are written to be read, not to be fast: one formula after another, in the words of the
kernels. Layout is channels_last: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F).
A reference takes the arguments of its op. `<op>_backward(dy, ...)` returns a tuple with one
gradient per array argument; None where there is none (no bias, integer labels).
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

EPSILON = 1e-7  # probabilities are clipped to EPSILON .. 1 - EPSILON


# ---- windows over an image ---------------------------------------------------------------------


@dataclass
class Axis:
    """Windows along one axis: tap t of window k lies at k * stride - before + t * dilation."""

    size: int
    window: int
    stride: int
    dilation: int
    before: int
    after: int
    out: int

    @property
    def extent(self) -> int:
        """Length of a padded axis in which every tap of every window can be read."""
        last = (self.out - 1) * self.stride + (self.window - 1) * self.dilation + 1
        return max(self.before + self.size, last)

    def tap(self, index: int) -> slice:
        """Where tap `index` of all windows lies on the padded axis."""
        start = index * self.dilation
        return slice(start, start + (self.out - 1) * self.stride + 1, self.stride)


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def axis_of(size, window, stride, dilation, padding, ceil_mode=False) -> Axis:
    """The windows along one axis; padding is "valid", "same" (TensorFlow's rule) or a pair."""
    reach = (window - 1) * dilation + 1
    if padding == "same":
        out = -(-size // stride)
        total = max((out - 1) * stride + reach - size, 0)
        before, after = total // 2, total - total // 2
        return Axis(size, window, stride, dilation, before, after, out)
    before, after = (0, 0) if padding == "valid" else padding
    room = size + before + after - reach
    if ceil_mode:
        out = -(-room // stride) + 1
        # The last window must start inside the input or the padding before it.
        if (out - 1) * stride >= size + before:
            out -= 1
    else:
        out = room // stride + 1
    return Axis(size, window, stride, dilation, before, after, out)


def axes_of(x, window, strides, padding, dilation=1, ceil_mode=False) -> tuple[Axis, Axis]:
    """The windows down and right over x (N, H, W, C)."""
    if isinstance(padding, str):
        paddings = (padding, padding)
    else:
        paddings = tuple((side, side) if isinstance(side, int) else side for side in pair(padding))
    sizes = x.shape[1:3]
    windows, steps, dilations = pair(window), pair(strides), pair(dilation)
    down, right = (
        axis_of(sizes[i], windows[i], steps[i], dilations[i], paddings[i], ceil_mode)
        for i in range(2)
    )
    return down, right


def padded(x, down: Axis, right: Axis, value: float) -> np.ndarray:
    """x (N, H, W, C) with a border of `value`, so wide that every tap can be read."""
    n, height, width, channels = x.shape
    wide = np.full((n, down.extent, right.extent, channels), value)
    wide[:, down.before : down.before + height, right.before : right.before + width] = x
    return wide


def unpadded(wide, down: Axis, right: Axis) -> np.ndarray:
    """The part of a padded array that lies over the input."""
    rows = slice(down.before, down.before + down.size)
    columns = slice(right.before, right.before + right.size)
    return wide[:, rows, columns]


def taps(down: Axis, right: Axis):
    """(i, j, index of that tap of all windows in the padded array), row by row."""
    for i in range(down.window):
        for j in range(right.window):
            yield i, j, (slice(None), down.tap(i), right.tap(j))


# ---- convolution -------------------------------------------------------------------------------


def conv2d(
    x, kernel, bias=None, *, strides=1, padding="valid", dilation_rate=1, groups=1, activation=None
):
    """y[n, p, q, f] = sum of x[n, p s + i d, q s + j d, c] kernel[i, j, c, f] + bias[f]."""
    down, right = axes_of(x, kernel.shape[:2], strides, padding, dilation_rate)
    wide = padded(x, down, right, 0.0)
    y = np.zeros((x.shape[0], down.out, right.out, groups, kernel.shape[3] // groups))
    for i, j, tap in taps(down, right):
        y += np.einsum(
            "npqgc,cgf->npqgf", by_group(wide[tap], groups), by_group(kernel[i, j], groups)
        )
    y = y.reshape(*y.shape[:3], kernel.shape[3])
    if bias is not None:
        y = y + bias
    return activated(y, activation)


def conv2d_backward(
    dy,
    x,
    kernel,
    bias=None,
    *,
    strides=1,
    padding="valid",
    dilation_rate=1,
    groups=1,
    activation=None,
):
    """dx scatters dy times the kernel; dkernel gathers x times dy; dbias sums dy over pixels."""
    options = {
        "strides": strides,
        "padding": padding,
        "dilation_rate": dilation_rate,
        "groups": groups,
    }
    if activation is not None:
        dy = activated_backward(dy, conv2d(x, kernel, bias, **options), activation)
    down, right = axes_of(x, kernel.shape[:2], strides, padding, dilation_rate)
    wide = padded(x, down, right, 0.0)
    dwide = np.zeros_like(wide)
    dkernel = np.zeros(kernel.shape)
    grouped = by_group(dy, groups)
    for i, j, tap in taps(down, right):
        dpatch = np.einsum("npqgf,cgf->npqgc", grouped, by_group(kernel[i, j], groups))
        dwide[tap] += dpatch.reshape(dwide[tap].shape)
        dtap = np.einsum("npqgc,npqgf->cgf", by_group(wide[tap], groups), grouped)
        dkernel[i, j] = dtap.reshape(dkernel[i, j].shape)
    dbias = None if bias is None else dy.sum(axis=(0, 1, 2))
    return unpadded(dwide, down, right), dkernel, dbias


def by_group(array, groups):
    """The last axis as (groups, per group): a group's channels lie next to each other."""
    return array.reshape(*array.shape[:-1], groups, array.shape[-1] // groups)


# ---- transposed, depthwise and separable convolution -------------------------------------------


def scattered_taps(x, kernel, strides, padding, output_padding, dilation_rate):
    """(size of the result, its cut of the whole, (i, j, places of tap (i, j) in the whole)s)."""
    sides = []
    for size, taps_, step, apart, extra in zip(
        x.shape[1:3],
        kernel.shape[:2],
        pair(strides),
        pair(dilation_rate),
        (None, None) if output_padding is None else pair(output_padding),
        strict=True,
    ):
        window = (taps_ - 1) * apart + 1
        if padding == "valid":
            out = (size - 1) * step + (max(window, step) if extra is None else window + extra)
        else:
            out = size * step if extra is None else (size - 1) * step + window % 2 + extra
        before = max((size - 1) * step + window - out, 0) // 2
        whole = max((size - 1) * step + window, before + out)
        places = [slice(i * apart, i * apart + (size - 1) * step + 1, step) for i in range(taps_)]
        sides.append((whole, slice(before, before + out), places))
    return sides


def conv2d_transpose(
    x,
    kernel,
    bias=None,
    *,
    strides=1,
    padding="valid",
    output_padding=None,
    dilation_rate=1,
    activation=None,
):
    """Each pixel of x adds kernel[i, j] x to what lies at its window's tap (i, j)."""
    down, right = scattered_taps(x, kernel, strides, padding, output_padding, dilation_rate)
    whole = np.zeros((x.shape[0], down[0], right[0], kernel.shape[2]))
    for i, rows in enumerate(down[2]):
        for j, columns in enumerate(right[2]):
            whole[:, rows, columns] += np.einsum("npqc,fc->npqf", x, kernel[i, j])
    y = whole[:, down[1], right[1]]
    return activated(y if bias is None else y + bias, activation)


def conv2d_transpose_backward(
    dy,
    x,
    kernel,
    bias=None,
    *,
    strides=1,
    padding="valid",
    output_padding=None,
    dilation_rate=1,
    activation=None,
):
    """What a pixel's window takes from dy, times the kernel, or times the pixel."""
    options = (strides, padding, output_padding, dilation_rate)
    if activation is not None:
        names = ("strides", "padding", "output_padding", "dilation_rate")
        z = conv2d_transpose(x, kernel, bias, **dict(zip(names, options, strict=True)))
        dy = activated_backward(dy, z, activation)
    down, right = scattered_taps(x, kernel, *options)
    whole = np.zeros((x.shape[0], down[0], right[0], kernel.shape[2]))
    whole[:, down[1], right[1]] = dy
    dx, dkernel = np.zeros(x.shape), np.zeros(kernel.shape)
    for i, rows in enumerate(down[2]):
        for j, columns in enumerate(right[2]):
            dx += np.einsum("npqf,fc->npqc", whole[:, rows, columns], kernel[i, j])
            dkernel[i, j] = np.einsum("npqf,npqc->fc", whole[:, rows, columns], x)
    return dx, dkernel, None if bias is None else dy.sum(axis=(0, 1, 2))


def depthwise_conv2d(x, kernel, bias=None, **options):
    """Channel c with the filters kernel[:, :, c], each a convolution of its own."""
    activation = options.pop("activation", None)
    parts = [
        conv2d(x[..., c : c + 1], kernel[:, :, c : c + 1], **options) for c in range(x.shape[3])
    ]
    y = np.concatenate(parts, axis=-1)
    return activated(y if bias is None else y + bias, activation)


def depthwise_conv2d_backward(dy, x, kernel, bias=None, **options):
    activation = options.pop("activation", None)
    if activation is not None:
        z = depthwise_conv2d(x, kernel, bias, **options)
        dy = activated_backward(dy, z, activation)
    pieces = np.split(dy, x.shape[3], axis=-1)
    parts = [
        conv2d_backward(piece, x[..., c : c + 1], kernel[:, :, c : c + 1], **options)
        for c, piece in enumerate(pieces)
    ]
    dx = np.concatenate([part[0] for part in parts], axis=-1)
    dkernel = np.concatenate([part[1] for part in parts], axis=2)
    return dx, dkernel, None if bias is None else dy.sum(axis=(0, 1, 2))


def separable_conv2d(x, depthwise_kernel, pointwise_kernel, bias=None, **options):
    """A depthwise convolution, then one by 1 x 1."""
    activation = options.pop("activation", None)
    z = depthwise_conv2d(x, depthwise_kernel, **options)
    return conv2d(z, pointwise_kernel, bias, activation=activation)


def separable_conv2d_backward(dy, x, depthwise_kernel, pointwise_kernel, bias=None, **options):
    activation = options.pop("activation", None)
    z = depthwise_conv2d(x, depthwise_kernel, **options)
    dz, dpointwise, dbias = conv2d_backward(dy, z, pointwise_kernel, bias, activation=activation)
    dx, ddepthwise, _ = depthwise_conv2d_backward(dz, x, depthwise_kernel, **options)
    return dx, ddepthwise, dpointwise, dbias


# ---- normalisation -----------------------------------------------------------------------------


def normal(x, axes, epsilon):
    """(x - mean) / sqrt(variance + epsilon) over these axes, and 1 / sqrt(variance + epsilon)."""
    inverse = 1 / np.sqrt(x.var(axis=axes, keepdims=True) + epsilon)
    return (x - x.mean(axis=axes, keepdims=True)) * inverse, inverse


def normal_backward(g, x, axes, epsilon):
    """The gradient of x, given that of what is normal."""
    h, inverse = normal(x, axes, epsilon)

    def mean(value):
        return value.mean(axis=axes, keepdims=True)

    return inverse * (g - mean(g) - h * mean(g * h))


def along(numbers, x, axis, missing):
    """Numbers of an axis, in a shape that goes with x."""
    if numbers is None:
        return missing
    shape = [1] * x.ndim
    shape[axis] = x.shape[axis]
    return numbers.reshape(shape)


def batch_norm(
    x,
    gamma=None,
    beta=None,
    mean=None,
    variance=None,
    *,
    axis=-1,
    epsilon=1e-3,
    return_moments=False,
):
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    if mean is None and x.size:
        mean, variance = x.mean(axis=others), x.var(axis=others)
    elif mean is None:
        mean = variance = np.zeros(x.shape[axis])
    h = (x - along(mean, x, axis, 0)) / np.sqrt(along(variance, x, axis, 0) + epsilon)
    y = h * along(gamma, x, axis, 1) + along(beta, x, axis, 0)
    return (y, mean, variance) if return_moments else y


def batch_norm_backward(
    dy, x, gamma=None, beta=None, mean=None, variance=None, *, axis=-1, epsilon=1e-3
):
    others = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
    g = dy * along(gamma, x, axis, 1)
    if mean is not None:
        inverse = 1 / np.sqrt(along(variance, x, axis, 0) + epsilon)
        h, dx = (x - along(mean, x, axis, 0)) * inverse, g * inverse
    elif x.size:
        (h, _), dx = normal(x, others, epsilon), normal_backward(g, x, others, epsilon)
    else:
        h = dx = x
    dgamma = None if gamma is None else (dy * h).sum(axis=others)
    return dx, dgamma, None if beta is None else dy.sum(axis=others)


def layer_norm(x, gamma=None, beta=None, *, axis=-1, epsilon=1e-3):
    h, _ = normal(x, axis, epsilon)
    return h * (1 if gamma is None else gamma) + (0 if beta is None else beta)


def layer_norm_backward(dy, x, gamma=None, beta=None, *, axis=-1, epsilon=1e-3):
    count = 1 if isinstance(axis, int) else len(axis)
    others = tuple(range(x.ndim - count))
    h, _ = normal(x, axis, epsilon)
    dx = normal_backward(dy * (1 if gamma is None else gamma), x, axis, epsilon)
    dgamma = None if gamma is None else (dy * h).sum(axis=others)
    return dx, dgamma, None if beta is None else dy.sum(axis=others)


def prelu(x, alpha):
    return np.where(x > 0, x, alpha * x)


def prelu_backward(dy, x, alpha):
    full = (1,) * (x.ndim - alpha.ndim) + alpha.shape
    shared = tuple(i for i, size in enumerate(full) if size == 1)
    dalpha = np.where(x > 0, 0.0, dy * x).sum(axis=shared)
    return np.where(x > 0, dy, alpha * dy), dalpha.reshape(alpha.shape)


# ---- pooling -----------------------------------------------------------------------------------


def max_pool2d(x, pool_size=2, *, strides=None, padding="valid", dilation_rate=1, ceil_mode=False):
    """The largest value of each window; NaN counts as the largest, padding never wins."""
    values, _, _, _ = window_values(x, pool_size, strides, padding, dilation_rate, ceil_mode)
    return values.max(axis=0)


def max_pool2d_backward(
    dy, x, pool_size=2, *, strides=None, padding="valid", dilation_rate=1, ceil_mode=False
):
    """A window's gradient goes to the first of its largest values, row by row."""
    values, inside, down, right = window_values(
        x, pool_size, strides, padding, dilation_rate, ceil_mode
    )
    top = values.max(axis=0)
    wins = inside & ((values == top) | (np.isnan(values) & np.isnan(top)))
    first = wins & (np.cumsum(wins, axis=0) == 1)
    dwide = np.zeros(padded(x, down, right, 0.0).shape)
    for share, (_, _, tap) in zip(first, taps(down, right), strict=True):
        dwide[tap] += np.where(share, dy, 0.0)
    return (unpadded(dwide, down, right),)


def avg_pool2d(
    x, pool_size=2, *, strides=None, padding="valid", ceil_mode=False, count_include_pad=False
):
    """The sum of each window over the number of its values (with count_include_pad, its cells)."""
    values, inside, down, right = window_values(x, pool_size, strides, padding, 1, ceil_mode)
    total = np.where(inside, values, 0.0).sum(axis=0)
    return total / window_count(down, right, count_include_pad)


def avg_pool2d_backward(
    dy, x, pool_size=2, *, strides=None, padding="valid", ceil_mode=False, count_include_pad=False
):
    """Every value of a window gets an equal share of the window's gradient."""
    down, right = axes_of(x, pool_size, strides or pool_size, padding, 1, ceil_mode)
    share = dy / window_count(down, right, count_include_pad)
    dwide = np.zeros(padded(x, down, right, 0.0).shape)
    for _, _, tap in taps(down, right):
        dwide[tap] += share
    return (unpadded(dwide, down, right),)


def window_values(x, pool_size, strides, padding, dilation, ceil_mode):
    """Values (taps, N, OH, OW, C) of all windows, -inf off the input; which are inside; axes."""
    down, right = axes_of(x, pool_size, strides or pool_size, padding, dilation, ceil_mode)
    wide = padded(x, down, right, -np.inf)
    over = padded(np.ones(x.shape), down, right, 0.0) == 1.0
    values = np.stack([wide[tap] for _, _, tap in taps(down, right)])
    inside = np.stack([over[tap] for _, _, tap in taps(down, right)])
    return values, inside, down, right


def window_count(down: Axis, right: Axis, count_include_pad: bool) -> np.ndarray:
    """Divisors (OH, OW, 1): cells of a window on the input, or on the input and its padding."""

    def along(axis: Axis) -> np.ndarray:
        counts = np.zeros(axis.out)
        for k in range(axis.out):
            for tap in range(axis.window):
                position = k * axis.stride - axis.before + tap
                if count_include_pad:
                    counts[k] += -axis.before <= position < axis.size + axis.after
                else:
                    counts[k] += 0 <= position < axis.size
        return counts

    return np.outer(along(down), along(right))[:, :, None]


# ---- up-sampling -------------------------------------------------------------------------------


def upsample2d(x, size=2, *, interpolation="nearest"):
    """y = D x R^T for each image and channel; D and R hold the weights down and right."""
    down, right = upsample_weights(x, size, interpolation)
    return np.einsum("qw,npwc->npqc", right, np.einsum("ph,nhwc->npwc", down, x))


def upsample2d_backward(dy, x, size=2, *, interpolation="nearest"):
    """dx = D^T dy R."""
    down, right = upsample_weights(x, size, interpolation)
    return (np.einsum("ph,npwc->nhwc", down, np.einsum("qw,npqc->npwc", right, dy)),)


def upsample_weights(x, size, interpolation):
    scale_height, scale_width = pair(size)
    along = nearest_weights if interpolation == "nearest" else bilinear_weights
    return along(x.shape[1], scale_height), along(x.shape[2], scale_width)


def nearest_weights(size: int, scale: int) -> np.ndarray:
    weights = np.zeros((size * scale, size))
    for k in range(size * scale):
        weights[k, k // scale] = 1.0
    return weights


def bilinear_weights(size: int, scale: int) -> np.ndarray:
    """Half-pixel centres: output k lies at (k + 1/2) / scale - 1/2; beyond the edges, the edge."""
    weights = np.zeros((size * scale, size))
    for k in range(size * scale):
        position = (k + 0.5) / scale - 0.5
        left = int(np.floor(position))
        weight = position - left
        weights[k, min(max(left, 0), size - 1)] += 1.0 - weight
        weights[k, min(max(left + 1, 0), size - 1)] += weight
    return weights


# ---- dense -------------------------------------------------------------------------------------


def dense(x, kernel, bias=None, *, activation=None):
    """y = x kernel + bias over the last axis of x."""
    y = x @ kernel
    if bias is not None:
        y = y + bias
    return activated(y, activation)


def dense_backward(dy, x, kernel, bias=None, *, activation=None):
    if activation is not None:
        dy = activated_backward(dy, dense(x, kernel, bias), activation)
    rows_x = x.reshape(-1, kernel.shape[0])
    rows_dy = dy.reshape(-1, kernel.shape[1])
    dbias = None if bias is None else rows_dy.sum(axis=0)
    return dy @ kernel.T, rows_x.T @ rows_dy, dbias


# ---- activations -------------------------------------------------------------------------------


def relu(x):
    return np.where(x <= 0.0, 0.0, x)


def relu_backward(dy, x):
    return (np.where(x > 0.0, dy, 0.0),)


def leaky_relu(x, negative_slope=0.2):
    return np.where(x > 0.0, x, negative_slope * x)


def leaky_relu_backward(dy, x, negative_slope=0.2):
    return (np.where(x > 0.0, dy, negative_slope * dy),)


def sigmoid(x):
    """1 / (1 + exp(-x)), written so that exp never overflows."""
    small = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0 / (1.0 + small), small / (1.0 + small))


def sigmoid_backward(dy, x):
    return (dy * sigmoid(x) * sigmoid(-x),)


def tanh(x):
    return np.tanh(x)


def tanh_backward(dy, x):
    return (dy / np.cosh(x) ** 2,)


def exp(x):
    return np.exp(x)


def exp_backward(dy, x):
    return (dy * np.exp(x),)


def softmax(x, axis=-1):
    powers = np.exp(x - x.max(axis=axis, keepdims=True))
    return powers / powers.sum(axis=axis, keepdims=True)


def softmax_backward(dy, x, axis=-1):
    y = softmax(x, axis)
    return (y * (dy - (dy * y).sum(axis=axis, keepdims=True)),)


def log_softmax(x, axis=-1):
    shifted = x - x.max(axis=axis, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=axis, keepdims=True))


def log_softmax_backward(dy, x, axis=-1):
    return (dy - softmax(x, axis) * dy.sum(axis=axis, keepdims=True),)


def rescale(x, scale, offset=0.0):
    return x * scale + offset


def rescale_backward(dy, x, scale, offset=0.0):
    return (dy * scale,)


ACTIVATIONS = {
    "linear": (lambda x: x, lambda dy, x: (dy,)),
    "relu": (relu, relu_backward),
    "leaky_relu": (leaky_relu, leaky_relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "exp": (exp, exp_backward),
    "softmax": (softmax, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_backward),
}


def activated(x, name):
    return x if name is None else ACTIVATIONS[name][0](x)


def activated_backward(dy, x, name):
    return ACTIVATIONS[name][1](dy, x)[0]


# ---- element by element ------------------------------------------------------------------------


def elu(x, alpha=1.0):
    return np.where(x > 0.0, x, alpha * np.expm1(np.minimum(x, 0.0)))


def elu_backward(dy, x, alpha=1.0):
    return (dy * np.where(x > 0.0, 1.0, alpha * np.exp(np.minimum(x, 0.0))),)


SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772


def selu(x):
    return SELU_SCALE * elu(x, SELU_ALPHA)


def selu_backward(dy, x):
    slope = np.where(x >= 0.0, 1.0, SELU_ALPHA * np.exp(np.minimum(x, 0.0)))
    return (SELU_SCALE * dy * slope,)


def softplus(x):
    return np.logaddexp(0.0, x)


def softplus_backward(dy, x):
    return (dy * sigmoid(x),)


def softsign(x):
    return x / (1.0 + np.abs(x))


def softsign_backward(dy, x):
    return (dy / (1.0 + np.abs(x)) ** 2,)


def silu(x):
    return x * sigmoid(x)


def silu_backward(dy, x):
    return (dy * (sigmoid(x) + x * sigmoid(x) * sigmoid(-x)),)


def normal_below(x):
    """The share of a standard normal distribution that lies below x."""
    return np.vectorize(lambda v: math.erfc(-v / math.sqrt(2.0)) / 2.0, otypes=[float])(x)


def gelu(x, approximate=False):
    return x * (sigmoid(gelu_argument(x)[0]) if approximate else normal_below(x))


def gelu_backward(dy, x, approximate=False):
    if approximate:
        twice, slope = gelu_argument(x)
        return (dy * (sigmoid(twice) + x * slope * sigmoid(twice) * sigmoid(-twice)),)
    return (dy * (normal_below(x) + x * np.exp(-x * x / 2.0) / math.sqrt(2.0 * math.pi)),)


def gelu_argument(x):
    """2 u and its derivative: (1 + tanh(u)) / 2 is sigmoid(2 u)."""
    factor = 2.0 * math.sqrt(2.0 / math.pi)
    return factor * (x + 0.044715 * x**3), factor * (1.0 + 3.0 * 0.044715 * x**2)


def hard_sigmoid(x):
    return np.clip(x / 6.0 + 0.5, 0.0, 1.0)


def hard_sigmoid_backward(dy, x):
    return (np.where(np.abs(x) < 3.0, dy / 6.0, 0.0),)


def hard_swish(x):
    return x * hard_sigmoid(x)


def hard_swish_backward(dy, x):
    return (dy * np.where(np.abs(x) < 3.0, x / 3.0 + 0.5, x > 0.0),)


def relu6(x):
    return np.clip(x, 0.0, 6.0)


def relu6_backward(dy, x):
    return (np.where((x > 0.0) & (x < 6.0), dy, 0.0),)


def mish(x):
    return x * np.tanh(softplus(x))


def mish_backward(dy, x):
    t = np.tanh(softplus(x))
    return (dy * (t + x * sigmoid(x) / np.cosh(np.minimum(softplus(x), 300.0)) ** 2),)


def clip(x, x_min, x_max):
    return np.clip(x, x_min, x_max)


def clip_backward(dy, x, x_min, x_max):
    low = -np.inf if x_min is None else x_min
    high = np.inf if x_max is None else x_max
    return (np.where((x >= low) & (x <= high), dy, 0.0),)


def absolute(x):
    return np.abs(x)


def absolute_backward(dy, x):
    return (dy * np.sign(x),)


def square(x):
    return x * x


def square_backward(dy, x):
    return (2.0 * dy * x,)


def sqrt(x):
    return np.sqrt(x)


def sqrt_backward(dy, x):
    return (dy / (2.0 * np.sqrt(x)),)


def log(x):
    return np.log(x)


def log_backward(dy, x):
    return (dy / x,)


def subtract(x1, x2):
    return x1 - x2


def subtract_backward(dy, x1, x2):
    return summed(dy, x1), summed(-dy, x2)


def multiply(x1, x2):
    return x1 * x2


def multiply_backward(dy, x1, x2):
    return summed(dy * x2, x1), summed(dy * x1, x2)


def divide(x1, x2):
    return x1 / x2


def divide_backward(dy, x1, x2):
    return summed(dy / x2, x1), summed(-dy * x1 / x2**2, x2)


def maximum(x1, x2):
    return np.maximum(x1, x2)


def maximum_backward(dy, x1, x2):
    return summed(np.where(x1 >= x2, dy, 0.0), x1), summed(np.where(x1 >= x2, 0.0, dy), x2)


def minimum(x1, x2):
    return np.minimum(x1, x2)


def minimum_backward(dy, x1, x2):
    return summed(np.where(x1 <= x2, dy, 0.0), x1), summed(np.where(x1 <= x2, 0.0, dy), x2)


def summed(dy, x):
    """dy over all that x was broadcast to, in the shape of x."""
    axes = tuple(range(dy.ndim - x.ndim))
    dy = dy.sum(axis=axes)
    kept = tuple(i for i, size in enumerate(x.shape) if size == 1)
    return dy.sum(axis=kept, keepdims=True)


# ---- over axes ---------------------------------------------------------------------------------


def __getattr__(name):
    """sum, mean, max, min and their gradients: this file uses Python's own under these names."""
    kind, _, back = name.partition("_")
    if kind not in ("sum", "mean", "max", "min"):
        raise AttributeError(name)
    return globals()[f"{kind}_over_{back}" if back else f"{kind}_over"]


def sum_over(x, axis=None, keepdims=False):
    return np.asarray(x.sum(axis=axis, keepdims=keepdims))


def sum_over_backward(dy, x, axis=None, keepdims=False):
    return (np.broadcast_to(with_axes(dy, x, axis), x.shape).copy(),)


def mean_over(x, axis=None, keepdims=False):
    return np.asarray(x.mean(axis=axis, keepdims=keepdims))


def mean_over_backward(dy, x, axis=None, keepdims=False):
    count = np.ones(x.shape).sum(axis=axis, keepdims=True)
    return (with_axes(dy, x, axis) / count * np.ones(x.shape),)


def max_over(x, axis=None, keepdims=False):
    return np.asarray(x.max(axis=axis, keepdims=keepdims))


def max_over_backward(dy, x, axis=None, keepdims=False):
    """The first of the largest values, row by row, takes dy."""
    first = first_of(x, x.max(axis=axis, keepdims=True), axis)
    return (np.where(first, with_axes(dy, x, axis), 0.0),)


def min_over(x, axis=None, keepdims=False):
    return np.asarray(x.min(axis=axis, keepdims=keepdims))


def min_over_backward(dy, x, axis=None, keepdims=False):
    first = first_of(x, x.min(axis=axis, keepdims=True), axis)
    return (np.where(first, with_axes(dy, x, axis), 0.0),)


def axes_of_reduction(x, axis):
    if axis is None:
        return tuple(range(x.ndim))
    return tuple(a % x.ndim for a in (axis if isinstance(axis, tuple) else (axis,)))


def with_axes(dy, x, axis):
    """dy with one value along each axis that was reduced."""
    axes = axes_of_reduction(x, axis)
    return dy.reshape([1 if i in axes else size for i, size in enumerate(x.shape)])


def first_of(x, top, axis):
    """Where x is `top` for the first time along the axes, the last of which goes fastest."""
    axes = sorted(axes_of_reduction(x, axis))
    there = (x == top) | (np.isnan(x) & np.isnan(top))
    moved = np.moveaxis(there, axes, range(-len(axes), 0))
    kept = x.ndim - len(axes)
    flat = moved.reshape(*moved.shape[:kept], math.prod(moved.shape[kept:]))
    first = flat & (np.cumsum(flat, axis=-1) == 1)
    return np.moveaxis(first.reshape(moved.shape), range(-len(axes), 0), axes)


def global_avg_pool2d(x, keepdims=False):
    return mean_over(x, (1, 2), keepdims)


def global_avg_pool2d_backward(dy, x, keepdims=False):
    return mean_over_backward(dy, x, (1, 2), keepdims)


def global_max_pool2d(x, keepdims=False):
    return max_over(x, (1, 2), keepdims)


def global_max_pool2d_backward(dy, x, keepdims=False):
    return max_over_backward(dy, x, (1, 2), keepdims)


# ---- joining -----------------------------------------------------------------------------------


def concatenate(arrays, axis=-1):
    return np.concatenate(arrays, axis=axis)


def concatenate_backward(dy, arrays, axis=-1):
    ends = np.cumsum([array.shape[axis] for array in arrays])
    return tuple(np.split(dy, ends[:-1], axis=axis))


def add(x1, x2):
    return x1 + x2


def add_backward(dy, x1, x2):
    return summed(dy, x1), summed(dy, x2)


# ---- padding, cropping, orders of axes, repetition ----------------------------------------------


def pad2d(x, padding):
    return np.pad(x, ((0, 0), *borders(padding), (0, 0)))


def pad2d_backward(dy, x, padding):
    return (crop2d(dy, padding),)


def crop2d(x, cropping):
    (top, bottom), (left, right) = borders(cropping)
    return x[:, top : x.shape[1] - bottom, left : x.shape[2] - right]


def crop2d_backward(dy, x, cropping):
    return (pad2d(dy, cropping),)


def borders(value):
    """((top, bottom), (left, right))."""
    return tuple(pair(side) for side in pair(value))


def permute(x, axes):
    return np.ascontiguousarray(x.transpose(0, *axes))


def permute_backward(dy, x, axes):
    return (np.ascontiguousarray(dy.transpose(0, *(1 + np.argsort(axes)))),)


def repeat(x, repeats, axis=-1):
    return np.repeat(x, repeats, axis)


def repeat_backward(dy, x, repeats, axis=-1):
    index = axis % x.ndim
    copies = dy.reshape(*x.shape[: index + 1], repeats, *x.shape[index + 1 :])
    return (copies.sum(axis=index + 1),)


# ---- augmentation ------------------------------------------------------------------------------


def affine_transform(x, rows, columns, *, bilinear=True, fill_mode="reflect", fill_value=0.0):
    """y[i, j] of each image is x at (r, c), the places (row, column) of (1, i, j), as Keras.

    rows and columns (N, 3) hold the factors of 1, i and j.
    """
    n, height, width, _ = x.shape
    y = np.zeros(x.shape)
    for sample in range(n):
        for i in range(height):
            for j in range(width):
                r, c = rows[sample] @ (1, i, j), columns[sample] @ (1, i, j)
                y[sample, i, j] = value_at(x[sample], r, c, bilinear, fill_mode, fill_value)
    return y


def value_at(image, row, column, bilinear, fill_mode, fill_value):
    def pixel(i, j):
        i = beyond(i, image.shape[0], fill_mode)
        j = beyond(j, image.shape[1], fill_mode)
        return fill_value if i is None or j is None else image[i, j]

    if not bilinear:
        return pixel(away_from_zero(row), away_from_zero(column))
    top, left = int(np.floor(row)), int(np.floor(column))
    down, right = row - top, column - left
    upper = pixel(top, left) * (1 - right) + pixel(top, left + 1) * right
    lower = pixel(top + 1, left) * (1 - right) + pixel(top + 1, left + 1) * right
    return upper * (1 - down) + lower * down


def away_from_zero(place):
    """The nearest whole number, the one farther from 0 where two are."""
    return int(np.copysign(np.floor(abs(place) + 0.5), place))


def beyond(i, size, fill_mode):
    """Which pixel stands at place i of an axis that goes on beyond its ends; None: none does."""
    if 0 <= i < size:
        return i
    if fill_mode == "constant":
        return None
    if fill_mode == "nearest":
        return 0 if i < 0 else size - 1
    if fill_mode == "wrap":
        return i % size
    return min(i % (2 * size), 2 * size - 1 - i % (2 * size))


# ---- losses: y_true and y_pred (..., size), one value per row; dy has the shape of the loss ------


def categorical_crossentropy(y_true, y_pred, *, from_logits=False, axis=-1):
    """- sum of y_true log p, where p is y_pred scaled to a sum of one and clipped."""
    y_true, y_pred = (np.moveaxis(y, axis, -1) for y in (y_true, y_pred))
    return -(y_true * log_probabilities(y_pred, from_logits)).sum(axis=-1)


def categorical_crossentropy_backward(dy, y_true, y_pred, *, from_logits=False, axis=-1):
    if axis != -1:
        moved = (np.moveaxis(y, axis, -1) for y in (y_true, y_pred))
        gradients = categorical_crossentropy_backward(dy, *moved, from_logits=from_logits)
        return tuple(np.moveaxis(gradient, -1, axis) for gradient in gradients)
    dy = dy[..., None]
    dtrue = -log_probabilities(y_pred, from_logits) * dy
    if from_logits:
        weight = y_true.sum(axis=-1, keepdims=True)
        return dtrue, (softmax(y_pred) * weight - y_true) * dy
    total = y_pred.sum(axis=-1, keepdims=True)
    share = y_pred / total
    unclipped = (share > EPSILON) & (share < 1.0 - EPSILON)
    dshare = -np.divide(y_true, share, out=np.zeros(share.shape), where=unclipped)
    return dtrue, (dshare - (dshare * share).sum(axis=-1, keepdims=True)) / total * dy


def log_probabilities(y_pred, from_logits):
    if from_logits:
        return log_softmax(y_pred)
    share = y_pred / y_pred.sum(axis=-1, keepdims=True)
    return np.log(np.clip(share, EPSILON, 1.0 - EPSILON))


def sparse_categorical_crossentropy(y_true, y_pred, *, from_logits=False):
    """The categorical loss with the one at place y_true of each row."""
    return categorical_crossentropy(one_hot(y_true, y_pred), y_pred, from_logits=from_logits)


def sparse_categorical_crossentropy_backward(dy, y_true, y_pred, *, from_logits=False):
    _, dpred = categorical_crossentropy_backward(
        dy, one_hot(y_true, y_pred), y_pred, from_logits=from_logits
    )
    return None, dpred


def one_hot(labels, y_pred):
    return (labels[..., None] == np.arange(y_pred.shape[-1])).astype(np.float64)


def binary_crossentropy(y_true, y_pred, *, from_logits=False, axis=-1):
    """- mean of y_true log p + (1 - y_true) log (1 - p)."""
    log_p, log_q = log_probability_and_rest(y_pred, from_logits)
    return -(y_true * log_p + (1.0 - y_true) * log_q).mean(axis=axis)


def binary_crossentropy_backward(dy, y_true, y_pred, *, from_logits=False, axis=-1):
    dy = np.expand_dims(dy, axis) / y_pred.shape[axis]
    log_p, log_q = log_probability_and_rest(y_pred, from_logits)
    dtrue = (log_q - log_p) * dy
    if from_logits:
        return dtrue, (sigmoid(y_pred) - y_true) * dy
    unclipped = (y_pred > EPSILON) & (y_pred < 1.0 - EPSILON)
    slope = np.divide(
        y_pred - y_true, y_pred * (1.0 - y_pred), out=np.zeros(y_pred.shape), where=unclipped
    )
    return dtrue, slope * dy


def log_probability_and_rest(y_pred, from_logits):
    """log p and log (1 - p)."""
    if from_logits:
        return -np.logaddexp(0.0, -y_pred), -np.logaddexp(0.0, y_pred)
    p = np.clip(y_pred, EPSILON, 1.0 - EPSILON)
    return np.log(p), np.log1p(-p)


def mean_squared_error(y_true, y_pred):
    return ((y_pred - y_true) ** 2).mean(axis=-1)


def mean_squared_error_backward(dy, y_true, y_pred):
    dpred = 2.0 * (y_pred - y_true) / y_pred.shape[-1] * dy[..., None]
    return -dpred, dpred


def mean_absolute_error(y_true, y_pred):
    return np.abs(y_pred - y_true).mean(axis=-1)


def mean_absolute_error_backward(dy, y_true, y_pred):
    dpred = np.sign(y_pred - y_true) / y_pred.shape[-1] * dy[..., None]
    return -dpred, dpred


# ---- more losses: the gradient of the predictions alone ----------------------------------------


def hinge(y_true, y_pred):
    """Targets of 0 count as -1."""
    return margin(y_true, y_pred).mean(axis=-1)


def hinge_backward(dy, y_true, y_pred):
    slope = np.where(margin(y_true, y_pred) > 0.0, -side(y_true), 0.0)
    return None, slope / y_pred.shape[-1] * dy[..., None]


def side(y_true):
    return np.where(y_true == 0.0, -1.0, y_true)


def margin(y_true, y_pred):
    return np.maximum(1.0 - side(y_true) * y_pred, 0.0)


def squared_hinge(y_true, y_pred):
    return (margin(y_true, y_pred) ** 2).mean(axis=-1)


def squared_hinge_backward(dy, y_true, y_pred):
    slope = -2.0 * side(y_true) * margin(y_true, y_pred)
    return None, slope / y_pred.shape[-1] * dy[..., None]


def categorical_hinge(y_true, y_pred):
    others = ((1.0 - y_true) * y_pred).max(axis=-1)
    return np.maximum(others - (y_true * y_pred).sum(axis=-1) + 1.0, 0.0)


def categorical_hinge_backward(dy, y_true, y_pred):
    first = ((1.0 - y_true) * y_pred).argmax(axis=-1)
    slope = one_hot(first, y_pred) * (1.0 - y_true) - y_true
    return None, np.where(categorical_hinge(y_true, y_pred) > 0.0, dy, 0.0)[..., None] * slope


def huber(y_true, y_pred, *, delta=1.0):
    d = np.abs(y_pred - y_true)
    return np.where(d <= delta, d**2 / 2.0, delta * d - delta**2 / 2.0).mean(axis=-1)


def huber_backward(dy, y_true, y_pred, *, delta=1.0):
    return None, np.clip(y_pred - y_true, -delta, delta) / y_pred.shape[-1] * dy[..., None]


def kl_divergence(y_true, y_pred):
    t, p = np.clip(y_true, EPSILON, 1.0), np.clip(y_pred, EPSILON, 1.0)
    return (t * np.log(t / p)).sum(axis=-1)


def kl_divergence_backward(dy, y_true, y_pred):
    unclipped = (y_pred >= EPSILON) & (y_pred <= 1.0)
    slope = -np.clip(y_true, EPSILON, 1.0) / np.clip(y_pred, EPSILON, 1.0)
    return None, np.where(unclipped, slope, 0.0) * dy[..., None]


def poisson(y_true, y_pred):
    return (y_pred - y_true * np.log(y_pred + EPSILON)).mean(axis=-1)


def poisson_backward(dy, y_true, y_pred):
    return None, (1.0 - y_true / (y_pred + EPSILON)) / y_pred.shape[-1] * dy[..., None]


def log_cosh(y_true, y_pred):
    d = y_pred - y_true
    return (np.logaddexp(d, -d) - math.log(2.0)).mean(axis=-1)


def log_cosh_backward(dy, y_true, y_pred):
    return None, np.tanh(y_pred - y_true) / y_pred.shape[-1] * dy[..., None]


def mean_absolute_percentage_error(y_true, y_pred):
    return 100.0 * (np.abs(y_true - y_pred) / np.maximum(np.abs(y_true), EPSILON)).mean(axis=-1)


def mean_absolute_percentage_error_backward(dy, y_true, y_pred):
    slope = np.sign(y_pred - y_true) / np.maximum(np.abs(y_true), EPSILON)
    return None, 100.0 * slope / y_pred.shape[-1] * dy[..., None]


def mean_squared_logarithmic_error(y_true, y_pred):
    return (log_difference(y_true, y_pred) ** 2).mean(axis=-1)


def mean_squared_logarithmic_error_backward(dy, y_true, y_pred):
    slope = 2.0 * log_difference(y_true, y_pred) / (np.maximum(y_pred, EPSILON) + 1.0)
    return None, np.where(y_pred < EPSILON, 0.0, slope) / y_pred.shape[-1] * dy[..., None]


def log_difference(y_true, y_pred):
    return np.log1p(np.maximum(y_pred, EPSILON)) - np.log1p(np.maximum(y_true, EPSILON))


def cosine_similarity(y_true, y_pred, *, axis=-1):
    return -(unit(y_true, axis) * unit(y_pred, axis)).sum(axis=axis)


def cosine_similarity_backward(dy, y_true, y_pred, *, axis=-1):
    found = -cosine_similarity(y_true, y_pred, axis=axis)
    length = np.sqrt((y_pred**2).sum(axis=axis, keepdims=True))
    turns = np.where(length > EPSILON, np.expand_dims(found, axis), 0.0)
    slope = (turns * unit(y_pred, axis) - unit(y_true, axis)) / np.maximum(length, EPSILON)
    return None, slope * np.expand_dims(dy, axis)


def unit(x, axis):
    """Vectors of length 1, those shorter than EPSILON divided by that."""
    return x / np.maximum(np.sqrt((x**2).sum(axis=axis, keepdims=True)), EPSILON)


def binary_focal_crossentropy(
    y_true,
    y_pred,
    *,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    axis=-1,
):
    """wrong ** gamma times the binary cross-entropy, where wrong is the share that is wrong."""
    log_p, log_q = log_probability_and_rest(y_pred, from_logits)
    cost = -(y_true * log_p + (1.0 - y_true) * log_q)
    weight = class_weight(y_true, apply_class_balancing, alpha)
    return (weight * share_wrong(y_true, y_pred, from_logits) ** gamma * cost).mean(axis=axis)


def binary_focal_crossentropy_backward(
    dy,
    y_true,
    y_pred,
    *,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    axis=-1,
):
    log_p, log_q = log_probability_and_rest(y_pred, from_logits)
    cost = -(y_true * log_p + (1.0 - y_true) * log_q)
    wrong = share_wrong(y_true, y_pred, from_logits)
    if from_logits:
        p = sigmoid(y_pred)
        wrong_slope, cost_slope = (1.0 - 2.0 * y_true) * p * (1.0 - p), p - y_true
    else:
        unclipped = (y_pred > EPSILON) & (y_pred < 1.0 - EPSILON)
        below = np.where(unclipped, y_pred * (1.0 - y_pred), 1.0)
        wrong_slope, cost_slope = 1.0 - 2.0 * y_true, (y_pred - y_true) / below * unclipped
    slope = gamma * wrong ** (gamma - 1.0) * wrong_slope * cost + wrong**gamma * cost_slope
    slope *= class_weight(y_true, apply_class_balancing, alpha) / y_pred.shape[axis]
    return None, slope * np.expand_dims(dy, axis)


def share_wrong(y_true, y_pred, from_logits):
    p = sigmoid(y_pred) if from_logits else y_pred
    return y_true * (1.0 - p) + (1.0 - y_true) * p


def class_weight(y_true, balanced, alpha):
    return y_true * alpha + (1.0 - y_true) * (1.0 - alpha) if balanced else 1.0


def categorical_focal_crossentropy(
    y_true, y_pred, *, alpha=0.25, gamma=2.0, from_logits=False, axis=-1
):
    """- sum of alpha (1 - p) ** gamma y_true log p."""
    p = softmax(y_pred, axis) if from_logits else y_pred / y_pred.sum(axis=axis, keepdims=True)
    p = np.clip(p, EPSILON, 1.0 - EPSILON)
    return -(alpha * (1.0 - p) ** gamma * y_true * np.log(p)).sum(axis=axis)


def categorical_focal_crossentropy_backward(
    dy, y_true, y_pred, *, alpha=0.25, gamma=2.0, from_logits=False, axis=-1
):
    total = y_pred.sum(axis=axis, keepdims=True)
    p = softmax(y_pred, axis) if from_logits else y_pred / total
    slope = gamma * (1.0 - p) ** (gamma - 1.0) * np.log(p) - (1.0 - p) ** gamma / p
    slope = np.where((p > EPSILON) & (p < 1.0 - EPSILON), alpha * y_true * slope, 0.0)
    slope = slope - (slope * p).sum(axis=axis, keepdims=True)
    return None, slope * (p if from_logits else 1.0 / total) * np.expand_dims(dy, axis)


def dice(y_true, y_pred, *, axis=None):
    """With axis=None the same for each sample."""
    axes = tuple(range(y_pred.ndim)) if axis is None else axis
    above = 2.0 * (y_true * y_pred).sum(axis=axes)
    loss = 1.0 - above / (y_true.sum(axis=axes) + y_pred.sum(axis=axes) + EPSILON)
    return np.full(len(y_pred), loss) if axis is None else loss


def dice_backward(dy, y_true, y_pred, *, axis=None):
    axes = tuple(range(y_pred.ndim)) if axis is None else axis
    below = (y_true + y_pred).sum(axis=axes, keepdims=True) + EPSILON
    above = 2.0 * (y_true * y_pred).sum(axis=axes, keepdims=True)
    dy = dy.sum() if axis is None else np.expand_dims(dy, axis)
    return None, (above / below**2 - 2.0 * y_true / below) * dy
