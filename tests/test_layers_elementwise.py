"""Layers and programs made of element-wise ops, reductions and broadcasting, in both schedules."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from devices import DEVICES

from convkit import _core, activations, geometry, gradients, graph, layers, ops
from convkit.graph import Symbol, Variable
from convkit.program import Program

# ---- a graph in both schedules -------------------------------------------------------------------


def run(
    make: Callable[..., Any],
    x: np.ndarray,
    weights: list[np.ndarray],
    factors: np.ndarray,
    depth_first: bool,
    gpu: int | None = None,
) -> tuple[list[np.ndarray], Program]:
    """y, dx and a gradient for each weight of the mean of y times factors, by a program."""
    dtype = x.dtype.name
    given = Symbol((None, *x.shape[1:]), dtype, place="fed")
    variables = [Variable(w, f"weight {i}") for i, w in enumerate(weights)]
    y = make(given, *variables)
    rows = ops.multiply(y, factors)
    size = geometry.samples(rows.shape)[1]
    loss = graph.call("mean", _core.Mean(rows=size), None, [rows], [(1,)], dtype)[0]
    dx, *found = gradients.gradients([loss], [given, *(v.symbol for v in variables)])
    rate = Variable(np.ones(1, dtype), "rate", trainable=False).symbol
    updates = [
        graph.update(
            "sgd",
            _core.Sgd(size=v.value.size, momentum=0, nesterov=0),
            [rate, gradient, None, v.symbol],
        )
        for v, gradient in zip(variables, found, strict=True)
    ]
    program = Program(dtype, [y, dx], updates, depth_first=depth_first, gpu=gpu)
    results = [np.zeros((len(x), *symbol.shape[1:]), dtype) for symbol in (y, dx)]
    with program.bound((given, x), (y, results[0]), (dx, results[1])):
        program.run(0, len(x), len(x))
    steps = [w - v.numpy() for w, v in zip(weights, variables, strict=True)]
    return [*results, *steps], program


def scaled(x: Any, scale: Any, shift: Any) -> Any:
    return ops.add(ops.multiply(x, scale), shift)


def per_pixel(x: Any, weight: Any) -> Any:
    """A weight (5, 1, 1) is repeated along columns and channels."""
    return ops.multiply(weight, x)


def attention(x: Any, weight: Any) -> Any:
    """Squeeze and excite: channels times a function of their means (Hu et al., 2018)."""
    squeezed = ops.global_avg_pool2d(x, keepdims=True)
    return ops.multiply(x, ops.hard_sigmoid(ops.dense(squeezed, weight)))


def standardised(x: Any) -> Any:
    centred = ops.subtract(x, ops.mean(x, (1, 2), keepdims=True))
    variance = ops.mean(ops.square(centred), (1, 2), keepdims=True)
    return ops.divide(centred, ops.sqrt(ops.add(variance, 0.5)))


def extremes(x: Any) -> Any:
    spread = ops.subtract(ops.max(x, (1, 2)), ops.min(x, (1, 2)))
    return ops.add(spread, ops.sum(x, (1, 3)) if x.shape[2] == x.shape[3] else 1.0)


def apart(x: Any) -> Any:
    """Axes that do not stand together."""
    return ops.add(ops.max(x, (1, 3)), ops.sum(x, (3, 1)))


def constants(x: Any) -> Any:
    weight = np.linspace(-1, 1, int(np.prod(x.shape[1:]))).reshape(x.shape[1:])
    y = ops.maximum(x, weight.astype(x.dtype))
    y = ops.minimum(ops.subtract(2, y), np.full((1, 1), 1.75, x.dtype))
    return ops.divide(1, ops.add(ops.absolute(y), 1))


def bounds(x: Any, weight: Any) -> Any:
    return ops.maximum(ops.minimum(x, 0.5), weight)


def activated(x: Any) -> Any:
    names = ["elu", "selu", "softplus", "softsign", "silu", "gelu", "hard_sigmoid", "hard_swish"]
    y = x
    for name in [*names, "mish", "relu6"]:
        y = ops.add(y, activations.get(name)(ops.rescale(x, 1.7, 0.01)))
    return ops.add(y, ops.gelu(ops.clip(x, -1, 1), approximate=True))


def global_pools(x: Any) -> Any:
    y = ops.concatenate([ops.global_avg_pool2d(x), ops.global_max_pool2d(x)])
    return ops.log(ops.add(ops.square(y), 0.1))


GRAPHS = [
    (scaled, [(3,), (5, 1, 1)]),
    (scaled, [(5, 4, 3), ()]),
    (per_pixel, [(5, 1, 1)]),
    (attention, [(3, 3)]),
    (standardised, []),
    (extremes, []),
    (apart, []),
    (constants, []),
    (bounds, [(4, 1)]),
    (activated, []),
    (global_pools, []),
]
every_graph = pytest.mark.parametrize(
    ("make", "shapes"), GRAPHS, ids=lambda value: getattr(value, "__name__", None)
)


def example(shapes: list, n: int, dtype: Any) -> tuple:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 5, 4, 3)).astype(dtype)
    return x, [rng.normal(size=shape).astype(dtype) for shape in shapes]


@every_graph
@pytest.mark.parametrize("n", [1, 16, 37])
def test_both_schedules_agree(make, shapes, n, backend):
    x, weights = example(shapes, n, np.float64)
    shape = make(x, *weights).shape[1:]
    factors = np.random.default_rng(1).normal(size=shape)
    (y, *found), _ = run(make, x, weights, factors, False)
    np.testing.assert_allclose(y, make(x, *weights), rtol=1e-13, atol=1e-13)
    (tiled, *others), program = run(make, x, weights, factors, True)
    left = [s.kernel for s in program.steps if not s.tiled and s.kernel != "sgd"]
    np.testing.assert_allclose(tiled, y, rtol=1e-12, atol=1e-13)
    for one, other in zip(found, others, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-14)
    # What does not depend on samples stays outside of tiles.
    assert set(left) <= {"reduce"}


@pytest.fixture(params=DEVICES or [pytest.param("", marks=pytest.mark.skip("no device"))])
def kernels(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    if name == "cuda" and importlib.util.find_spec("cupy") is None:
        pytest.skip("no CuPy")
    return name


@every_graph
def test_a_device_agrees(make, shapes, cp):
    x, weights = example(shapes, 20, np.float64)
    factors = np.random.default_rng(1).normal(size=make(x, *weights).shape[1:])
    here, _ = run(make, x, weights, factors, False)
    for depth_first in (False, True):  # the second may be refused, then it is the first again
        there, _ = run(make, x, weights, factors, depth_first, gpu=0)
        for one, other in zip(here, there, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-11, atol=1e-13)


def test_numbers_meet_arrays_on_a_device(cp):
    x = np.linspace(0.5, 2, 6, dtype=np.float32)
    there = cp.asarray(x)
    for name in ("add", "subtract", "multiply", "divide", "maximum", "minimum"):
        for given in ((x, 2), (2, x)):
            moved = [there if value is x else value for value in given]
            right = getattr(ops, name)(*given)
            np.testing.assert_allclose(cp.asnumpy(getattr(ops, name)(*moved)), right, rtol=1e-6)
        found = getattr(ops, f"{name}_backward")(there, there, 2)
        right = getattr(ops, f"{name}_backward")(x, x, 2)
        for one, other in zip(found, right, strict=True):
            np.testing.assert_allclose(cp.asnumpy(one), other, rtol=1e-6)


@every_graph
def test_gradients_of_programs_match_differences(make, shapes):
    x, weights = example(shapes, 3, np.float64)
    factors = np.random.default_rng(1).normal(size=make(x, *weights).shape[1:])
    (_, *found), _ = run(make, x, weights, factors, False)
    rng = np.random.default_rng(7)
    given = [x, *weights]
    for i, (array, gradient) in enumerate(zip(given, found, strict=True)):
        direction = rng.choice([-1.0, -0.5, 0.5, 1.0], size=array.shape)

        def loss(step: float, i=i, array=array, direction=direction) -> float:
            moved = [*given[:i], array + step * direction, *given[i + 1 :]]
            return float(np.mean(make(*moved) * factors))

        step = 2.0**-17
        near, far = (loss(h) - loss(-h) for h in (step / 2, step))
        quotient = (8 * near - far) / (6 * step)
        assert np.sum(gradient * direction) == pytest.approx(quotient, rel=1e-7, abs=1e-8)


@every_graph
def test_float32_is_close(make, shapes):
    x, weights = example(shapes, 20, np.float32)
    factors = np.random.default_rng(1).normal(size=make(x, *weights).shape[1:]).astype(np.float32)
    wide = [w.astype(np.float64) for w in weights]
    right, _ = run(make, x.astype(np.float64), wide, factors.astype(np.float64), False)
    for depth_first in (False, True):
        for one, other in zip(run(make, x, weights, factors, depth_first)[0], right, strict=True):
            scale = np.abs(other).max() + 1
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * scale)


@pytest.mark.parametrize("depth_first", [False, True])
def test_bits_do_not_depend_on_threads(depth_first, threads):
    found = []
    for count in (1, 2, 5):
        threads(count)
        for make, shapes in GRAPHS:
            x, weights = example(shapes, 90, np.float32)
            factors = np.ones(make(x, *weights).shape[1:], np.float32)
            found.append(
                b"".join(a.tobytes() for a in run(make, x, weights, factors, depth_first)[0])
            )
    third = len(found) // 3
    assert found[:third] == found[third : 2 * third] == found[2 * third :]


def test_a_weight_alone_may_be_broadcast_to_another():
    """Values without samples: their kernels run once. Variables alone would be taken as arrays."""
    rng = np.random.default_rng(2)
    x, small, large = rng.normal(size=(20, 4)), rng.normal(size=4), rng.normal(size=(1, 4))

    def make(x: Any, small: Any, large: Any) -> Any:
        if isinstance(x, Symbol):
            small, large = small.symbol, large.symbol
        return ops.multiply(x, ops.add(ops.multiply(small, large), small))

    for depth_first in (False, True):
        (y, dx, dsmall, dlarge), _ = run(make, x, [small, large], np.ones(4), depth_first)
        np.testing.assert_allclose(y, x * (small * large + small), rtol=1e-13)
        total = x.mean(axis=0) / 4
        np.testing.assert_allclose(dsmall, total * (large[0] + 1), atol=1e-14)
        np.testing.assert_allclose(dlarge[0], total * small, atol=1e-14)
        np.testing.assert_allclose(dx, np.repeat(small * large + small, 20, 0) / 80, atol=1e-14)


def test_samples_are_not_reduced_or_spread():
    x = Symbol((None, 5, 3), "float32", place="fed")
    with pytest.raises(ValueError, match=r"sum: expected axes other than that of the samples, got"):
        ops.sum(x)
    with pytest.raises(ValueError, match="mean: expected axes other than"):
        ops.mean(x, 0)
    with pytest.raises(ValueError, match=r"multiply: .* got \(None, 5, 3\) and \(7, 5, 3\)"):
        ops.multiply(x, np.ones((7, 5, 3), np.float32))
    with pytest.raises(ValueError, match=r"add: .* got \(None, 5, 3\) and \(None, 3\)"):
        ops.add(x, Symbol((None, 3), "float32", place="fed"))
    assert ops.add(x, np.ones((1, 5, 3), np.float32)).shape == (None, 5, 3)
    assert ops.max(x, (1, 2), keepdims=True).shape == (None, 1, 1)


# ---- layers --------------------------------------------------------------------------------------

X = np.random.default_rng(0).normal(size=(3, 6, 5, 4)).astype(np.float32)
SIMPLE = [
    (layers.ELU(), {"alpha": 1.0}, lambda x: np.where(x > 0, x, np.expm1(x))),
    (layers.ELU(0.25), {"alpha": 0.25}, lambda x: np.where(x > 0, x, 0.25 * np.expm1(x))),
    (layers.LeakyReLU(), {"negative_slope": 0.3}, lambda x: np.where(x > 0, x, 0.3 * x)),
    (layers.GELU(), {"approximate": False}, lambda x: ops.gelu(x)),
    (layers.GELU(approximate=True), {"approximate": True}, lambda x: ops.gelu(x, True)),
    (layers.SiLU(), {}, lambda x: x / (1 + np.exp(-x))),
    (layers.Hardswish(), {}, lambda x: x * np.clip(x / 6 + 0.5, 0, 1)),
    (
        layers.GlobalAveragePooling2D(),
        {"data_format": "channels_last", "keepdims": False},
        lambda x: x.mean(axis=(1, 2)),
    ),
    (
        layers.GlobalAveragePooling2D(data_format="channels_first", keepdims=True),
        {"data_format": "channels_first", "keepdims": True},
        lambda x: x.mean(axis=(2, 3), keepdims=True),
    ),
    (
        layers.GlobalMaxPooling2D("channels_last", True),
        {"data_format": "channels_last", "keepdims": True},
        lambda x: x.max(axis=(1, 2), keepdims=True),
    ),
]


@pytest.mark.parametrize(
    ("layer", "config", "function"), SIMPLE, ids=lambda v: "" if callable(v) else str(v)[:40]
)
def test_layers_of_one_input(layer, config, function):
    y = layer(X)
    np.testing.assert_allclose(y, function(X), rtol=1e-5, atol=1e-6)
    assert layer(layers.Input(X.shape[1:])).shape == (None, *y.shape[1:])
    given = layer.get_config()
    assert {name: given[name] for name in config} == config
    again = type(layer).from_config(given)
    assert again.get_config() == given
    np.testing.assert_array_equal(again(X), y)


MERGING = {
    "Add": lambda values: sum(values[1:], values[0]),
    "Multiply": lambda values: np.prod(np.broadcast_arrays(*values), axis=0),
    "Average": lambda values: sum(values[1:], values[0]) / len(values),
    "Maximum": lambda values: np.max(np.broadcast_arrays(*values), axis=0),
    "Minimum": lambda values: np.min(np.broadcast_arrays(*values), axis=0),
}


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("name", [*MERGING, "Subtract"])
def test_layers_of_several_inputs(name, count):
    rng = np.random.default_rng(4)
    values = [rng.normal(size=(3, 4, 5)).astype(np.float32) for _ in range(count)]
    layer = getattr(layers, name)()
    if name == "Subtract" and count == 3:
        with pytest.raises(ValueError, match="expected 2 inputs, got 3"):
            layer(values)
        return
    function = MERGING.get(name, lambda values: values[0] - values[1])
    np.testing.assert_allclose(layer(values), function(values), rtol=1e-6, atol=1e-6)
    symbols = [layers.Input((4, 5)) for _ in range(count)]
    assert getattr(layers, name)()(symbols).shape == (None, 4, 5)


@pytest.mark.parametrize("name", [*MERGING, "Subtract"])
def test_inputs_of_fewer_axes_are_broadcast_behind_the_samples(name):
    """(3, 4) with (3, 2, 5, 4): as (3, 1, 1, 4), which plain NumPy would not do."""
    rng = np.random.default_rng(4)
    a, b = (rng.normal(size=s).astype(np.float32) for s in ((3, 2, 5, 4), (3, 4)))
    function = MERGING.get(name, lambda values: values[0] - values[1])
    y = getattr(layers, name)()([a, b])
    np.testing.assert_allclose(y, function([a, b[:, None, None]]), rtol=1e-6, atol=1e-6)
    symbols = [layers.Input(array.shape[1:]) for array in (b, a)]
    assert getattr(layers, name)()(symbols).shape == (None, 2, 5, 4)


def test_inputs_of_merging_layers_must_fit():
    a, b = layers.Input((4, 5)), layers.Input((3, 5))
    with pytest.raises(ValueError, match="multiply: expected x1 and x2 of shapes that can be"):
        layers.Multiply()([a, b])
    with pytest.raises(ValueError, match="at least two inputs"):
        layers.Maximum()(a)
    with pytest.raises(ValueError, match="expected inputs with as many samples"):
        layers.Average()([X, X[:1]])


def test_global_pooling_wants_images():
    with pytest.raises(ValueError, match=r"expected an input of shape \(N, C, H, W\)"):
        layers.GlobalMaxPooling2D(data_format="channels_first")(X[0])
    with pytest.raises(ValueError, match="data_format"):
        layers.GlobalAveragePooling2D("first")
    assert layers.GlobalAvgPool2D is layers.GlobalAveragePooling2D
    assert layers.GlobalMaxPool2D is layers.GlobalMaxPooling2D


NAMES = ("elu", "selu", "softplus", "softsign", "silu", "swish", "gelu", "hard_sigmoid")


@pytest.mark.parametrize("name", [*NAMES, "hard_silu", "hard_swish", "relu6", "mish"])
def test_activations_have_their_names(name):
    x = X[0, 0]
    aliases = {"swish": "silu", "hard_silu": "hard_swish"}
    right = getattr(ops, aliases.get(name, name))(x)
    np.testing.assert_array_equal(layers.Activation(name)(x), right)
    np.testing.assert_array_equal(getattr(activations, name)(x), right)
    dense = layers.Dense(7, activation=name)
    y = dense(x)
    z = ops.dense(x, dense.kernel.value, dense.bias.value)
    np.testing.assert_array_equal(y, activations.get(name)(z))


@pytest.mark.parametrize(
    "make", [lambda: layers.ELU("a"), lambda: layers.LeakyReLU(-1), lambda: layers.LeakyReLU(None)]
)
def test_numbers_of_layers_are_checked(make):
    with pytest.raises((ValueError, TypeError), match="expected"):
        make()
