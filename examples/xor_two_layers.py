"""Two layers learn XOR, which one neuron cannot: the hidden layer makes it linearly separable."""

from __future__ import annotations

import sys

import numpy as np

import convkit
from convkit import layers

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], dtype=np.float32)
TARGETS = np.array([[0], [1], [1], [0]], dtype=np.float32)


def main() -> int:
    convkit.utils.set_random_seed(0)
    model = convkit.Sequential(
        [
            layers.Input((2,)),
            layers.Dense(8, activation="tanh"),
            layers.Dense(1, activation="sigmoid"),
        ]
    )
    optimizer = convkit.optimizers.Adam(learning_rate=0.05)
    model.compile(loss="binary_crossentropy", optimizer=optimizer)
    model.fit(INPUTS, TARGETS, epochs=300, batch_size=4, verbose=0)

    probabilities = model.predict(INPUTS, verbose=0)
    print("x1 x2  target  output")
    for (x1, x2), target, output in zip(INPUTS, TARGETS[:, 0], probabilities[:, 0], strict=True):
        print(f" {x1:g}  {x2:g}  {target:>6g}  {output:.3f}")
    solved = np.array_equal(probabilities > 0.5, TARGETS > 0.5)
    print("XOR is solved." if solved else "XOR is not solved.")
    return 0 if solved else 1


if __name__ == "__main__":
    sys.exit(main())
