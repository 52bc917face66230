"""This library, through its public interface."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from network import (
    Add,
    BatchNorm,
    Branch,
    Concatenate,
    Conv,
    Dense,
    Depthwise,
    Flatten,
    GlobalPool,
    Layer,
    Network,
    Pool,
    Upsample,
)
from op_cases import Case

import convkit
from convkit import _core, layers, models, ops


def set_up(threads: int) -> None:
    convkit.set_num_threads(threads)
    convkit.utils.set_random_seed(0)


def version() -> str:
    return f"convkit {convkit.__version__} ({_core.backend_name()})"


def model(network: Network) -> Any:
    """The deck's way: the last layer gives probabilities, and losses look behind them."""
    x = layers.Input(shape=network.input_shape)
    outputs: list[Any] = []
    y = x
    for layer, weights in zip(network.layers, network.weights_by_layer(), strict=True):
        match layer:
            case Branch(other):
                y = outputs[other]
            case Concatenate(other) | Add(other):
                y = _layer(layer)([y, outputs[other]])
            case _:
                made = _layer(layer, layer is network.layers[-1])
                y = made(y)
                for variable, value in zip(made.trainable_weights, weights, strict=True):
                    variable.assign(value)
        if isinstance(layer, BatchNorm | Add) and layer.activation:
            y = layers.Activation(layer.activation)(y)
        outputs.append(y)
    return models.Model(x, y)


def _layer(layer: Layer, last: bool = False) -> Any:
    match layer:
        case Conv(filters, size, padding, activation, stride, bias):
            return layers.Conv2D(
                filters,
                size,
                strides=stride,
                padding=size // 2 if padding == "same" else padding,
                activation="sigmoid" if last else activation,
                use_bias=bias,
            )
        case Depthwise(size, stride):
            return layers.DepthwiseConv2D(size, strides=stride, padding=size // 2, use_bias=False)
        case BatchNorm():
            return layers.BatchNormalization(momentum=layer.MOMENTUM, epsilon=layer.EPSILON)
        case Pool(size, "max"):
            return layers.MaxPooling2D(size)
        case Pool(size):
            return layers.AveragePooling2D(size)
        case GlobalPool():
            return layers.GlobalAveragePooling2D()
        case Upsample(size):
            return layers.UpSampling2D(size)
        case Concatenate():
            return layers.Concatenate()
        case Add():
            return layers.Add()
        case Flatten():
            return layers.Flatten()
        case Dense(units, activation):
            return layers.Dense(units, activation="softmax" if last else activation)


def compiled_model(network: Network) -> Any:
    """Ready for `fit`."""
    made = model(network)
    loss = "binary_crossentropy" if network.per_pixel else "categorical_crossentropy"
    made.compile(loss=loss, optimizer="adam", metrics=["accuracy"])
    return made


def wanted(network: Network, targets: np.ndarray) -> np.ndarray:
    """Targets as that model has them: labels as rows of zeros and a one."""
    if network.per_pixel:
        return targets
    return convkit.utils.to_categorical(targets, network.output_shape[-1])


def trainer(
    network: Network, x: np.ndarray, targets: np.ndarray, batch_size: int
) -> Callable[[], tuple[float, float]]:
    trained, targets = compiled_model(network), wanted(network, targets)

    def epoch() -> tuple[float, float]:
        history = trained.fit(x, targets, batch_size=batch_size, epochs=1, verbose=0).history
        return history["loss"][-1], history["accuracy"][-1]

    return epoch


def predictor(network: Network) -> Callable[[np.ndarray], np.ndarray]:
    made = model(network)
    # One image at a time has a path of its own: a function of arrays for services.
    one = made.compiled(batch_size=1) if hasattr(made, "compiled") else made.predict
    return lambda x: one(x) if len(x) == 1 else made.predict(x, batch_size=len(x), verbose=0)


def operation(case: Case, arrays: list[np.ndarray]) -> Callable[[], Any]:
    call = case.bind(ops, arrays)
    # Losses are asked for the gradient of the prediction alone, as the other engines are.
    return partial(call, needs=(False, True)) if "target" in case.names[1:2] else call
