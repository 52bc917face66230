"""Naive float64 references of every op and of its gradients, in plain NumPy.

They are written to be read, not to be fast: one formula after another, in the words of the
kernels. Layout is channels_last: x (N, H, W, C), kernel (KH, KW, C / groups, F), y (N, OH, OW, F).
A reference takes the arguments of its op. `<op>_backward(dy, ...)` returns a tuple with one
gradient per array argument; None where there is none (no bias, integer labels).
"""

from __future__ import annotations

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


# ---- joining -----------------------------------------------------------------------------------


def concatenate(arrays, axis=-1):
    return np.concatenate(arrays, axis=axis)


def concatenate_backward(dy, arrays, axis=-1):
    ends = np.cumsum([array.shape[axis] for array in arrays])
    return tuple(np.split(dy, ends[:-1], axis=axis))


def add(x1, x2):
    return x1 + x2


def add_backward(dy, x1, x2):
    return dy, dy


# ---- losses: y_true and y_pred (..., size), one value per row; dy has the shape of the loss ------


def categorical_crossentropy(y_true, y_pred, *, from_logits=False):
    """- sum of y_true log p, where p is y_pred scaled to a sum of one and clipped."""
    return -(y_true * log_probabilities(y_pred, from_logits)).sum(axis=-1)


def categorical_crossentropy_backward(dy, y_true, y_pred, *, from_logits=False):
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


def binary_crossentropy(y_true, y_pred, *, from_logits=False):
    """- mean of y_true log p + (1 - y_true) log (1 - p)."""
    log_p, log_q = log_probability_and_rest(y_pred, from_logits)
    return -(y_true * log_p + (1.0 - y_true) * log_q).mean(axis=-1)


def binary_crossentropy_backward(dy, y_true, y_pred, *, from_logits=False):
    dy = dy[..., None] / y_pred.shape[-1]
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
