"""Pickles and copies of models and optimizers: as files, without being files."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from convkit import Input, Model, Sequential, layers, losses, ops, optimizers, registered, schedules

WAYS = {
    "pickle": lambda value: pickle.loads(pickle.dumps(value)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


class Scaled(layers.Layer):
    """A layer that nobody registered."""

    def build(self, input_shape):
        self.factor = self.add_weight("factor", input_shape[1:], "ones")

    def call(self, x):
        return ops.multiply(x, self.factor)


def squared(y_true, y_pred):
    return losses.MeanSquaredError().call(y_true, y_pred)


@pytest.fixture
def data():
    rng = np.random.default_rng(0)
    return rng.random((40, 6, 6, 1), np.float32), rng.random((40, 3), np.float32)


def trained(data) -> Model:
    x = Input((6, 6, 1))
    y = layers.Dropout(0.3)(layers.Flatten()(Scaled()(layers.Conv2D(2, 3)(x))))
    model = Model(x, layers.Dense(3)(y))
    model.compile(optimizers.Adam(schedules.CosineDecay(0.01, 50)), squared)
    model.fit(*data, epochs=2, verbose=0)
    return model


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_predicts_and_goes_on_training_as_the_model_does(data, way):
    model = trained(data)
    other = way(model)
    assert type(other) is Model
    assert [layer.name for layer in other.layers] == [layer.name for layer in model.layers]
    assert other.optimizer.iterations is not model.optimizer.iterations
    np.testing.assert_array_equal(other.predict(data[0]), model.predict(data[0]))
    for one in (model, other):
        one.fit(*data, epochs=2, shuffle=False, verbose=0)
    np.testing.assert_array_equal(other.predict(data[0]), model.predict(data[0]))
    assert registered.function("Scaled") is None


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_models_that_are_not_built_or_not_compiled(way):
    waiting = way(Sequential([layers.Dense(3)]))
    assert not waiting.built
    built = Sequential([Input((4,)), layers.Dense(3)])
    other = way(built)
    assert other.optimizer is None
    np.testing.assert_array_equal(other.get_weights()[0], built.get_weights()[0])


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_copy_of_an_optimizer_is_a_new_one_with_its_arguments(data, way):
    optimizer = trained(data).optimizer
    other = way(optimizer)
    assert other.get_config() == optimizer.get_config()
    assert int(optimizer.iterations.host()[0]) == 4
    assert int(other.iterations.host()[0]) == 0


def test_a_class_that_is_lent_is_known_for_a_while():
    config = {"class_name": "Scaled", "config": {"name": "it"}}
    with pytest.raises(ValueError, match="register it first"):
        registered.made(config)
    with registered.lent({"Scaled": Scaled}):
        assert isinstance(registered.made(config), Scaled)
    with pytest.raises(ValueError, match="register it first"):
        registered.made(config)
