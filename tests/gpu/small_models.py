"""Networks and data of the tests on a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np
from checkers import assert_same_bits

from convkit import datasets, layers, models, utils


def small(seed: int = 3) -> models.Sequential:
    """A convolution, dropout and dense layers, on images of 8 x 8."""
    utils.set_random_seed(seed)
    model = models.Sequential(
        [
            layers.Input((8, 8, 1)),
            layers.Conv2D(4, 3, activation="relu"),
            layers.MaxPooling2D(2),
            layers.Dropout(0.2),
            layers.Flatten(),
            layers.Dense(9, activation="tanh"),
            layers.Dense(5, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def lenet(seed: int = 0) -> models.Sequential:
    utils.set_random_seed(seed)
    model = models.zoo.lenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def images(count: int = 37, dtype: Any = np.float32) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(5)
    x = rng.integers(0, 256, (count, 8, 8, 1))
    x = x if dtype == np.uint8 else x / 255
    return x.astype(dtype), rng.integers(0, 5, count)


def digits() -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """Training and test set, (N, 28, 28, 1) in 0 .. 1, for LeNet."""
    return tuple(
        (x[..., None].astype(np.float32) / 255, y.astype(np.int64))
        for x, y in datasets.digits.load_data(28)
    )


def train(model: Any, x: Any, y: Any, seed: int = 1, **options: Any) -> dict[str, list[float]]:
    utils.set_random_seed(seed)
    return model.fit(x, y, **{"batch_size": 8, "epochs": 2, "verbose": 0, **options}).history


def assert_same_state(one: Any, other: Any) -> None:
    """Weights, and all that the optimizers keep, bit for bit."""
    for a, b in zip(_state(one), _state(other), strict=True):
        assert_same_bits(a, b)


def _state(model: Any) -> list[np.ndarray]:
    return [v.numpy() for v in [*model.weights, *model.optimizer.variables]]
