"""Layers: shapes, names, arguments and defaults as in Keras 3, values against the references."""

from __future__ import annotations

import inspect

import numpy as np
import pytest
import reference

import convkit
from convkit import Input, Model, Sequential, config, layers, optimizers
from convkit.layers import base

CHANNELS_FIRST = {"data_format": "channels_first"}

# layer, shape of a sample, shape of its output: as Keras 3.15.1 gives them
SHAPES = [
    (lambda: layers.Conv2D(6, 5), (28, 28, 1), (24, 24, 6)),
    (lambda: layers.Conv2D(6, (3, 2), (2, 3), "same"), (11, 13, 2), (6, 5, 6)),
    (lambda: layers.Conv2D(6, 3, dilation_rate=(2, 3)), (11, 13, 2), (7, 7, 6)),
    (lambda: layers.Conv2D(6, 3, groups=2, padding="same"), (5, 6, 4), (5, 6, 6)),
    (lambda: layers.Conv2D(6, 3, strides=2), (8, 9, 1), (3, 4, 6)),
    (lambda: layers.Conv2D(6, 5, **CHANNELS_FIRST), (1, 28, 28), (6, 24, 24)),
    (lambda: layers.MaxPooling2D(), (7, 9, 3), (3, 4, 3)),
    (lambda: layers.MaxPooling2D(3, 2, "same"), (7, 9, 3), (4, 5, 3)),
    (lambda: layers.MaxPooling2D((2, 3), (1, 2)), (7, 9, 3), (6, 4, 3)),
    (lambda: layers.MaxPooling2D(3, 2, "same", **CHANNELS_FIRST), (3, 7, 9), (3, 4, 5)),
    (lambda: layers.AveragePooling2D(2, padding="same"), (7, 9, 3), (4, 5, 3)),
    (lambda: layers.AveragePooling2D((3, 1)), (7, 9, 3), (2, 9, 3)),
    (lambda: layers.AveragePooling2D(2, **CHANNELS_FIRST), (3, 7, 9), (3, 3, 4)),
    (lambda: layers.UpSampling2D(), (3, 4, 2), (6, 8, 2)),
    (lambda: layers.UpSampling2D((1, 3), interpolation="bilinear"), (3, 4, 2), (3, 12, 2)),
    (lambda: layers.UpSampling2D(2, **CHANNELS_FIRST), (2, 3, 4), (2, 6, 8)),
    (lambda: layers.Flatten(), (3, 4, 2), (24,)),
    (lambda: layers.Flatten(), (5,), (5,)),
    (lambda: layers.Flatten(**CHANNELS_FIRST), (2, 3, 4), (24,)),
    (lambda: layers.Reshape((-1, 2)), (3, 4, 2), (12, 2)),
    (lambda: layers.Reshape((24,)), (3, 4, 2), (24,)),
    (lambda: layers.Dense(7), (5,), (7,)),
    (lambda: layers.Dense(7), (3, 4), (3, 7)),
    (lambda: layers.Activation("relu"), (3, 4, 2), (3, 4, 2)),
    (lambda: layers.ReLU(), (3, 4, 2), (3, 4, 2)),
    (lambda: layers.Softmax(), (3, 4, 2), (3, 4, 2)),
    (lambda: layers.Dropout(0.5), (3, 4, 2), (3, 4, 2)),
    (lambda: layers.Rescaling(1 / 255), (3, 4, 2), (3, 4, 2)),
]


@pytest.mark.parametrize(("make", "sample", "expected"), SHAPES)
def test_output_shapes_are_those_of_keras(make, sample, expected):
    assert make().compute_output_shape((None, *sample)) == (None, *expected)
    layer = make()
    symbol = layer(Input(sample))
    assert symbol.shape == (None, *expected)
    assert layer.output_shape == (None, *expected)
    array = layer(np.zeros((2, *sample), np.float32))
    assert array.shape == (2, *expected)
    assert array.dtype == np.float32


CONV2D = {
    "strides": (1, 1),
    "padding": "valid",
    "data_format": None,
    "dilation_rate": (1, 1),
    "groups": 1,
    "activation": None,
    "use_bias": True,
    "kernel_initializer": "glorot_uniform",
    "bias_initializer": "zeros",
    "kernel_regularizer": None,
    "bias_regularizer": None,
    "activity_regularizer": None,
    "kernel_constraint": None,
    "bias_constraint": None,
}
POOLING = {"pool_size": (2, 2), "strides": None, "padding": "valid", "data_format": None}


@pytest.mark.parametrize(
    ("kind", "first", "defaults"),
    [
        (layers.Conv2D, ["filters", "kernel_size"], CONV2D),
        (layers.MaxPooling2D, [], POOLING),
        (layers.AveragePooling2D, [], POOLING),
        (
            layers.UpSampling2D,
            [],
            {"size": (2, 2), "data_format": None, "interpolation": "nearest"},
        ),
        (layers.Flatten, [], {"data_format": None}),
        (layers.Reshape, ["target_shape"], {}),
        (
            layers.Dense,
            ["units"],
            {
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
        (layers.Activation, ["activation"], {}),
        (layers.Softmax, [], {"axis": -1}),
        (layers.Dropout, ["rate"], {}),
        (layers.Rescaling, ["scale"], {"offset": 0.0}),
        (layers.Concatenate, [], {"axis": -1}),
    ],
)
def test_arguments_have_the_names_order_and_defaults_of_keras(kind, first, defaults):
    parameters = [
        p
        for p in inspect.signature(kind).parameters.values()
        if p.kind is p.POSITIONAL_OR_KEYWORD and p.name != "self"
    ]
    assert [p.name for p in parameters] == [*first, *defaults]
    assert {p.name: p.default for p in parameters if p.name in defaults} == defaults
    assert all(p.default is p.empty for p in parameters if p.name in first)


def test_arguments_that_keras_has_elsewhere_go_by_name_alone():
    """The first of ReLU is max_value in Keras, the second of Dropout noise_shape."""
    with pytest.raises(TypeError):
        layers.ReLU(6.0)
    with pytest.raises(TypeError):
        layers.Dropout(0.5, 7)
    assert layers.ReLU(negative_slope=0.5).negative_slope == 0.5
    assert layers.Dropout(0.5, seed=7).seed == 7


def test_keras_short_names_are_the_same_classes():
    assert layers.MaxPool2D is layers.MaxPooling2D
    assert layers.AvgPool2D is layers.AveragePooling2D
    assert layers.Convolution2D is layers.Conv2D


# ---- names -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: layers.Conv2D(1, 1), "conv2d"),
        (lambda: layers.MaxPooling2D(), "max_pooling2d"),
        (lambda: layers.AveragePooling2D(), "average_pooling2d"),
        (lambda: layers.UpSampling2D(), "up_sampling2d"),
        (lambda: layers.Flatten(), "flatten"),
        (lambda: layers.Reshape((1,)), "reshape"),
        (lambda: layers.Dense(1), "dense"),
        (lambda: layers.Activation("relu"), "activation"),
        (lambda: layers.ReLU(), "re_lu"),
        (lambda: layers.Softmax(), "softmax"),
        (lambda: layers.Dropout(0.5), "dropout"),
        (lambda: layers.Rescaling(2), "rescaling"),
        (lambda: layers.Add(), "add"),
        (lambda: layers.Concatenate(), "concatenate"),
        (lambda: layers.InputLayer((1,)), "input_layer"),
    ],
)
def test_names_are_counted_as_keras_counts_them(monkeypatch, make, name):
    monkeypatch.setattr(base, "_names", type(base._names)())
    assert [make().name for _ in range(3)] == [name, f"{name}_1", f"{name}_2"]


def test_a_name_can_be_given():
    assert layers.Dense(3, name="head").name == "head"
    layer = layers.Dense(3, name="head")
    layer.build((None, 2))
    assert [v.name for v in layer.weights] == ["head/kernel", "head/bias"]


# ---- values ------------------------------------------------------------------------------------


def to_last(x):
    return x.transpose(0, 2, 3, 1)


def to_first(x):
    return x.transpose(0, 3, 1, 2)


@pytest.mark.parametrize("data_format", ["channels_last", "channels_first"])
@pytest.mark.parametrize(
    ("layer", "function", "options"),
    [
        (layers.Conv2D, "conv2d", {"strides": (1, 2), "padding": "same", "activation": "tanh"}),
        (layers.Conv2D, "conv2d", {"dilation_rate": 2, "groups": 2, "activation": "relu"}),
        (layers.MaxPooling2D, "max_pool2d", {"pool_size": (2, 3), "padding": "same"}),
        (layers.AveragePooling2D, "avg_pool2d", {"pool_size": 3, "strides": 2, "padding": "same"}),
        (layers.UpSampling2D, "upsample2d", {"size": (2, 3), "interpolation": "bilinear"}),
    ],
)
def test_spatial_layers_compute_their_op(rng, dtype, data_format, layer, function, options):
    x = rng.normal(size=(3, 7, 8, 4)).astype(dtype)
    first = data_format == "channels_first"
    given = np.ascontiguousarray(to_first(x)) if first else x
    more = {"filters": 6, "kernel_size": 3} if layer is layers.Conv2D else {}
    made = layer(**more, **options, data_format=data_format, dtype=np.dtype(dtype).name)
    y = made(given)
    weights = [w.astype(np.float64) for w in made.get_weights()]
    expected = getattr(reference, function)(x.astype(np.float64), *weights, **options)
    tolerance = 100 * np.finfo(dtype).eps
    np.testing.assert_allclose(to_last(y) if first else y, expected, tolerance, tolerance)
    model = Sequential([Input(given.shape[1:], dtype=np.dtype(dtype).name), made])
    assert model.predict(given).tobytes() == y.tobytes()


def test_dense_works_over_the_last_axis(rng):
    layer = layers.Dense(3, activation="sigmoid")
    x = rng.normal(size=(2, 4, 5)).astype(np.float32)
    y = layer(x)
    kernel, bias = layer.get_weights()
    np.testing.assert_allclose(y, reference.sigmoid(x @ kernel + bias), rtol=1e-5)


def test_flatten_of_channels_first_moves_the_channels_to_the_end_as_keras_does(rng):
    x = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    y = layers.Flatten(data_format="channels_first")(x)
    np.testing.assert_array_equal(y, to_last(x).reshape(2, -1))
    np.testing.assert_array_equal(layers.Flatten()(x), x.reshape(2, -1))


def test_activations(rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    for name, expected in (
        ("linear", x),
        (None, x),
        ("relu", reference.relu(x)),
        ("leaky_relu", reference.leaky_relu(x)),
        ("sigmoid", reference.sigmoid(x)),
        ("tanh", np.tanh(x)),
        ("exponential", np.exp(x)),
        ("softmax", reference.softmax(x)),
        ("log_softmax", reference.log_softmax(x)),
        (convkit.ops.tanh, np.tanh(x)),
    ):
        np.testing.assert_allclose(layers.Activation(name)(x), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(layers.ReLU(negative_slope=0.5)(x), np.where(x > 0, x, x / 2))
    np.testing.assert_allclose(layers.Softmax(axis=1)(x), reference.softmax(x), rtol=1e-5)
    with pytest.raises(ValueError, match="activation to be one of 'linear', 'relu'"):
        layers.Dense(3, activation="swoosh")


def test_rescaling_takes_pixels_as_they_are(rng, dtype):
    pixels = rng.integers(0, 256, (3, 4, 5, 1)).astype(np.uint8)
    layer = layers.Rescaling(1 / 127.5, offset=-1, dtype=np.dtype(dtype).name)
    y = layer(pixels)
    assert y.dtype == dtype
    np.testing.assert_allclose(y, pixels / 127.5 - 1, rtol=0, atol=2 * np.finfo(dtype).eps)
    assert layer.weights == []
    model = Sequential([Input((4, 5, 1), dtype=np.dtype(dtype).name), layer])
    for given in (pixels, pixels.astype(dtype)):
        assert model.predict(given).tobytes() == y.tobytes()


def test_add_and_concatenate(rng):
    a, b, c = (rng.normal(size=(2, 3, 4, 5)).astype(np.float32) for _ in range(3))
    np.testing.assert_array_equal(layers.Add()([a, b, c]), a + b + c)
    for axis in (-1, 1, 2, 3):
        joined = layers.Concatenate(axis=axis)([a, b, c])
        np.testing.assert_array_equal(joined, np.concatenate([a, b, c], axis))
    inputs = Input((3, 4, 5))
    assert layers.Concatenate(axis=1)([inputs, inputs]).shape == (None, 6, 4, 5)


# ---- dropout -----------------------------------------------------------------------------------


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_its_share_and_scales_the_rest(dtype, rate):
    layer = layers.Dropout(rate, seed=1, dtype=np.dtype(dtype).name)
    x = np.full((100, 1000), 3, dtype)
    y = layer(x, training=True)
    kept = y != 0
    np.testing.assert_allclose(y[kept], 3 / (1 - rate), rtol=1e-6)
    share = 1 - kept.mean()
    assert abs(share - rate) < 5 * np.sqrt(rate * (1 - rate) / x.size)
    # No pattern: rows and columns drop their share too.
    for axis in (0, 1):
        count = x.shape[axis]
        limit = 6 * np.sqrt(rate * (1 - rate) / count)
        assert np.abs(1 - kept.mean(axis=axis) - rate).max() < limit


def test_dropout_is_the_identity_at_inference_and_at_rate_0(rng):
    x = rng.normal(size=(5, 7)).astype(np.float32)
    np.testing.assert_array_equal(layers.Dropout(0.5)(x), x)
    np.testing.assert_array_equal(layers.Dropout(0.0)(x, training=True), x)
    model = Sequential([Input((7,)), layers.Dropout(0.5)])
    np.testing.assert_array_equal(model.predict(x), x)


def test_dropout_with_a_seed_draws_the_same_and_goes_on_drawing():
    x = np.ones((20, 20), np.float32)
    first, second = layers.Dropout(0.5, seed=9), layers.Dropout(0.5, seed=9)
    draws = [first(x, training=True) for _ in range(3)]
    for draw in draws:
        np.testing.assert_array_equal(second(x, training=True), draw)
    assert not np.array_equal(draws[0], draws[1])
    assert not np.array_equal(draws[1], draws[2])
    assert not np.array_equal(layers.Dropout(0.5, seed=10)(x, training=True), draws[0])


def test_dropout_of_a_seed_draws_in_a_program_what_it_draws_eagerly():
    x = np.ones((6, 50), np.float32)
    eager = layers.Dropout(0.5, seed=4)
    inside = layers.Dropout(0.5, seed=4)
    scale = layers.Dense(50, use_bias=False, kernel_initializer=lambda s, d: np.eye(50, dtype=d))
    model = Sequential([Input((50,)), inside, scale])
    model.compile(optimizers.SGD(0.0), "mse")
    for _ in range(3):
        loss = model.train_on_batch(x, np.zeros_like(x))
        assert loss == pytest.approx(float(np.mean(eager(x, training=True) ** 2)), rel=1e-6)


def test_the_masks_of_two_dropouts_differ():
    convkit.utils.set_random_seed(0)
    x = np.ones((20, 20), np.float32)
    assert not np.array_equal(
        layers.Dropout(0.5)(x, training=True), layers.Dropout(0.5)(x, training=True)
    )


def test_a_dropout_in_two_places_draws_for_each():
    x = Input((5000,))
    drop = layers.Dropout(0.5, seed=1)
    model = Model(x, layers.Add()([drop(x), drop(x)]))
    model.compile("sgd", "mse")
    loss = model.train_on_batch(np.ones((4, 5000)), np.zeros((4, 5000)))
    # 0, 2 or 4, squared and weighed 1 : 2 : 1, have the mean 6; one mask twice would give 8.
    assert loss == pytest.approx(6, abs=0.25)


# ---- weights -----------------------------------------------------------------------------------


def test_output_and_shapes_are_those_of_the_last_call_on_symbols(rng):
    layer = layers.Dense(3)
    assert (layer.output, layer.input_shape, layer.output_shape) == (None, None, None)
    layer(np.ones((2, 4)))
    assert (layer.output, layer.input_shape, layer.output_shape) == (None, None, None)
    for shape in ((4,), (5, 4)):
        y = layer(Input(shape))
        assert layer.output is y
        layer(np.ones((7, 6, 4)))  # an array changes nothing
        assert layer.output is y
        assert layer.input_shape == (None, *shape)
        assert layer.output_shape == (None, *shape[:-1], 3)
    join = layers.Concatenate()
    join([Input((2,)), Input((5,))])
    assert join.input_shape == [(None, 2), (None, 5)]
    assert join.output_shape == (None, 7)


@pytest.mark.parametrize("kind", ["uint8", "bool", "int64", "float32", "float64"])
def test_an_eager_call_computes_in_the_dtype_of_the_layer(dtype, kind):
    name = np.dtype(dtype).name
    x = np.array([[0, 1, 1], [1, 0, 1]])
    for layer in (layers.Dense(2, dtype=name), layers.Flatten(dtype=name)):
        y = layer(x.astype(kind))
        assert y.dtype == dtype
        np.testing.assert_array_equal(y, layer(x.astype(dtype)))


def test_weights_are_made_at_the_first_call():
    layer = layers.Conv2D(4, 3)
    assert not layer.built
    assert layer.weights == []
    layer(np.zeros((1, 5, 5, 2), np.float32))
    assert layer.built
    assert [w.shape for w in layer.get_weights()] == [(3, 3, 2, 4), (4,)]
    assert layer.count_params() == 3 * 3 * 2 * 4 + 4


def test_set_weights_sets_all_or_nothing(rng):
    layer = layers.Dense(2)
    with pytest.raises(ValueError, match="built"):
        layer.set_weights([np.zeros((3, 2)), np.zeros(2)])
    layer.build((None, 3))
    before = layer.get_weights()
    for wrong, error in (
        ([np.ones((3, 2))], ValueError),
        ([np.ones((3, 2)), np.ones(3)], ValueError),
        ([np.ones((3, 2)), np.array(["a", "b"])], TypeError),
    ):
        with pytest.raises(error, match=layer.name):
            layer.set_weights(wrong)
        for old, new in zip(before, layer.get_weights(), strict=True):
            np.testing.assert_array_equal(old, new)
    layer.set_weights([np.arange(6).reshape(3, 2), [7, 8]])
    np.testing.assert_array_equal(layer(np.ones((1, 3), np.float32)), [[13, 17]])
    copies = layer.get_weights()
    copies[0][:] = 0
    assert layer.get_weights()[0].any()


def test_weights_without_a_name_are_counted():
    layer = layers.Layer()
    for shape in ((4, 3), (3,)):
        layer.add_weight(shape=shape, initializer="zeros", trainable=True)
    assert [weight.name for weight in layer.weights] == [
        f"{layer.name}/weight",
        f"{layer.name}/weight_1",
    ]
    with pytest.raises(TypeError, match=r"expected name to be a text, got \(4, 3\); write shape="):
        layer.add_weight((4, 3))


def test_a_layer_that_was_built_is_not_built_again():
    layer = layers.Dense(2)
    layer.build((None, 3))
    assert layer.built
    before = layer.get_weights()
    layer(np.zeros((1, 3), np.float32))
    assert len(layer.weights) == 2
    np.testing.assert_array_equal(layer.get_weights()[0], before[0])


def test_trainable_weights_follow_the_layer():
    layer = layers.Dense(2)
    layer.build((None, 3))
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (2, 0)
    layer.trainable = False
    assert (len(layer.trainable_weights), len(layer.non_trainable_weights)) == (0, 2)
    assert len(layer.get_weights()) == 2


def test_without_a_bias():
    layer = layers.Conv2D(4, 3, use_bias=False)
    layer.build((None, 5, 5, 1))
    assert [w.shape for w in layer.get_weights()] == [(3, 3, 1, 4)]
    layer = layers.Dense(4, use_bias=False)
    np.testing.assert_array_equal(layer(np.zeros((2, 3), np.float32)), np.zeros((2, 4)))


# ---- arrays and dtypes -------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["uint8", "int64", "bool", "float16", "float32", "float64"])
def test_arrays_of_any_real_dtype_become_the_layers_dtype(rng, kind):
    x = rng.integers(0, 2, (2, 4)).astype(kind)
    layer = layers.Dense(3)
    y = layer(x)
    assert y.dtype == np.float32
    np.testing.assert_array_equal(y, layer(x.astype(np.float32)))
    assert layers.Activation("relu")(x).dtype == np.float32


def test_set_floatx_sets_the_dtype_of_new_layers():
    config.set_floatx("float64")
    try:
        layer = layers.Conv2D(2, 1)
        model = Sequential([Input((3, 3, 1)), layer, layers.Flatten(), layers.Dense(1)])
    finally:
        config.set_floatx("float32")
    assert layer.dtype == model.dtype == "float64"
    assert all(w.dtype == np.float64 for w in model.get_weights())
    assert model.predict(np.zeros((1, 3, 3, 1), np.float32)).dtype == np.float64
    assert config.floatx() == "float32"
    with pytest.raises(ValueError, match=r"'float32', 'float64', got 'float16'"):
        config.set_floatx("float16")


def test_an_input_is_not_written_to(rng):
    x = rng.normal(size=(2, 6, 6, 2)).astype(np.float32)
    before = x.tobytes()
    for layer in (
        layers.ReLU(),
        layers.Flatten(),
        layers.Reshape((72,)),
        layers.Dropout(0.5),
        layers.Rescaling(2),
    ):
        layer(x, training=True)
        assert x.tobytes() == before, type(layer).__name__


def test_an_array_call_leaves_the_shapes_of_symbols_alone():
    layer = layers.Conv2D(2, 3)
    model = Sequential([Input((8, 8, 1)), layer])
    layer(np.zeros((5, 6, 6, 1), np.float32))
    model(np.zeros((5, 6, 6, 1), np.float32))
    assert layer.output_shape == (None, 6, 6, 2)
    assert layer.input_shape == (None, 8, 8, 1)
    assert model.input_shape == (None, 8, 8, 1)
    assert model.predict(np.zeros((2, 8, 8, 1))).shape == (2, 6, 6, 2)


# ---- errors ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Conv2D(0, 3), "filters to be at least 1"),
        (lambda: layers.Conv2D(2.5, 3), "filters to be an integer"),
        (lambda: layers.Conv2D(2, (3, 3, 3)), "kernel_size"),
        (lambda: layers.Conv2D(2, 3, strides=0), "strides"),
        (lambda: layers.Conv2D(2, 3, groups=0), "groups"),
        (lambda: layers.Conv2D(2, 3, padding="full")(Input((8, 8, 1))), "'valid', 'same'"),
        (lambda: layers.Conv2D(2, 3, data_format="NCHW"), "data_format"),
        (lambda: layers.Conv2D(3, 3, groups=2)(Input((8, 8, 2))), "filters"),
        (lambda: layers.Conv2D(2, 3, groups=2)(Input((8, 8, 3))), "groups"),
        (lambda: layers.Conv2D(2, 9)(Input((8, 8, 1))), "9 x 9"),
        (lambda: layers.Conv2D(2, 3)(Input((8, 8))), r"shape \(N, H, W, C\)"),
        (lambda: layers.MaxPooling2D(0), "pool_size"),
        (lambda: layers.MaxPooling2D()(Input((8,))), r"shape \(N, H, W, C\)"),
        (lambda: layers.MaxPooling2D(9)(Input((8, 8, 1))), "9 x 9"),
        (lambda: layers.UpSampling2D(1.5), "size"),
        (lambda: layers.UpSampling2D(interpolation="cubic"), "interpolation"),
        (lambda: layers.Dense(-1), "units"),
        (lambda: layers.Dense("3"), "units"),
        (lambda: layers.Dropout(1.0), "rate"),
        (lambda: layers.Dropout(-0.1), "rate"),
        (lambda: layers.Rescaling("half"), "scale to be a number"),
        (lambda: layers.Rescaling(float("nan")), "scale"),
        (lambda: layers.Rescaling(1, [0.1, "x"]), "offset to be a number"),
        (lambda: layers.Rescaling(1, [0.1, 0.2])(Input((3,))), "as many as offset has"),
        (lambda: layers.Reshape((-1, -1)), "-1"),
        (lambda: layers.Reshape(7), "shape"),
        (lambda: layers.Reshape((5,))(Input((4,))), r"fit the shape \(5,\), got \(4,\)"),
        (lambda: layers.Reshape((-1, 5))(Input((4,))), "fit the shape"),
        (lambda: layers.Add()(Input((4,))), "at least two"),
        (lambda: layers.Add()([Input((4,)), Input((5,))]), "add: expected"),
        (lambda: layers.Concatenate()([Input((4, 3)), Input((5, 3))]), "concatenate: expected"),
        (lambda: layers.Concatenate(axis=0)([Input((4,)), Input((4,))]), "axis"),
        (lambda: layers.Softmax(axis=3)(Input((4,))), "axis"),
        (lambda: layers.Softmax(axis=0)(Input((4,))), "axis"),
        (lambda: layers.ReLU(negative_slope=-1.0), "negative_slope"),
        (lambda: Input((0, 3)), "at least 1"),
        (lambda: Input(5), "shape such as"),
        (lambda: layers.Dense(2, dtype="float16"), "dtype"),
        (lambda: layers.Dense(2, unknown=3), "unknown"),
    ],
)
def test_arguments_that_make_no_sense_are_errors(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


def test_a_layer_keeps_to_the_inputs_it_was_built_for():
    layer = layers.Dense(2)
    layer.build((None, 3))
    with pytest.raises(ValueError, match=r"dense: expected x of shape \(\.\.\., 3\)"):
        layer(np.zeros((1, 4), np.float32))
    conv = layers.Conv2D(2, 3)
    conv.build((None, 8, 8, 3))
    with pytest.raises(ValueError, match="conv2d: expected"):
        conv(np.zeros((1, 8, 8, 4), np.float32))


def test_an_unfinished_layer_of_ones_own_says_what_is_missing():
    class Nothing(layers.Layer):
        pass

    with pytest.raises(TypeError, match="Nothing: a subclass of Layer must define call"):
        Nothing()(np.zeros((1, 2)))
