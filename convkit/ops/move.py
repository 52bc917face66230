"""Padding, cropping, other orders of axes, and repetition."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import common


def _forward(
    op: str, rule: Callable[..., Any], x: Any, sides: Any, data_format: str, out: Any
) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = rule(op, tuple(x.shape), sides)
    return common.spatial(op, "pad2d", spec, [x], shape, data_format, out)


def _backward(
    op: str,
    rule: Callable[..., Any],
    dy: Any,
    x: Any,
    sides: Any,
    data_format: str,
    needs: Any,
    out: Any,
) -> Any:
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = rule(op, tuple(x.shape), sides)
    common.check_gradient(op, dy, shape, data_format)
    dy = common.channels_last(op, dy, "dy", data_format)
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.spatial_backward(op, "pad2d", spec, [x], dy, needs, data_format, out)[0]


@replayed
def pad2d(x: Any, padding: Any, *, data_format: str = "channels_last", out: Any = None) -> Any:
    """Zeros around images.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        padding: an integer, (rows, columns), or ((top, bottom), (left, right)).
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, top + H + bottom, left + W + right, C), or with the channels second.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    return _forward("pad2d", geometry.pad2d, x, padding, data_format, out)


@replayed
def pad2d_backward(
    dy: Any,
    x: Any,
    padding: Any,
    *,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient dx of `pad2d`: dy without its border. Of x only the shape counts."""
    return _backward("pad2d_backward", geometry.pad2d, dy, x, padding, data_format, needs, out)


@replayed
def crop2d(x: Any, cropping: Any, *, data_format: str = "channels_last", out: Any = None) -> Any:
    """Images without their borders.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        cropping: an integer, (rows, columns), or ((top, bottom), (left, right)); at least one row
            and one column must be left.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, H - top - bottom, W - left - right, C), or with the channels second.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    return _forward("crop2d", geometry.crop2d, x, cropping, data_format, out)


@replayed
def crop2d_backward(
    dy: Any,
    x: Any,
    cropping: Any,
    *,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient dx of `crop2d`: dy, with zeros around it. Of x only the shape counts."""
    return _backward("crop2d_backward", geometry.crop2d, dy, x, cropping, data_format, needs, out)


@replayed
def permute(x: Any, axes: Sequence[int], *, out: Any = None) -> Any:
    """The axes of each sample in another order.

    Args:
        x: (N, ...), of any number of axes; up to four of them may change places, where axes that
            stay next to each other count as one.
        axes: which axis of x comes first, second, ..., counted from 1: (2, 1) swaps the two axes of
            (N, a, b). The samples stay where they are.
        out: an array for the result.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "permute"
    (x,) = common.arguments(op, ("x",), (x,), out)
    spec, shape = geometry.permute(op, tuple(x.shape), axes)
    return common.run(op, spec, x.shape[0], [x], shape, out, op)


@replayed
def permute_backward(
    dy: Any, x: Any, axes: Sequence[int], *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient dx of `permute`: dy with its axes back in their places."""
    op = "permute_backward"
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    spec, shape = geometry.permute(op, tuple(x.shape), axes)
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.backward(op, "permute", spec, x.shape[0], [x], [None], dy, needs, out)[0]


def _samples(x: Any) -> int | None:
    return None if x.shape[0] is None else 1


@replayed
def repeat(x: Any, repeats: int, axis: int = -1, *, out: Any = None) -> Any:
    """Each value along an axis several times over, as numpy.repeat: (a, b) to (a, a, b, b).

    Args:
        x: array of at least one axis.
        repeats: how many times, at least 1.
        axis: the axis along which values are repeated; of symbols, not that of the samples.
        out: an array for the result.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "repeat"
    (x,) = common.arguments(op, ("x",), (x,), out)
    spec, shape = geometry.repeat(op, tuple(x.shape), repeats, axis)
    return common.run("expand", spec, _samples(x), [x], shape, out, op)


@replayed
def repeat_backward(
    dy: Any, x: Any, repeats: int, axis: int = -1, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient dx of `repeat`: the sum over the copies of each value."""
    op = "repeat_backward"
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    spec, shape = geometry.repeat(op, tuple(x.shape), repeats, axis)
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.backward(op, "expand", spec, _samples(x), [x], [None], dy, needs, out)[0]
