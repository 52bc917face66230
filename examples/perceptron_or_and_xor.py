"""A perceptron learns OR and AND, and cannot learn XOR: no straight line separates its classes."""

from __future__ import annotations

import numpy as np

from convkit import Perceptron

INPUTS = np.array([[0, 0], [0, 1], [1, 0], [1, 1]])
TARGETS = {"OR": [0, 1, 1, 1], "AND": [0, 0, 0, 1], "XOR": [0, 1, 1, 0]}


def main() -> None:
    for name, targets in TARGETS.items():
        perceptron = Perceptron(max_epochs=50).fit(INPUTS, targets)
        print(f"{name}: {perceptron}")
        w1, w2 = perceptron.weights
        print(f"  1 where {w1:g} x1 {w2:+g} x2 {perceptron.bias:+g} > 0")
        print("  x1 x2  target  prediction")
        predictions = perceptron.predict(INPUTS)
        for (x1, x2), target, prediction in zip(INPUTS, targets, predictions, strict=True):
            mark = "" if target == prediction else "  wrong"
            print(f"   {x1}  {x2}  {target:>6}  {prediction:>10}{mark}")
        print()


if __name__ == "__main__":
    main()
