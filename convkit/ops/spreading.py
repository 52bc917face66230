"""Arrays and symbols of different shapes in one element-wise op, by NumPy's rule."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import broadcasting, device, geometry, graph
from convkit.geometry import Shape
from convkit.graph import Symbol
from convkit.ops import common


def is_number(value: object) -> bool:
    """Whether a value is a number of Python, which takes the dtype of what it meets."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_plain(value: object) -> bool:
    """Whether a value is a number that every dtype holds: an op with it needs no second array."""
    return is_number(value) and abs(value) < 1e30  # type: ignore[arg-type]


def rescaled(op: str, x: Any, scale: float, offset: float, out: Any) -> Any:
    """x * scale + offset, for an op of x and a number."""
    (x,) = arguments(op, ("the other",), (x,), out)
    n, size = geometry.samples(tuple(x.shape))
    spec = geometry.rescale(size, float(scale), float(offset))
    return common.run("rescale", spec, n, [x], tuple(x.shape), out, op)


def arguments(op: str, names: Sequence[str], values: Sequence[Any], out: Any = None) -> Any:
    """As `common.arguments`; a number becomes an array of the others' dtype, where they are."""
    if any(is_number(value) for value in values):
        like = next((value for value in values if not is_number(value)), None)
        values = [_array(op, value, like) if is_number(value) else value for value in values]
    return common.arguments(op, names, tuple(values), out)


def _array(op: str, number: float, like: Any) -> Any:
    if not device.is_device_array(like):
        dtype = np.dtype(getattr(like, "dtype", None) or np.asarray(like).dtype)
        return np.array(number, np.float64 if dtype == np.float64 else np.float32)
    like = device.as_array(op, "the other", like)
    with device.on(device.device_of(like)):
        return device.from_numpy(np.array(number, like.dtype))


def spread(x: Any, shape: Shape) -> Any:
    """x repeated to `shape`; x itself where it has as many values."""
    for step in broadcasting.spreads(tuple(x.shape), shape):
        n = None if None in step.after else 1
        x = graph.call(step.kernel, step.spec, n, [x], [step.after], common.dtype_of(x))[0]
    return x


def is_spread(x: Any, shape: Shape) -> bool:
    """Whether `spread` makes more values of x."""
    return bool(broadcasting.spreads(tuple(x.shape), shape))


def summed(op: str, dy: Any, shape: Shape, out: Any = None) -> Any:
    """The gradient of `spread`: dy summed to `shape`, that of what was repeated.

    Args:
        op: what messages name.
        dy: of the shape that it was repeated to.
        out: an array for the result.
    """
    steps = broadcasting.spreads(shape, tuple(dy.shape))
    dtype = common.dtype_of(dy)
    for step in reversed(steps):
        n = None if None in step.after else 1
        kernel, spec = "broadcast_backward", step.spec
        if step.kernel == "expand":
            kernel, spec = "reduce", broadcasting.summing(step.spec)
        if out is None or step is not steps[0]:
            dy = graph.call(kernel, spec, n, [dy], [step.before], dtype)[0]
        else:
            dy = common.run(kernel, spec, n, [dy], step.before, out, op)
    return dy


def gradients(
    op: str, given: Sequence[Any], found: Sequence[Any], needs: Sequence[bool], out: Any
) -> tuple[Any, ...]:
    """Gradients of the result's shape, or None, as those of what was given.

    Args:
        op: what messages name.
        given: the arguments before they were spread.
        found: a gradient each, in `out` already where the argument was not spread.
        needs: which are wanted.
        out: as of a backward op.
    """
    results: list[Any] = []
    for i, (x, dx) in enumerate(zip(given, found, strict=True)):
        shape = tuple(x.shape)
        if not needs[i] or dx is None:
            results.append(None)
        elif is_spread(x, tuple(dx.shape)):
            results.append(summed(op, dx, shape, None if out is None else out[i]))
        else:
            same = isinstance(dx, Symbol) and dx.shape != shape
            results.append(graph.reshape(dx, shape) if same else dx)
    return tuple(results)
