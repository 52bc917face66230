"""A network in a module that other processes can import: what they are sent names it."""

from __future__ import annotations

import convkit
from convkit import layers


def small(shape, outputs):
    return convkit.Sequential(
        [
            layers.Input(shape),
            layers.Conv2D(4, 3, activation="relu"),
            layers.Flatten(),
            layers.Dense(outputs, activation="softmax"),
        ]
    )
