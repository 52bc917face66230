"""Activations: element-wise functions, softmax and log-softmax."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import geometry, graph
from convkit._core import replayed
from convkit.array import direct
from convkit.ops import common, elementwise

LEAKY_SLOPE = 0.2  # Keras's default


def _spec(kind: str, x: Any, slope: float = 0.0) -> tuple[Any, int | None]:
    n, size = geometry.samples(tuple(x.shape))
    return geometry.activation(kind, size, slope), n


def _forward(op: str, x: Any, out: Any, slope: float = 0.0) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    spec, n = _spec(op, x, slope)
    return common.run("activation", spec, n, [x], tuple(x.shape), out, op)


def _backward(op: str, dy: Any, x: Any, needs: Any, out: Any, slope: float = 0.0) -> Any:
    name = f"{op}_backward"
    dy, x = common.arguments(name, ("dy", "x"), (dy, x), out)
    geometry.same_shape(name, "dy", tuple(dy.shape), tuple(x.shape), ", that of x")
    spec, n = _spec(op, x, slope)
    needs, out = common.flags(name, needs, 1), common.outs(name, out, 1)
    # Of relu and leaky_relu only the sign of y counts, and that is x's.
    signs = op in ("relu", "leaky_relu")
    y = x if signs else common.run("activation", spec, n, [x], tuple(x.shape), None, name)
    return common.backward(name, "activation", spec, n, [x], [y], dy, needs, out)[0]


@replayed
def relu(x: Any, *, out: Any = None) -> Any:
    """max(x, 0), element by element; NaN stays NaN.

    Args:
        x: array of any shape.
        out: an array of x's shape and dtype for the result; x itself is allowed.
    """
    return _forward("relu", x, out)


@replayed
def relu_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `relu`: dy where x > 0, else 0."""
    return _backward("relu", dy, x, needs, out)


@replayed
def leaky_relu(x: Any, negative_slope: float = LEAKY_SLOPE, *, out: Any = None) -> Any:
    """x where x > 0, else negative_slope * x (Maas et al., 2013).

    Args:
        x: array of any shape.
        negative_slope: at least 0.
        out: an array of x's shape and dtype for the result.
    """
    return _forward(
        "leaky_relu",
        x,
        out,
        geometry.number("leaky_relu", "negative_slope", negative_slope, 0, float("inf")),
    )


@replayed
def leaky_relu_backward(
    dy: Any, x: Any, negative_slope: float = LEAKY_SLOPE, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `leaky_relu`."""
    slope = geometry.number(
        "leaky_relu_backward", "negative_slope", negative_slope, 0, float("inf")
    )
    return _backward("leaky_relu", dy, x, needs, out, slope)


@replayed
def sigmoid(x: Any, *, out: Any = None) -> Any:
    """1 / (1 + exp(-x)), element by element, without overflow."""
    return _forward("sigmoid", x, out)


@replayed
def sigmoid_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `sigmoid`: dy * y * (1 - y)."""
    return _backward("sigmoid", dy, x, needs, out)


@replayed
def tanh(x: Any, *, out: Any = None) -> Any:
    """The hyperbolic tangent, element by element."""
    return _forward("tanh", x, out)


@replayed
def tanh_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `tanh`: dy * (1 - y**2)."""
    return _backward("tanh", dy, x, needs, out)


@replayed
def exp(x: Any, *, out: Any = None) -> Any:
    """The exponential function, element by element."""
    return _forward("exp", x, out)


@replayed
def exp_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `exp`: dy * y."""
    return _backward("exp", dy, x, needs, out)


def _normalise(op: str, x: Any, axis: int, out: Any) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    spec = geometry.softmax(op, tuple(x.shape), axis)
    n, _ = geometry.samples(tuple(x.shape))
    return common.run(op, spec, n, [x], tuple(x.shape), out, op)


def _normalise_backward(op: str, dy: Any, x: Any, axis: int, needs: Any, out: Any) -> Any:
    name = f"{op}_backward"
    dy, x = common.arguments(name, ("dy", "x"), (dy, x), out)
    geometry.same_shape(name, "dy", tuple(dy.shape), tuple(x.shape), ", that of x")
    spec = geometry.softmax(name, tuple(x.shape), axis)
    n, _ = geometry.samples(tuple(x.shape))
    needs, out = common.flags(name, needs, 1), common.outs(name, out, 1)
    y = common.run(op, spec, n, [x], tuple(x.shape), None, name)
    return common.backward(name, op, spec, n, [x], [y], dy, needs, out)[0]


@replayed
def softmax(x: Any, axis: int = -1, *, out: Any = None) -> Any:
    """exp(x) / sum(exp(x)) along an axis, without overflow.

    Args:
        x: array of shape (..., size, ...).
        axis: the axis that sums to one.
        out: an array of x's shape and dtype for the result.
    """
    return _normalise("softmax", x, axis, out)


@replayed
def softmax_backward(dy: Any, x: Any, axis: int = -1, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `softmax`: y * (dy - sum(dy * y))."""
    return _normalise_backward("softmax", dy, x, axis, needs, out)


@replayed
def log_softmax(x: Any, axis: int = -1, *, out: Any = None) -> Any:
    """log(softmax(x)) along an axis, accurate where softmax is close to 0 or 1."""
    return _normalise("log_softmax", x, axis, out)


@replayed
def log_softmax_backward(
    dy: Any, x: Any, axis: int = -1, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `log_softmax`: dy - softmax(x) * sum(dy)."""
    return _normalise_backward("log_softmax", dy, x, axis, needs, out)


FUNCTIONS = {
    "relu": (relu, relu_backward),
    "leaky_relu": (leaky_relu, leaky_relu_backward),
    "sigmoid": (sigmoid, sigmoid_backward),
    "tanh": (tanh, tanh_backward),
    "exp": (exp, exp_backward),
    "exponential": (exp, exp_backward),
    "softmax": (softmax, softmax_backward),
    "log_softmax": (log_softmax, log_softmax_backward),
    "elu": (elementwise.elu, elementwise.elu_backward),
    "selu": (elementwise.selu, elementwise.selu_backward),
    "softplus": (elementwise.softplus, elementwise.softplus_backward),
    "softsign": (elementwise.softsign, elementwise.softsign_backward),
    "silu": (elementwise.silu, elementwise.silu_backward),
    "swish": (elementwise.silu, elementwise.silu_backward),
    "gelu": (elementwise.gelu, elementwise.gelu_backward),
    "hard_sigmoid": (elementwise.hard_sigmoid, elementwise.hard_sigmoid_backward),
    "hard_silu": (elementwise.hard_swish, elementwise.hard_swish_backward),
    "hard_swish": (elementwise.hard_swish, elementwise.hard_swish_backward),
    "relu6": (elementwise.relu6, elementwise.relu6_backward),
    "mish": (elementwise.mish, elementwise.mish_backward),
}


NAMES = tuple(FUNCTIONS)


def named(op: str, activation: str | None) -> str | None:
    """The name of a known activation; None for none and for "linear"."""
    if activation is None or activation == "linear":
        return None
    return geometry.choice(op, "activation", activation, NAMES)


def before(name: str | None, out: Any, inputs: Sequence[Any]) -> Any:
    """Where an op with these inputs puts its result before the activation: into its caller's `out`
    where the activation can follow in place; None: into an array of its own."""
    if name is None:
        return out
    in_place = isinstance(out, np.ndarray) and name in geometry.ACTIVATION_KINDS
    return out if in_place and direct(out, inputs) else None


def apply(name: str, y: Any, out: Any) -> Any:
    """An activation on the result of an op, which is fresh or `out`, in place where possible."""
    in_place = name in geometry.ACTIVATION_KINDS and (out is None or y is out)
    if in_place and not isinstance(y, graph.Symbol):
        spec = geometry.activation(name, y.size, LEAKY_SLOPE if name == "leaky_relu" else 0.0)
        return graph.call("activation", spec, 1, [y], [y], common.dtype_of(y))[0]
    forward, _ = FUNCTIONS[name]
    if out is None and not isinstance(y, graph.Symbol) and forward not in (softmax, log_softmax):
        out = y
    return forward(y, out=out)


def gradient(name: str, dy: Any, z: Any) -> Any:
    """The gradient before an activation, given that after it and the value before it."""
    _, backward = FUNCTIONS[name]
    return backward(dy, z)
