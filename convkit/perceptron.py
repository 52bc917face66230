"""Rosenblatt's perceptron: one artificial neuron and the rule by which it learns.

Source: F. Rosenblatt, "The Perceptron: a Probabilistic Model for Information Storage and
Organization in the Brain", Psychological Review 65 (1958); convergence: A. Novikoff (1962).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit.array import refuse_device


class Perceptron:
    """A linear two-class classifier, trained by correcting its mistakes one sample at a time.

    A sample x is of the positive class when `x @ weights + bias > 0`. Training starts from zeros
    and goes through the samples in their order; after each mistake

        weights += learning_rate * (target - prediction) * x
        bias    += learning_rate * (target - prediction)

    with target and prediction 0 or 1. It ends after an epoch without a mistake: then it has
    converged, which it does for certain, in a finite number of epochs, when a hyperplane separates
    the classes. When none does, as for XOR, it never converges and stops after `max_epochs`.

    Args:
        max_epochs: at most so many passes over the samples, at least 1.
        learning_rate: above 0. Starting from zeros, it only scales the weights and the bias.

    Attributes, set by `fit`:
        weights: float64 array (features,).
        bias: float.
        converged: whether the last epoch was without a mistake.
        epochs: how many epochs it took, the last one without a mistake included.
        mistakes: list of the number of mistakes in each epoch.
    """

    weights: np.ndarray
    bias: float
    converged: bool
    epochs: int
    mistakes: list[int]

    def __init__(self, max_epochs: int = 100, learning_rate: float = 1.0) -> None:
        if isinstance(max_epochs, bool) or not isinstance(max_epochs, (int, np.integer)):
            raise TypeError(f"Perceptron: expected max_epochs to be an int, got {max_epochs!r}")
        if max_epochs < 1:
            raise ValueError(f"Perceptron: expected max_epochs of at least 1, got {max_epochs}")
        if not 0 < learning_rate < np.inf:
            raise ValueError(f"Perceptron: expected a learning_rate above 0, got {learning_rate}")
        self.max_epochs = int(max_epochs)
        self.learning_rate = float(learning_rate)

    def fit(self, x: Any, y: Any) -> Perceptron:
        """Learn from samples, forgetting what was learnt before; see the class for the rule.

        Args:
            x: samples, array-like (N, features) of finite numbers, N at least 1.
            y: labels, array-like (N,), all of them 0 or 1, or all of them -1 or 1.

        Returns:
            This perceptron.

        Raises:
            ValueError: shapes, values or labels are not as above.
        """
        x = _samples(x, "fit")
        refuse_device("Perceptron.fit", "y", y)
        labels = np.asarray(y)
        if labels.shape != (len(x),):
            raise ValueError(f"Perceptron.fit: expected y of shape ({len(x)},), got {labels.shape}")
        negative = _negative_label(labels)
        targets = (labels == 1).astype(np.int64)

        weights, bias = np.zeros(x.shape[1]), 0.0
        mistakes: list[int] = []
        while len(mistakes) < self.max_epochs and (not mistakes or mistakes[-1] > 0):
            mistakes.append(0)
            for sample, target in zip(x, targets, strict=True):
                error = int(target) - int(sample @ weights + bias > 0)
                if error:
                    weights += self.learning_rate * error * sample
                    bias += self.learning_rate * error
                    mistakes[-1] += 1

        self.weights, self.bias, self._negative = weights, bias, negative
        self.mistakes, self.epochs, self.converged = mistakes, len(mistakes), mistakes[-1] == 0
        return self

    def predict(self, x: Any) -> np.ndarray:
        """The classes of samples (N, features): int64 labels (N,), written as those of `fit`.

        Raises:
            RuntimeError: `fit` was not called.
            ValueError: x is not of the shape (N, features) that `fit` saw, or not finite.
        """
        if not hasattr(self, "weights"):
            raise RuntimeError(
                "Perceptron.predict: expected a fitted one, got one without weights; call fit first"
            )
        x = _samples(x, "predict")
        if x.shape[1] != len(self.weights):
            raise ValueError(
                f"Perceptron.predict: expected x of shape (N, {len(self.weights)}), got {x.shape}"
            )
        return np.where(x @ self.weights + self.bias > 0, 1, self._negative)

    def __repr__(self) -> str:
        text = f"Perceptron(max_epochs={self.max_epochs}, learning_rate={self.learning_rate:g})"
        if not hasattr(self, "weights"):
            return f"{text}: not trained"
        if self.converged:
            return f"{text}: converged after {_count(self.epochs, 'epoch')}"
        return (
            f"{text}: did not converge in {_count(self.epochs, 'epoch')}, "
            f"{_count(self.mistakes[-1], 'mistake')} in the last"
        )


def _samples(x: Any, method: str) -> np.ndarray:
    refuse_device(f"Perceptron.{method}", "x", x)
    try:
        samples = np.asarray(x, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(f"Perceptron.{method}: expected x to be numbers: {error}") from error
    if samples.ndim != 2 or samples.size == 0:
        raise ValueError(
            f"Perceptron.{method}: expected x of shape (N, features), got {samples.shape}"
        )
    if not np.isfinite(samples).all():
        raise ValueError(f"Perceptron.{method}: expected finite x, got NaN or infinity")
    return samples


def _negative_label(labels: np.ndarray) -> int:
    """0 or -1, whichever stands in `labels` for the negative class; 0 where there is none."""
    found = np.unique(labels).tolist()
    if set(found) <= {0, 1}:
        return 0
    if set(found) <= {-1, 1}:
        return -1
    raise ValueError(f"Perceptron.fit: expected labels 0 and 1, or -1 and 1, got {found[:5]}")


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"
