"""Nearest and bilinear up-sampling by whole numbers."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import common


@replayed
def upsample2d(
    x: Any,
    size: Any = 2,
    *,
    interpolation: str = "nearest",
    data_format: str = "channels_last",
    out: Any = None,
) -> Any:
    """Repeats rows and columns, or interpolates between them.

    Args:
        x: (N, H, W, C), or (N, C, H, W) with data_format="channels_first".
        size: an integer, or (down, right): how many times as many.
        interpolation: "nearest" or "bilinear". Bilinear has half-pixel centres: output i reads the
            input at (i + 0.5) / size - 0.5, clamped to the border, as tf.image.resize and PyTorch
            with align_corners=False.
        data_format: "channels_last" or "channels_first".
        out: an array for the result.

    Returns:
        (N, H * size, W * size, C), or (N, C, H * size, W * size).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    (x,) = common.arguments("upsample2d", ("x",), (x,), out)
    x = common.channels_last("upsample2d", x, "x", data_format)
    spec, shape = geometry.upsample2d("upsample2d", tuple(x.shape), size, interpolation)
    return common.spatial("upsample2d", "upsample2d", spec, [x], shape, data_format, out)


@replayed
def upsample2d_backward(
    dy: Any,
    x: Any,
    size: Any = 2,
    *,
    interpolation: str = "nearest",
    data_format: str = "channels_last",
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient dx of `upsample2d`; of x only the shape counts."""
    op = "upsample2d_backward"
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    x = common.channels_last(op, x, "x", data_format)
    spec, shape = geometry.upsample2d(op, tuple(x.shape), size, interpolation)
    common.check_gradient(op, dy, shape, data_format)
    dy = common.channels_last(op, dy, "dy", data_format)
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.spatial_backward(op, "upsample2d", spec, [x], dy, needs, data_format, out)[0]
