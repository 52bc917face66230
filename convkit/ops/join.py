"""Adding and joining."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from math import prod
from typing import Any

import numpy as np

from convkit import _core, broadcasting, geometry, graph
from convkit._core import replayed
from convkit.array import assign, check_out, copy
from convkit.ops import common, spreading


@replayed
def add(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """x1 + x2, element by element.

    Args:
        x1, x2: arrays of shapes that can be broadcast, as in NumPy, or one of them a number. To a
            symbol of shape (None, ...), what has no axis for samples is the same for all of them.
        out: an array of the result's shape and dtype; x1 itself is allowed.
    """
    if spreading.is_plain(x2):
        return spreading.rescaled("add", x1, 1.0, x2, out)
    if spreading.is_plain(x1):
        return spreading.rescaled("add", x2, 1.0, x1, out)
    x1, x2 = spreading.arguments("add", ("x1", "x2"), (x1, x2), out)
    shape = tuple(x1.shape)
    if shape != tuple(x2.shape):
        shape = broadcasting.broadcast("add", shape, tuple(x2.shape))
        x1, x2 = spreading.spread(x1, shape), spreading.spread(x2, shape)
    n, size = geometry.samples(shape)
    return common.run("add", _core.Elementwise(size=size), n, [x1, x2], shape, out, "add")


@replayed
def add_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `add`: dy twice, as arrays of their own, summed over what was
    broadcast."""
    op = "add_backward"
    dy, x1, x2 = spreading.arguments(op, ("dy", "x1", "x2"), (dy, x1, x2), out)
    shape = broadcasting.broadcast(op, tuple(x1.shape), tuple(x2.shape))
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")
    needs, out = common.flags(op, needs, 2), common.outs(op, out, 2)
    n, size = geometry.samples(shape)
    spec, given = _core.Elementwise(size=size), [x1, x2]
    whole = [
        need and not spreading.is_spread(x, shape) for x, need in zip(given, needs, strict=True)
    ]
    found = common.backward(op, "add", spec, n, given, [None], dy, whole, out)
    found = [dx if own else dy for dx, own in zip(found, whole, strict=True)]
    return spreading.gradients(op, given, found, needs, out)


def _listed(op: str, arrays: Any) -> list[Any]:
    if not isinstance(arrays, (list, tuple)):
        raise TypeError(f"{op}: expected a list of arrays, got {type(arrays).__name__}")
    if not arrays:
        raise geometry.fail(op, "at least one array", "none")
    return list(arrays)


def _names(arrays: list[Any]) -> tuple[str, ...]:
    return tuple(f"array {i}" for i in range(len(arrays)))


def _axis(op: str, shapes: Sequence[geometry.Shape], axis: Any) -> int:
    """The axis, counted from the front, of arrays that agree in everything else."""
    first = shapes[0]
    if not first:
        raise geometry.fail(op, "arrays with at least one axis", "a number")
    index = geometry.axis_index(op, axis, len(first))
    if first[index] is None:
        raise geometry.fail(op, "an axis other than that of the samples", index)
    for i, shape in enumerate(shapes[1:], 1):
        if (
            len(shape) != len(first)
            or shape[:index] != first[:index]
            or shape[index + 1 :] != first[index + 1 :]
        ):
            raise geometry.fail(
                op, f"arrays of one shape but for axis {index}", f"{first} and {shape} (array {i})"
            )
    return index


@replayed
def concatenate(arrays: Sequence[Any], axis: int = -1, *, out: Any = None) -> Any:
    """Joins arrays along an existing axis, as numpy.concatenate.

    Args:
        arrays: at least one array; shapes agree but for the axis.
        axis: the axis along which they are joined; of symbols, not that of the samples.
        out: an array for the result.
    """
    op = "concatenate"
    arrays = _listed(op, arrays)
    arrays = common.arguments(op, _names(arrays), tuple(arrays), out)
    index = _axis(op, [tuple(a.shape) for a in arrays], axis)
    if len(arrays) == 1:
        return _copied(arrays[0], out)

    def join(a: Any, b: Any, out: Any = None) -> Any:
        shape = list(a.shape)
        shape[index] = a.shape[index] + b.shape[index]
        n, spec = _spec(tuple(a.shape), tuple(b.shape), index)
        return common.run(op, spec, n, [a, b], tuple(shape), out, op)

    return join(reduce(join, arrays[:-1]), arrays[-1], out)


def _spec(a: geometry.Shape, b: geometry.Shape, index: int) -> tuple[int | None, Any]:
    """(n, spec) of joining two arrays: rows before the axis, values from it on."""
    n = None if a[0] is None else 1
    outer = prod(size for size in a[:index] if size is not None)
    first, second = (prod(size for size in shape[index:] if size is not None) for shape in (a, b))
    return n, _core.Concatenate(outer=outer, first=first, second=second)


def _copied(x: Any, out: Any) -> Any:
    if out is None:
        return x if isinstance(x, graph.Symbol) else copy(x)
    check_out("concatenate", out, x.shape, x.dtype, not isinstance(x, np.ndarray))
    assign(out, x)
    return out


@replayed
def concatenate_backward(
    dy: Any, arrays: Sequence[Any], axis: int = -1, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients of `concatenate`, one per array: the pieces of dy."""
    op = "concatenate_backward"
    arrays = _listed(op, arrays)
    dy, *arrays = common.arguments(op, ("dy", *_names(arrays)), (dy, *arrays), out)
    index = _axis(op, [tuple(a.shape) for a in arrays], axis)
    shape = list(arrays[0].shape)
    shape[index] = sum(a.shape[index] for a in arrays)
    geometry.same_shape(op, "dy", tuple(dy.shape), tuple(shape), ", that of the result")
    needs = common.flags(op, needs, len(arrays))
    outs = common.outs(
        op, out if len(arrays) > 1 or isinstance(out, (tuple, list)) else [out], len(arrays)
    )
    if len(arrays) == 1:
        return (_copied(dy, None if outs is None else outs[0]) if needs[0] else None,)
    found: list[Any] = []
    # From the back: cut the last piece off what is left, which is the first piece in the end.
    rest = dy
    for i in range(len(arrays) - 1, 0, -1):
        head = list(rest.shape)
        head[index] -= arrays[i].shape[index]
        n, spec = _spec(tuple(head), tuple(arrays[i].shape), index)
        like = [common.Shaped(tuple(head)), arrays[i]]
        wanted = [any(needs[:i]), needs[i]]
        targets = None if outs is None else [outs[0] if i == 1 else None, outs[i]]
        rest, piece = common.backward(
            op, "concatenate", spec, n, like, [None], rest, wanted, targets
        )
        found.append(piece)
        if rest is None:
            rest = common.Shaped(tuple(head))
    found.append(rest if needs[0] else None)
    return tuple(reversed(found))
