"""Layers, activations and the arguments of constructors against Keras 3.

The numbers of Keras's losses and metrics are in `test_losses_more.py` and `test_metrics_more.py`
(made by `keras_losses_metrics.py`) and in `test_losses_metrics.py`, those of its optimizers in
`test_optimizers.py` and `test_optimizers_more.py`, those of its schedules in `test_schedules.py`.
"""

from __future__ import annotations

import inspect
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from keras_layers import POINTS, inputs_of, weights_of

import convkit
from convkit import activations, layers, optimizers

# Made by tests/keras_layers.py.
TABLE = json.loads(Path(__file__).with_name("keras_layers.json").read_text())


def tuples(value: Any) -> Any:
    """Lists as tuples, which JSON does not have."""
    if isinstance(value, list):
        return tuple(map(tuples, value))
    return {k: tuples(v) for k, v in value.items()} if isinstance(value, dict) else value


def entry_id(entry: Any) -> str:
    options = ",".join(f"{key}={value}" for key, value in entry["options"].items())
    shapes = ",".join("x".join(map(str, shape)) for shape in entry["inputs"])
    return f"{entry['class']}({options})[{shapes}]" + ("-trained" if entry["training"] else "")


each_entry = pytest.mark.parametrize("entry", TABLE["layers"], ids=entry_id)


def layer_of(entry: Any) -> layers.Layer:
    return getattr(layers, entry["class"])(**tuples(entry["options"]), dtype=entry["dtype"])


def test_every_layer_is_compared():
    there = {cls.__name__ for cls in map(vars(layers).get, layers.__all__) if isinstance(cls, type)}
    bases = {"ArrayLayer", "InputLayer", "Layer"}
    functions = {"Activation", "GELU", "Hardswish", "SiLU"}  # compared below
    assert {entry["class"] for entry in TABLE["layers"]} == there - bases - functions


def alone(values: Any) -> Any:
    return values[0] if len(values) == 1 else values


def prepared(entry: Any) -> tuple[layers.Layer, Any]:
    """The layer with the weights that Keras's had, and its inputs."""
    layer = layer_of(entry)
    x = alone([array.astype(entry["dtype"]) for array in inputs_of(entry["inputs"])])
    if isinstance(layer, layers.Normalization) and "mean" not in entry["options"]:
        layer.adapt(x)
    else:
        layer.build(alone([(None, *shape[1:]) for shape in entry["inputs"]]))
        layer.set_weights(weights_of(entry["weights"])) if entry["weights"] else None
    return layer, x


# Where Keras on TensorFlow computes in float32, or rounds an argument to it, whatever the dtype.
ROUNDED = ("LeakyReLU", "Rescaling", "UpSampling2D")


def assert_close(entry: Any, y: Any) -> None:
    assert list(y.shape) == entry["output"]
    bound = 1e-6 if entry["class"] in ROUNDED else 1e-10
    if entry["dtype"] == "float32":
        bound = 2e-5
    np.testing.assert_allclose(np.ravel(y), entry["values"], bound, bound)


@each_entry
def test_a_layer_gives_the_numbers_of_keras(entry):
    layer, x = prepared(entry)
    assert_close(entry, layer(x, training=entry["training"]))
    for weight, expected in zip(layer.weights, entry.get("after", ()), strict=False):
        np.testing.assert_allclose(np.ravel(weight), expected, 1e-10, 1e-10, err_msg=weight.name)


@each_entry
def test_in_a_model_a_layer_gives_the_numbers_of_keras(entry):
    layer, x = prepared(entry)
    inputs = alone([layers.Input(shape[1:], dtype=entry["dtype"]) for shape in entry["inputs"]])
    y = layer(inputs, training=entry["training"])
    assert y.shape == tuples(entry["symbolic"])
    if not entry["training"]:
        assert_close(entry, convkit.Model(inputs, y).predict(x))


@pytest.mark.parametrize("entry", [e for e in TABLE["layers"] if "after" in e], ids=entry_id)
def test_in_training_a_model_has_the_numbers_of_keras(entry):
    """The values by their squares, and the moving averages after a step."""
    layer, x = prepared(entry)
    inputs = layers.Input(x.shape[1:], dtype=entry["dtype"])
    model = convkit.Model(inputs, layer(inputs))
    model.compile(optimizers.SGD(0.0), "mse")
    loss = model.train_on_batch(x, np.zeros_like(x))
    bound = 1e-10 if entry["dtype"] == "float64" else 1e-5
    assert loss == pytest.approx(np.square(entry["values"]).mean(), rel=bound)
    for weight, expected in zip(layer.weights, entry["after"], strict=True):
        np.testing.assert_allclose(np.ravel(weight), expected, 1e-10, 1e-10, err_msg=weight.name)


@each_entry
def test_shapes_and_weights_are_those_of_keras(entry):
    layer = layer_of(entry)
    given = alone([(None, *shape[1:]) for shape in entry["inputs"]])
    assert layer.compute_output_shape(given) == tuples(entry["symbolic"])
    found = [[weight.name.rpartition("/")[2], list(weight.shape)] for weight in layer.weights]
    # Keras counts what `Normalization.adapt` saw among its weights.
    assert found == [described for described in entry["weights"] if described[0] != "count"]


@each_entry
def test_a_configuration_is_that_of_keras(entry):
    found = layer_of(entry).get_config()
    known = {argument[0] for argument in TABLE["signatures"]["layers"][entry["class"]]}
    for key in known & set(entry["config"]) - LEFT_OUT.get(("layers", entry["class"]), set()):
        assert matches(found[key], entry["config"][key]), key


def matches(found: Any, expected: Any) -> bool:
    """Whether a value of a configuration is Keras's; it may say more, as the seed of zeros."""
    if isinstance(expected, dict):
        return all(matches(found[key], value) for key, value in expected.items())
    if isinstance(expected, list) and not isinstance(found, (list, tuple)):
        return expected == ([] if found is None else [found])  # axes
    return bool(tuples(found) == tuples(expected))


# ---- activations ---------------------------------------------------------------------------------


def assert_close_values(name: str, y: Any, values: Any) -> None:
    # Keras rounds a slope and the square root of 2 to float32, and subtracts 1 from exp(x).
    bounds = (1e-6, 1e-8) if name in ("gelu", "leaky_relu") else (1e-10, 1e-15)
    np.testing.assert_allclose(np.ravel(y), values, *bounds)


@pytest.mark.parametrize(("name", "options", "values"), TABLE["activations"])
def test_an_activation_gives_the_numbers_of_keras(name, options, values):
    function = getattr(activations, name)
    given = [function(POINTS, **options)]
    if not options:
        assert activations.get(name) is function
        layer = layers.Activation(name, dtype="float64")
        inputs = layers.Input(POINTS.shape[1:], dtype="float64")
        given += [layer(POINTS), convkit.Model(inputs, layer(inputs)).predict(POINTS)]
    for y in given:
        assert_close_values(name, y, values)


@pytest.mark.parametrize(
    ("layer", "name"), [("GELU", "gelu"), ("SiLU", "silu"), ("Hardswish", "hard_swish")]
)
def test_layers_that_keras_has_as_functions_alone(layer, name):
    (values,) = (v for n, options, v in TABLE["activations"] if n == name and not options)
    assert_close_values(name, getattr(layers, layer)(dtype="float64")(POINTS), values)


def test_every_activation_is_compared():
    compared = {name for name, _, _ in TABLE["activations"]}
    assert compared == set(activations.NAMES) - {"exp"}  # which Keras calls exponential


# ---- arguments -----------------------------------------------------------------------------------

# Classes that convkit does not have.
NOT_HERE = {
    "callbacks": {"OrbaxCheckpoint", "ProgbarLogger", "RemoteMonitor", "SwapEMAWeights"},
    "initializers": {"STFT"},
    "losses": {"CTC", "CategoricalGeneralizedCrossEntropy", "Circle", "Tversky"},
    "metrics": {
        "Accuracy",
        "ConcordanceCorrelation",
        "MeanMetricWrapper",
        "PearsonCorrelation",
        "R2Score",
    },
    "optimizers": {
        "Adafactor",
        "Adamax",
        "Ftrl",
        "Lamb",
        "LossScaleOptimizer",
        "MultiOptimizer",
        "Muon",
        "OptimizerMap",
        "ScheduleFreeAdamW",
    },
    "regularizers": {"OrthogonalRegularizer"},
}
# Arguments that convkit does not have.
LEFT_OUT = {
    # Adapters and quantization are for models larger than these.
    ("layers", "Dense"): {"lora_rank", "lora_alpha", "quantization_config"},
    # Batches here are neither tiny nor spread over machines.
    ("layers", "BatchNormalization"): {
        "renorm",
        "renorm_clipping",
        "renorm_momentum",
        "synchronized",
    },
    ("layers", "Dropout"): {"noise_shape"},  # SpatialDropout2D is its main use
    ("layers", "ReLU"): {"max_value", "threshold"},  # Activation("relu6") is the customary one
    # A backup is replaced at once, so there is no moment when none is there.
    ("callbacks", "BackupAndRestore"): {"double_checkpoint"},
    # There are no graphs of TensorFlow or embeddings to show; `convkit.profile` measures.
    ("callbacks", "TensorBoard"): {
        "embeddings_freq",
        "embeddings_metadata",
        "profile_batch",
        "write_graph",
        "write_images",
        "write_steps_per_second",
    },
    # Every step is compiled, and many run in one go.
    ("models", "compile"): {
        "auto_scale_loss",
        "jit_compile",
        "run_eagerly",
        "steps_per_execution",
        "weighted_metrics",
    },
    ("models", "predict"): {"callbacks"},
}
# Of every optimizer: nothing here is float16, or too large for its batch.
OF_OPTIMIZERS = {"loss_scale_factor", "gradient_accumulation_steps"}
# Keras leaves these to `**kwargs`, has another order in them, or makes them for itself.
OWN_WAY = {
    ("callbacks", "CallbackList"),
    ("initializers", "Initializer"),
    ("metrics", "Metric"),  # (dtype, name) in Keras, but (name, dtype) in all its subclasses
    ("optimizers", "Optimizer"),
}
OTHER_DEFAULTS = {
    ("layers", "AveragePooling2D", "pool_size"): (2, 2),  # as that of MaxPooling2D
    ("layers", "PReLU", "alpha_initializer"): "zeros",  # which is Keras's "Zeros" too
    ("models", "fit", "x"): inspect.Parameter.empty,  # there is no default that would do
    ("models", "evaluate", "x"): inspect.Parameter.empty,
    ("models", "predict", "verbose"): 0,  # it is seldom long enough for a bar
}
SIGNATURES = [
    (room, name, arguments)
    for room, found in TABLE["signatures"].items()
    for name, arguments in found.items()
    if name not in NOT_HERE.get(room, ()) and (room, name) not in OWN_WAY
]


@pytest.mark.parametrize(("room", "name", "arguments"), SIGNATURES)
def test_arguments_have_the_names_order_and_defaults_of_keras(room, name, arguments):
    thing = getattr(convkit.Model if room == "models" else getattr(convkit, room), name)
    positional, named = accepted(thing)
    # Those by place come in Keras's order; one side may take more of them that way.
    for ours, theirs in zip(positional, [argument[0] for argument in arguments], strict=False):
        assert ours == theirs
    missing = {argument[0] for argument in arguments} - set(named)
    assert missing == LEFT_OUT.get((room, name), OF_OPTIMIZERS if room == "optimizers" else set())
    for argument, *default in arguments:
        if argument in missing:
            continue
        expected = tuples(default[0]) if default else inspect.Parameter.empty
        if argument != "name":
            expected = OTHER_DEFAULTS.get((room, name, argument), expected)
            assert named[argument] == expected, argument
        elif expected is not None and room in ("losses", "metrics"):
            assert thing.name == expected  # None stands for the class's


def accepted(thing: Any) -> tuple[list[str], dict[str, Any]]:
    """What a class or method takes by place; and what it takes by name, with the defaults: all that
    the constructors behind that of the class take too."""
    positional: list[str] | None = None
    named: dict[str, Any] = {}
    made = [thing]
    if isinstance(thing, type):
        made = [cls.__init__ for cls in thing.__mro__[:-1] if "__init__" in vars(cls)]
    for function in made:
        found = list(inspect.signature(function).parameters.values())[1:]
        if positional is None:
            positional = [p.name for p in found if p.kind is p.POSITIONAL_OR_KEYWORD]
        kinds = (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL)
        for p in found:
            if p.kind not in kinds:
                named.setdefault(p.name, p.default)
        if not any(p.kind is p.VAR_KEYWORD for p in found):
            break
    return positional or [], named
