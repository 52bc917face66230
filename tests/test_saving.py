"""Whole models in files: what comes back, training that goes on, and files that are not whole."""

from __future__ import annotations

import json
import os
import signal
from typing import Any

import fake_cupy
import numpy as np
import pytest
from devices import DEVICES
from processes import run_python

import convkit
from convkit import (
    constraints,
    device,
    initializers,
    layers,
    losses,
    metrics,
    models,
    ops,
    optimizers,
    registered,
    regularizers,
    schedules,
)
from convkit.models import Model, Sequential, files, load_model, saving
from convkit.structure import flatten

CLASSES = 3
RNG = np.random.default_rng(5)
POINTS = RNG.normal(size=(20, 5)).astype(np.float32)
LABELS = RNG.integers(0, CLASSES, 20)


def network(optimizer: Any = "adam") -> Sequential:
    model = Sequential(
        [
            layers.Input((5,)),
            layers.Dense(6, activation="relu"),
            layers.BatchNormalization(),
            layers.Dropout(0.3),
            layers.Dense(CLASSES, activation="softmax"),
        ]
    )
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def bits(model) -> dict[str, bytes]:
    """All that a file holds of a model, by its keys."""
    return {key: variable.host().tobytes() for key, variable in saving.variables(model).items()}


def again(model, folder, **options):
    """The model from a file that it was saved to."""
    path = folder / "model.safetensors"
    model.save(path)
    return load_model(path, **options)


def same(model, folder, *inputs):
    """A model like this one, from a file, when it is seen to predict the same bits."""
    given = list(inputs) if len(inputs) > 1 else inputs[0]
    loaded = again(model, folder)
    assert type(loaded) is type(model)
    assert loaded.name == model.name
    assert bits(loaded) == bits(model)
    assert plainly(loaded) == plainly(model)
    expected, found = model.predict(given), loaded.predict(given)
    if isinstance(expected, dict):
        assert list(expected) == list(found)
    for one, other in zip(flatten(expected), flatten(found), strict=True):
        np.testing.assert_array_equal(one, other)
    return loaded


def plainly(made) -> str:
    """A configuration as a file holds it, in which tuples are lists."""
    return json.dumps(made.get_config())


@pytest.fixture
def register():
    """`convkit.models.register`, undone after the test."""
    before = dict(registered._things)
    yield models.register
    registered._things.clear()
    registered._things.update(before)


# ---- layers and graphs ---------------------------------------------------------------------------

# For each layer: the shape of an input (or of several), and how it is made.
IMAGE = (6, 6, 2)
LAYERS: dict[str, tuple[Any, Any]] = {
    "ELU": (IMAGE, lambda: layers.ELU(0.5)),
    "GELU": (IMAGE, lambda: layers.GELU(approximate=True)),
    "Activation": (IMAGE, lambda: layers.Activation(ops.tanh)),
    "Add": ([IMAGE, IMAGE], layers.Add),
    "Average": ([IMAGE, IMAGE], layers.Average),
    "AveragePooling2D": (IMAGE, lambda: layers.AveragePooling2D((2, 3), padding="same")),
    "BatchNormalization": (IMAGE, lambda: layers.BatchNormalization(momentum=0.5, center=False)),
    "Concatenate": ([IMAGE, IMAGE], lambda: layers.Concatenate(axis=1)),
    "Conv2D": (
        IMAGE,
        lambda: layers.Conv2D(
            4,
            (3, 2),
            strides=2,
            padding="same",
            activation="relu",
            use_bias=False,
            kernel_initializer=initializers.HeNormal(seed=3),
            kernel_regularizer=regularizers.L1L2(0.1, 0.2),
            kernel_constraint=constraints.MaxNorm(2),
        ),
    ),
    "Conv2DTranspose": (IMAGE, lambda: layers.Conv2DTranspose(3, 2, strides=2)),
    "Cropping2D": (IMAGE, lambda: layers.Cropping2D(((1, 2), (0, 1)))),
    "Dense": (IMAGE, lambda: layers.Dense(4, bias_initializer="ones", trainable=False)),
    "DepthwiseConv2D": (IMAGE, lambda: layers.DepthwiseConv2D(3, depth_multiplier=2)),
    "Dropout": (IMAGE, lambda: layers.Dropout(0.4)),
    "Flatten": (IMAGE, layers.Flatten),
    "GaussianNoise": (IMAGE, lambda: layers.GaussianNoise(0.4)),
    "GlobalAveragePooling2D": (IMAGE, lambda: layers.GlobalAveragePooling2D(keepdims=True)),
    "GlobalMaxPooling2D": (IMAGE, layers.GlobalMaxPooling2D),
    "Hardswish": (IMAGE, layers.Hardswish),
    "LayerNormalization": (IMAGE, lambda: layers.LayerNormalization(epsilon=0.1)),
    "LeakyReLU": (IMAGE, lambda: layers.LeakyReLU(0.25)),
    "MaxPooling2D": (IMAGE, lambda: layers.MaxPooling2D(3, strides=1)),
    "Maximum": ([IMAGE, IMAGE], layers.Maximum),
    "Minimum": ([IMAGE, IMAGE], layers.Minimum),
    "Multiply": ([IMAGE, IMAGE], layers.Multiply),
    "Normalization": (IMAGE, lambda: layers.Normalization(mean=[1, 2], variance=[3, 4])),
    "PReLU": (IMAGE, lambda: layers.PReLU("uniform", shared_axes=[1, 2])),
    "Permute": (IMAGE, lambda: layers.Permute((3, 1, 2))),
    "RandomContrast": (IMAGE, lambda: layers.RandomContrast((0.1, 0.2))),
    "RandomCrop": (IMAGE, lambda: layers.RandomCrop(4, 5)),
    "RandomFlip": (IMAGE, lambda: layers.RandomFlip("horizontal")),
    "RandomRotation": (IMAGE, lambda: layers.RandomRotation(0.1, seed=4)),
    "RandomTranslation": (IMAGE, lambda: layers.RandomTranslation(0.1, (-0.2, 0.1))),
    "RandomZoom": (IMAGE, lambda: layers.RandomZoom((-0.1, 0.1))),
    "ReLU": (IMAGE, lambda: layers.ReLU(negative_slope=0.25)),
    "RepeatVector": ((5,), lambda: layers.RepeatVector(3)),
    "Rescaling": (IMAGE, lambda: layers.Rescaling(0.5, offset=-1)),
    "Reshape": (IMAGE, lambda: layers.Reshape((3, -1))),
    "SeparableConv2D": (IMAGE, lambda: layers.SeparableConv2D(3, 3, activation=ops.relu)),
    "SiLU": (IMAGE, layers.SiLU),
    "Softmax": (IMAGE, layers.Softmax),
    "SpatialDropout2D": (IMAGE, lambda: layers.SpatialDropout2D(0.3)),
    "Subtract": ([IMAGE, IMAGE], layers.Subtract),
    "UpSampling2D": (IMAGE, lambda: layers.UpSampling2D((2, 1), interpolation="bilinear")),
    "ZeroPadding2D": (IMAGE, lambda: layers.ZeroPadding2D(((1, 2), (0, 1)))),
}
NO_LAYERS = ("ArrayLayer", "Input", "InputLayer", "Layer")


def test_no_layer_is_forgotten():
    classes = {getattr(layers, name).__name__ for name in layers.__all__}
    assert classes - set(NO_LAYERS) == set(LAYERS)


@pytest.mark.parametrize("name", LAYERS)
def test_every_layer_comes_back(name, tmp_path):
    shapes, make = LAYERS[name]
    shapes = shapes if isinstance(shapes, list) else [shapes]
    inputs = [layers.Input(shape) for shape in shapes]
    layer = make()
    model = Model(inputs, layer(inputs if len(inputs) > 1 else inputs[0]))
    for weight in model.weights:
        weight.assign(RNG.uniform(0.5, 1, weight.shape))
    loaded = same(model, tmp_path, *(RNG.normal(size=(3, *s)).astype(np.float32) for s in shapes))
    assert type(loaded.layers[-1]) is type(layer)
    assert loaded.layers[-1].trainable is layer.trainable
    assert plainly(loaded.layers[-1]) == plainly(layer)


@pytest.mark.parametrize(
    "make",
    [
        lambda: models.lenet(),
        lambda: models.mlp((5,), 3, (4, 4, 1), dropout=0.5),
        lambda: models.unet(2, (16, 16, 1), filters=2, depth=2, batch_norm=True),
        lambda: models.resnet(18, 4, (32, 32, 3), filters=2),
        lambda: models.mobilenet(0.125, 4, (32, 32, 3)),
    ],
)
def test_networks_come_back(make, tmp_path):
    model = make()
    shape = model.input_shape[1:]
    same(model, tmp_path, RNG.normal(size=(2, *shape)).astype(np.float32))


def test_graphs_with_several_inputs_and_outputs_come_back_in_their_order(tmp_path):
    # In another order than that of the letters, which a file must not bring them into.
    b, a = layers.Input((4,), name="b"), layers.Input((3,), name="a")
    both = layers.Concatenate()([layers.Dense(4)(b), layers.Dense(2)(a)])
    z, y = layers.Dense(2, name="z_layer")(both), layers.Dense(1, name="y_layer")(both)
    x = {"b": RNG.normal(size=(3, 4)), "a": RNG.normal(size=(3, 3))}
    named = Model({"b": b, "a": a}, {"z": z, "y": y})
    named.compile("sgd", {"y": "mse", "z": "mae"}, loss_weights={"z": 2.0}, metrics={"z": ["mse"]})
    loaded = same(named, tmp_path, x)
    assert loaded.input_names == ["b", "a"] and loaded.output_names == ["z", "y"]
    targets = {"y": np.ones((3, 1)), "z": np.zeros((3, 2))}
    assert named.evaluate(x, targets, verbose=0) == loaded.evaluate(x, targets, verbose=0)
    listed = Model([b, a], [z, y, both])
    same(listed, tmp_path, *x.values())
    nested = Model([b, a], {"second": listed([b, a])[1], "first": listed([b, a])[0]})
    assert list(same(nested, tmp_path, *x.values()).outputs) == ["second", "first"]


def test_shared_layers_and_models_in_models_come_back(tmp_path):
    x = RNG.normal(size=(3, 4)).astype(np.float32)
    shared, source = layers.Dense(4, name="shared"), layers.Input((4,))
    inner = Model(source, shared(layers.Dense(4)(source)), name="inner")
    small = Sequential([layers.Dense(4, activation="tanh"), shared], name="small")
    p = layers.Input((4,))
    # The layer stands in two models and beside them, and one of the models in two places.
    outer = Model(p, layers.Add()([inner(p), inner(small(p)), shared(shared(p))]))
    loaded = same(outer, tmp_path, x)
    assert len(loaded.weights) == len(outer.weights) == 6
    one = loaded.get_layer("shared")
    assert loaded.get_layer("inner").get_layer("shared") is one
    assert loaded.get_layer("small").get_layer("shared") is one
    outer.compile("adam", "mse")
    loaded = again(outer, tmp_path)
    for model in (outer, loaded):
        model.fit(x, x, epochs=2, shuffle=False, verbose=0)
    assert bits(outer) == bits(loaded)
    clone = models.clone_model(outer)
    assert len(clone.weights) == 6
    clone.set_weights(outer.get_weights())
    np.testing.assert_array_equal(clone.predict(x), outer.predict(x))
    deep = Sequential(
        [layers.Input((4,)), Sequential([Sequential([layers.Dense(2)])]), outer_of(2)]
    )
    same(deep, tmp_path, x)


def outer_of(size: int) -> Model:
    source = layers.Input((size,))
    return Model(source, layers.Dense(3)(source))


def test_models_that_begin_inside_others_come_back(tmp_path):
    whole = Sequential([layers.Input((5,)), layers.Dense(4), layers.ReLU(), layers.Dense(2)])
    tail = Model(whole.layers[1].output, whole.outputs)
    same(tail, tmp_path, RNG.normal(size=(3, 4)).astype(np.float32))


def test_frozen_parts_stay_frozen(tmp_path):
    inner = Sequential([layers.Input((4,)), layers.Dense(3, name="a"), layers.Dense(3, name="b")])
    inner.get_layer("a").trainable = False
    model = Sequential([layers.Input((4,)), inner, layers.Dense(2, name="c", trainable=False)])
    loaded = same(model, tmp_path, np.ones((2, 4), np.float32))
    assert [v.name for v in loaded.trainable_weights] == ["b/kernel", "b/bias"]


def test_precision_is_kept(tmp_path):
    before = convkit.config.floatx()
    convkit.config.set_floatx("float64")
    try:
        model = network()
    finally:
        convkit.config.set_floatx(before)
    loaded = same(model, tmp_path, POINTS.astype(np.float64))
    assert loaded.dtype == loaded.predict(POINTS).dtype == "float64"


# ---- what is one's own ---------------------------------------------------------------------------


class Scale(layers.Layer):
    def __init__(self, first: float = 1.0, inner: Any = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.first = first
        self.inner = inner

    def build(self, input_shape):
        self.factor = self.add_weight("factor", input_shape[1:], initializers.Constant(self.first))

    def call(self, x):
        y = ops.multiply(x, self.factor)
        return y if self.inner is None else self.inner(y)


class Shifted(optimizers.SGD):
    def __init__(self, learning_rate=0.1, **options):
        super().__init__(2 * learning_rate, **options)
        self.given = learning_rate

    def get_config(self):
        return {**super().get_config(), "learning_rate": self._rate / 2}


class Halving(schedules.LearningRateSchedule):
    def __init__(self, initial):
        self.initial = initial

    def __call__(self, step):
        return self.initial / 2**step


class AllOnes(initializers.Initializer):
    def __call__(self, shape, dtype="float32"):
        return np.ones(shape, dtype)


class Cubes(losses.Loss):
    name = "cubes"

    def call(self, y_true, y_pred):
        return ops.mean(ops.absolute(ops.subtract(y_true, y_pred)), axis=-1)


class Worst(metrics.Metric):
    name = "worst"

    def call(self, y_true, y_pred):
        return ops.max(ops.absolute(ops.subtract(y_true, y_pred)), axis=-1)


def squash(x):
    return ops.multiply(x, ops.sigmoid(x))


def distance(y_true, y_pred):
    return ops.mean(ops.square(ops.subtract(y_true, y_pred)), axis=-1)


def by_steps(step):
    return 0.1 / (step + 1)


def tenths(shape, dtype="float32"):
    return np.full(shape, 0.1, dtype)


OWN = (Scale, Halving, AllOnes, Cubes, Worst, squash, distance, by_steps, tenths, Shifted)


def own(optimizer: Any, loss: Any, chosen: Any) -> Sequential:
    model = Sequential(
        [
            layers.Input((5,)),
            Scale(0.5, layers.Dense(5, name="inside"), name="scale"),
            layers.Dense(5, activation=squash, kernel_initializer=tenths),
            layers.Dense(5, kernel_initializer=AllOnes()),
        ]
    )
    model.compile(optimizer, loss, metrics=chosen)
    return model


@pytest.mark.parametrize(
    ("optimizer", "loss", "chosen"),
    [
        (optimizers.SGD(Halving(0.5)), Cubes(), [Worst()]),
        (optimizers.Adam(by_steps), distance, [distance, "mae"]),
        (Shifted(), "mse", [Worst(name="bad")]),
    ],
)
def test_classes_and_functions_of_ones_own_come_back(optimizer, loss, chosen, register, tmp_path):
    for thing in OWN:
        register(thing)
    model = own(optimizer, loss, chosen)
    model.fit(POINTS, POINTS, verbose=0)
    loaded = same(model, tmp_path, POINTS)
    assert loaded.layers[0].inner.name == "inside"
    assert loaded.layers[1].activation is squash
    for one in (model, loaded):
        one.fit(POINTS, POINTS, verbose=0, shuffle=False)
    assert bits(model) == bits(loaded)
    assert model.evaluate(POINTS, POINTS, verbose=0) == loaded.evaluate(POINTS, POINTS, verbose=0)


@pytest.mark.parametrize("missing", OWN)
def test_what_was_not_registered_is_an_error_that_says_how(missing, register, tmp_path):
    given = {
        Cubes: ("sgd", Cubes(), None),
        Worst: ("sgd", "mse", [Worst()]),
        distance: ("sgd", distance, None),
        Halving: (optimizers.SGD(Halving(0.5)), "mse", None),
        by_steps: (optimizers.SGD(by_steps), "mse", None),
        Shifted: (Shifted(), "mse", None),
    }.get(missing, ("sgd", "mse", None))
    for thing in OWN:
        if thing is not missing:
            register(thing)
    path = tmp_path / "model.safetensors"
    own(*given).save(path)
    with pytest.raises(ValueError, match=rf"'{missing.__name__}'") as error:
        load_model(path)
    assert "@convkit.models.register" in str(error.value)
    register(missing)
    assert load_model(path).built


def test_names_are_registered_once(register):
    class Scale(layers.Layer):
        pass

    register(OWN[0])
    register(OWN[0])
    with pytest.raises(ValueError, match="register: expected a new name, got Scale, which is <cla"):
        register(Scale)
    for name in ("Dense", "Adam", "relu", "mse", "Sequential", "CosineDecay", "L2", "he_normal"):
        with pytest.raises(ValueError, match=f"expected a new name, got {name}, which is one of"):
            register(type(name, (), {}))
    for thing in (lambda x: x, 3):
        with pytest.raises(TypeError, match="register: expected a class or a function with a name"):
            register(thing)


def test_functions_without_a_name_cannot_be_saved(tmp_path):
    path = tmp_path / "model.safetensors"
    model = Sequential([layers.Input((5,)), layers.Dense(2, activation=lambda x: ops.relu(x))])
    with pytest.raises(TypeError, match="Dense: activation: expected a value that can be written"):
        model.save(path)
    model = outer_of(2)
    model.compile("sgd", lambda y_true, y_pred: distance(y_true, y_pred))
    with pytest.raises(TypeError, match="expected a value that can be written down"):
        model.save(path)
    model.save(path, include_optimizer=False)
    assert load_model(path).optimizer is None


def test_arguments_that_are_not_kept_are_an_error(tmp_path):
    class Forgetful(layers.Layer):
        def __init__(self, size, **kwargs):
            super().__init__(**kwargs)

        def call(self, x):
            return ops.relu(x)

    model = Sequential([layers.Input((5,)), Forgetful(3)])
    with pytest.raises(TypeError, match="Forgetful: expected its argument size to be kept"):
        model.save(tmp_path / "model.safetensors")


# ---- training that goes on -----------------------------------------------------------------------

OPTIMIZERS = {
    **{name: lambda cls=cls: cls() for name, cls in optimizers.NAMES.items()},
    "momentum": lambda: optimizers.SGD(0.1, momentum=0.9, nesterov=True),
    "centered": lambda: optimizers.RMSprop(0.01, momentum=0.5, centered=True),
    "amsgrad": lambda: optimizers.Adam(amsgrad=True, clipnorm=0.1, weight_decay=0.01),
    "averages": lambda: optimizers.Adam(0.01, use_ema=True, ema_overwrite_frequency=3),
    "cosine": lambda: optimizers.Adam(schedules.CosineDecay(0.1, 20)),
    "pieces": lambda: optimizers.SGD(schedules.PiecewiseConstantDecay([3, 5], [1.0, 0.1, 0.01])),
    "excluded": lambda: optimizers.AdamW(global_clipnorm=1.0, name="mine"),
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_goes_on_as_if_it_had_not_stopped(name, tmp_path):
    model = network(OPTIMIZERS[name]())
    model.fit(POINTS, LABELS, batch_size=6, verbose=0)
    if name == "sgd":
        model.optimizer.learning_rate = 0.03
    loaded = again(model, tmp_path)
    assert bits(loaded) == bits(model)
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    histories = []
    for one in (model, loaded):
        convkit.utils.set_random_seed(9)
        histories.append(one.fit(POINTS, LABELS, batch_size=6, epochs=2, verbose=0).history)
    assert histories[0] == histories[1]
    assert bits(loaded) == bits(model)


def test_random_layers_go_on(tmp_path):
    model = Sequential(
        [
            layers.Input((6, 6, 1)),
            layers.RandomFlip(seed=3),
            layers.RandomRotation(0.2),
            layers.GaussianNoise(0.3),
            layers.SpatialDropout2D(0.3),
            layers.Flatten(),
            Sequential([layers.Dropout(0.5, seed=1)]),
            layers.Dense(2),
        ]
    )
    model.compile("sgd", "mse")
    x, y = RNG.normal(size=(8, 6, 6, 1)), RNG.normal(size=(8, 2))
    model.fit(x, y, batch_size=3, verbose=0)
    loaded = again(model, tmp_path)
    assert bits(loaded) == bits(model)
    for one in (model, loaded):
        one.fit(x, y, batch_size=3, shuffle=False, verbose=0)
    assert bits(loaded) == bits(model)


def test_what_is_compiled_comes_back(tmp_path):
    model = network(optimizers.Adam(0.1))
    loss = losses.SparseCategoricalCrossentropy(from_logits=True)
    chosen = [metrics.SparseTopKCategoricalAccuracy(2), "accuracy"]
    model.compile(optimizers.Adam(0.1), loss, metrics=chosen)
    loaded = again(model, tmp_path)
    assert loaded.loss.get_config() == loss.get_config()
    expected = model.evaluate(POINTS, LABELS, verbose=0, return_dict=True)
    assert expected == loaded.evaluate(POINTS, LABELS, verbose=0, return_dict=True)
    assert load_model(tmp_path / "model.safetensors", compile=False).optimizer is None


def test_models_without_an_optimizer_and_weights_alone(tmp_path):
    model, path = network(), tmp_path / "model.safetensors"
    model.fit(POINTS, LABELS, verbose=0)
    model.save(path, include_optimizer=False)
    loaded = load_model(path)
    assert loaded.optimizer is None
    np.testing.assert_array_equal(loaded.predict(POINTS), model.predict(POINTS))
    other = network()
    other.load_weights(path)
    np.testing.assert_array_equal(other.predict(POINTS), model.predict(POINTS))
    model.save(path)
    other = network()
    other.load_weights(path)
    np.testing.assert_array_equal(other.predict(POINTS), model.predict(POINTS))


# ---- files ---------------------------------------------------------------------------------------


def test_files_are_those_of_safetensors_and_equal_models_make_equal_files(tmp_path):
    from safetensors import safe_open
    from safetensors.numpy import load_file

    model, path = network(), tmp_path / "model.safetensors"
    model.fit(POINTS, LABELS, verbose=0)
    model.save(path)
    arrays = load_file(path)
    assert {key: array.tobytes() for key, array in arrays.items()} == bits(model)
    np.testing.assert_array_equal(arrays["0/kernel"], model.get_weights()[0])
    with safe_open(path, "numpy") as file:
        header = json.loads(file.metadata()["convkit"])
    assert header["model"]["class_name"] == "Sequential"
    assert [one["class_name"] for one in header["model"]["config"]["layers"]] == [
        "Dense",
        "BatchNormalization",
        "Dropout",
        "Dense",
    ]
    load_model(path).save(tmp_path / "again.safetensors")
    assert path.read_bytes() == (tmp_path / "again.safetensors").read_bytes()


def changed(path, header=None, **tensors) -> None:
    """Writes a file again with another header or other arrays; None: without it."""
    given, known = files.read(path)
    given.update(tensors)
    arrays = {key: array for key, array in given.items() if array is not None}
    files.write(path, arrays, known if header is None else header(known))


def renamed(config: Any, name: str) -> Any:
    """A header whose first layer is of this class."""
    config["model"]["config"]["layers"][0]["class_name"] = name
    return config


def test_files_that_are_something_else_are_errors(tmp_path):
    path = tmp_path / "model.safetensors"
    with pytest.raises(FileNotFoundError, match=r"model\.safetensors"):
        load_model(path)
    with pytest.raises(OSError, match=str(tmp_path)):
        load_model(tmp_path)
    for content in (b"", b"PK\x03\x04", b"\x10" + bytes(7) + b"{not json at all", bytes(100)):
        path.write_bytes(content)
        with pytest.raises(ValueError, match="expected a safetensors file, got"):
            load_model(path)
    network().save(path)
    content = path.read_bytes()
    for size in (4, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(ValueError, match="expected a safetensors file, got"):
            load_model(path)
    network().save_weights(path)
    with pytest.raises(ValueError, match=r"written by model\.save, .* \(for weights alone, "):
        load_model(path)


def test_files_of_other_versions_are_errors(tmp_path):
    path = tmp_path / "model.safetensors"
    for number in (0, 2, "1", None):
        network().save(path)
        changed(path, lambda header, number=number: {**header, "format": number})
        with pytest.raises(ValueError, match=rf"expected format 1, .*, got {number!r} in"):
            load_model(path)


@pytest.mark.parametrize(
    "header",
    [
        lambda known: renamed(known, "Sequentia1"),
        lambda known: renamed(known, "os.system"),
        lambda known: renamed(known, "np"),
        lambda known: renamed(known, "__builtins__"),
        lambda known: renamed(known, "register"),
        lambda known: renamed(known, "Layer"),
        lambda known: renamed(known, "Adam"),
        lambda known: renamed(known, 3),
        lambda known: {**known, "model": {"class_name": "Dense", "config": {"units": 3}}},
        lambda known: {**known, "model": None},
        lambda known: {**known, "model": {"class_name": "Sequential", "config": {}}},
        lambda known: {**known, "model": {"class_name": "Sequential", "config": None}},
        lambda known: {**known, "compile": {"optimizer": "sgd"}},
        lambda known: {**known, "compile": {**known["compile"], "loss": 3}},
        lambda known: {"format": 1, "model": known["model"]},
    ],
)
def test_headers_that_make_no_model_are_errors(header, tmp_path):
    path = tmp_path / "model.safetensors"
    network().save(path)
    changed(path, header)
    with pytest.raises(ValueError, match=r"expected"):
        load_model(path)


def test_arrays_that_do_not_fit_are_errors(tmp_path):
    path = tmp_path / "model.safetensors"
    for key, array in (
        ("0/kernel", np.zeros((5, 7), np.float32)),
        ("0/kernel", None),
        ("5/kernel", np.zeros(3, np.float32)),
        ("optimizer/iterations", None),
        ("state/0/seed", None),
    ):
        model = network()
        model.fit(POINTS, LABELS, verbose=0)
        model.save(path)
        changed(path, **{key: array})
        with pytest.raises(ValueError, match=rf"load_model: expected .*{key.split('/')[-1]}"):
            load_model(path)


def test_nothing_is_executed(tmp_path):
    """No module is imported, and no code run, that a file names."""
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')\n")
    names = ("evil", "evil.Evil", "builtins.eval", "convkit.models.Model", "os.system")
    for name in names:
        network().save(tmp_path / name)
        changed(tmp_path / name, lambda header, name=name: renamed(header, name))
    code = f"""
import sys
import convkit.models
for name in {names}:
    try:
        convkit.models.load_model(name)
    except ValueError as error:
        print(str(error).partition(";")[0])
assert "evil" not in sys.modules
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    expected = [f"load: expected a class of convkit, got {name!r}" for name in names]
    assert done.stdout.splitlines() == expected


def test_names_of_other_formats_are_refused(tmp_path):
    for name in ("model.keras", "model.h5"):
        with pytest.raises(ValueError, match=r"save: expected a name such as model\.safetensors"):
            network().save(tmp_path / name)
    assert not list(tmp_path.iterdir())
    with pytest.raises(ValueError, match="save: expected a built model"):
        Sequential([layers.Dense(3)]).save(tmp_path / "model.safetensors")


# ---- writes that do not come to their end --------------------------------------------------------

SAVE = """
import os, resource, signal, sys
import convkit
from convkit import layers
from convkit.models import files
model = convkit.Sequential([layers.Input((50,)), layers.Dense(400)])
"""


def old_file(folder):
    path = folder / "model.safetensors"
    network().save(path)
    return path, path.read_bytes()


def test_a_disk_that_is_full_leaves_the_old_file(tmp_path):
    path, content = old_file(tmp_path)
    code = (
        SAVE
        + f"""
resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))
try:
    model.save({str(path)!r})
except OSError as error:
    print(error.filename, type(error).__name__)
"""
    )
    done = run_python(code, tmp_path)
    assert done.stdout == f"{path} OSError\n", done.stderr
    assert path.read_bytes() == content
    assert list(tmp_path.iterdir()) == [path]
    load_model(path)


@pytest.mark.parametrize(
    "moment",
    [
        "files.os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)",
        "files.os.replace = lambda *names: os.kill(os.getpid(), signal.SIGKILL)",
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_DFL)",
    ],
    ids=["before it is flushed", "before it is renamed", "while it is written"],
)
def test_a_kill_while_a_file_is_written_leaves_the_old_one(moment, tmp_path):
    path, content = old_file(tmp_path)
    done = run_python(SAVE + f"{moment}\nmodel.save({str(path)!r})\n", tmp_path)
    assert done.returncode in (-signal.SIGKILL, -signal.SIGXFSZ), done.stderr
    assert path.read_bytes() == content
    load_model(path)
    left = [one for one in tmp_path.iterdir() if one != path]
    assert len(left) == 1 and left[0].name.startswith(f".{path.name}.")
    network().save(path)  # what was left is in nobody's way
    load_model(path)


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path, content = old_file(tmp_path)
    for name in ("open", "fsync", "replace"):

        def fails(*_, **__):
            raise OSError(5, "Input/output error")

        with monkeypatch.context() as patch:
            patch.setattr(files.os, name, fails)
            with pytest.raises(OSError, match="Input/output error") as error:
                network().save(path)
            assert error.value.filename == str(path)
        assert path.read_bytes() == content
        assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    path, content = old_file(tmp_path)
    tmp_path.chmod(0o500)
    try:
        with pytest.raises(PermissionError, match=r"model\.safetensors"):
            network().save(path)
    finally:
        tmp_path.chmod(0o700)
    assert path.read_bytes() == content


def test_links_folders_and_modes(tmp_path):
    path, _ = old_file(tmp_path)
    link = tmp_path / "link.safetensors"
    link.symlink_to(path.name)
    model = outer_of(3)
    model.save(link)
    assert link.is_symlink() and bits(load_model(path)) == bits(model)
    with pytest.raises(OSError, match="expected a file to replace"):
        model.save(tmp_path)
    with pytest.raises(FileNotFoundError, match="missing"):
        model.save(tmp_path / "missing" / "model.safetensors")
    before = os.umask(0o027)
    try:
        model.save(str(path))
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o640


def test_a_file_that_is_replaced_while_it_is_read(tmp_path, monkeypatch):
    """What is read is the old file or the new one, header and arrays."""
    path, _ = old_file(tmp_path)
    parse = files._arrays

    def replaced(*arguments):
        outer_of(7).save(path)
        return parse(*arguments)

    monkeypatch.setattr(files, "_arrays", replaced)
    assert isinstance(load_model(path), Sequential)
    monkeypatch.undo()
    assert load_model(path).input_shape == (None, 7)


# ---- devices -------------------------------------------------------------------------------------


@pytest.mark.skipif("cuda_emulated" not in DEVICES, reason="no emulated device here")
def test_from_a_gpu_to_the_host_and_back(tmp_path):
    path = tmp_path / "model.safetensors"
    with device.stand_in(fake_cupy, "cuda_emulated"):
        model = network(optimizers.Adam(schedules.CosineDecay(0.1, 20), use_ema=True)).to("cuda")
        model.fit(POINTS, LABELS, batch_size=6, shuffle=False, verbose=0)
        model.save(path)
        loaded = load_model(path)
        assert loaded.device == "cpu"
        assert bits(loaded) == bits(model)
        np.testing.assert_allclose(loaded.predict(POINTS), model.predict(POINTS), rtol=1e-5)
        loaded.to("cuda")
        for one in (model, loaded):
            one.fit(POINTS, LABELS, batch_size=6, shuffle=False, verbose=0)
        assert bits(loaded) == bits(model)
        loaded.to("cpu").save(tmp_path / "host.safetensors")
        again_there = load_model(tmp_path / "host.safetensors").to("cuda")
        assert bits(again_there) == bits(model)


@pytest.mark.skipif("cuda_emulated" not in DEVICES, reason="no emulated device here")
def test_a_model_on_a_gpu_makes_the_file_that_it_makes_on_the_host(tmp_path):
    with device.stand_in(fake_cupy, "cuda_emulated"):
        model = network()
        model.save(tmp_path / "host.safetensors")
        model.to("cuda").save(tmp_path / "gpu.safetensors")
    host, gpu = ((tmp_path / f"{n}.safetensors").read_bytes() for n in ("host", "gpu"))
    assert host == gpu


def test_a_model_is_loaded_in_a_process_that_has_nothing_else(tmp_path):
    model, path = network(), tmp_path / "model.safetensors"
    model.fit(POINTS, LABELS, verbose=0)
    model.save(path)
    np.save(tmp_path / "x.npy", POINTS)
    code = f"""
import sys
import numpy as np
from convkit.models import load_model
model = load_model({str(path)!r})
print(model.predict(np.load({str(tmp_path / "x.npy")!r})).tobytes().hex())
print(model.optimizer.iterations.numpy()[-1])
"""
    done = run_python(code, tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [model.predict(POINTS).tobytes().hex(), "1"]
