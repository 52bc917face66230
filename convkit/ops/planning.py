"""Which algorithm computes an op."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import _core, geometry

PASSES = ("forward", "backward_input", "backward_kernel")


def plan(
    op: str,
    x: Any,
    kernel: Any,
    *,
    strides: Any = 1,
    padding: Any = "valid",
    output_padding: Any = None,
    dilation_rate: Any = 1,
    groups: int = 1,
    data_format: str = "channels_last",
    algorithm: str = "automatic",
    dtype: str | None = None,
) -> dict[str, str]:
    """The algorithms that a convolution and its gradients take for these shapes on this processor.

    - "product": a matrix product of windows and filters;
    - "windows": windows are multiplied where they lie, with few registers of filters;
    - "planes": pixels in the lanes, for few filters;
    - "depthwise": channels in the lanes, for groups of one channel;
    - "grouped": filters in the lanes, each with the channels of its own group;
    - "winograd2", "winograd4": Winograd's method in windows of 2 x 2 or 4 x 4 outputs (Lavin and
      Gray, Fast Algorithms for Convolutional Neural Networks, 2015), for 3 x 3 and 5 x 5 kernels
      with strides of 1. What is not finite may make all outputs of a window NaN, and so may values
      above 1e36 or so, of which sums with fractions are taken.

    The choice depends on the shapes of a sample, the dtype and the instruction set alone, that of
    "backward_kernel", a sum over the batch, on the batch's size too. An op's `algorithm`
    asks for one of these; it is refused where the forward pass has no form for it, and a gradient
    that has none takes a direct one ("windows" has none backward).
    "direct" is the fastest of those that add up the products themselves; "automatic" the fastest of
    all, unless `convkit.set_precision("direct")` keeps to the direct ones. On a GPU there is no
    choice.

    Args:
        op: "conv2d", or "conv2d_transpose", which is computed as the gradient of a convolution with
            respect to its input, and so has no "windows" forward.
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first", or an array of that
            shape.
        kernel: the shape of the op's kernel, or such an array.
        strides, padding, dilation_rate, data_format, algorithm: as of the op.
        output_padding: as of `conv2d_transpose`.
        groups: as of `conv2d`.
        dtype: "float32" or "float64"; None: that of x if it is an array, else "float32".

    Returns:
        The name of the algorithm for each of "forward", "backward_input" and "backward_kernel".

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    geometry.choice("plan", "op", op, ("conv2d", "conv2d_transpose"))
    if dtype is None:
        dtype = "float64" if getattr(x, "dtype", None) == np.float64 else "float32"
    geometry.choice("plan", "dtype", dtype, ("float32", "float64"))
    shape = _channels_last(_shape("x", x, 0), data_format)
    shapes = (max(shape[0], 1), *shape[1:]), _shape("kernel", kernel, 1), None
    if op == "conv2d":
        if output_padding is not None:
            raise geometry.fail("plan", "no output_padding for 'conv2d'", output_padding)
        spec, _ = geometry.conv2d(
            "plan", *shapes, strides, padding, dilation_rate, groups, algorithm
        )
    else:
        if groups != 1:
            raise geometry.fail("plan", "groups to be 1 for 'conv2d_transpose'", groups)
        spec, _ = geometry.conv2d_transpose(
            "plan", *shapes, strides, padding, output_padding, dilation_rate, algorithm
        )
    check_algorithm("plan", spec, dtype, algorithm, transposed=op != "conv2d")
    found = dict(zip(PASSES, chosen_algorithms(spec, shape[0], dtype), strict=True))
    if op == "conv2d":
        return found
    return {
        "forward": found["backward_input"],
        "backward_input": found["forward"],
        "backward_kernel": found["backward_kernel"],
    }


def _shape(name: str, value: Any, least: int) -> tuple[int, ...]:
    sizes = getattr(value, "shape", value)
    if not isinstance(sizes, tuple | list):
        raise geometry.fail("plan", f"{name} to be a shape or an array", type(value).__name__)
    return tuple(geometry.integer("plan", f"a size of {name}", size, least) for size in sizes)


def _channels_last(x: tuple[int, ...], data_format: str) -> tuple[int, ...]:
    geometry.choice("plan", "data_format", data_format, geometry.DATA_FORMATS)
    first = data_format == "channels_first"
    geometry.rank("plan", "x", x, "N, C, H, W" if first else "N, H, W, C")
    return (x[0], x[2], x[3], x[1]) if first else x


def check_algorithm(
    op: str, spec: Any, dtype: str, algorithm: str, *, transposed: bool = False
) -> None:
    """That the convolution, or the transposed one, can be computed as it was asked for."""
    if algorithm in ("automatic", "direct"):
        return
    forward = PASSES.index("backward_input" if transposed else "forward")
    if (found := chosen_algorithms(spec, 1, dtype)[forward]) != algorithm:
        expected = f"a convolution that can be computed as {algorithm!r}"
        raise geometry.fail(op, expected, f"one that is computed as {found!r}")


def chosen_algorithms(spec: Any, n: int, dtype: str) -> list[str]:
    """Of a convolution's spec and a batch of n, for each of PASSES."""
    chosen = np.zeros(len(PASSES), np.int64)
    _core.run_kernel("conv2d_algorithms", spec, n, dtype, [], [chosen])
    return [geometry.CONV_ALGORITHMS[i] for i in chosen]
