"""Shapes and geometry of every op: what fits, what comes out, and the messages where it does not.

Each function checks one op's shapes and options and returns its spec, the struct of sizes that a
kernel takes. A batch size of None stands for any. Results are cached: a call with shapes that were
seen before costs a look-up.
"""

from __future__ import annotations

import operator
from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import Any

from convkit import _core

Shape = tuple[int | None, ...]
# Numbers beyond these are refused, so that no product of sizes leaves 64 bits.
LARGEST = 2**31 - 1
LARGEST_WINDOW = 2**24  # values in a pooling window; a float counts so far
LARGEST_ARRAY = 2**62

DATA_FORMATS = ("channels_last", "channels_first")
ACTIVATION_KINDS = {"relu": 0, "leaky_relu": 1, "sigmoid": 2, "tanh": 3, "exp": 4}


def fail(op: str, expected: str, got: object) -> ValueError:
    """The error that every check raises: `op: expected …, got …`."""
    return ValueError(f"{op}: expected {expected}, got {got}")


def integer(op: str, name: str, value: object, least: int) -> int:
    """`value` as an int between `least` and LARGEST; TypeError or ValueError otherwise."""
    if isinstance(value, bool):
        raise TypeError(f"{op}: expected {name} to be an integer, got {value!r}")
    try:
        number = operator.index(value)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{op}: expected {name} to be an integer, got {value!r}") from None
    if number < least:
        raise fail(op, f"{name} to be at least {least}", number)
    if number > LARGEST:
        raise fail(op, f"{name} to be at most {LARGEST}", number)
    return number


def pair(op: str, name: str, value: object, least: int) -> tuple[int, int]:
    """An integer, or two of them (down, right), as two."""
    if isinstance(value, (tuple, list)):
        if len(value) != 2:
            raise fail(op, f"{name} to be an integer or two of them", repr(value))
        down, right = (integer(op, name, item, least) for item in value)
        return down, right
    try:
        number = integer(op, name, value, least)
    except TypeError:
        raise TypeError(
            f"{op}: expected {name} to be an integer or two of them, got {value!r}"
        ) from None
    return number, number


def number(op: str, name: str, value: object, low: float, high: float) -> float:
    """`value` as a float, low <= value < high; TypeError or ValueError otherwise."""
    try:
        found = float("" if isinstance(value, str) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{op}: expected {name} to be a number, got {value!r}") from None
    if not low <= found < high:
        raise fail(op, f"{low:g} <= {name} < {high:g}", value)
    return found


def choice(op: str, name: str, value: object, allowed: Sequence[str]) -> str:
    """`value` if it is one of the allowed strings."""
    if not isinstance(value, str) or value not in allowed:
        raise fail(op, f"{name} to be one of {', '.join(map(repr, allowed))}", repr(value))
    return value


def rank(op: str, name: str, shape: Shape, axes: str) -> Shape:
    """`shape` if it has as many axes as `axes` names, such as 'N, H, W, C'."""
    if len(shape) != len(axes.split(", ")):
        raise fail(op, f"{name} of shape ({axes})", shape)
    return shape


def same_shape(op: str, name: str, shape: Shape, expected: Shape, why: str = "") -> None:
    """Fails unless `shape` is `expected`."""
    if tuple(shape) != tuple(expected):
        raise fail(op, f"{name} of shape {tuple(expected)}{why}", tuple(shape))


def hashable(op: str, name: str, value: object) -> object:
    """Lists as tuples, all the way down, so that an option can be looked up in a cache."""
    if isinstance(value, (list, tuple)):
        return tuple(hashable(op, name, item) for item in value)
    try:
        hash(value)
    except TypeError:
        raise TypeError(
            f"{op}: expected {name} to be a number, a string or a tuple, got {value!r}"
        ) from None
    return value


def axis_index(op: str, axis: object, ndim: int) -> int:
    """`axis` counted from the front."""
    if isinstance(axis, bool):
        raise TypeError(f"{op}: expected axis to be an integer, got {axis!r}")
    try:
        number = operator.index(axis)  # type: ignore[arg-type]
    except TypeError:
        raise TypeError(f"{op}: expected axis to be an integer, got {axis!r}") from None
    if not -ndim <= number < ndim:
        raise fail(op, f"axis between {-ndim} and {ndim - 1}", number)
    return number % ndim


def paddings(
    op: str,
    padding: object,
    sizes: tuple[int, int],
    windows: tuple[int, int],
    strides: tuple[int, int],
) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) for any way to write padding.

    `windows` are the effective sizes, dilation included. "same" follows TensorFlow: the output has
    ceil(size / stride) values, and an odd pixel of padding goes to the bottom or right.
    """
    if isinstance(padding, str):
        choice(op, "padding", padding, ("valid", "same"))
        if padding == "valid":
            return (0, 0), (0, 0)
        both = []
        for size, window, stride in zip(sizes, windows, strides, strict=True):
            total = max((-(-size // stride) - 1) * stride + window - size, 0)
            both.append((total // 2, total - total // 2))
        return both[0], both[1]
    expected = '"valid", "same", an integer, a pair or ((top, bottom), (left, right))'
    if isinstance(padding, tuple):
        if len(padding) == 2 and all(isinstance(p, tuple) and len(p) == 2 for p in padding):
            top, bottom = (integer(op, "padding", p, 0) for p in padding[0])
            left, right = (integer(op, "padding", p, 0) for p in padding[1])
            return (top, bottom), (left, right)
        if len(padding) != 2 or any(isinstance(p, tuple) for p in padding):
            raise fail(op, f"padding to be {expected}", padding)
        rows, columns = (integer(op, "padding", p, 0) for p in padding)
        return (rows, rows), (columns, columns)
    try:
        number = integer(op, "padding", padding, 0)
    except TypeError:
        raise TypeError(f"{op}: expected padding to be {expected}, got {padding!r}") from None
    return (number, number), (number, number)


def _fits(op: str, name: str, shape: Shape) -> None:
    if prod(size for size in shape if size is not None) > LARGEST_ARRAY:
        raise fail(op, f"{name} of fewer than 2**62 values", shape)


def conv2d(
    op: str,
    x: Shape,
    kernel: Shape,
    bias: Shape | None,
    strides: object,
    padding: object,
    dilation_rate: object,
    groups: object,
) -> tuple[Any, Shape]:
    """Spec and output shape (N, out_height, out_width, filters) of a convolution on NHWC."""
    try:
        return _conv2d(op, x, kernel, bias, strides, padding, dilation_rate, groups)
    except TypeError:  # an option that cannot be looked up, or one of a wrong type
        pass
    return _conv2d(
        op,
        x,
        kernel,
        bias,
        hashable(op, "strides", strides),
        hashable(op, "padding", padding),
        hashable(op, "dilation_rate", dilation_rate),
        integer(op, "groups", groups, 1),
    )


@lru_cache(maxsize=1024, typed=True)
def _conv2d(
    op: str,
    x: Shape,
    kernel: Shape,
    bias: Shape | None,
    strides: object,
    padding: object,
    dilation_rate: object,
    groups: object,
) -> tuple[Any, Shape]:
    n, height, width, channels = rank(op, "x", x, "N, H, W, C")
    assert height is not None and width is not None and channels is not None
    kernel_height, kernel_width, in_channels, filters = rank(
        op, "kernel", kernel, "kernel_height, kernel_width, channels / groups, filters"
    )
    assert kernel_height is not None and kernel_width is not None
    assert in_channels is not None and filters is not None
    if min(kernel_height, kernel_width, in_channels, filters) < 1:
        raise fail(op, "kernel of sizes of at least 1", kernel)
    groups = integer(op, "groups", groups, 1)
    if channels % groups:
        raise fail(op, f"x with channels in {groups} equal groups", f"{channels} channels")
    if in_channels * groups != channels:
        raise fail(
            op,
            f"kernel for {channels} channels in {groups} groups, that is of shape "
            f"({kernel_height}, {kernel_width}, {channels // groups}, filters)",
            kernel,
        )
    if filters % groups:
        raise fail(op, f"filters to be a multiple of groups ({groups})", filters)
    if bias is not None:
        same_shape(op, "bias", bias, (filters,))
    stride_height, stride_width = pair(op, "strides", strides, 1)
    dilation_height, dilation_width = pair(op, "dilation_rate", dilation_rate, 1)
    windows = (
        (kernel_height - 1) * dilation_height + 1,
        (kernel_width - 1) * dilation_width + 1,
    )
    (top, bottom), (left, right) = paddings(
        op, padding, (height, width), windows, (stride_height, stride_width)
    )
    out = []
    for size, pads, window, stride in (
        (height, top + bottom, windows[0], stride_height),
        (width, left + right, windows[1], stride_width),
    ):
        if size + pads < window or size == 0:
            raise fail(
                op,
                f"x, padding included, of at least the kernel's {windows[0]} x {windows[1]}",
                f"{height + top + bottom} x {width + left + right}",
            )
        out.append((size + pads - window) // stride + 1)
    shape = (n, out[0], out[1], filters)
    _fits(op, "x, padding included,", (n, height + top + bottom, width + left + right, channels))
    _fits(op, "kernel", kernel)
    _fits(op, "the output", shape)
    spec = _core.Conv2d(
        height=height,
        width=width,
        channels=channels,
        kernel_height=kernel_height,
        kernel_width=kernel_width,
        filters=filters,
        groups=groups,
        stride_height=stride_height if out[0] > 1 else 1,
        stride_width=stride_width if out[1] > 1 else 1,
        dilation_height=dilation_height if kernel_height > 1 else 1,
        dilation_width=dilation_width if kernel_width > 1 else 1,
        pad_top=top,
        pad_left=left,
        out_height=out[0],
        out_width=out[1],
    )
    return spec, shape


def pool2d(
    op: str,
    x: Shape,
    pool_size: object,
    strides: object,
    padding: object,
    dilation_rate: object,
    ceil_mode: object,
    count_include_pad: object,
) -> tuple[Any, Shape]:
    """Spec and output shape (N, out_height, out_width, C) of a pooling on NHWC."""
    try:
        return _pool2d(
            op,
            x,
            pool_size,
            strides,
            padding,
            dilation_rate,
            bool(ceil_mode),
            bool(count_include_pad),
        )
    except TypeError:  # an option that cannot be looked up, or one of a wrong type
        pass
    return _pool2d(
        op,
        x,
        hashable(op, "pool_size", pool_size),
        hashable(op, "strides", strides),
        hashable(op, "padding", padding),
        hashable(op, "dilation_rate", dilation_rate),
        bool(ceil_mode),
        bool(count_include_pad),
    )


@lru_cache(maxsize=1024, typed=True)
def _pool2d(
    op: str,
    x: Shape,
    pool_size: object,
    strides: object,
    padding: object,
    dilation_rate: object,
    ceil_mode: bool,
    count_include_pad: bool,
) -> tuple[Any, Shape]:
    n, height, width, channels = rank(op, "x", x, "N, H, W, C")
    assert height is not None and width is not None and channels is not None
    pool = pair(op, "pool_size", pool_size, 1)
    stride = pool if strides is None else pair(op, "strides", strides, 1)
    dilation = pair(op, "dilation_rate", dilation_rate, 1)
    if pool[0] * pool[1] > LARGEST_WINDOW:
        raise fail(op, f"pool_size of at most {LARGEST_WINDOW} values", pool)
    windows = ((pool[0] - 1) * dilation[0] + 1, (pool[1] - 1) * dilation[1] + 1)
    pads = paddings(op, padding, (height, width), windows, stride)
    out = []
    for size, (before, after), window, step in zip(
        (height, width), pads, windows, stride, strict=True
    ):
        # A window that lies in the padding alone has no value: no maximum, nothing to average.
        if not isinstance(padding, str) and max(before, after) >= window:
            raise fail(
                op, f"padding smaller than the window of {windows[0]} x {windows[1]}", padding
            )
        room = size + before + after - window
        if room < 0 or size == 0:
            raise fail(
                op,
                f"x, padding included, of at least the window's {windows[0]} x {windows[1]}",
                f"{height + sum(pads[0])} x {width + sum(pads[1])}",
            )
        count = room // step + 1
        # The last window of ceil_mode must start inside the input or the padding before it.
        if ceil_mode and room % step and count * step < size + before:
            count += 1
        out.append(count)
    shape = (n, out[0], out[1], channels)
    line = width + sum(pads[1])
    _fits(op, "x, padding included,", (n, height + sum(pads[0]), line, channels))
    if line * channels > LARGEST:
        raise fail(op, f"rows of at most {LARGEST} values, padding included", line * channels)
    _fits(op, "the output", shape)
    spec = _core.Pool2d(
        height=height,
        width=width,
        channels=channels,
        pool_height=pool[0],
        pool_width=pool[1],
        stride_height=stride[0],
        stride_width=stride[1],
        dilation_height=dilation[0],
        dilation_width=dilation[1],
        pad_top=pads[0][0],
        pad_bottom=pads[0][1],
        pad_left=pads[1][0],
        pad_right=pads[1][1],
        out_height=out[0],
        out_width=out[1],
        count_include_pad=int(count_include_pad and padding != "same"),
    )
    return spec, shape


@lru_cache(maxsize=1024, typed=True)
def _upsample2d(op: str, x: Shape, size: object, interpolation: object) -> tuple[Any, Shape]:
    n, height, width, channels = rank(op, "x", x, "N, H, W, C")
    assert height is not None and width is not None and channels is not None
    scale = pair(op, "size", size, 1)
    choice(op, "interpolation", interpolation, ("nearest", "bilinear"))
    shape = (n, height * scale[0], width * scale[1], channels)
    _fits(op, "the output", shape)
    spec = _core.Upsample2d(
        height=height,
        width=width,
        channels=channels,
        scale_height=scale[0],
        scale_width=scale[1],
        bilinear=int(interpolation == "bilinear"),
    )
    return spec, shape


def upsample2d(op: str, x: Shape, size: object, interpolation: object) -> tuple[Any, Shape]:
    """Spec and output shape (N, H * size, W * size, C) of an up-sampling on NHWC."""
    try:
        return _upsample2d(op, x, size, interpolation)
    except TypeError:  # an option that cannot be looked up, or one of a wrong type
        pass
    return _upsample2d(
        op, x, hashable(op, "size", size), hashable(op, "interpolation", interpolation)
    )


@lru_cache(maxsize=1024)
def dense(op: str, x: Shape, kernel: Shape, bias: Shape | None) -> tuple[Any, Shape]:
    """Spec and output shape (N, …, units) of x (N, …, inputs) times kernel (inputs, units)."""
    if len(x) < 1:
        raise fail(op, "x of shape (..., inputs)", x)
    rank(op, "kernel", kernel, "inputs, units")
    inputs, units = kernel
    assert inputs is not None and units is not None
    if min(inputs, units) < 1:
        raise fail(op, "kernel of sizes of at least 1", kernel)
    if x[-1] != inputs:
        raise fail(op, f"x of shape (..., {inputs}) for a kernel of shape {kernel}", x)
    if bias is not None:
        same_shape(op, "bias", bias, (units,))
    shape = (*x[:-1], units)
    _fits(op, "the output", shape)
    rows = prod(size for size in x[1:-1] if size is not None)
    return _core.Dense(rows=rows, inputs=inputs, units=units), shape


@lru_cache(maxsize=1024)
def samples(shape: Shape) -> tuple[int | None, int]:
    """(n, values per sample) of a value of any shape: of an array that has no samples, (1, all)."""
    if shape and shape[0] is None:
        return None, prod(size for size in shape[1:] if size is not None)
    return 1, prod(size for size in shape if size is not None)


@lru_cache(maxsize=1024)
def activation(kind: str, size: int, slope: float) -> Any:
    """Spec of an element-wise activation."""
    return _core.Activation(size=size, kind=ACTIVATION_KINDS[kind], slope=slope)


@lru_cache(maxsize=1024)
def rescale(size: int, scale: float, offset: float) -> Any:
    """Spec of x * scale + offset."""
    return _core.Rescale(size=size, scale=scale, offset=offset)


def softmax(op: str, x: Shape, axis: object) -> Any:
    """Spec of a normalisation over one axis."""
    return _softmax(op, x, hashable(op, "axis", axis))


@lru_cache(maxsize=1024, typed=True)
def _softmax(op: str, x: Shape, axis: object) -> Any:
    if not x:
        raise fail(op, "x with at least one axis", x)
    index = axis_index(op, axis, len(x))
    if x[index] is None:
        raise fail(op, "an axis other than that of the samples", index)
    if x[index] == 0:
        raise fail(op, "at least one value along the axis", x)
    first = 1 if x[0] is None else 0
    return _core.Softmax(
        outer=prod(size for size in x[first:index] if size is not None),
        size=x[index] or 0,
        inner=prod(size for size in x[index + 1 :] if size is not None),
    )


@lru_cache(maxsize=1024)
def loss(
    op: str, y_true: Shape, y_pred: Shape, sparse: bool, from_logits: bool
) -> tuple[Any, Shape]:
    """Spec and output shape y_pred.shape[:-1] of a loss or score over the last axis."""
    if not y_pred or y_pred[-1] in (0, None):
        raise fail(op, "y_pred of shape (..., size) with at least one value along size", y_pred)
    shape = y_pred[:-1]
    if sparse:
        same_shape(op, "y_true", y_true, shape, f" (labels for y_pred of shape {y_pred})")
    else:
        same_shape(op, "y_true", y_true, y_pred, ", that of y_pred")
    rows = prod(size for size in shape if size is not None)
    return _core.Loss(rows=rows, size=y_pred[-1], inner=1, from_logits=int(from_logits)), shape
