"""Activations as layers of their own."""

from __future__ import annotations

from math import inf
from typing import Any

from convkit import geometry, ops
from convkit.layers.base import Layer


class ELU(Layer):
    """x where x > 0, else alpha * (exp(x) - 1).

    Args:
        alpha: a number.
    """

    def __init__(self, alpha: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.alpha = geometry.number(self.name, "alpha", alpha, -inf, inf)

    def call(self, x: Any) -> Any:
        return ops.elu(x, self.alpha)


class LeakyReLU(Layer):
    """x where x > 0, else negative_slope * x.

    Args:
        negative_slope: at least 0.
    """

    def __init__(self, negative_slope: float = 0.3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = geometry.number(self.name, "negative_slope", negative_slope, 0, inf)

    def call(self, x: Any) -> Any:
        return ops.leaky_relu(x, self.negative_slope)


class GELU(Layer):
    """x * P(z <= x) with z standard normal.

    Args:
        approximate: by tanh.
    """

    def __init__(self, approximate: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.approximate = bool(approximate)

    def call(self, x: Any) -> Any:
        return ops.gelu(x, self.approximate)


class SiLU(Layer):
    """x * sigmoid(x), also called swish."""

    def call(self, x: Any) -> Any:
        return ops.silu(x)


class Hardswish(Layer):
    """x * hard_sigmoid(x), that is x * (x / 6 + 1 / 2) between -3 and 3, 0 below, x above."""

    def call(self, x: Any) -> Any:
        return ops.hard_swish(x)
