"""What every op shares: arguments in, results out, layouts, and the call of one kernel."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core, geometry, gradients, graph
from convkit.array import assign, check_out, direct, float_arrays, refuse_device
from convkit.geometry import Shape
from convkit.graph import Symbol

# Kernels that may write over their first input.
IN_PLACE = ("activation", "add", "binary", "rescale", "unary")


def arguments(
    op: str, names: Sequence[str], values: tuple[Any, ...], out: Any = None
) -> Sequence[Any]:
    """The op's array arguments, all symbols or all arrays of one float dtype, in NumPy or on one
    GPU, where `out` must be too.

    A bias may be None and stays None.
    """
    if _core.ready(values, names[-1] == "bias"):
        return values
    for name, value in zip(names, values, strict=True):
        if value is None and name != "bias":
            raise TypeError(f"{op}: expected {name} to be an array, got None")
    if graph.is_symbolic(values):
        for name, value in zip(names, values, strict=True):
            refuse_device(op, name, value)
        symbols = [graph.symbol_of(value) for value in values]
        dtypes = {symbol.dtype for symbol in symbols if symbol is not None}
        if len(dtypes) > 1:
            raise TypeError(
                f"{op}: expected {', '.join(names)} of one dtype, got {', '.join(sorted(dtypes))}"
            )
        return symbols
    return float_arrays(op, names, [graph.array_of(value) for value in values], out)


class Shaped:
    """Stands for an array of which only the shape is needed."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape


def dtype_of(value: Any) -> str:
    """The dtype of an array or a symbol, "float32" or "float64"."""
    if isinstance(value, Symbol):
        return value.dtype
    return "float64" if value.dtype.itemsize == 8 else "float32"


def shape_of(value: Any) -> Shape | None:
    """The shape; None for an argument that is not there."""
    return None if value is None else tuple(value.shape)


def run(
    kernel: str,
    spec: Any,
    n: int | None,
    inputs: Sequence[Any],
    shape: Shape,
    out: Any,
    op: str,
    dtype: str | None = None,
) -> Any:
    """One kernel with one result, which goes to `out` if that is given.

    The result has the dtype of the first input unless another is named.
    """
    dtype = dtype or dtype_of(inputs[0])
    if out is None:
        return graph.call(kernel, spec, n, inputs, [shape], dtype)[0]
    if graph.is_symbolic(inputs):
        raise TypeError(f"{op}: expected no out for a symbolic call, got one")
    check_out(op, out, sizes(shape), np.dtype(dtype), not isinstance(inputs[0], np.ndarray))
    if direct(out, inputs) or (kernel in IN_PLACE and out is inputs[0]):
        graph.call(kernel, spec, n, inputs, [out], dtype)
    else:
        assign(out, graph.call(kernel, spec, n, inputs, [shape], dtype)[0])
    return out


def sizes(shape: Shape) -> tuple[int, ...]:
    """The shape of an array, in which no size is open."""
    return tuple(size for size in shape if size is not None)


def flags(op: str, needs: Sequence[bool] | None, count: int) -> tuple[bool, ...]:
    """`needs`, one per array argument; all of them where None was given."""
    if needs is None:
        return (True,) * count
    if isinstance(needs, (bool, str)) or len(needs) != count:
        raise geometry.fail(op, f"needs to be {count} booleans", repr(needs))
    return tuple(bool(need) for need in needs)


def outs(op: str, out: Any, count: int) -> tuple[Any, ...] | None:
    """`out` of a backward op, one array or None per array argument; None if none is given."""
    if out is None:
        return None
    if count == 1 and not isinstance(out, (tuple, list)):
        return (out,)
    if not isinstance(out, (tuple, list)) or len(out) != count:
        raise geometry.fail(op, f"out to be {count} arrays or None", type(out).__name__)
    return tuple(out)


def backward(
    op: str,
    kernel: str,
    spec: Any,
    n: int | None,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    dy: Any,
    needs: Sequence[bool],
    out: Sequence[Any] | None,
) -> list[Any]:
    """The gradients of one kernel call, by that kernel's rule, written to `out` where given."""
    dtype = dtype_of(dy)
    targets: list[Any] | None = None
    if out is not None:
        targets = [None] * len(inputs)
        for i, (given, value) in enumerate(zip(out, inputs, strict=True)):
            if given is None or value is None or not needs[i]:
                continue
            check_out(op, given, value.shape, np.dtype(dtype), not isinstance(dy, np.ndarray))
            if direct(given, [dy, *inputs, *outputs]):
                targets[i] = given
    one = gradients.Call(spec, n, inputs, outputs, dtype, needs, targets)
    found = gradients.backward(kernel, dy, one)
    if out is not None:
        for i, given in enumerate(out):
            if given is not None and found[i] is not None and found[i] is not given:
                assign(given, found[i])
                found[i] = given
    return found


def channels_last(op: str, x: Any, name: str, data_format: str) -> Any:
    """x as (N, H, W, C), whatever its data_format."""
    geometry.choice(op, "data_format", data_format, geometry.DATA_FORMATS)
    if data_format == "channels_last":
        return x
    n, channels, height, width = geometry.rank(op, name, tuple(x.shape), "N, C, H, W")
    assert channels is not None and height is not None and width is not None
    spec = _core.Transpose(rows=channels, columns=height * width)
    shape = (n, height, width, channels)
    return graph.call("transpose", spec, n, [x], [shape], dtype_of(x))[0]


def from_channels_last(y: Any, data_format: str, out: Any = None, op: str = "") -> Any:
    """y (N, H, W, C) in the caller's data_format."""
    if y is None or data_format == "channels_last":
        return y
    n, height, width, channels = y.shape
    spec = _core.Transpose(rows=height * width, columns=channels)
    return run("transpose", spec, n, [y], (n, channels, height, width), out, op)


def check_gradient(op: str, dy: Any, shape: Shape, data_format: str) -> None:
    """Fails unless dy has the shape of a result (N, H, W, C) in data_format."""
    if data_format == "channels_first":
        n, height, width, channels = shape
        shape = (n, channels, height, width)
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")


def spatial(
    op: str,
    kernel: str,
    spec: Any,
    inputs: Sequence[Any],
    shape: Shape,
    data_format: str,
    out: Any,
) -> Any:
    """A kernel on NHWC whose result is wanted in data_format."""
    n = inputs[0].shape[0]
    if data_format == "channels_last":
        return run(kernel, spec, n, inputs, shape, out, op)
    y = run(kernel, spec, n, inputs, shape, None, op)
    return from_channels_last(y, data_format, out, op)


def spatial_backward(
    op: str,
    kernel: str,
    spec: Any,
    inputs: Sequence[Any],
    dy: Any,
    needs: Sequence[bool],
    data_format: str,
    out: Sequence[Any] | None,
) -> list[Any]:
    """Gradients of `spatial`; dy and inputs[0] are NHWC, dx comes out in data_format."""
    n = inputs[0].shape[0]
    if data_format == "channels_last":
        return backward(op, kernel, spec, n, inputs, [None], dy, needs, out)
    dx, rest = (None, None) if out is None else (out[0], [None, *out[1:]])
    found = backward(op, kernel, spec, n, inputs, [None], dy, needs, rest)
    found[0] = from_channels_last(found[0], data_format, dx, op)
    return found
