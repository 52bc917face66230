"""Dense layers: a matrix product with a bias."""

from __future__ import annotations

from typing import Any

from convkit import geometry
from convkit._core import replayed
from convkit.ops import activation as activations
from convkit.ops import common


@replayed
def dense(
    x: Any, kernel: Any, bias: Any = None, *, activation: str | None = None, out: Any = None
) -> Any:
    """x @ kernel + bias over the last axis, as Keras's Dense.

    Args:
        x: (..., inputs).
        kernel: (inputs, units).
        bias: (units,), or None.
        activation: the name of an activation, such as "relu", applied to the result.
        out: an array for the result.

    Returns:
        (..., units).

    Raises:
        ValueError, TypeError: naming what was expected and what came.
    """
    x, kernel, bias = common.arguments("dense", ("x", "kernel", "bias"), (x, kernel, bias), out)
    name = activations.named("dense", activation)
    spec, shape = geometry.dense(
        "dense", tuple(x.shape), tuple(kernel.shape), common.shape_of(bias)
    )
    n = x.shape[0] if len(shape) > 1 else 1
    inputs = [x, kernel, bias]
    first = activations.before(name, out, inputs)
    y = common.run("dense", spec, n, inputs, shape, first, "dense")
    return y if name is None else activations.apply(name, y, out)


@replayed
def dense_backward(
    dy: Any,
    x: Any,
    kernel: Any,
    bias: Any = None,
    *,
    activation: str | None = None,
    needs: Any = None,
    out: Any = None,
) -> tuple[Any, Any, Any]:
    """The gradients (dx, dkernel, dbias) of `dense`, called with the same arguments.

    Args:
        dy: the gradient of the result, of the result's shape.
        needs: three booleans: which gradients are wanted; the others are None.
        out: three arrays (or None) for the gradients.

    On a processor dx of up to 4 rows is added up in another order than that of more rows, so the
    same row may round differently.
    """
    op = "dense_backward"
    dy, x, kernel, bias = common.arguments(
        op, ("dy", "x", "kernel", "bias"), (dy, x, kernel, bias), out
    )
    name = activations.named(op, activation)
    spec, shape = geometry.dense(op, tuple(x.shape), tuple(kernel.shape), common.shape_of(bias))
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")
    n = x.shape[0] if len(shape) > 1 else 1
    if name is not None:
        z = common.run("dense", spec, n, [x, kernel, bias], shape, None, op)
        dy = activations.gradient(name, dy, z)
    needs, out = common.flags(op, needs, 3), common.outs(op, out, 3)
    found = common.backward(op, "dense", spec, n, [x, kernel, bias], [None], dy, needs, out)
    return found[0], found[1], found[2]
