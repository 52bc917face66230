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
# ConvAlgorithm of csrc/specs.h.
CONV_ALGORITHMS = (
    "automatic",
    "direct",
    "product",
    "windows",
    "planes",
    "depthwise",
    "winograd2",
    "winograd4",
    "grouped",
)
ACTIVATION_KINDS = {"relu": 0, "leaky_relu": 1, "sigmoid": 2, "tanh": 3, "exp": 4}
# UnaryKind, BinaryKind and ReduceKind of csrc/specs.h.
UNARY_KINDS = {
    "elu": 0,
    "selu": 1,
    "softplus": 2,
    "softsign": 3,
    "silu": 4,
    "gelu": 5,
    "gelu_tanh": 6,
    "hard_sigmoid": 7,
    "hard_swish": 8,
    "mish": 9,
    "clip": 10,
    "absolute": 11,
    "square": 12,
    "sqrt": 13,
    "log": 14,
    "relu6": 15,
}
BINARY_KINDS = {"subtract": 0, "multiply": 1, "divide": 2, "maximum": 3, "minimum": 4}
REDUCE_KINDS = {"sum": 0, "mean": 1, "max": 2, "min": 3}


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
    found = _float(op, name, value)
    if not low <= found < high:
        raise fail(op, f"{low:g} <= {name} < {high:g}", value)
    return found


def between(op: str, name: str, value: object, low: float, high: float) -> float:
    """`value` as a float, low <= value <= high; TypeError or ValueError otherwise."""
    found = _float(op, name, value)
    if not low <= found <= high:
        raise fail(op, f"{low:g} <= {name} <= {high:g}", value)
    return found


def _float(op: str, name: str, value: object) -> float:
    try:
        return float("" if isinstance(value, str) else value)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise TypeError(f"{op}: expected {name} to be a number, got {value!r}") from None


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
    algorithm: object = "automatic",
) -> tuple[Any, Shape]:
    """Spec and output shape (N, out_height, out_width, filters) of a convolution on NHWC."""
    try:
        return _conv2d(op, x, kernel, bias, strides, padding, dilation_rate, groups, algorithm)
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
        choice(op, "algorithm", algorithm, CONV_ALGORITHMS),
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
    algorithm: object,
) -> tuple[Any, Shape]:
    chosen = choice(op, "algorithm", algorithm, CONV_ALGORITHMS)
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
        algorithm=CONV_ALGORITHMS.index(chosen),
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
    rows, line = height + sum(pads[0]), width + sum(pads[1])
    _fits(op, "x, padding included,", (n, rows, line, channels))
    if line * channels > LARGEST:
        raise fail(op, f"rows of at most {LARGEST} values, padding included", line * channels)
    _fits(op, "the output", shape)
    spec = _core.Pool2d(
        height=height,
        width=width,
        channels=channels,
        pool_height=pool[0],
        pool_width=pool[1],
        # Larger ones mean the same, and kernels keep memory in proportion to them.
        stride_height=min(stride[0], rows),
        stride_width=min(stride[1], line),
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


def pad2d(op: str, x: Shape, padding: object) -> tuple[Any, Shape]:
    """Spec and output shape (N, top + H + bottom, left + W + right, C) of a padding on NHWC."""
    return _pad2d(op, x, hashable(op, "padding", padding))


@lru_cache(maxsize=1024, typed=True)
def _pad2d(op: str, x: Shape, padding: object) -> tuple[Any, Shape]:
    return _moved(op, x, borders(op, "padding", padding))


def crop2d(op: str, x: Shape, cropping: object) -> tuple[Any, Shape]:
    """Spec and output shape (N, H - top - bottom, W - left - right, C) of a cropping on NHWC."""
    return _crop2d(op, x, hashable(op, "cropping", cropping))


@lru_cache(maxsize=1024, typed=True)
def _crop2d(op: str, x: Shape, cropping: object) -> tuple[Any, Shape]:
    (top, bottom), (left, right) = borders(op, "cropping", cropping)
    _, height, width, _ = rank(op, "x", x, "N, H, W, C")
    assert height is not None and width is not None
    if top + bottom >= height or left + right >= width:
        raise fail(op, f"cropping that leaves a part of {height} x {width} pixels", cropping)
    return _moved(op, x, ((-top, -bottom), (-left, -right)))


def _moved(op: str, x: Shape, sides: tuple[tuple[int, int], tuple[int, int]]) -> tuple[Any, Shape]:
    n, height, width, channels = rank(op, "x", x, "N, H, W, C")
    assert height is not None and width is not None and channels is not None
    (top, bottom), (left, right) = sides
    shape = (n, height + top + bottom, width + left + right, channels)
    _fits(op, "the output", shape)
    spec = _core.Pad2d(
        height=height,
        width=width,
        channels=channels,
        top=top,
        left=left,
        out_height=height + top + bottom,
        out_width=width + left + right,
    )
    return spec, shape


def borders(op: str, name: str, value: object) -> tuple[tuple[int, int], tuple[int, int]]:
    """((top, bottom), (left, right)) of an integer, (rows, columns), or these four."""
    sides = (value, value) if not isinstance(value, (tuple, list)) else tuple(value)
    if len(sides) != 2:
        expected = f"{name} to be an integer, a pair or ((top, bottom), (left, right))"
        raise fail(op, expected, repr(value))
    down, right = (pair(op, name, side, 0) for side in sides)
    return down, right


LARGEST_PERMUTATION = 4  # axes, where those that stay together count as one


def permute(op: str, x: Shape, axes: object) -> tuple[Any, Shape]:
    """Spec and output shape of the axes 1 .. of x in another order."""
    return _permute(op, x, hashable(op, "axes", axes))


@lru_cache(maxsize=1024, typed=True)
def _permute(op: str, x: Shape, axes: object) -> tuple[Any, Shape]:
    expected = f"axes that are 1 .. {len(x) - 1} in some order, for x of shape {x}"
    if not x or not isinstance(axes, tuple) or len(axes) != len(x) - 1:
        raise fail(op, expected, repr(axes))
    order = [integer(op, "each of axes", axis, 1) for axis in axes]
    if sorted(order) != list(range(1, len(x))):
        raise fail(op, expected, repr(axes))
    # Axes of one value can stand anywhere. Those that follow each other before and after are one.
    kept = [axis for axis in range(1, len(x)) if x[axis] != 1]
    groups: list[list[int]] = []
    for place in (kept.index(axis) for axis in order if axis in kept):
        if groups and groups[-1][-1] == place - 1:
            groups[-1].append(place)
        else:
            groups.append([place])
    inner = 1
    if groups and groups[-1][-1] == len(kept) - 1:
        inner = prod(x[kept[place]] or 0 for place in groups.pop())
    if len(groups) > LARGEST_PERMUTATION:
        raise fail(op, f"at most {LARGEST_PERMUTATION} axes that change places", repr(axes))
    before = sorted(groups)
    free = LARGEST_PERMUTATION - len(groups)
    sizes = [1] * free + [prod(x[kept[place]] or 0 for place in group) for group in before]
    source = [*range(free), *(free + before.index(group) for group in groups)]
    spec = _core.Permute(
        **{f"size_{i}": size for i, size in enumerate(sizes)},
        **{f"from_{i}": place for i, place in enumerate(source)},
        inner=inner,
    )
    return spec, (x[0], *(x[axis] for axis in order))


def repeat(op: str, x: Shape, repeats: object, axis: object) -> tuple[Any, Shape]:
    """Spec and output shape of each value along an axis several times over."""
    return _repeat(op, x, hashable(op, "repeats", repeats), hashable(op, "axis", axis))


@lru_cache(maxsize=1024, typed=True)
def _repeat(op: str, x: Shape, repeats: object, axis: object) -> tuple[Any, Shape]:
    count = integer(op, "repeats", repeats, 1)
    if not x:
        raise fail(op, "x with at least one axis", x)
    index = axis_index(op, axis, len(x))
    size = x[index]
    if size is None:
        raise fail(op, "an axis other than that of the samples", index)
    shape = (*x[:index], size * count, *x[index + 1 :])
    _fits(op, "the output", shape)
    first = 1 if x[0] is None else 0
    outer, inner = (
        prod(s for s in part if s is not None) for part in (x[first : index + 1], x[index + 1 :])
    )
    return _core.Expand(outer=outer, repeats=count, inner=inner), shape


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


@lru_cache(maxsize=1024)
def unary(kind: str, size: int, a: float = 0.0, b: float = 0.0) -> Any:
    """Spec of an element-wise function of one value; a and b are its numbers."""
    return _core.Unary(size=size, kind=UNARY_KINDS[kind], a=a, b=b)


@lru_cache(maxsize=1024)
def binary(kind: str, size: int) -> Any:
    """Spec of an element-wise function of two values."""
    return _core.Binary(size=size, kind=BINARY_KINDS[kind])


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


def loss_over(
    op: str, y_true: Shape, y_pred: Shape, axis: object, from_logits: bool = False
) -> tuple[Any, Shape]:
    """Spec and output shape of a loss over one axis, or over several that stand together."""
    return _loss_over(op, y_true, y_pred, hashable(op, "axis", axis), from_logits)


@lru_cache(maxsize=1024, typed=True)
def _loss_over(
    op: str, y_true: Shape, y_pred: Shape, axis: object, from_logits: bool
) -> tuple[Any, Shape]:
    same_shape(op, "y_true", y_true, y_pred, ", that of y_pred")
    if not y_pred:
        raise fail(op, "y_pred with at least one axis", y_pred)
    axes = axis if isinstance(axis, tuple) else (axis,)
    places = sorted({axis_index(op, one, len(y_pred)) for one in axes})
    if not places or places != list(range(places[0], places[0] + len(axes))):
        raise fail(op, "axes that stand together, each once", axis)
    first, beyond = places[0], places[-1] + 1
    over = y_pred[first:beyond]
    if None in over:
        raise fail(op, "an axis other than that of the samples", axis)
    if 0 in over:
        raise fail(op, "at least one value along the axis", y_pred)
    before, after = y_pred[:first], y_pred[beyond:]
    rows, size, inner = (prod(s for s in part if s is not None) for part in (before, over, after))
    spec = _core.Loss(rows=rows, size=size, inner=inner, from_logits=int(from_logits))
    return spec, before + after


def pointwise_loss(
    op: str,
    y_true: Shape,
    y_pred: Shape,
    kind: int,
    axis: object = -1,
    from_logits: bool = False,
    a: float = 0.0,
    b: float = 0.0,
) -> tuple[Any, Shape]:
    """Spec and output shape of a loss of PointwiseLossKind; a and b are its numbers."""
    spec, shape = loss_over(op, y_true, y_pred, axis, from_logits)
    sizes = {"rows": spec.rows, "size": spec.size, "inner": spec.inner}
    return (
        _core.PointwiseLoss(**sizes, kind=kind, from_logits=int(from_logits), a=a, b=b),
        shape,
    )


def batch_loss(op: str, y_true: Shape, y_pred: Shape) -> tuple[Any, Shape]:
    """Spec and output shape (samples,) of a loss over a whole batch."""
    same_shape(op, "y_true", y_true, y_pred, ", that of y_pred")
    if not y_pred:
        raise fail(op, "y_pred with at least one axis", y_pred)
    size = prod(size for size in y_pred[1:] if size is not None)
    return _core.Loss(rows=1, size=size, inner=1, from_logits=0), y_pred[:1]


def channel_affine(channels: int, rows: int) -> Any:
    """Spec of x * scale + shift with numbers for each channel of (rows, channels)."""
    return _core.ChannelAffine(rows=rows, channels=channels)


@lru_cache(maxsize=1024)
def batch_norm(
    op: str, x: Shape, numbers: tuple[tuple[str, Shape], ...], epsilon: float
) -> tuple[Any, Any]:
    """Specs of a batch's normalisation, BatchNorm and ChannelAffine, over the last axis of x.

    `numbers` are the names and shapes of what there is for each channel.
    """
    if len(x) < 2 or not x[-1]:
        raise fail(op, "x of shape (N, ..., channels) with at least one channel", x)
    channels = x[-1]
    for name, shape in numbers:
        same_shape(op, name, shape, (channels,), f" for x of shape {x}")
    rows = prod(size for size in x[:-1] if size is not None)
    spec = _core.BatchNorm(rows=rows, channels=channels, epsilon=epsilon)
    return spec, channel_affine(channels, rows)


def layer_norm(
    op: str, x: Shape, numbers: tuple[tuple[str, Shape], ...], axis: object, epsilon: float
) -> Any:
    """Spec of a normalisation over the last axis of x, or over several at its end.

    `numbers` are the names and shapes of what there is for each value of those axes.
    """
    return _layer_norm(op, x, numbers, hashable(op, "axis", axis), epsilon)


@lru_cache(maxsize=1024, typed=True)
def _layer_norm(
    op: str, x: Shape, numbers: tuple[tuple[str, Shape], ...], axis: object, epsilon: float
) -> Any:
    axes = axis if isinstance(axis, tuple) else (axis,)
    places = sorted({axis_index(op, one, len(x)) for one in axes})
    if not places or places != list(range(len(x) - len(axes), len(x))):
        raise fail(op, "axis to be the last axis, or several at the end", axis)
    over = x[places[0] :]
    if None in over:
        raise fail(op, "axes other than that of the samples", axis)
    if 0 in over:
        raise fail(op, "at least one value along the axes", x)
    for name, shape in numbers:
        same_shape(op, name, shape, over, f" for x of shape {x}")
    rows, size = (prod(s for s in part if s is not None) for part in (x[: places[0]], over))
    return _core.LayerNorm(rows=rows, size=size, epsilon=epsilon)


@lru_cache(maxsize=1024)
def prelu(op: str, x: Shape, alpha: Shape) -> tuple[Any, tuple[Any, Any] | None]:
    """Spec of a PReLU, and where the shared axes do not come first, those of bringing them there
    and back.

    alpha has the axes of a sample, or fewer at its end; those of size 1 are shared.
    """
    sample = x[1:]
    if not alpha or len(alpha) > len(sample):
        raise fail(op, f"alpha with 1 to {len(sample)} axes, for samples of shape {sample}", alpha)
    full = (1,) * (len(sample) - len(alpha)) + alpha
    if any(one not in (1, size) for one, size in zip(full, sample, strict=True)):
        raise fail(op, f"alpha of shape {sample}, or 1 for axes that are shared,", alpha)
    groups: list[list[Any]] = []  # neighbouring axes that are shared, or that are not
    for one, size in zip(full, sample, strict=True):
        if size == 1:
            continue
        if groups and groups[-1][0] == (one == 1):
            groups[-1][1] *= size
        else:
            groups.append([one == 1, size])
    rows, size = (prod(s for shared, s in groups if shared == which) for which in (True, False))
    spec = _core.PRelu(rows=rows, size=size)
    order = sorted(range(len(groups)), key=lambda i: not groups[i][0])
    if order == list(range(len(groups))):
        return spec, None
    if len(order) > 4:
        raise fail(op, "fewer axes that are shared and not by turns", alpha)
    return spec, _permutations([size for _, size in groups], order)


def _permutations(sizes: list[int], order: list[int]) -> tuple[Any, Any]:
    """Specs that bring up to four axes into another order, and back."""
    rest = range(len(sizes), 4)
    sizes, order = sizes + [1] * len(rest), [*order, *rest]

    def spec(sizes: list[int], order: list[int]) -> Any:
        fields = {f"size_{i}": size for i, size in enumerate(sizes)}
        fields |= {f"from_{i}": axis for i, axis in enumerate(order)}
        return _core.Permute(**fields, inner=1)

    there = spec(sizes, order)
    return there, spec([sizes[axis] for axis in order], [order.index(i) for i in range(4)])


def conv2d_transpose(
    op: str,
    x: Shape,
    kernel: Shape,
    bias: Shape | None,
    strides: object,
    padding: object,
    output_padding: object,
    dilation_rate: object,
    algorithm: object = "automatic",
) -> tuple[Any, Shape]:
    """Spec and output shape of a transposed convolution on NHWC.

    The spec is that of the convolution whose input has the output's shape.
    """
    return _conv2d_transpose(
        op,
        x,
        kernel,
        bias,
        hashable(op, "strides", strides),
        hashable(op, "padding", padding),
        hashable(op, "output_padding", output_padding),
        hashable(op, "dilation_rate", dilation_rate),
        choice(op, "algorithm", algorithm, CONV_ALGORITHMS),
    )


@lru_cache(maxsize=1024, typed=True)
def _conv2d_transpose(
    op: str,
    x: Shape,
    kernel: Shape,
    bias: Shape | None,
    strides: object,
    padding: object,
    output_padding: object,
    dilation_rate: object,
    algorithm: str,
) -> tuple[Any, Shape]:
    n, height, width, channels = rank(op, "x", x, "N, H, W, C")
    windows = rank(op, "kernel", kernel, "kernel_height, kernel_width, filters, channels")
    kernel_height, kernel_width, filters, _ = windows
    assert height is not None and width is not None and filters is not None
    assert kernel_height is not None and kernel_width is not None
    if 0 in windows:
        raise fail(op, "kernel of sizes of at least 1", kernel)
    if kernel[3] != channels:
        expected = f"kernel of shape ({kernel_height}, {kernel_width}, filters, {channels})"
        raise fail(op, f"{expected} for {channels} channels", kernel)
    if bias is not None:
        same_shape(op, "bias", bias, (filters,))
    choice(op, "padding", padding, ("valid", "same"))
    if min(height, width) < 1:
        raise fail(op, "x of at least 1 x 1", f"{height} x {width}")
    steps = pair(op, "strides", strides, 1)
    dilations = pair(op, "dilation_rate", dilation_rate, 1)
    more: tuple[int | None, int | None] = (None, None)
    if output_padding is not None:
        more = pair(op, "output_padding", output_padding, 0)
        if any(extra >= step for extra, step in zip(more, steps, strict=True)):
            raise fail(op, f"output_padding smaller than strides {steps}", output_padding)
    out, pads = [], []
    for size, taps, step, dilation, extra in zip(
        (height, width), (kernel_height, kernel_width), steps, dilations, more, strict=True
    ):
        window = (taps - 1) * dilation + 1
        last = (size - 1) * step
        if padding == "valid":
            made = last + (max(window, step) if extra is None else window + extra)
        else:
            made = size * step if extra is None else last + window % 2 + extra
        total = max(last + window - made, 0)
        if made < 1:
            raise fail(op, "an output of at least 1 x 1", f"{made} values along an axis")
        out.append(made)
        pads.append((total // 2, total - total // 2))
    shape = (n, out[0], out[1], filters)
    spec, back = conv2d(op, shape, kernel, None, steps, tuple(pads), dilations, 1, algorithm)
    assert back == x
    return spec, shape


@lru_cache(maxsize=1024)
def depthwise_kernel(op: str, x: Shape, kernel: Shape) -> tuple[Shape, int]:
    """The shape that a depthwise kernel (height, width, C, multiplier) has for `conv2d`, and the
    number of groups."""
    channels = rank(op, "x", x, "N, H, W, C")[3]
    height, width, of, multiplier = rank(
        op, "kernel", kernel, "kernel_height, kernel_width, channels, multiplier"
    )
    if of != channels:
        raise fail(
            op, f"kernel of shape ({height}, {width}, {channels}, multiplier) for x of shape {x}",
            kernel,
        )  # fmt: skip
    assert of is not None and multiplier is not None
    return (height, width, 1, of * multiplier), of
