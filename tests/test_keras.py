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
from convkit import activations, config, layers

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


def assert_close(entry: Any, y: Any) -> None:
    assert list(y.shape) == entry["output"]
    bound = 1e-10 if entry["dtype"] == "float64" else 2e-5  # Keras computes places in float32
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


@each_entry
def test_shapes_and_weights_are_those_of_keras(entry):
    layer = layer_of(entry)
    given = alone([(None, *shape[1:]) for shape in entry["inputs"]])
    assert layer.compute_output_shape(given) == tuples(entry["symbolic"])
    found = [(weight.name.rpartition("/")[2], list(weight.shape)) for weight in layer.weights]
    assert found == [tuple(described) for described in entry["weights"]]


@each_entry
def test_a_configuration_is_that_of_keras(entry):
    found = layer_of(entry).get_config()
    for key, expected in entry["config"].items():
        assert tuples(found[key]) == tuples(expected), key


# ---- activations ---------------------------------------------------------------------------------


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
        np.testing.assert_allclose(np.ravel(y), values, 1e-10, 1e-300)


@pytest.mark.parametrize(
    ("layer", "name"), [("GELU", "gelu"), ("SiLU", "silu"), ("Hardswish", "hard_swish")]
)
def test_layers_that_keras_has_as_functions_alone(layer, name):
    (values,) = (v for n, options, v in TABLE["activations"] if n == name and not options)
    y = getattr(layers, layer)(dtype="float64")(POINTS)
    np.testing.assert_allclose(np.ravel(y), values, 1e-10, 1e-300)


def test_every_activation_is_compared():
    compared = {name for name, _, _ in TABLE["activations"]}
    assert compared == set(activations.NAMES) - {"exp"}  # which Keras calls exponential
