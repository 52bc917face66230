"""Max and average pooling."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import common


def _forward(
    op: str,
    x: Any,
    pool_size: Any,
    strides: Any,
    padding: Any,
    dilation_rate: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    data_format: str,
    out: Any,
) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = geometry.pool2d(
        op,
        tuple(x.shape),
        pool_size,
        strides,
        padding,
        dilation_rate,
        ceil_mode,
        count_include_pad,
    )
    return common.spatial(op, op, spec, [x], shape, data_format, out)


def _backward(
    op: str,
    dy: Any,
    x: Any,
    pool_size: Any,
    strides: Any,
    padding: Any,
    dilation_rate: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    data_format: str,
    needs: Any,
    out: Any,
) -> Any:
    name = f"{op}_backward"
    dy, x = common.arguments(name, ("dy", "x"), (dy, x), out)
    x = common.channels_last(name, x, "x", data_format)
    spec, shape = geometry.pool2d(
        name,
        tuple(x.shape),
        pool_size,
        strides,
        padding,
        dilation_rate,
        ceil_mode,
        count_include_pad,
    )
    common.check_gradient(name, dy, shape, data_format)
    dy = common.channels_last(name, dy, "dy", data_format)
    needs, out = common.flags(name, needs, 1), common.outs(name, out, 1)
    return common.spatial_backward(name, op, spec, [x], dy, needs, data_format, out)[0]


@replayed
def max_pool2d(
    x: Any,
    pool_size: Any = 2,
    *,
    strides: Any = None,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_last",
    out: Any = None,
) -> Any:
    """The maximum of each window, channel by channel. Padding never wins; NaN does.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        pool_size: an integer, or (down, right): the window.
        strides: an integer, or (down, right); None: the window's size.
        padding: "valid", "same" (TensorFlow's rule), an integer, (rows, columns), or
            ((top, bottom), (left, right)); smaller than the window.
        dilation_rate: an integer, or (down, right): distance between the values of a window.
        ceil_mode: also a last window that reaches over the border, as PyTorch.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, out_height, out_width, C), or (N, C, out_height, out_width).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    return _forward(
        "max_pool2d",
        x,
        pool_size,
        strides,
        padding,
        dilation_rate,
        ceil_mode,
        False,
        data_format,
        out,
    )


@replayed
def max_pool2d_backward(
    dy: Any,
    x: Any,
    pool_size: Any = 2,
    *,
    strides: Any = None,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    ceil_mode: bool = False,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient dx of `max_pool2d`: the first maximum of each window takes the window's dy."""
    return _backward(
        "max_pool2d",
        dy,
        x,
        pool_size,
        strides,
        padding,
        dilation_rate,
        ceil_mode,
        False,
        data_format,
        needs,
        out,
    )


@replayed
def avg_pool2d(
    x: Any,
    pool_size: Any = 2,
    *,
    strides: Any = None,
    padding: Any = "valid",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: str = "channels_last",
    out: Any = None,
) -> Any:
    """The mean of each window, channel by channel.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        pool_size: an integer, or (down, right): the window.
        strides: an integer, or (down, right); None: the window's size.
        padding: as for `max_pool2d`. With "same" padding is never counted, as in TensorFlow.
        ceil_mode: also a last window that reaches over the border, as PyTorch.
        count_include_pad: whether explicit padding counts as zeros in the mean.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, out_height, out_width, C), or (N, C, out_height, out_width).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    return _forward(
        "avg_pool2d",
        x,
        pool_size,
        strides,
        padding,
        1,
        ceil_mode,
        count_include_pad,
        data_format,
        out,
    )


@replayed
def avg_pool2d_backward(
    dy: Any,
    x: Any,
    pool_size: Any = 2,
    *,
    strides: Any = None,
    padding: Any = "valid",
    ceil_mode: bool = False,
    count_include_pad: bool = False,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient dx of `avg_pool2d`: each window's dy in equal shares."""
    return _backward(
        "avg_pool2d",
        dy,
        x,
        pool_size,
        strides,
        padding,
        1,
        ceil_mode,
        count_include_pad,
        data_format,
        needs,
        out,
    )
