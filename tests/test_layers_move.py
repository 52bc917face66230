"""Layers that pad, crop, permute and repeat, and those that rescale and normalise by channel."""

from __future__ import annotations

import importlib.util
import inspect
from collections.abc import Iterator

import numpy as np
import pytest
import reference
from checkers import to_first, to_last
from devices import DEVICES, emulator
from test_planner import trained

from convkit import layers, optimizers, utils
from convkit.layers import Input, base
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


SAMPLED = {"fill_mode": "reflect", "interpolation": "bilinear", "seed": None, "fill_value": 0.0}
FIRST = {"data_format": None}


@pytest.mark.parametrize(
    ("kind", "first", "defaults"),
    [
        (layers.ZeroPadding2D, [], {"padding": (1, 1), **FIRST}),
        (layers.Cropping2D, [], {"cropping": ((0, 0), (0, 0)), **FIRST}),
        (layers.Permute, ["dims"], {}),
        (layers.RepeatVector, ["n"], {}),
        (
            layers.Normalization,
            [],
            {"axis": -1, "mean": None, "variance": None, "invert": False},
        ),
        (layers.SpatialDropout2D, ["rate"], {**FIRST, "seed": None}),
        (layers.GaussianNoise, ["stddev"], {"seed": None}),
        (layers.RandomFlip, [], {"mode": "horizontal_and_vertical", "seed": None, **FIRST}),
        (layers.RandomTranslation, ["height_factor", "width_factor"], {**SAMPLED, **FIRST}),
        (layers.RandomRotation, ["factor"], {**SAMPLED, **FIRST}),
        (layers.RandomZoom, ["height_factor"], {"width_factor": None, **SAMPLED, **FIRST}),
        (layers.RandomCrop, ["height", "width"], {"seed": None, **FIRST}),
        (layers.RandomContrast, ["factor"], {"value_range": (0, 255), "seed": None}),
    ],
)
def test_arguments_have_the_names_order_and_defaults_of_keras(kind, first, defaults):
    parameters = [
        p for p in inspect.signature(kind).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD
    ]
    assert [p.name for p in parameters] == [*first, *defaults]
    assert {p.name: p.default for p in parameters if p.name in defaults} == defaults
    assert all(p.default is p.empty for p in parameters if p.name in first)


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: layers.ZeroPadding2D(), "zero_padding2d"),
        (lambda: layers.Cropping2D(), "cropping2d"),
        (lambda: layers.Permute((1,)), "permute"),
        (lambda: layers.RepeatVector(1), "repeat_vector"),
        (lambda: layers.Normalization(), "normalization"),
        (lambda: layers.SpatialDropout2D(0.5), "spatial_dropout2d"),
        (lambda: layers.GaussianNoise(0.5), "gaussian_noise"),
        (lambda: layers.RandomFlip(), "random_flip"),
        (lambda: layers.RandomCrop(1, 1), "random_crop"),
    ],
)
def test_names_are_counted_as_keras_counts_them(monkeypatch, make, name):
    monkeypatch.setattr(base, "_names", type(base._names)())
    assert [make().name for _ in range(2)] == [name, f"{name}_1"]


# ---- moving ------------------------------------------------------------------------------------

IMAGE = (5, 6, 3)
MOVING = [
    (lambda **o: layers.ZeroPadding2D(**o), lambda x: reference.pad2d(x, 1), IMAGE),
    (lambda **o: layers.ZeroPadding2D(2, **o), lambda x: reference.pad2d(x, 2), IMAGE),
    (lambda **o: layers.ZeroPadding2D((0, 2), **o), lambda x: reference.pad2d(x, (0, 2)), IMAGE),
    (
        lambda **o: layers.ZeroPadding2D(((1, 2), (3, 0)), **o),
        lambda x: reference.pad2d(x, ((1, 2), (3, 0))),
        IMAGE,
    ),
    (lambda **o: layers.Cropping2D(**o), lambda x: x, IMAGE),
    (lambda **o: layers.Cropping2D(1, **o), lambda x: x[:, 1:-1, 1:-1], IMAGE),
    (lambda **o: layers.Cropping2D([1, (0, 2)], **o), lambda x: x[:, 1:-1, :-2], IMAGE),
    (lambda **o: layers.Permute((2, 1), **o), lambda x: x.transpose(0, 2, 1), (4, 7)),
    (lambda **o: layers.Permute([3, 1, 2], **o), lambda x: x.transpose(0, 3, 1, 2), IMAGE),
    (lambda **o: layers.Permute((1, 2, 3), **o), lambda x: x, IMAGE),
    (lambda **o: layers.RepeatVector(3, **o), lambda x: np.repeat(x[:, None], 3, 1), (5,)),
]


@pytest.mark.parametrize("n", [1, 40])
@pytest.mark.parametrize(("make", "function", "shape"), MOVING)
def test_values_and_shapes(make, function, shape, n, dtype, rng):
    x = rng.normal(size=(n, *shape)).astype(dtype)
    right = function(x)
    layer = make(dtype=np.dtype(dtype).name)
    assert layer.compute_output_shape((None, *shape)) == (None, *right.shape[1:])
    np.testing.assert_array_equal(layer(x), right)
    again = type(layer).from_config(layer.get_config())
    assert again.get_config() == layer.get_config()
    model = Sequential([Input(shape, dtype=np.dtype(dtype).name), again])
    y = model.predict(x)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, right)


@pytest.mark.parametrize(("make", "function", "shape"), MOVING[:7])
def test_channels_first(make, function, shape, rng):
    x = rng.normal(size=(2, *shape)).astype(np.float32)
    y = make(data_format="channels_first")(to_first(x))
    np.testing.assert_array_equal(to_last(y), function(x))


def network() -> Model:
    x = Input((6, 5, 2))
    y = layers.ZeroPadding2D(((1, 0), (0, 2)))(x)
    y = layers.Conv2D(4, 3, activation="tanh")(y)
    y = layers.Cropping2D(((1, 0), (0, 1)))(y)
    y = layers.Permute((3, 1, 2))(y)
    y = layers.Dense(3, activation="tanh")(y)
    y = layers.Permute((2, 3, 1))(y)
    y = layers.Dense(5)(layers.Flatten()(y))
    y = layers.Permute((2, 1))(layers.RepeatVector(3)(y))
    return Model(x, layers.Dense(5, activation="softmax")(layers.Flatten()(y)))


def test_both_schedules_train_alike():
    expected, logs, _ = trained(network, False, dtype="float64")
    weights, tiled_logs, step = trained(network, True, dtype="float64")
    tiled = [one.kernel for one in step.program.steps if one.tiled]
    # Each with its gradient, but for the first padding, of which nobody needs one.
    assert (tiled.count("pad2d"), tiled.count("permute"), tiled.count("expand")) == (3, 6, 1)
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.ZeroPadding2D(-1), "padding to be at least 0, got -1"),
        (lambda: layers.ZeroPadding2D((1, 2, 3)), "padding to be an integer, a pair or"),
        (lambda: layers.ZeroPadding2D("same"), "padding to be an integer or two"),
        (lambda: layers.ZeroPadding2D(1, "HWC"), "data_format to be one of"),
        (lambda: layers.ZeroPadding2D()(np.ones((2, 3))), r"shape \(N, H, W, C\), got \(2, 3\)"),
        (lambda: layers.Cropping2D(1.5), "cropping to be an integer or two"),
        (lambda: layers.Cropping2D(2)(np.ones((1, 4, 9, 1))), "leaves a part of 4 x 9 pixels"),
        (lambda: layers.Permute((0, 1)), "each of dims to be at least 1, got 0"),
        (lambda: layers.Permute((1, 3)), r"dims that are 1 .. 2 in some order, got \(1, 3\)"),
        (lambda: layers.Permute(2), r"dims such as \(2, 1\), got 2"),
        (lambda: layers.Permute((2, 1))(np.ones((1, 2, 3, 4))), "2 axes besides the batch"),
        (lambda: layers.RepeatVector(0), "n to be at least 1, got 0"),
        (lambda: layers.RepeatVector(2)(np.ones((1, 2, 3))), r"shape \(N, features\)"),
    ],
)
def test_what_does_not_fit_is_said(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---- rescaling by channel ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scale", "offset"),
    [([0.5, 2, -3], [1, 0.25, 0]), ((0.5, 2, -3), 1.5), (2, np.array([1.0, 2, 3]))],
)
def test_rescaling_with_numbers_for_each_channel(scale, offset, dtype):
    pixels = np.random.default_rng(0).integers(0, 256, (20, 4, 5, 3), dtype=np.uint8)
    layer = layers.Rescaling(scale, offset, dtype=np.dtype(dtype).name)
    right = pixels * np.asarray(scale, float) + np.asarray(offset, float)
    assert layer.weights == []
    np.testing.assert_array_equal(layer(pixels), right.astype(dtype))
    again = layers.Rescaling.from_config(layer.get_config())
    model = Sequential([Input((4, 5, 3), dtype=np.dtype(dtype).name), again])
    for n in (1, 20):
        np.testing.assert_array_equal(model.predict(pixels[:n]), right[:n].astype(dtype))


def test_rescaling_needs_as_many_numbers_as_channels():
    for scale, offset, name in (([1, 2], 0, "scale"), (1, [1, 2], "offset")):
        with pytest.raises(ValueError, match=rf"shape \(N, ..., 2\), as many as {name} has"):
            layers.Rescaling(scale, offset)(np.ones((1, 2, 2, 3)))
    with pytest.raises(TypeError, match="scale to be a number"):
        layers.Rescaling(["a"])


# ---- normalisation by a data set ---------------------------------------------------------------

DATA = np.random.default_rng(1).normal(3, 2, (2500, 3, 4, 2)) * [1, 5]
AXES = [-1, None, 1, 2, (1, 3), (2, 3), [1, 2, 3], (-1,)]


def measured(axis):
    kept = () if axis is None else axis if isinstance(axis, tuple | list) else (axis,)
    over = tuple(a for a in range(4) if a not in [k % 4 for k in kept])
    return DATA.mean(over, keepdims=True), DATA.var(over, keepdims=True)


@pytest.mark.parametrize("axis", AXES)
def test_normalization_measures_a_data_set(axis, dtype):
    name = np.dtype(dtype).name
    mean, variance = measured(axis)
    right = (DATA - mean) / np.sqrt(variance)
    tolerance = 1e-5 if dtype == np.float32 else 1e-12
    for data in (
        DATA,
        [DATA[:700], DATA[700:701], DATA[701:]],
        ((DATA[i::2], None) for i in range(2)),
    ):
        layer = layers.Normalization(axis, dtype=name)
        layer.adapt(data)
        np.testing.assert_allclose(layer(DATA), right, tolerance, tolerance)
        weights = layer.get_weights()
        np.testing.assert_allclose(weights[0], mean.squeeze(), tolerance, tolerance)
        np.testing.assert_allclose(weights[1], variance.squeeze(), tolerance, tolerance)
        assert layer.trainable_weights == []
    inverse = layers.Normalization(axis, *weights, invert=True, dtype=name)
    np.testing.assert_allclose(inverse(right), DATA, 10 * tolerance, 10 * tolerance)
    assert inverse.weights == []
    model = Sequential([Input((3, 4, 2), dtype=name), layer, inverse])
    for n in (1, 40):
        found = model.predict(DATA[:n])
        np.testing.assert_allclose(found, DATA[:n], 10 * tolerance, 10 * tolerance)


def test_normalization_by_what_is_given():
    x = DATA[:5].astype(np.float32)
    np.testing.assert_allclose(layers.Normalization(None, 3, 4)(x), (x - 3) / 2, 1e-5, 1e-6)
    layer = layers.Normalization(mean=[1, 2], variance=[4, 9])
    right = (x - [1, 2]) / [2, 3]
    np.testing.assert_allclose(layer(x), right, 1e-5, 1e-6)
    again = layers.Normalization.from_config(layer.get_config())
    np.testing.assert_array_equal(again(x), layer(x))
    # Fewer axes than those that are kept: they fit from the right, as NumPy's.
    wide = layers.Normalization((2, 3), mean=[1, 2], variance=[4, 9])
    np.testing.assert_allclose(wide(x), right, 1e-5, 1e-6)


def test_a_constant_does_not_become_infinite():
    layer = layers.Normalization()
    layer.adapt(np.full((5, 2), 3.0))
    np.testing.assert_allclose(layer(np.array([[3.0, 3 + 1e-6]])), [[0, 10]], rtol=0.2)


def test_a_second_measure_replaces_the_first_also_in_a_model():
    layer = layers.Normalization()
    layer.adapt(DATA[:10])
    model = Sequential([Input((3, 4, 2)), layer])
    model.predict(DATA[:3])
    layer.adapt(DATA)
    mean, variance = measured(-1)
    right = (DATA[:3] - mean) / np.sqrt(variance)
    np.testing.assert_allclose(model.predict(DATA[:3]), right, 1e-4, 1e-5)


def normalized() -> Sequential:
    first = layers.Normalization(mean=[100, 120, 90], variance=[4000, 5000, 6000])
    return Sequential(
        [
            Input((6, 5, 3)),
            first,
            layers.Rescaling([1, 0.5, 2], 0.1),
            layers.Conv2D(4, 3, activation="tanh"),
            layers.Flatten(),
            layers.Dense(5, activation="softmax"),
        ]
    )


def test_normalized_pixels_train_alike_with_both_schedules():
    expected, logs, _ = trained(normalized, False, dtype="float64", pixels=True)
    weights, tiled_logs, step = trained(normalized, True, dtype="float64", pixels=True)
    tiled = [one.kernel for one in step.program.steps if one.tiled]
    assert tiled.count("tile_channel_affine") == 2
    for a, b in zip(weights, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=1e-9)
    assert tiled_logs == pytest.approx(logs, abs=1e-10)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: layers.Normalization(mean=1), "mean and variance, or neither, got no variance"),
        (lambda: layers.Normalization(0)(DATA), "an axis other than that of the samples"),
        (lambda: layers.Normalization(4)(DATA), "axis between -4 and 3, got 4"),
        (lambda: layers.Normalization(mean=[1, 2, 3], variance=1)(DATA), r"mean that fits \(2,\)"),
        (lambda: layers.Normalization(mean=0, variance=1).adapt(DATA), "a mean that was given"),
        (lambda: layers.Normalization().adapt([]), "data to measure, got none"),
        (lambda: layers.Normalization().adapt(3), "an array or an iterable of batches, got 3"),
        (lambda: layers.Normalization().adapt([DATA, DATA[:, :2]]), "data of shape"),
    ],
)
def test_what_normalization_does_not_take_is_said(make, message):
    with pytest.raises((ValueError, TypeError), match=message):
        make()


# ---- on a GPU ----------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [network, normalized])
def test_a_gpu_trains_alike(cp, make):
    states = []
    for where in ("cpu", "cuda"):
        utils.set_random_seed(1)
        model = make()
        x = np.random.default_rng(0).random((20, *model.input_shape[1:]), np.float32)
        model.compile(optimizers.SGD(0.1), "sparse_categorical_crossentropy")
        model.fit(x, np.arange(20) % 5, batch_size=8, epochs=2, verbose=0, device=where)
        states.append([v.numpy() for v in model.trainable_weights])
    for a, b in zip(*states, strict=True):
        np.testing.assert_allclose(a, b, 5e-5, 5e-5)


@pytest.mark.parametrize(
    "make",
    [
        lambda: layers.ZeroPadding2D(),
        lambda: layers.Cropping2D(1),
        lambda: layers.Permute((3, 2, 1)),
        lambda: layers.Rescaling([1, 2], [3, 4]),
        lambda: layers.Normalization(mean=[1, 2], variance=[3, 4]),
        lambda: layers.Dropout(0.5, seed=3),
        lambda: layers.SpatialDropout2D(0.5, seed=3),
        lambda: layers.GaussianNoise(0.5, seed=3),
    ],
)
def test_arrays_on_a_gpu(cp, make):
    x = DATA[:7].astype(np.float32)
    here, there = make(), make()
    for _ in range(2):
        right = here(x, training=True)
        y = there(cp.asarray(x), training=True)
        np.testing.assert_allclose(cp.asnumpy(y), right, rtol=1e-6, atol=1e-5)
