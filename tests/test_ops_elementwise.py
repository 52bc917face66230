"""Element-wise functions of one array and of two, with broadcasting, and their gradients."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference
from cases import ADD, BINARY, ELEMENTWISE_LARGE, UNARY, Case, values
from checkers import (
    assert_exact,
    assert_gradients_match_differences,
    assert_same_bits,
    assert_within,
    backward,
    check_differences,
    expected,
    forward,
    gamma,
    narrowed,
)

from convkit import ops
from convkit.ops import activation

pytestmark = pytest.mark.usefixtures("backend")

# What exp, log and erfc may be off by, in units of rounding: libraries promise 1 to 4 ulp.
FUNCTION = 8
KINKED = ("relu6", "clip", "hard_sigmoid", "hard_swish", "absolute")
NAMES = sorted({case.op for case in UNARY})
LARGE_UNARY = [case for case in ELEMENTWISE_LARGE if len(case.shapes) == 1]
LARGE_BINARY = [case for case in ELEMENTWISE_LARGE if len(case.shapes) == 2]

one_array = pytest.mark.parametrize("case", [*UNARY, *LARGE_UNARY], ids=str)
two_arrays = pytest.mark.parametrize("case", [*BINARY, *LARGE_BINARY], ids=str)


# ---- of one array --------------------------------------------------------------------------------


def conditions(case: Case, x: np.ndarray) -> np.ndarray:
    """How many units of rounding of a sum the function may be off by at x.

    exp(u) turns a rounding of u into |u| of the result: exp(-x^2 / 2) in gelu, and exp of its
    polynomial in the approximation.
    """
    if case.op != "gelu":
        return np.ones(x.shape)
    if case.options.get("approximate"):
        return 1 + np.abs(reference.gelu_argument(x)[0])
    return 1 + x * x


def sizes_of_terms(case: Case, x: np.ndarray) -> np.ndarray:
    """The sizes that the terms of the derivative add up to."""
    if case.op in ("silu", "gelu", "mish"):  # f(x) / x + x times a bump
        value = np.abs(reference.sigmoid(x)) if case.op == "silu" else np.ones(x.shape)
        return value + np.abs(x) * np.exp(-np.abs(x) / 2)
    if case.op == "hard_swish":
        return 0.5 + np.abs(x)
    return np.abs(backward(case, np.ones(x.shape), [x], module=reference)[0])


@one_array
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, (right,) = expected(case)
    unit = np.finfo(dtype).eps / 2
    x = given[0]
    bound = (2 * FUNCTION + 4) * unit * np.abs(y) * conditions(case, x)
    if case.op in ("hard_sigmoid", "hard_swish"):  # x / 6 + 1 / 2 may cancel
        bound = 4 * unit * (np.abs(x) + 1) * (np.abs(x) if case.op == "hard_swish" else 1)
    assert_within(forward(case, narrowed(given, dtype)), y, bound, dtype)
    bound = (2 * FUNCTION + 8) * unit * np.abs(dy) * sizes_of_terms(case, x) * conditions(case, x)
    (actual,) = backward(case, dy.astype(dtype), narrowed(given, dtype))
    assert_within(actual, right, bound, dtype)


@pytest.mark.parametrize("case", UNARY, ids=str)
def test_gradients_match_differences(case):
    check_differences(case, None if case.op in ("sqrt", "log") else "normal")


@pytest.mark.parametrize("name", ["relu6", "clip", "absolute", "square"])
def test_simple_functions_are_exact(name, dtype):
    options = {"clip": (-2, 3)}.get(name, ())
    x = np.array([-np.inf, -7, -2, -1, -0.0, 0, 0.5, 3, 6, 7, np.inf, np.nan], dtype)
    y = getattr(reference, name)(x.astype(np.float64), *options)
    assert_exact(getattr(ops, name)(x, *options), y, dtype)
    x, dy = x[:-1], np.arange(5, 16)
    dx = getattr(ops, f"{name}_backward")(dy.astype(dtype), x, *options)
    right = getattr(reference, f"{name}_backward")(dy, x.astype(np.float64), *options)[0]
    assert_exact(dx, right, dtype)


def test_gradients_where_two_pieces_meet(dtype):
    """As in TensorFlow: clip passes dy at its bounds, relu6 and the hard sigmoid do not."""
    zeros = np.array([0, -0.0], dtype)
    dy = np.ones(2, dtype)
    at = np.array([-3, 3], dtype)
    assert_exact(ops.clip_backward(dy, at, -3, 3), np.ones(2), dtype)
    assert_exact(ops.hard_sigmoid_backward(dy, at), np.zeros(2), dtype)
    assert_exact(ops.hard_swish_backward(dy, at), np.array([0.0, 1.0]), dtype)
    assert_exact(ops.relu6_backward(dy, np.array([0, 6], dtype)), np.zeros(2), dtype)
    assert_exact(ops.absolute_backward(dy, zeros), np.zeros(2), dtype)
    assert_exact(ops.elu_backward(dy, zeros, 0.5), np.full(2, 0.5), dtype)
    scale = float(dtype(reference.SELU_SCALE))
    assert_exact(ops.selu_backward(dy, zeros), np.full(2, scale), dtype)


@pytest.mark.parametrize("name", NAMES)
def test_nan_stays_where_it_is(name, dtype):
    options = {"clip": (-1, 1)}.get(name, ())
    x = np.linspace(0.5, 2, 37).astype(dtype)
    x[[0, 17, 36]] = np.nan
    np.testing.assert_array_equal(np.isnan(getattr(ops, name)(x, *options)), np.isnan(x))
    smooth = np.isnan(getattr(ops, f"{name}_backward")(np.ones_like(x), x, *options))
    assert not smooth[~np.isnan(x)].any()
    if name not in KINKED:
        assert smooth[np.isnan(x)].all()


LIMITS = {  # at -inf and inf: the value, the derivative
    "elu": ((-1, np.inf), (0, 1)),
    "softplus": ((0, np.inf), (0, 1)),
    "softsign": ((-1, 1), (0, 0)),
    "silu": ((0, np.inf), (0, 1)),
    "gelu": ((0, np.inf), (0, 1)),
    "hard_sigmoid": ((0, 1), (0, 0)),
    "hard_swish": ((0, np.inf), (0, 1)),
    "relu6": ((0, 6), (0, 0)),
    "mish": ((0, np.inf), (0, 1)),
}


@pytest.mark.parametrize("name", LIMITS)
def test_extremes_are_the_limits(name, dtype):
    (low, high), (below, above) = LIMITS[name]
    x = np.array([-np.inf, np.inf], dtype)
    huge = np.array([-1e30, 1e30], dtype)
    found = [(getattr(ops, name), getattr(ops, f"{name}_backward"), ())]
    if name == "gelu":
        found.append((ops.gelu, ops.gelu_backward, (True,)))
    for function, derivative, options in found:
        assert_exact(function(x, *options), np.array([low, high], float), dtype)
        right = np.array([low, min(high, float(huge[1]))])
        assert_exact(function(huge, *options), right, dtype)
        for at in (x, huge):
            slope = derivative(np.ones(2, dtype), at, *options)
            assert_within(slope, np.array([below, above], float), 1e-30, dtype)


def true_values(name: str, x: np.ndarray) -> np.ndarray:
    """To the last digits of float64 and beyond, as far as the machine's long double goes."""
    wide = x.astype(np.longdouble)
    if name == "elu":
        return np.where(wide > 0, wide, np.expm1(wide))
    if name == "softplus":
        return np.maximum(wide, 0) + np.log1p(np.exp(-np.abs(wide)))
    if name == "silu":
        return wide * np.where(wide < 0, np.exp(wide), 1) / (1 + np.exp(-np.abs(wide)))
    power = np.exp(-np.abs(wide))
    top = np.where(wide < 0, power * (power + 2), 1 + 2 * power)
    return wide * top / (top + np.where(wide < 0, 2, 2 * power**2))


@pytest.mark.parametrize(("name", "units"), [("elu", 3), ("softplus", 4), ("silu", 4), ("mish", 4)])
def test_functions_are_right_to_the_last_places(name, units, dtype):
    """Between 2^-30 and 2^6 on both sides of zero, in units in the last place of the result."""
    half = np.logspace(-30, 6, 10007, base=2).astype(dtype)
    x = np.concatenate([-half, half])
    y = true_values(name, x)
    unit = np.spacing(np.abs(y).astype(dtype)).astype(np.longdouble)
    assert (np.abs(getattr(ops, name)(x) - y) / unit).max() < units + 0.5


def test_gelu_is_right_to_the_last_places(backend, dtype):
    """Also where it is tiny; a device's own erfc sees a rounded argument."""
    if backend.startswith("cuda"):
        return
    x = np.linspace(-9, 9, 5003).astype(dtype)
    y = np.array([v * math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(np.float64)])
    # y too: its erfc sees a rounded argument, which makes 2 x^2 units.
    bound = 8 * np.spacing(np.abs(y).astype(dtype)) + (2 * x * x + 4) * np.spacing(np.abs(y))
    assert (np.abs(ops.gelu(x).astype(np.float64) - y) <= bound).all()


@pytest.mark.parametrize("name", NAMES)
def test_the_result_may_lie_over_the_argument(name, dtype):
    options = {"clip": (-1, 1)}.get(name, ())
    x = np.linspace(0.5, 2, 37).astype(dtype)
    y = getattr(ops, name)(x, *options)
    same = x.copy()
    assert getattr(ops, name)(same, *options, out=same) is same
    assert_same_bits(same, y)
    dx = getattr(ops, f"{name}_backward")(y, x, *options)
    assert_same_bits(getattr(ops, f"{name}_backward")(y, x, *options, out=y), dx)


@pytest.mark.parametrize("name", sorted(activation.FUNCTIONS))
def test_named_activations_of_layers_are_the_functions(name, dtype, rng):
    x, kernel = (values(shape, "normal", rng).astype(dtype) for shape in ((5, 7), (7, 6)))
    z = ops.dense(x, kernel)
    function, gradient = activation.FUNCTIONS[name]
    assert_same_bits(ops.dense(x, kernel, activation=name), function(z))
    dy = np.ones_like(z)
    dx, dkernel, _ = ops.dense_backward(dy, x, kernel, activation=name)
    right, dright, _ = ops.dense_backward(gradient(dy, z), x, kernel)
    assert_same_bits(dx, right)
    assert_same_bits(dkernel, dright)


# ---- of two arrays -------------------------------------------------------------------------------


@two_arrays
def test_rounding_of_two_arrays_stays_within_its_bound(case, dtype):
    given, dy, y, gradients = expected(case)
    assert_within(forward(case, narrowed(given, dtype)), y, gamma(2, dtype) * np.abs(y), dtype)
    found = backward(case, dy.astype(dtype), narrowed(given, dtype))
    sizes = backward(case, np.abs(dy), [np.abs(x) for x in given], module=reference)
    if case.op in ("maximum", "minimum"):
        sizes = [reference.summed(np.abs(dy), x) for x in given]
    for x, actual, right, size in zip(given, found, gradients, sizes, strict=True):
        count = dy.size // max(x.size, 1) + 4
        assert_within(actual, right, gamma(count, dtype) * np.abs(size), dtype)


@pytest.mark.parametrize("case", [*BINARY, *ADD], ids=str)
def test_gradients_of_two_arrays_match_differences(case):
    check_differences(case)


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_of_equal_values_the_first_takes_the_gradient(name, dtype):
    x1, x2 = np.array([1, 2, 3], dtype), np.array([1, 3, 2], dtype)
    dy = np.array([5, 6, 7], dtype)
    dx1, dx2 = getattr(ops, f"{name}_backward")(dy, x1, x2)
    first = np.array([5, 6, 0]) if name == "minimum" else np.array([5, 0, 7])
    assert_exact(dx1, first, dtype)
    assert_exact(dx2, np.array([5, 6, 7]) - first, dtype)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
def test_nan_of_either_array_counts(name, dtype):
    x1, x2 = np.ones((3, 17), dtype), np.full((3, 17), 2, dtype)
    x1[1, 16] = x2[2, 0] = np.nan
    y = getattr(ops, name)(x1, x2)
    assert np.argwhere(np.isnan(y)).tolist() == [[1, 16], [2, 0]]
    if name in ("maximum", "minimum"):
        dx1, dx2 = getattr(ops, f"{name}_backward")(np.ones_like(y), x1, x2)
        assert (dx1[1, 16], dx2[1, 16], dx1[2, 0], dx2[2, 0]) == (1, 0, 0, 1)


@pytest.mark.parametrize("name", ["add", "subtract", "multiply", "divide", "maximum", "minimum"])
@pytest.mark.parametrize("number", [3, -0.5])
def test_a_number_takes_the_dtype_of_the_array(name, number, dtype, rng):
    x = rng.uniform(0.5, 4, (5, 7)).astype(dtype)
    op, function = getattr(ops, name), getattr(np, name)
    wide = x.astype(np.float64)
    for given in ((x, number), (number, x)):
        y = function(*(wide if g is x else g for g in given))
        assert_within(op(*given), y, gamma(2, dtype) * np.abs(y), dtype)
    array = np.array(number, dtype)
    dy = np.ones_like(x)
    backward_op = getattr(ops, f"{name}_backward")
    for found, right in zip(backward_op(dy, x, number), backward_op(dy, x, array), strict=True):
        assert_same_bits(found, right)
    assert backward_op(dy, number, x)[0].shape == ()


@pytest.mark.parametrize("name", ["add", "multiply", "maximum"])
def test_arrays_without_axes(name, dtype):
    op = getattr(ops, name)
    y = op(np.array(2, dtype), np.array(3, dtype))
    assert y.shape == ()
    assert y == getattr(np, name)(2, 3)
    x = np.arange(6, dtype=dtype).reshape(2, 3)
    assert_exact(op(np.array(2, dtype), x), getattr(np, name)(2, x.astype(np.float64)), dtype)
    dx, dtwo = getattr(ops, f"{name}_backward")(x, x, np.array(2, dtype))
    assert (dx.shape, dtwo.shape) == ((2, 3), ())


def test_numbers_beyond_float32_are_arrays_too(dtype):
    x = np.array([1, 2], dtype)
    assert_exact(ops.maximum(x, float("inf")), np.array([np.inf] * 2), dtype)
    assert np.isnan(ops.add(x, float("nan"))).all()
    assert_exact(ops.divide(x, 0), np.array([np.inf] * 2), dtype)


def test_an_integer_array_follows_the_other(dtype):
    x = np.array([[0.5, 1.5]], dtype)
    y = ops.multiply(x, np.array([[2], [3]]))
    assert_exact(y, np.array([[1, 3], [1.5, 4.5]]), dtype)


@pytest.mark.parametrize("case", [BINARY[1], BINARY[2]], ids=str)
def test_some_gradients_of_two_arrays_go_to_out(case, dtype):
    given, dy, _, _ = expected(case)
    given, dy = narrowed(given, dtype), dy.astype(dtype)
    right = backward(case, dy, given)
    for which in range(2):
        outs = [None, None]
        outs[which] = np.full_like(right[which], np.nan)
        found = backward(case, dy, given, out=tuple(outs))
        assert found[which] is outs[which]
        for actual, wanted in zip(found, right, strict=True):
            assert_same_bits(actual, wanted)


def test_gradients_of_a_product_with_itself(dtype, rng):
    x = rng.normal(size=(5, 7)).astype(dtype)
    dx1, dx2 = ops.multiply_backward(np.ones_like(x), x, x)
    assert_same_bits(dx1, x)
    assert_same_bits(dx2, x)


def test_a_chain_with_broadcasting_matches_differences():
    """mean((x * scale + shift)^2 / max(x, 0.1)) by hand, backwards, op by op."""
    rng = np.random.default_rng(3)
    x, scale, shift = rng.uniform(0.5, 2, (3, 5, 4)), rng.normal(size=4), rng.normal(size=(5, 1))

    def run(given):
        x, scale, shift = given
        z = ops.add(ops.multiply(x, scale), shift)
        return ops.divide(ops.square(z), ops.maximum(x, 0.75))

    dy = rng.normal(size=(3, 5, 4))
    product = ops.multiply(x, scale)
    z = ops.add(product, shift)
    top, bottom = ops.square(z), ops.maximum(x, 0.75)
    dtop, dbottom = ops.divide_backward(dy, top, bottom)
    dproduct, dshift = ops.add_backward(ops.square_backward(dtop, z), product, shift)
    dx, dscale = ops.multiply_backward(dproduct, x, scale)
    dx = dx + ops.maximum_backward(dbottom, x, 0.75)[0]
    assert_gradients_match_differences(run, (dx, dscale, dshift), (x, scale, shift), dy)


# ---- what does not fit ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda x: ops.add(x, x[:2]), ValueError, r"add: expected x1 and x2 of shapes that can be"),
        (lambda x: ops.multiply(x, x.T), ValueError, r"multiply: .* got \(3, 4\) and \(4, 3\)"),
        (lambda x: ops.divide_backward(x, x, x[:, :2]), ValueError, "divide_backward: expected x1"),
        (lambda x: ops.add_backward(x[0], x, x[0]), ValueError, r"expected dy of shape \(3, 4\)"),
        (lambda x: ops.add(x, "a"), TypeError, "add: expected x2 to hold real numbers"),
        (lambda x: ops.subtract(x, None), TypeError, "subtract: expected x2 to be an array"),
        (lambda x: ops.clip(x, 2, 1), ValueError, "clip: expected x_min to be at most x_max"),
        (lambda x: ops.clip(x, "a", 1), TypeError, "clip: expected x_min to be a number"),
        (lambda x: ops.elu(x, None), TypeError, "elu: expected alpha to be a number"),
        (lambda x: ops.gelu_backward(x[0], x), ValueError, r"gelu_backward: expected dy of shape"),
        (
            lambda x: ops.add(x, x, out=np.zeros((3, 5), np.float32)),
            ValueError,
            r"add: expected out of shape \(3, 4\)",
        ),
        (
            lambda x: ops.multiply(x, x.astype(np.float64)),
            TypeError,
            "multiply: expected x1 and x2 of one dtype, got float32 and float64",
        ),
        (
            lambda x: ops.multiply_backward(x, x, x[0], needs=(True,)),
            ValueError,
            "multiply_backward: expected needs to be 2 booleans",
        ),
    ],
)
def test_what_does_not_fit_fails_in_words(call, error, message):
    with pytest.raises(error, match=message):
        call(np.ones((3, 4), np.float32))
