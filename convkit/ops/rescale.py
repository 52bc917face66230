"""Values under another scale."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import common


def _spec(op: str, x: Any, scale: object, offset: object) -> tuple[Any, int | None]:
    n, size = geometry.samples(tuple(x.shape))
    infinity = float("inf")
    factor = geometry.number(op, "scale", scale, -infinity, infinity)
    return geometry.rescale(
        size, factor, geometry.number(op, "offset", offset, -infinity, infinity)
    ), n


@replayed
def rescale(x: Any, scale: float, offset: float = 0.0, *, out: Any = None) -> Any:
    """x * scale + offset, element by element.

    Args:
        x: array of any shape.
        scale, offset: numbers.
        out: an array of x's shape and dtype for the result; x itself is allowed.
    """
    op = "rescale"
    (x,) = common.arguments(op, ("x",), (x,), out)
    spec, n = _spec(op, x, scale, offset)
    return common.run(op, spec, n, [x], tuple(x.shape), out, op)


@replayed
def rescale_backward(
    dy: Any, x: Any, scale: float, offset: float = 0.0, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `rescale`: dy * scale."""
    op = "rescale_backward"
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    geometry.same_shape(op, "dy", tuple(dy.shape), tuple(x.shape), ", that of x")
    spec, n = _spec(op, x, scale, offset)
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.backward(op, "rescale", spec, n, [x], [None], dy, needs, out)[0]
