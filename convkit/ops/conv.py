"""Two-dimensional convolution."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import activation as activations
from convkit.ops import common
from convkit.ops.planning import check_algorithm


@replayed
def conv2d(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    algorithm: str = "automatic",
    out: Any = None,
) -> Any:
    """Convolution in the sense of the field (cross-correlation), as Keras and TensorFlow define it.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        kernel: (kernel_height, kernel_width, C / groups, filters), in either data_format.
        bias: (filters,), or None.
        strides: an integer, or (down, right).
        padding: "valid" (none), "same" (TensorFlow's rule: ceil(size / stride) values come out, an
            odd pixel goes to the bottom or right), an integer, (rows, columns), or
            ((top, bottom), (left, right)).
        dilation_rate: an integer, or (down, right): distance between the kernel's taps.
        groups: channels and filters are split into so many independent convolutions.
        activation: the name of an activation, such as "relu", applied to the result.
        data_format: "channels_last" or "channels_first".
        algorithm: how it is computed on a processor: see `convkit.ops.plan`. By "automatic" a
            value that is not finite may reach outputs up to 3 pixels beyond its windows.
        out: an array for the result.

    Returns:
        (N, out_height, out_width, filters), or (N, filters, out_height, out_width).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    x, kernel, bias = common.arguments("conv2d", ("x", "kernel", "bias"), (x, kernel, bias), out)
    name = activations.named("conv2d", activation)
    x = common.channels_last("conv2d", x, "x", data_format)
    spec, shape = geometry.conv2d(
        "conv2d",
        tuple(x.shape),
        tuple(kernel.shape),
        common.shape_of(bias),
        strides,
        padding,
        dilation_rate,
        groups,
        algorithm,
    )
    check_algorithm("conv2d", spec, common.dtype_of(x), algorithm)
    inputs = [x, kernel, bias]
    first = activations.before(name, out, inputs)
    y = common.spatial("conv2d", "conv2d", spec, inputs, shape, data_format, first)
    return y if name is None else activations.apply(name, y, out)


@replayed
def conv2d_backward(
    dy: Any,
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    dilation_rate: Any = 1,
    groups: int = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    algorithm: str = "automatic",
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dkernel, dbias) of `conv2d`, called with the same arguments.

    Args:
        dy: the gradient of the result, of the result's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.
    """
    op = "conv2d_backward"
    dy, x, kernel, bias = common.arguments(
        op, ("dy", "x", "kernel", "bias"), (dy, x, kernel, bias), out
    )
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = geometry.conv2d(
        op,
        tuple(x.shape),
        tuple(kernel.shape),
        common.shape_of(bias),
        strides,
        padding,
        dilation_rate,
        groups,
        algorithm,
    )
    check_algorithm(op, spec, common.dtype_of(x), algorithm)
    common.check_gradient(op, dy, shape, data_format)
    if name is not None:
        z = common.spatial(op, "conv2d", spec, [x, kernel, bias], shape, data_format, None)
        dy = activations.gradient(name, dy, z)
    dy = common.channels_last(op, dy, "dy", data_format)
    found = common.spatial_backward(
        op,
        "conv2d",
        spec,
        [x, kernel, bias],
        dy,
        common.flags(op, needs, 3),
        data_format,
        common.outs(op, out, 3),
    )
    return found[0], found[1], found[2]
