"""Layers that normalise, PReLU, and transposed, depthwise and separable convolution: in both
schedules, on a device, and in training."""

from __future__ import annotations

import importlib.util
import inspect
import json
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import reference
from checkers import assert_same_bits
from devices import DEVICES, emulator
from test_layers_elementwise import run
from test_planner import trained

import convkit
from convkit import constraints, initializers, layers, ops, optimizers, regularizers
from convkit.layers import Input
from convkit.models import Model, Sequential

KERNELS = [
    name
    for name in DEVICES
    if name == "cuda_emulated" or importlib.util.find_spec("cupy") is not None
]


@pytest.fixture(params=KERNELS or [pytest.param("", marks=pytest.mark.skip("no device"))])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    yield request.param
    if request.param == "cuda_emulated":
        emulator().emulator_recover()


@pytest.fixture(autouse=True)
def seeded() -> None:
    convkit.utils.set_random_seed(0)


# ---- graphs of these ops -------------------------------------------------------------------------

MEAN, VARIANCE = np.array([0.3, -0.2, 0.1]), np.array([0.5, 1.5, 0.25])


def normalised(x: Any, gamma: Any, beta: Any) -> Any:
    return ops.batch_norm(x, gamma, beta)


def normalised_by_rows(x: Any, gamma: Any) -> Any:
    return ops.batch_norm(ops.tanh(x), gamma, axis=2)


def normalised_channels_first(x: Any, beta: Any) -> Any:
    return ops.batch_norm(x, None, beta, axis=1)


def given_moments(x: Any, gamma: Any, beta: Any) -> Any:
    return ops.batch_norm(x, gamma, beta, _like(MEAN, x), _like(VARIANCE, x))


def given_moments_alone(x: Any) -> Any:
    return ops.batch_norm(x, mean=_like(MEAN, x), variance=_like(VARIANCE, x))


def given_moments_and_beta(x: Any, beta: Any) -> Any:
    return ops.batch_norm(x, None, beta, _like(MEAN, x), _like(VARIANCE, x))


def _like(value: np.ndarray, x: Any) -> np.ndarray:
    return value.astype(str(x.dtype))


def layer_normalised(x: Any, gamma: Any, beta: Any) -> Any:
    return ops.layer_norm(x, gamma, beta)


def layer_normalised_whole(x: Any, gamma: Any) -> Any:
    return ops.layer_norm(x, gamma, axis=(1, 2, 3))


def prelu(x: Any, alpha: Any) -> Any:
    return ops.prelu(x, alpha)


def transposed(x: Any, kernel: Any, bias: Any) -> Any:
    return ops.conv2d_transpose(x, kernel, bias, strides=2, padding="same", activation="tanh")


def transposed_without_bias(x: Any, kernel: Any) -> Any:
    return ops.conv2d_transpose(ops.sigmoid(x), kernel, strides=(1, 2), output_padding=(0, 1))


def depthwise(x: Any, kernel: Any, bias: Any) -> Any:
    return ops.depthwise_conv2d(x, kernel, bias, padding="same")


def separable(x: Any, kernel: Any, mixing: Any, bias: Any) -> Any:
    return ops.separable_conv2d(x, kernel, mixing, bias, activation="tanh")


def together(x: Any, kernel: Any, gamma: Any, beta: Any, alpha: Any) -> Any:
    y = ops.conv2d(x, kernel, padding="same")
    return ops.prelu(ops.layer_norm(y, gamma, beta), alpha)


GRAPHS = [
    (normalised, [(3,), (3,)]),
    (normalised_by_rows, [(4,)]),
    (normalised_channels_first, [(5,)]),
    (given_moments, [(3,), (3,)]),
    (given_moments_alone, []),
    (given_moments_and_beta, [(3,)]),
    (layer_normalised, [(3,), (3,)]),
    (layer_normalised_whole, [(5, 4, 3)]),
    (prelu, [(1, 1, 3)]),
    (prelu, [(5, 4, 3)]),
    (prelu, [(5, 1, 3)]),
    (prelu, [(1, 4, 1)]),
    (transposed, [(3, 3, 4, 3), (4,)]),
    (transposed_without_bias, [(2, 3, 4, 3)]),
    (depthwise, [(3, 3, 3, 2), (6,)]),
    (separable, [(3, 2, 3, 2), (1, 1, 6, 4), (4,)]),
    (together, [(3, 3, 3, 6), (6,), (6,), (1, 1, 6)]),
]
BATCHES = (normalised, normalised_by_rows, normalised_channels_first)  # samples depend on others
every_graph = pytest.mark.parametrize(
    ("make", "shapes"), GRAPHS, ids=lambda value: getattr(value, "__name__", None)
)


def example(make: Any, shapes: list, n: int, dtype: Any) -> tuple:
    rng = np.random.default_rng(n)
    x = rng.normal(size=(n, 5, 4, 3)).astype(dtype)
    weights = [rng.normal(size=shape).astype(dtype) for shape in shapes]
    factors = rng.normal(size=make(x, *weights).shape[1:]).astype(dtype)
    return x, weights, factors


@every_graph
@pytest.mark.parametrize("n", [1, 16, 37])
def test_both_schedules_agree(make, shapes, n, backend):
    x, weights, factors = example(make, shapes, n, np.float64)
    (y, *found), _ = run(make, x, weights, factors, False)
    np.testing.assert_allclose(y, make(x, *weights), rtol=1e-12, atol=1e-12)
    (tiled, *others), program = run(make, x, weights, factors, True)
    np.testing.assert_allclose(tiled, y, rtol=1e-12, atol=1e-12)
    for one, other in zip(found, others, strict=True):
        np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-13)
    if make not in BATCHES:
        left = {s.kernel for s in program.steps if not s.tiled} - {"sgd"}
        # What does not depend on samples stays outside of tiles.
        assert left <= {"batch_norm_affine", "batch_norm_affine_backward", "rescale"}


@every_graph
def test_gradients_of_programs_match_differences(make, shapes):
    x, weights, factors = example(make, shapes, 4, np.float64)
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
        assert np.sum(gradient * direction) == pytest.approx(quotient, rel=1e-6, abs=1e-8)


@every_graph
def test_a_device_agrees(make, shapes, cp):
    x, weights, factors = example(make, shapes, 20, np.float64)
    here, _ = run(make, x, weights, factors, False)
    for depth_first in (False, True):  # the second may be refused, then it is the first again
        there, _ = run(make, x, weights, factors, depth_first, gpu=0)
        for one, other in zip(here, there, strict=True):
            np.testing.assert_allclose(other, one, rtol=1e-10, atol=1e-12)


@every_graph
def test_float32_is_close(make, shapes):
    x, weights, factors = example(make, shapes, 20, np.float32)
    wide = [w.astype(np.float64) for w in weights]
    right, _ = run(make, x.astype(np.float64), wide, factors.astype(np.float64), False)
    for depth_first in (False, True):
        for one, other in zip(run(make, x, weights, factors, depth_first)[0], right, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=2e-5 * (np.abs(other).max() + 1))


@pytest.mark.parametrize("depth_first", [False, True])
@every_graph
def test_bits_do_not_depend_on_threads(make, shapes, depth_first, threads):
    x, weights, factors = example(make, shapes, 100, np.float32)
    found = []
    for count in (1, 3):
        threads(count)
        results, _ = run(make, x, weights, factors, depth_first)
        found.append([array.tobytes() for array in results])
    assert found[0] == found[1]


# ---- arguments and weights -----------------------------------------------------------------------

NUMBERS = {
    "center": True,
    "scale": True,
    "beta_initializer": "zeros",
    "gamma_initializer": "ones",
}
HELD = {
    "beta_regularizer": None,
    "gamma_regularizer": None,
    "beta_constraint": None,
    "gamma_constraint": None,
}


@pytest.mark.parametrize(
    ("kind", "first", "defaults"),
    [
        (
            layers.BatchNormalization,
            [],
            {
                "axis": -1,
                "momentum": 0.99,
                "epsilon": 0.001,
                **NUMBERS,
                "moving_mean_initializer": "zeros",
                "moving_variance_initializer": "ones",
                **HELD,
            },
        ),
        (layers.LayerNormalization, [], {"axis": -1, "epsilon": 0.001, **NUMBERS, **HELD}),
        (
            layers.PReLU,
            [],
            {
                "alpha_initializer": "zeros",
                "alpha_regularizer": None,
                "alpha_constraint": None,
                "shared_axes": None,
            },
        ),
        (
            layers.Conv2DTranspose,
            ["filters", "kernel_size"],
            {
                "strides": (1, 1),
                "padding": "valid",
                "output_padding": None,
                "data_format": None,
                "dilation_rate": (1, 1),
                "activation": None,
                "use_bias": True,
                "kernel_initializer": "glorot_uniform",
                "bias_initializer": "zeros",
                "kernel_regularizer": None,
                "bias_regularizer": None,
                "activity_regularizer": None,
                "kernel_constraint": None,
                "bias_constraint": None,
            },
        ),
        (
            layers.DepthwiseConv2D,
            ["kernel_size"],
            {
                "strides": (1, 1),
                "padding": "valid",
                "depth_multiplier": 1,
                "data_format": None,
                "dilation_rate": (1, 1),
                "activation": None,
                "use_bias": True,
                "depthwise_initializer": "glorot_uniform",
                "bias_initializer": "zeros",
                "depthwise_regularizer": None,
                "bias_regularizer": None,
                "activity_regularizer": None,
                "depthwise_constraint": None,
                "bias_constraint": None,
            },
        ),
        (
            layers.SeparableConv2D,
            ["filters", "kernel_size"],
            {
                "strides": (1, 1),
                "padding": "valid",
                "data_format": None,
                "dilation_rate": (1, 1),
                "depth_multiplier": 1,
                "activation": None,
                "use_bias": True,
                "depthwise_initializer": "glorot_uniform",
                "pointwise_initializer": "glorot_uniform",
                "bias_initializer": "zeros",
                "depthwise_regularizer": None,
                "pointwise_regularizer": None,
                "bias_regularizer": None,
                "activity_regularizer": None,
                "depthwise_constraint": None,
                "pointwise_constraint": None,
                "bias_constraint": None,
            },
        ),
    ],
)
def test_arguments_have_the_names_order_and_defaults_of_keras(kind, first, defaults):
    parameters = list(inspect.signature(kind.__init__).parameters.values())[1:-1]
    required = [p.name for p in parameters if p.default is inspect.Parameter.empty]
    assert required == first
    assert {p.name: p.default for p in parameters[len(first) :]} == defaults
    assert [p.name for p in parameters[len(first) :]] == list(defaults)


LAYERS = [
    (layers.BatchNormalization, {}, (4, 5, 3), (4, 5, 3), {
        "gamma": (3,), "beta": (3,), "moving_mean": (3,), "moving_variance": (3,)}),
    (layers.BatchNormalization, {"axis": 1, "center": False, "momentum": 0.5}, (4, 5), (4, 5), {
        "gamma": (4,), "moving_mean": (4,), "moving_variance": (4,)}),
    (layers.BatchNormalization, {"scale": False, "trainable": False}, (7,), (7,), {
        "beta": (7,), "moving_mean": (7,), "moving_variance": (7,)}),
    (layers.LayerNormalization, {}, (4, 5, 3), (4, 5, 3), {"gamma": (3,), "beta": (3,)}),
    (layers.LayerNormalization, {"axis": [1, 2], "scale": False}, (4, 5), (4, 5), {
        "beta": (4, 5)}),
    (layers.LayerNormalization, {"axis": (-2, -1), "center": False}, (2, 4, 5), (2, 4, 5), {
        "gamma": (4, 5)}),
    (layers.PReLU, {}, (4, 5, 3), (4, 5, 3), {"alpha": (4, 5, 3)}),
    (layers.PReLU, {"shared_axes": [1, 2]}, (4, 5, 3), (4, 5, 3), {"alpha": (1, 1, 3)}),
    (layers.PReLU, {"shared_axes": 2}, (4, 5, 3), (4, 5, 3), {"alpha": (4, 1, 3)}),
    (layers.PReLU, {"shared_axes": (1, -1)}, (4, 5, 3), (4, 5, 3), {"alpha": (1, 5, 1)}),
    (layers.Conv2DTranspose, {"filters": 6, "kernel_size": 3, "strides": 2}, (4, 5, 3),
        (9, 11, 6), {"kernel": (3, 3, 6, 3), "bias": (6,)}),
    (layers.Conv2DTranspose, {
        "filters": 6, "kernel_size": (2, 3), "strides": (2, 1), "padding": "same",
        "use_bias": False, "data_format": "channels_first"}, (3, 4, 5), (6, 8, 5), {
        "kernel": (2, 3, 6, 3)}),
    (layers.Conv2DTranspose, {
        "filters": 1, "kernel_size": 3, "strides": 2, "output_padding": 1, "activation": "relu"},
        (4, 5, 3), (10, 12, 1), {"kernel": (3, 3, 1, 3), "bias": (1,)}),
    (layers.DepthwiseConv2D, {"kernel_size": 3, "depth_multiplier": 2}, (4, 5, 3), (2, 3, 6), {
        "kernel": (3, 3, 3, 2), "bias": (6,)}),
    (layers.DepthwiseConv2D, {
        "kernel_size": (1, 3), "padding": "same", "data_format": "channels_first",
        "use_bias": False}, (3, 4, 5), (3, 4, 5), {"kernel": (1, 3, 3, 1)}),
    (layers.SeparableConv2D, {"filters": 7, "kernel_size": 3}, (4, 5, 3), (2, 3, 7), {
        "depthwise_kernel": (3, 3, 3, 1), "pointwise_kernel": (1, 1, 3, 7), "bias": (7,)}),
    (layers.SeparableConv2D, {
        "filters": 7, "kernel_size": 3, "strides": 2, "padding": "same", "depth_multiplier": 2,
        "use_bias": False, "activation": "tanh"}, (4, 5, 3), (2, 3, 7), {
        "depthwise_kernel": (3, 3, 3, 2), "pointwise_kernel": (1, 1, 6, 7)}),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "options", "shape", "out", "weights"),
    LAYERS,
    ids=[f"{kind.__name__}-{i}" for i, (kind, *_) in enumerate(LAYERS)],
)
def test_shapes_weights_and_configuration(kind, options, shape, out, weights):
    layer = kind(**options)
    assert layer.compute_output_shape((None, *shape)) == (None, *out)
    found = layer.ordered_weights()
    assert {v.name.rpartition("/")[2]: v.shape for v in found} == weights
    assert [v.name.rpartition("/")[2] for v in found] == list(weights)
    moving = {"moving_mean", "moving_variance"} & set(weights)
    trainable = [v.name.rpartition("/")[2] for v in layer.trainable_weights]
    assert trainable == [n for n in weights if n not in moving and layer.trainable]

    config = json.loads(json.dumps(layer.get_config()))
    again = kind.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    x = np.random.default_rng(0).normal(size=(5, *shape)).astype(np.float32)
    again.ensure_built(x.shape)
    again.set_weights(layer.get_weights())
    assert_same_bits(again(x), layer(x))
    assert layer(x).shape == (5, *out)


def test_initializers_regularizers_and_constraints_are_passed_on():
    held = {"kernel_regularizer": "l2", "bias_constraint": "non_neg", "bias_initializer": "ones"}
    layer = layers.Conv2DTranspose(2, 3, **held)
    layer.build((None, 4, 4, 3))
    assert isinstance(layer.kernel.regularizer, regularizers.L2)
    assert isinstance(layer.bias.constraint, constraints.NonNeg)
    np.testing.assert_array_equal(layer.bias.numpy(), [1, 1])
    layer = layers.BatchNormalization(gamma_regularizer="l1", beta_constraint="unit_norm")
    layer.build((None, 4, 4, 3))
    assert isinstance(layer.gamma.regularizer, regularizers.L1)
    assert layer.gamma.constraint is None and layer.beta.regularizer is None
    assert isinstance(layer.beta.constraint, constraints.UnitNorm)
    layer = layers.BatchNormalization(
        moving_mean_initializer=initializers.Constant(3), moving_variance_initializer="zeros"
    )
    layer.build((None, 4, 4, 2))
    np.testing.assert_array_equal(layer.moving_mean.numpy(), [3, 3])
    np.testing.assert_array_equal(layer.moving_variance.numpy(), [0, 0])
    layer = layers.PReLU(alpha_initializer="ones", alpha_constraint="min_max_norm")
    layer.build((None, 3))
    np.testing.assert_array_equal(layer.alpha.numpy(), [1, 1, 1])
    assert isinstance(layer.alpha.constraint, constraints.MinMaxNorm)
    layer = layers.SeparableConv2D(2, 3, pointwise_regularizer="l2", depthwise_constraint="non_neg")
    layer.build((None, 4, 4, 3))
    assert isinstance(layer.pointwise_kernel.regularizer, regularizers.L2)
    assert isinstance(layer.depthwise_kernel.constraint, constraints.NonNeg)
    layer = layers.DepthwiseConv2D(3, depthwise_regularizer="l1", depthwise_initializer="zeros")
    layer.build((None, 4, 4, 3))
    assert isinstance(layer.kernel.regularizer, regularizers.L1)
    assert not layer.kernel.numpy().any()


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: layers.BatchNormalization(momentum=1.5), ValueError, "momentum"),
        (lambda: layers.BatchNormalization(epsilon=-1), ValueError, "epsilon"),
        (lambda: layers.BatchNormalization(axis=0).build((None, 3)), ValueError, "samples"),
        (lambda: layers.BatchNormalization(axis=4).build((None, 3)), ValueError, "axis between"),
        (lambda: layers.BatchNormalization().build((None,)), ValueError, "an input of shape"),
        (lambda: layers.LayerNormalization(axis=1).build((None, 3, 4)), ValueError, "last axis"),
        (lambda: layers.LayerNormalization(axis=0).build((None,)), ValueError, "samples"),
        (lambda: layers.PReLU(shared_axes=[0]).build((None, 3)), ValueError, "samples"),
        (lambda: layers.PReLU(shared_axes=[5]).build((None, 3)), ValueError, "axis between"),
        (lambda: layers.Conv2DTranspose(0, 3), ValueError, "filters"),
        (lambda: layers.Conv2DTranspose(2, 3, padding="full"), ValueError, "padding"),
        (lambda: layers.Conv2DTranspose(2, 3).build((None, 4, 3)), ValueError, "N, H, W, C"),
        (lambda: layers.DepthwiseConv2D(3, depth_multiplier=0), ValueError, "depth_multiplier"),
        (lambda: layers.DepthwiseConv2D((3, 3, 3)), ValueError, "kernel_size"),
        (lambda: layers.SeparableConv2D(2, 3, groups=2), TypeError, "SeparableConv2D: expected"),
    ],
)
def test_what_does_not_fit_is_named(make, error, message):
    with pytest.raises(error, match=message):
        make()


# ---- batch normalisation in training -------------------------------------------------------------


def test_arrays_move_the_averages_and_use_them():
    rng = np.random.default_rng(1)
    layer = layers.BatchNormalization(momentum=0.75, dtype="float64")
    mean, variance = np.zeros(3), np.ones(3)
    for _ in range(3):
        x = rng.normal(2, 3, size=(8, 5, 3))
        y = layer(x, training=True)
        np.testing.assert_allclose(y, reference.batch_norm(x), rtol=1e-12, atol=1e-12)
        mean = 0.75 * mean + 0.25 * x.mean(axis=(0, 1))
        variance = 0.75 * variance + 0.25 * x.var(axis=(0, 1))
        np.testing.assert_allclose(layer.moving_mean.numpy(), mean, rtol=1e-12)
        np.testing.assert_allclose(layer.moving_variance.numpy(), variance, rtol=1e-12)
    y = layer(x)
    right = reference.batch_norm(x, None, None, mean, variance)
    np.testing.assert_allclose(y, right, rtol=1e-12, atol=1e-12)
    layer.trainable = False
    np.testing.assert_array_equal(layer(x, training=True), y)
    np.testing.assert_allclose(layer.moving_mean.numpy(), mean, rtol=1e-12)


@pytest.mark.parametrize("batch", [1, 4, 20])
def test_fit_moves_the_averages(batch):
    rng = np.random.default_rng(2)
    x, y = rng.normal(1, 2, size=(20, 4, 4, 3)), rng.normal(size=(20, 4, 4, 3))
    layer = layers.BatchNormalization(momentum=0.5, dtype="float64")
    model = Sequential([Input((4, 4, 3), dtype="float64"), layer])
    model.compile(optimizers.SGD(0.0), "mse")
    mean, variance = np.zeros(3), np.ones(3)
    model.fit(x, y, batch_size=batch, epochs=2, shuffle=False, verbose=0)
    for _ in range(2):
        for begin in range(0, 20, batch):
            part = x[begin : begin + batch]
            mean = 0.5 * mean + 0.5 * part.mean(axis=(0, 1, 2))
            variance = 0.5 * variance + 0.5 * part.var(axis=(0, 1, 2))
    np.testing.assert_allclose(layer.moving_mean.numpy(), mean, rtol=1e-12)
    np.testing.assert_allclose(layer.moving_variance.numpy(), variance, rtol=1e-12)
    right = reference.batch_norm(x, None, None, mean, variance)
    for size in (1, 20):  # by a prepared program, and depth-first
        found = model.predict(x[:size], verbose=0)
        np.testing.assert_allclose(found, right[:size], rtol=1e-12, atol=1e-12)
    expected = np.square(right - y).mean()
    assert model.evaluate(x, y, batch_size=batch, verbose=0) == pytest.approx(expected)


def test_a_frozen_layer_stays_as_it_is():
    rng = np.random.default_rng(3)
    x, y = rng.normal(1, 2, size=(40, 4)).astype(np.float32), rng.integers(0, 3, 40)
    frozen = layers.BatchNormalization(trainable=False)
    model = Sequential([Input((4,)), layers.Dense(5), frozen, layers.Dense(3)])
    model.compile(optimizers.SGD(0.1), "mse")
    frozen.set_weights([rng.uniform(0.5, 2, size=5) for _ in range(4)])
    before = [v.numpy() for v in frozen.weights]
    dense = model.layers[0].kernel.numpy()
    model.fit(x, np.eye(3, dtype=np.float32)[y], batch_size=8, verbose=0)
    for value, variable in zip(before, frozen.weights, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert (model.layers[0].kernel.numpy() != dense).any()
    assert frozen.trainable_weights == []
    assert [v.name.rpartition("/")[2] for v in frozen.non_trainable_weights] == [
        "gamma",
        "beta",
        "moving_mean",
        "moving_variance",
    ]


def test_a_layer_that_stands_twice_moves_its_averages_twice():
    x = Input((4,), dtype="float64")
    layer = layers.BatchNormalization(momentum=0.5, dtype="float64")
    twice = Model(x, layer(layers.Rescaling(2.0, 1.0, dtype="float64")(layer(x))))
    twice.compile(optimizers.SGD(0.0), "mse")
    data = np.random.default_rng(4).normal(3, 2, size=(16, 4))
    twice.fit(data, data, batch_size=16, verbose=0)
    first = 0.5 * data.mean(axis=0)
    second = 0.5 * first + 0.5 * (2 * reference.batch_norm(data) + 1).mean(axis=0)
    np.testing.assert_allclose(layer.moving_mean.numpy(), second, rtol=1e-10)


def small() -> Model:
    """Each of these layers, and what they feed."""
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.Conv2D(6, 3, use_bias=False),
            layers.BatchNormalization(momentum=0.75),
            layers.ReLU(),
            layers.DepthwiseConv2D(3, use_bias=False),
            layers.BatchNormalization(center=False),
            layers.PReLU(shared_axes=[1, 2]),
            layers.SeparableConv2D(5, 3, padding="same"),
            layers.LayerNormalization(),
            layers.Conv2DTranspose(4, 3, strides=2),
            layers.PReLU(),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def each_sample_alone() -> Model:
    """Without what couples the samples of a batch: all of it runs on tiles."""
    return Sequential(
        [
            Input((8, 8, 3)),
            layers.SeparableConv2D(6, 3, activation="tanh"),
            layers.LayerNormalization(),
            layers.DepthwiseConv2D(3, depth_multiplier=2),
            layers.BatchNormalization(trainable=False),
            layers.PReLU(shared_axes=[1, 2]),
            layers.Conv2DTranspose(4, 3, strides=2, padding="same"),
            layers.PReLU(shared_axes=[2]),
            layers.LayerNormalization(axis=(1, 2, 3), scale=False),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


@pytest.mark.parametrize("make", [small, each_sample_alone])
@pytest.mark.parametrize("batch", [1, 16, 20, 50])
def test_training_depth_first_is_training(make, batch):
    right, logs, _ = trained(make, False, batch=batch, dtype="float64")
    found, tiled_logs, step = trained(make, True, batch=batch, dtype="float64")
    for one, other in zip(found, right, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)
    if make is each_sample_alone:
        left = {s.kernel for s in step.program.steps if not s.tiled}
        assert not {kernel for kernel in left if kernel.startswith(("layer", "prelu", "conv"))}


def test_bits_of_training_do_not_depend_on_threads(threads):
    found = []
    for count in (1, 2, 3):
        threads(count)
        weights, _, _ = trained(small, True, n=100, batch=70)
        found.append([w.tobytes() for w in weights])
    assert found[0] == found[1] == found[2]


def fitted(make: Any, dtype: str = "float32", **options: Any) -> tuple[Model, dict]:
    convkit.utils.set_random_seed(3)
    convkit.config.set_floatx(dtype)
    try:
        model = make()
    finally:
        convkit.config.set_floatx("float32")
    model.compile(
        optimizers.SGD(0.05, momentum=0.5), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    rng = np.random.default_rng(5)
    x, y = rng.normal(size=(50, 8, 8, 3)).astype(dtype), rng.integers(0, 5, 50)
    given = {"batch_size": 16, "epochs": 4, "verbose": 0, "validation_data": (x, y), **options}
    return model, model.fit(x, y, **given).history


@pytest.mark.parametrize("make", [small, each_sample_alone])
def test_a_network_learns(make):
    _, history = fitted(make, epochs=15)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    assert history["val_loss"][-1] < history["val_loss"][0]


@pytest.mark.parametrize("make", [small, each_sample_alone])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_training_on_a_device_is_that_of_the_processor(make, dtype, cp):
    here, first = fitted(make, dtype)
    there, second = fitted(make, dtype, device="cuda")
    assert there.device == "cuda:0"
    bound = 1e-4 if dtype == "float32" else 1e-10
    for one, other in zip(here.weights, there.weights, strict=True):
        np.testing.assert_allclose(other.numpy(), one.numpy(), rtol=bound, atol=bound)
    for name, values in first.items():
        assert second[name] == pytest.approx(values, rel=10 * bound)
    x = np.random.default_rng(6).normal(size=(5, 8, 8, 3)).astype(dtype)
    right = here.predict(x, verbose=0)
    np.testing.assert_allclose(there.predict(x, verbose=0), right, rtol=10 * bound, atol=bound)


def test_a_device_gives_the_same_bits_each_time(cp):
    first, second = (fitted(small, device="cuda")[0] for _ in range(2))
    for one, other in zip(first.weights, second.weights, strict=True):
        assert_same_bits(one.numpy(), other.numpy())
