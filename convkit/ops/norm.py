"""Normalisation, and PReLU, which like it has numbers of its own for each channel."""

from __future__ import annotations

from collections.abc import Callable
from math import inf, prod
from typing import Any

import numpy as np

from convkit import _core, geometry, graph
from convkit._core import replayed
from convkit.array import assign, check_out, direct
from convkit.geometry import Shape
from convkit.ops import common


def _arguments(op: str, out: Any, **values: Any) -> list[Any]:
    """The array arguments in one dtype; all but dy and x may be None."""
    there = {k: v for k, v in values.items() if v is not None or k in ("dy", "x")}
    found = common.arguments(op, tuple(there), tuple(there.values()), out)
    ready = dict(zip(there, found, strict=True))
    return [ready.get(name) for name in values]


def _shapes(**numbers: Any) -> tuple[tuple[str, Shape], ...]:
    return tuple((name, tuple(v.shape)) for name, v in numbers.items() if v is not None)


# ---- another axis than the last ------------------------------------------------------------------


def _turned(op: str, x: Any, axis: Any) -> tuple[Any, Callable[..., Any]]:
    """x with its channels at the end, and a function that brings such an array back."""
    shape = tuple(x.shape)
    if len(shape) < 2:
        raise geometry.fail(op, "x of shape (N, ..., channels)", shape)
    index = geometry.axis_index(op, axis, len(shape))
    if index == 0:
        raise geometry.fail(op, "an axis other than that of the samples", axis)
    if index == len(shape) - 1:
        return x, lambda y: y
    before, channels, after = shape[1:index], shape[index], shape[index + 1 :]
    outer, inner = (prod(s for s in part if s is not None) for part in (before, after))
    n, dtype = shape[0], common.dtype_of(x)
    sizes = (outer, channels, inner)

    def swap(value: Any, sizes: tuple[Any, Any, Any], to: Shape) -> Any:
        spec: Any = _core.Permute(
            size_0=sizes[0], size_1=sizes[1], size_2=sizes[2], size_3=1,
            from_0=0, from_1=2, from_2=1, from_3=3, inner=1,
        )  # fmt: skip
        if sizes[0] == 1:
            spec = _core.Transpose(rows=sizes[1], columns=sizes[2])
        kernel = "transpose" if sizes[0] == 1 else "permute"
        return graph.call(kernel, spec, n, [value], [to], dtype)[0]

    def back(y: Any) -> Any:
        return None if y is None else swap(y, (outer, inner, channels), shape)

    return swap(x, sizes, (n, *before, *after, channels)), back


def _check(op: str, x: Any, out: Any) -> None:
    """Fails unless `out` is None or an array for a result like x."""
    if out is None:
        return
    if isinstance(x, graph.Symbol):
        raise TypeError(f"{op}: expected no out for a symbolic call, got one")
    check_out(op, out, x.shape, x.dtype, not isinstance(x, np.ndarray))


def _finished(y: Any, out: Any) -> Any:
    """y, or `out` with its values."""
    if out is None or y is None or y is out:
        return y
    assign(out, y)
    return out


# ---- batch normalisation -------------------------------------------------------------------------


def _epsilon(op: str, epsilon: Any) -> float:
    return geometry.number(op, "epsilon", epsilon, 0, inf)


def _both_or_none(op: str, mean: Any, variance: Any) -> None:
    if (mean is None) != (variance is None):
        missing = "mean" if mean is None else "variance"
        raise TypeError(f"{op}: expected mean and variance, or neither, got no {missing}")


def _affine(spec: Any, gamma: Any, beta: Any, mean: Any, variance: Any, n: int | None) -> list[Any]:
    """Scale and shift of a normalisation by a given mean and variance."""
    dtype, shape = common.dtype_of(mean), tuple(mean.shape)
    if gamma is None:  # a kernel's first argument is always there
        ones = geometry.rescale(spec.channels, 0.0, 1.0)
        gamma = graph.call("rescale", ones, n, [mean], [shape], dtype)[0]
    inputs = [gamma, beta, mean, variance]
    return graph.call("batch_norm_affine", spec, n, inputs, [shape, shape], dtype)


@replayed
def batch_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    mean: Any = None,
    variance: Any = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-3,
    return_moments: bool = False,
    out: Any = None,
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, channel by channel (Ioffe and Szegedy,
    2015).

    Without a mean and a variance these are the batch's own, over all axes but that of the channels;
    the variance is the mean of squares, not divided by one less. A mean that is far larger than the
    deviations costs no digits then.

    Args:
        x: (N, ..., channels), or with the channels at another axis.
        gamma: (channels,), or None: 1.
        beta: (channels,), or None: 0.
        mean, variance: (channels,), both or neither.
        axis: that of the channels; not that of the samples.
        epsilon: at least 0.
        return_moments: whether the mean and the variance are wanted too.
        out: an array of x's shape and dtype for the result.

    Returns:
        An array of x's shape; with return_moments (that array, mean, variance).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "batch_norm"
    _both_or_none(op, mean, variance)
    x, gamma, beta, mean, variance = _arguments(
        op, out, x=x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    numbers = _shapes(gamma=gamma, beta=beta, mean=mean, variance=variance)
    _check(op, x, out)
    given = x
    x, back = _turned(op, x, axis)
    shape, dtype = tuple(x.shape), common.dtype_of(x)
    spec, affine, n = _batch_specs(op, shape, numbers, _epsilon(op, epsilon))
    straight = out is not None and x is given and direct(out, [x, gamma, beta, mean, variance])
    target = out if straight else shape
    if mean is None:
        made = [target, (spec.channels,), (spec.channels,)]
        y, mean, variance = graph.call("batch_norm", spec, n, [x, gamma, beta], made, dtype)
    else:
        scale, shift = _affine(spec, gamma, beta, mean, variance, n)
        y = graph.call("channel_affine", affine, n, [x, scale, shift], [target], dtype)[0]
    y = _finished(back(y), out)
    return (y, mean, variance) if return_moments else y


def _batch_specs(
    op: str, x: Shape, numbers: tuple[tuple[str, Shape], ...], epsilon: float
) -> tuple[Any, Any, int | None]:
    """Specs and n: arrays are one sample with all the rows."""
    spec, affine = geometry.batch_norm(op, x, numbers, epsilon)
    return spec, affine, None if x[0] is None else 1


@replayed
def batch_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    mean: Any = None,
    variance: Any = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-3,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dgamma, dbeta) of `batch_norm`, called with the same arguments.

    A mean and a variance that are given are constants; the batch's own depend on x.

    Args:
        dy: the gradient of the result, of x's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.
    """
    op = "batch_norm_backward"
    _both_or_none(op, mean, variance)
    dy, x, gamma, beta, mean, variance = _arguments(
        op, out, dy=dy, x=x, gamma=gamma, beta=beta, mean=mean, variance=variance
    )
    numbers = _shapes(gamma=gamma, beta=beta, mean=mean, variance=variance)
    geometry.same_shape(op, "dy", tuple(dy.shape), tuple(x.shape), ", that of x")
    needs, outs = common.flags(op, needs, 3), common.outs(op, out, 3)
    given, before = None if outs is None else outs[0], x
    dy, _ = _turned(op, dy, axis)
    x, back = _turned(op, x, axis)
    turned = x is not before
    if turned:
        _check(op, before, given)
    spec, affine, n = _batch_specs(op, tuple(x.shape), numbers, _epsilon(op, epsilon))
    inner = outs if outs is None or not turned else (None, *outs[1:])
    if mean is None:
        shapes = [tuple(x.shape), (spec.channels,), (spec.channels,)]
        inputs = [x, gamma, beta]
        outputs = graph.call("batch_norm", spec, n, inputs, shapes, common.dtype_of(x))
        found = common.backward(op, "batch_norm", spec, n, inputs, outputs, dy, needs, inner)
    else:
        found = _affine_backward(
            op, spec, affine, n, dy, x, gamma, beta, mean, variance, needs, inner
        )
    if turned:
        found[0] = _finished(back(found[0]), given)
    return found[0], found[1], found[2]


def _affine_backward(
    op: str,
    spec: Any,
    affine: Any,
    n: int | None,
    dy: Any,
    x: Any,
    gamma: Any,
    beta: Any,
    mean: Any,
    variance: Any,
    needs: tuple[bool, ...],
    outs: tuple[Any, ...] | None,
) -> list[Any]:
    scale, shift = _affine(spec, gamma, beta, mean, variance, n)
    wanted = [need and v is not None for need, v in zip(needs, (x, gamma, beta), strict=True)]
    numbers = wanted[1] or wanted[2]
    to_x = None if outs is None else (outs[0], None, None)
    dx, dscale, dshift = common.backward(
        op, "channel_affine", affine, n, [x, scale, shift], [None], dy,
        [wanted[0], numbers, numbers], to_x,
    )  # fmt: skip
    found = [dx, None, None]
    if numbers:
        shape, inputs = tuple(mean.shape), [dscale, dshift, mean, variance]
        to_numbers = (None, None) if outs is None else outs[1:]
        for value, to in zip((gamma, beta), to_numbers, strict=True):
            _check(op, value, to)
        targets = [
            (shape if to is None or not direct(to, inputs) else to) if want else None
            for want, to in zip(wanted[1:], to_numbers, strict=True)
        ]
        kernel = "batch_norm_affine_backward"
        found[1:] = graph.call(kernel, spec, n, inputs, targets, common.dtype_of(x))
        found[1:] = [_finished(v, to) for v, to in zip(found[1:], to_numbers, strict=True)]
    return found


# ---- layer normalisation -------------------------------------------------------------------------


@replayed
def layer_norm(
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: Any = -1,
    epsilon: float = 1e-3,
    out: Any = None,
) -> Any:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta with the mean and variance over the last
    axis, or over several at the end (Ba et al., 2016).

    Args:
        x: (..., sizes).
        gamma: of the shape of these axes, or None: 1.
        beta: likewise, or None: 0.
        axis: -1, or a tuple of axes at the end.
        epsilon: at least 0.
        out: an array of x's shape and dtype for the result.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "layer_norm"
    x, gamma, beta = _arguments(op, out, x=x, gamma=gamma, beta=beta)
    shape = tuple(x.shape)
    numbers = _shapes(gamma=gamma, beta=beta)
    spec = geometry.layer_norm(op, shape, numbers, axis, _epsilon(op, epsilon))
    n, _ = geometry.samples(shape)
    return common.run(op, spec, n, [x, gamma, beta], shape, out, op)


@replayed
def layer_norm_backward(
    dy: Any,
    x: Any,
    gamma: Any = None,
    beta: Any = None,
    *,
    axis: Any = -1,
    epsilon: float = 1e-3,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dgamma, dbeta) of `layer_norm`, called with the same arguments.

    Args:
        dy: the gradient of the result, of x's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.
    """
    op = "layer_norm_backward"
    dy, x, gamma, beta = _arguments(op, out, dy=dy, x=x, gamma=gamma, beta=beta)
    shape = tuple(x.shape)
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of x")
    numbers = _shapes(gamma=gamma, beta=beta)
    spec = geometry.layer_norm(op, shape, numbers, axis, _epsilon(op, epsilon))
    needs, outs = common.flags(op, needs, 3), common.outs(op, out, 3)
    n, _ = geometry.samples(shape)
    inputs = [x, gamma, beta]
    found = common.backward(op, "layer_norm", spec, n, inputs, [None], dy, needs, outs)
    return found[0], found[1], found[2]


# ---- PReLU ---------------------------------------------------------------------------------------


def _ordered(x: Any, spec: Any, shape: Shape | None = None) -> Any:
    """x with the axes of its samples in another order, as one axis or in `shape`."""
    to = (x.shape[0], prod(x.shape[1:])) if shape is None else shape
    return graph.call("permute", spec, x.shape[0], [x], [to], common.dtype_of(x))[0]


@replayed
def prelu(x: Any, alpha: Any, *, out: Any = None) -> Any:
    """x where x > 0, else alpha * x (He et al., 2015); NaN stays NaN.

    Args:
        x: (N, ...).
        alpha: of a sample's shape, 1 for axes along which it is shared; or with fewer axes, those
            at the end.
        out: an array of x's shape and dtype for the result.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "prelu"
    x, alpha = common.arguments(op, ("x", "alpha"), (x, alpha), out)
    shape = tuple(x.shape)
    spec, orders = geometry.prelu(op, shape, tuple(alpha.shape))
    if orders is None:
        return common.run(op, spec, shape[0], [x, alpha], shape, out, op)
    _check(op, x, out)
    there, back = orders
    x = _ordered(x, there)
    y = common.run(op, spec, shape[0], [x, alpha], tuple(x.shape), None, op)
    return _finished(_ordered(y, back, shape), out)


@replayed
def prelu_backward(
    dy: Any, x: Any, alpha: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, Any]:
    """The gradients (dx, dalpha) of `prelu`, called with the same arguments.

    Args:
        dy: the gradient of the result, of x's shape.
        needs: two booleans: which gradients are wanted; the others are None.
        out: two arrays (or None) for the gradients.
    """
    op = "prelu_backward"
    dy, x, alpha = common.arguments(op, ("dy", "x", "alpha"), (dy, x, alpha), out)
    shape = tuple(x.shape)
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of x")
    spec, orders = geometry.prelu(op, shape, tuple(alpha.shape))
    needs, outs = common.flags(op, needs, 2), common.outs(op, out, 2)
    n = shape[0]
    if orders is None:
        found = common.backward(op, "prelu", spec, n, [x, alpha], [None], dy, needs, outs)
        return found[0], found[1]
    there, back = orders
    given = None if outs is None else outs[0]
    inner = None if outs is None else (None, outs[1])
    _check(op, x, given)
    x, dy = _ordered(x, there), _ordered(dy, there)
    dx, dalpha = common.backward(op, "prelu", spec, n, [x, alpha], [None], dy, needs, inner)
    if dx is not None:
        dx = _finished(_ordered(dx, back, shape), given)
    return dx, dalpha
