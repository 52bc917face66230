"""Transposed convolution."""

from __future__ import annotations

from typing import Any

from convkit import geometry, graph
from convkit._core import replayed
from convkit.graph import Symbol
from convkit.ops import activation as activations
from convkit.ops import common
from convkit.ops.planning import check_algorithm


def _bias_spec(spec: Any) -> Any:
    return geometry.channel_affine(spec.channels, spec.height * spec.width)


def _before_activation(
    op: str, spec: Any, shape: Any, x: Any, kernel: Any, bias: Any, out: Any = None
) -> Any:
    """The result on NHWC."""
    n = x.shape[0]
    last = out if bias is None else None
    y = common.run("conv2d_backward_input", spec, n, [x, kernel], shape, last, op)
    if bias is None:
        return y
    if out is None and not isinstance(y, Symbol):  # in place
        inputs, dtype = [y, None, bias], common.dtype_of(y)
        return graph.call("channel_affine", _bias_spec(spec), n, inputs, [y], dtype)[0]
    return common.run("channel_affine", _bias_spec(spec), n, [y, None, bias], shape, out, op)


@replayed
def conv2d_transpose(
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    algorithm: str = "automatic",
    out: Any = None,
) -> Any:
    """Transposed convolution, with Keras's shapes: the gradient of `conv2d` with respect to its
    input, as a function of its own.

    Each pixel of x adds its channels times the kernel to a window of the result; windows lie
    `strides` apart. With w the window's size, dilation included, and s the stride, a side of size i
    becomes

    - "valid": (i - 1) s + max(w, s), or (i - 1) s + w + output_padding;
    - "same": i s, or (i - 1) s + w % 2 + output_padding; what reaches over that is cut off, half of
      it (rounded down) at the top or left.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        kernel: (kernel_height, kernel_width, filters, C), in either data_format.
        bias: (filters,), or None.
        strides: an integer, or (down, right).
        padding: "valid" or "same".
        output_padding: None, an integer, or (down, right), smaller than the strides.
        dilation_rate: an integer, or (down, right): distance between the kernel's taps.
        activation: the name of an activation, such as "relu", applied to the result.
        data_format: "channels_last" or "channels_first".
        algorithm: how it is computed on a processor: see `convkit.ops.plan`.
        out: an array for the result.

    Returns:
        (N, out_height, out_width, filters), or (N, filters, out_height, out_width).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    op = "conv2d_transpose"
    x, kernel, bias = common.arguments(op, ("x", "kernel", "bias"), (x, kernel, bias), out)
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = geometry.conv2d_transpose(
        op,
        tuple(x.shape),
        tuple(kernel.shape),
        common.shape_of(bias),
        strides,
        padding,
        output_padding,
        dilation_rate,
        algorithm,
    )
    check_algorithm(op, spec, common.dtype_of(x), algorithm, transposed=True)
    first = activations.before(name, out, [x, kernel, bias])
    if data_format == "channels_last":
        y = _before_activation(op, spec, shape, x, kernel, bias, first)
    else:
        y = _before_activation(op, spec, shape, x, kernel, bias)
        y = common.from_channels_last(y, data_format, first, op)
    return y if name is None else activations.apply(name, y, out)


@replayed
def conv2d_transpose_backward(
    dy: Any,
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    strides: Any = 1,
    padding: str = "valid",
    output_padding: Any = None,
    dilation_rate: Any = 1,
    activation: str | None = None,
    data_format: str = "channels_last",
    algorithm: str = "automatic",
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dkernel, dbias) of `conv2d_transpose`, called with the same arguments.

    Args:
        dy: the gradient of the result, of the result's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.
    """
    op = "conv2d_transpose_backward"
    dy, x, kernel, bias = common.arguments(
        op, ("dy", "x", "kernel", "bias"), (dy, x, kernel, bias), out
    )
    name = activations.named(op, activation)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = geometry.conv2d_transpose(
        op,
        tuple(x.shape),
        tuple(kernel.shape),
        common.shape_of(bias),
        strides,
        padding,
        output_padding,
        dilation_rate,
        algorithm,
    )
    check_algorithm(op, spec, common.dtype_of(x), algorithm, transposed=True)
    common.check_gradient(op, dy, shape, data_format)
    needs, outs = common.flags(op, needs, 3), common.outs(op, out, 3)
    if name is not None:
        z = _before_activation(op, spec, shape, x, kernel, bias)
        dy = activations.gradient(name, dy, common.from_channels_last(z, data_format, None, op))
    dy = common.channels_last(op, dy, "dy", data_format)
    first, rest = (None, None) if outs is None else (outs[:2], (None, None, outs[2]))
    dx, dkernel = common.spatial_backward(
        op, "conv2d_backward_input", spec, [x, kernel], dy, needs[:2], data_format, first
    )
    dbias = common.backward(
        op,
        "channel_affine",
        _bias_spec(spec),
        x.shape[0],
        [dy, None, bias],
        [None],
        dy,
        (False, False, needs[2]),
        rest,
    )[2]
    return dx, dkernel, dbias
