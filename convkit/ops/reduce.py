"""Sums, means, maxima and minima over axes, and global pooling."""

from __future__ import annotations

from typing import Any

from convkit import broadcasting, geometry, graph
from convkit._core import replayed
from convkit.broadcasting import Reduction
from convkit.ops import common


def _run(op: str, steps: tuple[Reduction, ...], x: Any, out: Any) -> Any:
    n = None if None in x.shape else 1
    for step in steps[:-1]:
        x = graph.call("reduce", step.spec, n, [x], [step.after], common.dtype_of(x))[0]
    return common.run("reduce", steps[-1].spec, n, [x], steps[-1].after, out, op)


def _run_backward(
    op: str, steps: tuple[Reduction, ...], dy: Any, x: Any, needs: Any, out: Any
) -> Any:
    geometry.same_shape(op, "dy", tuple(dy.shape), steps[-1].after, ", that of the result")
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    if not needs[0]:
        return None
    n = None if None in x.shape else 1
    values = [x]
    # Sums and means need the shapes alone, maxima and minima also what came before.
    linear = steps[0].spec.kind in (
        geometry.REDUCE_KINDS["sum"],
        geometry.REDUCE_KINDS["mean"],
    )
    for step in steps[:-1]:
        values.append(
            common.Shaped(step.after)
            if linear
            else graph.call("reduce", step.spec, n, [values[-1]], [step.after], common.dtype_of(x))[
                0
            ]
        )
    for step, value in zip(reversed(steps), reversed(values), strict=True):
        target = out if value is x else None
        dy = common.backward(op, "reduce", step.spec, n, [value], [None], dy, needs, target)[0]
    return dy


def _reduce(op: str, x: Any, axis: Any, keepdims: bool, out: Any) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    return _run(op, broadcasting.reductions(op, op, tuple(x.shape), axis, keepdims), x, out)


def _reduce_backward(
    kind: str, dy: Any, x: Any, axis: Any, keepdims: bool, needs: Any, out: Any
) -> Any:
    op = f"{kind}_backward"
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    steps = broadcasting.reductions(op, kind, tuple(x.shape), axis, keepdims)
    return _run_backward(op, steps, dy, x, needs, out)


@replayed
def sum(x: Any, axis: Any = None, keepdims: bool = False, *, out: Any = None) -> Any:
    """The sum over some axes, as numpy.sum.

    Args:
        x: array of any shape.
        axis: a number, several in a tuple, or None for all; of symbols not that of the samples.
        keepdims: whether the axes stay, with one value each.
        out: an array for the result.
    """
    return _reduce("sum", x, axis, keepdims, out)


@replayed
def sum_backward(
    dy: Any, x: Any, axis: Any = None, keepdims: bool = False, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `sum`: dy, repeated."""
    return _reduce_backward("sum", dy, x, axis, keepdims, needs, out)


@replayed
def mean(x: Any, axis: Any = None, keepdims: bool = False, *, out: Any = None) -> Any:
    """The mean over some axes, of at least one value; axes as for `sum`."""
    return _reduce("mean", x, axis, keepdims, out)


@replayed
def mean_backward(
    dy: Any, x: Any, axis: Any = None, keepdims: bool = False, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `mean`: dy over the number of values, repeated."""
    return _reduce_backward("mean", dy, x, axis, keepdims, needs, out)


@replayed
def max(x: Any, axis: Any = None, keepdims: bool = False, *, out: Any = None) -> Any:
    """The maximum over some axes, of at least one value, NaN where one is; axes as for `sum`."""
    return _reduce("max", x, axis, keepdims, out)


@replayed
def max_backward(
    dy: Any, x: Any, axis: Any = None, keepdims: bool = False, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `max`: dy for the first of the largest values, 0 for the others."""
    return _reduce_backward("max", dy, x, axis, keepdims, needs, out)


@replayed
def min(x: Any, axis: Any = None, keepdims: bool = False, *, out: Any = None) -> Any:
    """The minimum over some axes, of at least one value, NaN where one is; axes as for `sum`."""
    return _reduce("min", x, axis, keepdims, out)


@replayed
def min_backward(
    dy: Any, x: Any, axis: Any = None, keepdims: bool = False, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `min`: dy for the first of the smallest values, 0 for the others."""
    return _reduce_backward("min", dy, x, axis, keepdims, needs, out)


def _pooling(op: str, kind: str, x: Any, data_format: str, keepdims: bool) -> tuple[Reduction, ...]:
    geometry.choice(op, "data_format", data_format, geometry.DATA_FORMATS)
    last = data_format == "channels_last"
    shape = geometry.rank(op, "x", tuple(x.shape), "N, H, W, C" if last else "N, C, H, W")
    return broadcasting.reductions(op, kind, shape, (1, 2) if last else (2, 3), keepdims)


def _pool(op: str, kind: str, x: Any, data_format: str, keepdims: bool, out: Any) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    return _run(op, _pooling(op, kind, x, data_format, keepdims), x, out)


def _pool_backward(
    op: str, kind: str, dy: Any, x: Any, data_format: str, keepdims: bool, needs: Any, out: Any
) -> Any:
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    steps = _pooling(op, kind, x, data_format, keepdims)
    return _run_backward(op, steps, dy, x, needs, out)


@replayed
def global_avg_pool2d(
    x: Any, *, data_format: str = "channels_last", keepdims: bool = False, out: Any = None
) -> Any:
    """The mean of each image, channel by channel (Lin et al., 2013).

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        data_format: "channels_last" or "channels_first".
        keepdims: whether height and width stay, with one value.
        out: an array for the result.

    Returns:
        (N, C); with keepdims (N, 1, 1, C) or (N, C, 1, 1).
    """
    return _pool("global_avg_pool2d", "mean", x, data_format, keepdims, out)


@replayed
def global_avg_pool2d_backward(
    dy: Any,
    x: Any,
    *,
    data_format: str = "channels_last",
    keepdims: bool = False,
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient of `global_avg_pool2d`: dy in equal shares."""
    op = "global_avg_pool2d_backward"
    return _pool_backward(op, "mean", dy, x, data_format, keepdims, needs, out)


@replayed
def global_max_pool2d(
    x: Any, *, data_format: str = "channels_last", keepdims: bool = False, out: Any = None
) -> Any:
    """The maximum of each image, channel by channel, NaN where one is; arguments and shapes as for
    `global_avg_pool2d`."""
    return _pool("global_max_pool2d", "max", x, data_format, keepdims, out)


@replayed
def global_max_pool2d_backward(
    dy: Any,
    x: Any,
    *,
    data_format: str = "channels_last",
    keepdims: bool = False,
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient of `global_max_pool2d`: dy for the first maximum of each image and channel."""
    op = "global_max_pool2d_backward"
    return _pool_backward(op, "max", dy, x, data_format, keepdims, needs, out)
