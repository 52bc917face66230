"""Convolution channel by channel: depthwise, and separable, with a mixing of channels behind it."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import activation as activations
from convkit.ops import common


def _depthwise(
    op: str, x: Any, kernel: Any, bias: Any, strides: Any, padding: Any, dilation_rate: Any
) -> tuple[Any, Any]:
    """Spec and output shape: a convolution in as many groups as channels. Its kernel is the same
    numbers in the same order as the depthwise one."""
    shape, groups = geometry.depthwise_kernel(op, tuple(x.shape), tuple(kernel.shape))
    return geometry.conv2d(
        op,
        tuple(x.shape),
        shape,
        common.shape_of(bias),
        strides,
        padding,
        dilation_rate,
        groups,
    )


@replayed
def depthwise_conv2d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    out: Any = None,
) -> Any:
    """Convolution of each channel with filters of its own.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        kernel: (kernel_height, kernel_width, C, multiplier), in either data_format.
        bias: (C * multiplier,), or None.
        strides: an integer, or (down, right).
        padding: as for `conv2d`.
        dilation_rate: an integer, or (down, right): distance between the kernel's taps.
        activation: the name of an activation, such as "relu", applied to the result.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, out_height, out_width, C * multiplier), or channels first; channel c * multiplier + m is
        that of channel c and its filter m.

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "depthwise_conv2d"
    x, kernel, bias = common.arguments(op, ("x", "kernel", "bias"), (x, kernel, bias), out)
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = _depthwise(op, x, kernel, bias, strides, padding, dilation_rate)
    inputs = [x, kernel, bias]
    first = activations.before(name, out, inputs)
    y = common.spatial(op, "conv2d", spec, inputs, shape, data_format, first)
    return y if name is None else activations.apply(name, y, out)


@replayed
def depthwise_conv2d_backward(
    dy: Any,
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dkernel, dbias) of `depthwise_conv2d`, called with the same arguments.

    Args:
        dy: the gradient of the result, of the result's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.
    """
    op = "depthwise_conv2d_backward"
    dy, x, kernel, bias = common.arguments(
        op, ("dy", "x", "kernel", "bias"), (dy, x, kernel, bias), out
    )
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = _depthwise(op, x, kernel, bias, strides, padding, dilation_rate)
    common.check_gradient(op, dy, shape, data_format)
    inputs = [x, kernel, bias]
    if name is not None:
        z = common.spatial(op, "conv2d", spec, inputs, shape, data_format, None)
        dy = activations.gradient(name, dy, z)
    dy = common.channels_last(op, dy, "dy", data_format)
    needs, outs = common.flags(op, needs, 3), common.outs(op, out, 3)
    found = common.spatial_backward(op, "conv2d", spec, inputs, dy, needs, data_format, outs)
    return found[0], found[1], found[2]


class _Separable:
    """The two convolutions of `separable_conv2d`."""

    def __init__(
        self,
        op: str,
        x: Any,
        depthwise_kernel: Any,
        pointwise_kernel: Any,
        bias: Any,
        strides: Any,
        padding: Any,
        dilation_rate: Any,
    ) -> None:
        self.op = op
        self.first, self.between = _depthwise(
            op, x, depthwise_kernel, None, strides, padding, dilation_rate
        )
        pointwise = tuple(pointwise_kernel.shape)
        geometry.rank(op, "pointwise_kernel", pointwise, "1, 1, channels, filters")
        if pointwise[:3] != (1, 1, self.between[3]):
            raise geometry.fail(
                op, f"pointwise_kernel of shape (1, 1, {self.between[3]}, filters)", pointwise
            )
        self.second, self.shape = geometry.conv2d(
            op, self.between, pointwise, common.shape_of(bias), 1, "valid", 1, 1
        )

    def channelwise(self, x: Any, kernel: Any) -> Any:
        inputs = [x, kernel, None]
        return common.run("conv2d", self.first, x.shape[0], inputs, self.between, None, self.op)

    def mixed(self, z: Any, kernel: Any, bias: Any, data_format: str, out: Any) -> Any:
        inputs = [z, kernel, bias]
        return common.spatial(self.op, "conv2d", self.second, inputs, self.shape, data_format, out)


@replayed
def separable_conv2d(
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    out: Any = None,
) -> Any:
    """`depthwise_conv2d`, then a convolution by 1 x 1 that mixes the channels.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        depthwise_kernel: (kernel_height, kernel_width, C, multiplier), in either data_format.
        pointwise_kernel: (1, 1, C * multiplier, filters).
        bias: (filters,), or None.
        strides, padding, dilation_rate: as for `conv2d`, of the first convolution.
        activation: the name of an activation, such as "relu", applied to the result.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, out_height, out_width, filters), or (N, filters, out_height, out_width).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "separable_conv2d"
    x, depthwise_kernel, pointwise_kernel, bias = common.arguments(
        op,
        ("x", "depthwise_kernel", "pointwise_kernel", "bias"),
        (x, depthwise_kernel, pointwise_kernel, bias),
        out,
    )
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    both = _Separable(
        op, x, depthwise_kernel, pointwise_kernel, bias, strides, padding, dilation_rate
    )
    z = both.channelwise(x, depthwise_kernel)
    first = activations.before(name, out, [x, depthwise_kernel, pointwise_kernel, bias])
    y = both.mixed(z, pointwise_kernel, bias, data_format, first)
    return y if name is None else activations.apply(name, y, out)


@replayed
def separable_conv2d_backward(
    dy: Any,
    x: Any,
    depthwise_kernel: Any,
    pointwise_kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any, Any]:
    """The gradients (dx, ddepthwise_kernel, dpointwise_kernel, dbias) of `separable_conv2d`, called
    with the same arguments.

    Args:
        dy: the gradient of the result, of the result's shape.
        needs: four booleans: which gradients are wanted; the others are None.
        out: four arrays (or None) for the gradients.
    """
    op = "separable_conv2d_backward"
    dy, x, depthwise_kernel, pointwise_kernel, bias = common.arguments(
        op,
        ("dy", "x", "depthwise_kernel", "pointwise_kernel", "bias"),
        (dy, x, depthwise_kernel, pointwise_kernel, bias),
        out,
    )
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    both = _Separable(
        op, x, depthwise_kernel, pointwise_kernel, bias, strides, padding, dilation_rate
    )
    common.check_gradient(op, dy, both.shape, data_format)
    needs, outs = common.flags(op, needs, 4), common.outs(op, out, 4)
    z = both.channelwise(x, depthwise_kernel)
    if name is not None:
        y = both.mixed(z, pointwise_kernel, bias, data_format, None)
        dy = activations.gradient(name, dy, y)
    dy = common.channels_last(op, dy, "dy", data_format)
    n = x.shape[0]
    first, second = (None, None) if outs is None else ((*outs[:2], None), (None, *outs[2:]))
    dz, dpointwise, dbias = common.backward(
        op,
        "conv2d",
        both.second,
        n,
        [z, pointwise_kernel, bias],
        [None],
        dy,
        (needs[0] or needs[1], needs[2], needs[3]),
        second,
    )
    if dz is None:
        return None, None, dpointwise, dbias
    dx, ddepthwise, _ = common.spatial_backward(
        op,
        "conv2d",
        both.first,
        [x, depthwise_kernel, None],
        dz,
        (needs[0], needs[1], False),
        data_format,
        first,
    )
    return dx, ddepthwise, dpointwise, dbias
