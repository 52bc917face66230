"""This library, through its public interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from networks import Conv, Dense, Flatten, Network, Pool
from op_cases import Case

import convkit
from convkit import layers, models, ops


def set_up(threads: int) -> None:
    convkit.set_num_threads(threads)
    convkit.utils.set_random_seed(0)


def version() -> str:
    return f"convkit {convkit.__version__}"


def _model(network: Network) -> Any:
    model = models.Sequential()
    model.add(layers.Input(shape=network.input_shape))
    for layer in network.layers:
        match layer:
            case Conv(filters, size, padding, activation):
                model.add(layers.Conv2D(filters, size, padding=padding, activation=activation))
            case Pool(size, "max"):
                model.add(layers.MaxPooling2D(size))
            case Pool(size):
                model.add(layers.AveragePooling2D(size))
            case Flatten():
                model.add(layers.Flatten())
            case Dense(units, activation):
                last = layer is network.layers[-1]
                model.add(layers.Dense(units, activation="softmax" if last else activation))
    model.set_weights(network.weights())
    return model


def trainer(
    network: Network, x: np.ndarray, labels: np.ndarray, batch_size: int
) -> Callable[[], tuple[float, float]]:
    model = _model(network)
    model.compile(loss="categorical_crossentropy", optimizer="adam", metrics=["accuracy"])
    targets = convkit.utils.to_categorical(labels, network.classes)

    def epoch() -> tuple[float, float]:
        history = model.fit(x, targets, batch_size=batch_size, epochs=1, verbose=0).history
        return history["loss"][-1], history["accuracy"][-1]

    return epoch


def predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    model = _model(network)
    return lambda x: model.predict(x, batch_size=len(x), verbose=0)


def operation(case: Case, arrays: list[np.ndarray]) -> Callable[[], Any]:
    call = case.bind(ops, arrays)
    # Losses are asked for the gradient of the prediction alone, as the other engines are.
    return partial(call, needs=(False, True)) if "target" in case.names[1:2] else call
