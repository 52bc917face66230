"""Broadcasting and reductions as kernels: shapes and specs, as in geometry.py."""

from __future__ import annotations

from functools import lru_cache
from math import prod
from typing import Any, NamedTuple

from convkit import _core
from convkit.geometry import LARGEST_ARRAY, REDUCE_KINDS, Shape, axis_index, fail, hashable


class Spread(NamedTuple):
    """One kernel on the way from a shape to one that it is broadcast to.

    Attributes:
        kernel, spec: "expand" repeats within a sample, "broadcast" for all samples.
        before, after: the shapes of its input and of its output.
    """

    kernel: str
    spec: Any
    before: Shape
    after: Shape


class Reduction(NamedTuple):
    """One kernel on the way to a reduction over several axes.

    Attributes:
        spec: of the kernel "reduce".
        before, after: the shapes of its input and of its output.
    """

    spec: Any
    before: Shape
    after: Shape


def _size(shape: Shape) -> int:
    return prod(size for size in shape if size is not None)


@lru_cache(maxsize=1024)
def broadcast(op: str, x1: Shape, x2: Shape) -> Shape:
    """The shape of x1 and x2 together, by NumPy's rule. That of the samples is the first axis."""
    axes = max(len(x1), len(x2))
    one, two = ((1,) * (axes - len(x)) + x for x in (x1, x2))
    shape = tuple(b if a == 1 else a for a, b in zip(one, two, strict=True))
    fit = all(a == b or 1 in (a, b) for a, b in zip(one, two, strict=True))
    if not fit or None in shape[1:]:
        raise fail(op, "x1 and x2 of shapes that can be broadcast", f"{x1} and {x2}")
    if _size(shape) > LARGEST_ARRAY:
        raise fail(op, "a result of fewer than 2**62 values", shape)
    return shape


@lru_cache(maxsize=1024)
def spreads(shape: Shape, result: Shape) -> tuple[Spread, ...]:
    """The kernels that repeat a value of `shape` to `result`, to which it can be broadcast.

    First for all samples, then along axes, the last ones first; those that stand together at once.
    """
    found = []
    lead, before = result[:0], shape
    if result and result[0] is None:
        lead, result = result[:1], result[1:]
        shape = shape[1:] if len(shape) > len(result) else shape
    own = (1,) * (len(result) - len(shape)) + shape
    if lead and before[:1] != lead:
        found.append(Spread("broadcast", _core.Elementwise(size=_size(own)), before, (*lead, *own)))
        before = (*lead, *own)
    end = len(own)
    while end > 0:
        start = end
        while start > 0 and own[start - 1] == 1:
            start -= 1
        repeats = _size(result[start:end])
        if repeats != 1 and start < end:
            spec = _core.Expand(
                outer=_size(own[:start]), repeats=repeats, inner=_size(result[end:])
            )
            found.append(Spread("expand", spec, before, (*lead, *own[:start], *result[start:])))
            before = found[-1].after
        end = min(start, end - 1)
    return tuple(found)


def summing(expand: Any) -> Any:
    """Spec of the sum that is the gradient of a repetition."""
    return _core.Reduce(
        outer=expand.outer, size=expand.repeats, inner=expand.inner, kind=REDUCE_KINDS["sum"]
    )


def reductions(
    op: str, kind: str, x: Shape, axis: object, keepdims: object
) -> tuple[Reduction, ...]:
    """The kernels that reduce x over some axes: the last ones first, those that stand together at
    once.

    Args:
        op: what messages name.
        kind: "sum", "mean", "max" or "min".
        x: a shape.
        axis: a number, several, or None for all.
        keepdims: whether the axes stay, with one value each.
    """
    return _reductions(op, kind, x, hashable(op, "axis", axis), bool(keepdims))


@lru_cache(maxsize=1024, typed=True)
def _reductions(
    op: str, kind: str, x: Shape, axis: object, keepdims: bool
) -> tuple[Reduction, ...]:
    every = tuple(range(len(x)))
    axes = every if axis is None else axis if isinstance(axis, tuple) else (axis,)
    places = sorted(axis_index(op, one, len(x)) for one in axes)
    if len(set(places)) < len(places):
        raise fail(op, "each axis once", axis)
    if any(x[place] is None for place in places):
        raise fail(op, "axes other than that of the samples", axis)
    if kind != "sum" and any(x[place] == 0 for place in places):
        raise fail(op, "at least one value along the axes", x)
    number = REDUCE_KINDS[kind]
    found: list[Reduction] = []
    before = x
    while places:
        end = start = places.pop() + 1
        start -= 1
        while places and places[-1] == start - 1:
            start = places.pop()
        spec = _core.Reduce(
            outer=_size(x[:start]), size=_size(x[start:end]), inner=_size(before[end:]), kind=number
        )
        after = (*x[:start], *((1,) * (end - start) if keepdims else ()), *before[end:])
        found.append(Reduction(spec, before, after))
        before = after
    if not found:  # no axis: a copy
        found.append(Reduction(_core.Reduce(outer=_size(x), size=1, inner=1, kind=number), x, x))
    return tuple(found)
