"""By how much the results of a normalisation may be wrong."""

from __future__ import annotations

import numpy as np
import reference
from cases import Case
from checkers import gamma


class Bounds:
    """By how much a normalisation may be wrong, to the first order.

    Mean and sums of K values are taken to be wrong by gamma(K) of their terms' sizes, as plain sums
    may be (Higham, section 3.1); twice that covers the second order.
    """

    def __init__(self, case: Case, given: list, dtype: type) -> None:
        x, self.gamma, self.beta = given
        axis = case.options.get("axis", -1)
        if case.op == "batch_norm":
            self.axes = tuple(i for i in range(x.ndim) if i != axis % x.ndim)
            self.others: tuple[int, ...] = self.axes
            self.numbers = [
                reference.along(self.gamma, x, axis, 1),
                reference.along(self.beta, x, axis, 0),
            ]
        else:
            self.axes = tuple(np.arange(x.ndim)[[axis] if isinstance(axis, int) else list(axis)])
            self.others = tuple(i for i in range(x.ndim) if i not in self.axes)
            self.numbers = [
                1 if self.gamma is None else self.gamma,
                0 if self.beta is None else self.beta,
            ]
        epsilon = case.options.get("epsilon", 1e-3)
        self.dtype = dtype
        count = int(np.prod([x.shape[i] for i in self.axes]))
        self.sum = gamma(count + 8, dtype)
        self.unit = gamma(8, dtype)
        variance = x.var(axis=self.axes, keepdims=True)
        self.inverse = 1 / np.sqrt(variance + epsilon)
        self.d = np.abs(x - x.mean(axis=self.axes, keepdims=True))
        self.of_mean = self.sum * np.abs(x).mean(axis=self.axes, keepdims=True)
        of_variance = self.sum * variance + self.of_mean**2
        self.of_inverse = self.inverse * (of_variance * self.inverse**2 + self.unit)
        self.h = self.d * self.inverse
        self.of_h = self.of_mean * self.inverse + self.d * self.of_inverse + self.unit * self.h

    def mean(self, value: np.ndarray) -> np.ndarray:
        return value.mean(axis=self.axes, keepdims=True)

    def y(self) -> np.ndarray:
        factor, offset = map(np.abs, self.numbers)
        return 2 * (factor * self.of_h + self.unit * (factor * self.h + offset))

    def gradients(self, dy: np.ndarray) -> list:
        size = np.abs(dy)
        rows = gamma(int(np.prod([dy.shape[i] for i in self.others])) + 8, self.dtype)
        of_gamma = size * (self.of_h + (rows + self.unit) * self.h)
        g = size * np.abs(self.numbers[0])
        terms = g + self.mean(g) + self.h * self.mean(g * self.h)
        share = self.mean(g * self.h)
        of_share = self.mean(g * self.of_h) + (self.sum + self.unit) * share
        of_terms = (
            (self.sum + self.unit) * (g + self.mean(g)) + self.of_h * share + self.h * of_share
        )
        dx = self.inverse * of_terms + (self.of_inverse + self.unit * self.inverse) * terms
        found = [dx, of_gamma.sum(axis=self.others), (rows * size).sum(axis=self.others)]
        return [2 * bound for bound in found]
