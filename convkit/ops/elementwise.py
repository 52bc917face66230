"""Element-wise functions of one array, and of two that are broadcast."""

from __future__ import annotations

from math import inf
from typing import Any

from convkit import broadcasting, geometry
from convkit._core import replayed
from convkit.ops import common, spreading

# ---- of one array --------------------------------------------------------------------------------


def _unary(op: str, kind: str, x: Any, out: Any, a: float = 0.0, b: float = 0.0) -> Any:
    (x,) = common.arguments(op, ("x",), (x,), out)
    n, size = geometry.samples(tuple(x.shape))
    spec = geometry.unary(kind, size, a, b)
    return common.run("unary", spec, n, [x], tuple(x.shape), out, op)


def _unary_backward(
    op: str, kind: str, dy: Any, x: Any, needs: Any, out: Any, a: float = 0.0, b: float = 0.0
) -> Any:
    dy, x = common.arguments(op, ("dy", "x"), (dy, x), out)
    geometry.same_shape(op, "dy", tuple(dy.shape), tuple(x.shape), ", that of x")
    n, size = geometry.samples(tuple(x.shape))
    spec = geometry.unary(kind, size, a, b)
    needs, out = common.flags(op, needs, 1), common.outs(op, out, 1)
    return common.backward(op, "unary", spec, n, [x], [None], dy, needs, out)[0]


@replayed
def elu(x: Any, alpha: float = 1.0, *, out: Any = None) -> Any:
    """x where x > 0, else alpha * (exp(x) - 1) (Clevert et al., 2015).

    Args:
        x: array of any shape.
        alpha: a number.
        out: an array of x's shape and dtype for the result; x itself is allowed.
    """
    return _unary("elu", "elu", x, out, geometry.number("elu", "alpha", alpha, -inf, inf))


@replayed
def elu_backward(dy: Any, x: Any, alpha: float = 1.0, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `elu`: dy where x > 0, else dy * alpha * exp(x)."""
    op = "elu_backward"
    number = geometry.number(op, "alpha", alpha, -inf, inf)
    return _unary_backward(op, "elu", dy, x, needs, out, number)


@replayed
def selu(x: Any, *, out: Any = None) -> Any:
    """scale * elu(x, alpha) with scale = 1.05070098 and alpha = 1.67326324, which keep means and
    variances of layers (Klambauer et al., 2017)."""
    return _unary("selu", "selu", x, out)


@replayed
def selu_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `selu`: dy * scale where x >= 0, else dy * scale * alpha * exp(x)."""
    return _unary_backward("selu_backward", "selu", dy, x, needs, out)


@replayed
def softplus(x: Any, *, out: Any = None) -> Any:
    """log(1 + exp(x)), element by element, without overflow."""
    return _unary("softplus", "softplus", x, out)


@replayed
def softplus_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `softplus`: dy * sigmoid(x)."""
    return _unary_backward("softplus_backward", "softplus", dy, x, needs, out)


@replayed
def softsign(x: Any, *, out: Any = None) -> Any:
    """x / (1 + abs(x)), element by element."""
    return _unary("softsign", "softsign", x, out)


@replayed
def softsign_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `softsign`: dy / (1 + abs(x))**2."""
    return _unary_backward("softsign_backward", "softsign", dy, x, needs, out)


@replayed
def silu(x: Any, *, out: Any = None) -> Any:
    """x * sigmoid(x), element by element; also called swish (Elfwing et al., 2017)."""
    return _unary("silu", "silu", x, out)


@replayed
def silu_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `silu`: dy * (s + x * s * (1 - s)) with s = sigmoid(x)."""
    return _unary_backward("silu_backward", "silu", dy, x, needs, out)


@replayed
def gelu(x: Any, approximate: bool = False, *, out: Any = None) -> Any:
    """x * P(z <= x) with z standard normal (Hendrycks and Gimpel, 2016).

    Args:
        x: array of any shape.
        approximate: x / 2 * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x**3))) instead.
        out: an array of x's shape and dtype for the result; x itself is allowed.
    """
    return _unary("gelu", "gelu_tanh" if approximate else "gelu", x, out)


@replayed
def gelu_backward(
    dy: Any, x: Any, approximate: bool = False, *, needs: Any = None, out: Any = None
) -> Any:
    """The gradient of `gelu`: dy * (P(z <= x) + x * exp(-x**2 / 2) / sqrt(2 pi)), or that of the
    approximation."""
    kind = "gelu_tanh" if approximate else "gelu"
    return _unary_backward("gelu_backward", kind, dy, x, needs, out)


@replayed
def hard_sigmoid(x: Any, *, out: Any = None) -> Any:
    """x / 6 + 1 / 2, held to 0 .. 1."""
    return _unary("hard_sigmoid", "hard_sigmoid", x, out)


@replayed
def hard_sigmoid_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `hard_sigmoid`: dy / 6 where -3 < x < 3, else 0."""
    return _unary_backward("hard_sigmoid_backward", "hard_sigmoid", dy, x, needs, out)


@replayed
def hard_swish(x: Any, *, out: Any = None) -> Any:
    """x * hard_sigmoid(x), element by element; also called hard_silu (Howard et al., 2019)."""
    return _unary("hard_swish", "hard_swish", x, out)


@replayed
def hard_swish_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `hard_swish`: dy * (x / 3 + 1 / 2) where -3 < x < 3, 0 below, dy above."""
    return _unary_backward("hard_swish_backward", "hard_swish", dy, x, needs, out)


@replayed
def relu6(x: Any, *, out: Any = None) -> Any:
    """x held to 0 .. 6 (Krizhevsky, 2010)."""
    return _unary("relu6", "relu6", x, out)


@replayed
def relu6_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `relu6`: dy where 0 < x < 6, else 0."""
    return _unary_backward("relu6_backward", "relu6", dy, x, needs, out)


@replayed
def mish(x: Any, *, out: Any = None) -> Any:
    """x * tanh(softplus(x)), element by element (Misra, 2019)."""
    return _unary("mish", "mish", x, out)


@replayed
def mish_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `mish`: dy * (t + x * sigmoid(x) * (1 - t**2)) with t = tanh(softplus(x))."""
    return _unary_backward("mish_backward", "mish", dy, x, needs, out)


def _bounds(op: str, x_min: object, x_max: object) -> tuple[float, float]:
    low = -inf if x_min is None else geometry.number(op, "x_min", x_min, -inf, inf)
    high = inf if x_max is None else geometry.number(op, "x_max", x_max, -inf, inf)
    if low > high:
        raise geometry.fail(op, "x_min to be at most x_max", f"{low:g} and {high:g}")
    return low, high


@replayed
def clip(x: Any, x_min: float | None, x_max: float | None, *, out: Any = None) -> Any:
    """x held to x_min .. x_max, element by element; NaN stays NaN.

    Args:
        x: array of any shape.
        x_min, x_max: numbers, or None for no bound.
        out: an array of x's shape and dtype for the result; x itself is allowed.
    """
    return _unary("clip", "clip", x, out, *_bounds("clip", x_min, x_max))


@replayed
def clip_backward(
    dy: Any,
    x: Any,
    x_min: float | None,
    x_max: float | None,
    *,
    needs: Any = None,
    out: Any = None,
) -> Any:
    """The gradient of `clip`: dy where x_min <= x <= x_max, else 0."""
    op = "clip_backward"
    return _unary_backward(op, "clip", dy, x, needs, out, *_bounds(op, x_min, x_max))


@replayed
def absolute(x: Any, *, out: Any = None) -> Any:
    """abs(x), element by element."""
    return _unary("absolute", "absolute", x, out)


@replayed
def absolute_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `absolute`: dy where x > 0, -dy where x < 0, 0 where x is 0."""
    return _unary_backward("absolute_backward", "absolute", dy, x, needs, out)


@replayed
def square(x: Any, *, out: Any = None) -> Any:
    """x * x, element by element."""
    return _unary("square", "square", x, out)


@replayed
def square_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `square`: 2 * dy * x."""
    return _unary_backward("square_backward", "square", dy, x, needs, out)


@replayed
def sqrt(x: Any, *, out: Any = None) -> Any:
    """The square root, element by element; NaN below 0."""
    return _unary("sqrt", "sqrt", x, out)


@replayed
def sqrt_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `sqrt`: dy / (2 * sqrt(x))."""
    return _unary_backward("sqrt_backward", "sqrt", dy, x, needs, out)


@replayed
def log(x: Any, *, out: Any = None) -> Any:
    """The natural logarithm, element by element; -inf at 0, NaN below."""
    return _unary("log", "log", x, out)


@replayed
def log_backward(dy: Any, x: Any, *, needs: Any = None, out: Any = None) -> Any:
    """The gradient of `log`: dy / x."""
    return _unary_backward("log_backward", "log", dy, x, needs, out)


# ---- of two arrays -------------------------------------------------------------------------------


def _binary(op: str, x1: Any, x2: Any, out: Any) -> Any:
    x1, x2 = spreading.arguments(op, ("x1", "x2"), (x1, x2), out)
    shape = broadcasting.broadcast(op, tuple(x1.shape), tuple(x2.shape))
    n, size = geometry.samples(shape)
    values = [spreading.spread(x1, shape), spreading.spread(x2, shape)]
    return common.run("binary", geometry.binary(op, size), n, values, shape, out, op)


def _binary_backward(kind: str, dy: Any, x1: Any, x2: Any, needs: Any, out: Any) -> tuple[Any, ...]:
    op = f"{kind}_backward"
    dy, x1, x2 = spreading.arguments(op, ("dy", "x1", "x2"), (dy, x1, x2), out)
    shape = broadcasting.broadcast(op, tuple(x1.shape), tuple(x2.shape))
    geometry.same_shape(op, "dy", tuple(dy.shape), shape, ", that of the result")
    needs, out = common.flags(op, needs, 2), common.outs(op, out, 2)
    n, size = geometry.samples(shape)
    given = [x1, x2]
    values = [spreading.spread(x, shape) for x in given]
    targets = out and [
        target if value is x else None for target, value, x in zip(out, values, given, strict=True)
    ]
    spec = geometry.binary(kind, size)
    found = common.backward(op, "binary", spec, n, values, [None], dy, needs, targets)
    return spreading.gradients(op, given, found, needs, out)


@replayed
def subtract(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """x1 - x2, element by element; shapes and numbers as for `add`."""
    if spreading.is_plain(x2):
        return spreading.rescaled("subtract", x1, 1.0, -x2, out)
    if spreading.is_plain(x1):
        return spreading.rescaled("subtract", x2, -1.0, x1, out)
    return _binary("subtract", x1, x2, out)


@replayed
def subtract_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `subtract`: dy and -dy, summed over what was broadcast."""
    return _binary_backward("subtract", dy, x1, x2, needs, out)


@replayed
def multiply(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """x1 * x2, element by element; shapes and numbers as for `add`."""
    if spreading.is_plain(x2):
        return spreading.rescaled("multiply", x1, x2, 0.0, out)
    if spreading.is_plain(x1):
        return spreading.rescaled("multiply", x2, x1, 0.0, out)
    return _binary("multiply", x1, x2, out)


@replayed
def multiply_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `multiply`: dy * x2 and dy * x1, summed over what was
    broadcast."""
    return _binary_backward("multiply", dy, x1, x2, needs, out)


@replayed
def divide(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """x1 / x2, element by element; shapes and numbers as for `add`.

    A division by a number is a product with its inverse.
    """
    if spreading.is_plain(x2) and abs(x2) > 1e-30:
        return spreading.rescaled("divide", x1, 1 / x2, 0.0, out)
    return _binary("divide", x1, x2, out)


@replayed
def divide_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `divide`: dy / x2 and -dy * x1 / x2**2, summed over what was
    broadcast."""
    return _binary_backward("divide", dy, x1, x2, needs, out)


@replayed
def maximum(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """The larger of x1 and x2, element by element, NaN where either is; shapes and numbers as for
    `add`."""
    if spreading.is_plain(x2):
        return _unary("maximum", "clip", x1, out, float(x2), inf)
    return _binary("maximum", x1, x2, out)


@replayed
def maximum_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `maximum`: dy for the larger, x1 where they are equal, else 0;
    summed over what was broadcast."""
    return _binary_backward("maximum", dy, x1, x2, needs, out)


@replayed
def minimum(x1: Any, x2: Any, *, out: Any = None) -> Any:
    """The smaller of x1 and x2, element by element, NaN where either is; shapes and numbers as for
    `add`."""
    if spreading.is_plain(x2):
        return _unary("minimum", "clip", x1, out, -inf, float(x2))
    return _binary("minimum", x1, x2, out)


@replayed
def minimum_backward(
    dy: Any, x1: Any, x2: Any, *, needs: Any = None, out: Any = None
) -> tuple[Any, ...]:
    """The gradients (dx1, dx2) of `minimum`: dy for the smaller, x1 where they are equal, else 0;
    summed over what was broadcast."""
    return _binary_backward("minimum", dy, x1, x2, needs, out)
