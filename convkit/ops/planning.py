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
    dilation_rate: Any = 1,
    groups: int = 1,
    algorithm: str = "automatic",
    dtype: str | None = None,
) -> dict[str, str]:
    """The algorithms that `conv2d` and `conv2d_backward` take for these shapes on this processor.

    - "product": a matrix product of windows and filters;
    - "windows": windows are multiplied where they lie, with few registers of filters;
    - "planes": pixels in the lanes, for few filters;
    - "depthwise": channels in the lanes, for groups of one channel;
    - "winograd2", "winograd4": Winograd's method in windows of 2 x 2 or 4 x 4 outputs (Lavin and
      Gray, Fast Algorithms for Convolutional Neural Networks, 2015), for 3 x 3 and 5 x 5 kernels
      with strides of 1. What is not finite makes all outputs of a window NaN, and so do values
      above 1e36 or so, of which sums with fractions are taken.

    The choice depends on the shapes of a sample, the dtype and the instruction set alone, that of
    "backward_kernel", a sum over the batch, on the batch's size too. An op's `algorithm`
    asks for one of these wherever it has a form for it ("windows" has none backward).
    "direct" is the fastest of those that add up the products themselves; "automatic" the fastest of
    all, unless `convkit.set_precision("direct")` keeps to the direct ones. On a GPU there is no
    choice.

    Args:
        op: "conv2d".
        x: (N, H, W, C), or an array of that shape.
        kernel: (kernel_height, kernel_width, C / groups, filters), or such an array.
        strides, padding, dilation_rate, groups, algorithm: as of `conv2d`.
        dtype: "float32" or "float64"; None: that of x if it is an array, else "float32".

    Returns:
        The name of the algorithm for each of "forward", "backward_input" and "backward_kernel".

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    geometry.choice("plan", "op", op, ("conv2d",))
    if dtype is None:
        dtype = "float64" if getattr(x, "dtype", None) == np.float64 else "float32"
    geometry.choice("plan", "dtype", dtype, ("float32", "float64"))
    shape = _shape("x", x, 0)
    spec, _ = geometry.conv2d(
        "plan",
        (max(shape[0], 1), *shape[1:]),
        _shape("kernel", kernel, 1),
        None,
        strides,
        padding,
        dilation_rate,
        groups,
        algorithm,
    )
    check_algorithm("plan", spec, dtype, algorithm)
    return dict(zip(PASSES, _algorithms(spec, shape[0], dtype), strict=True))


def _shape(name: str, value: Any, least: int) -> tuple[int, ...]:
    sizes = getattr(value, "shape", value)
    if not isinstance(sizes, tuple | list):
        raise geometry.fail("plan", f"{name} to be a shape or an array", type(value).__name__)
    return tuple(geometry.integer("plan", f"a size of {name}", size, least) for size in sizes)


def check_algorithm(op: str, spec: Any, dtype: str, algorithm: str) -> None:
    """That the convolution can be computed as it was asked for."""
    if algorithm in ("automatic", "direct"):
        return
    if (found := _algorithms(spec, 1, dtype)[0]) != algorithm:
        expected = f"a convolution that can be computed as {algorithm!r}"
        raise geometry.fail(op, expected, f"one that is computed as {found!r}")


def _algorithms(spec: Any, n: int, dtype: str) -> list[str]:
    chosen = np.zeros(len(PASSES), np.int64)
    _core.run_kernel("conv2d_algorithms", spec, n, dtype, [], [chosen])
    return [geometry.CONV_ALGORITHMS[i] for i in chosen]
