"""Layers that take several inputs."""

from __future__ import annotations

from functools import reduce
from typing import Any

from convkit import geometry, ops
from convkit.layers.base import Layer


class _Merge(Layer):
    def build(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or len(input_shape) < 2:
            raise geometry.fail(self.name, "a list of at least two inputs", input_shape)
        self.built = True


class Add(_Merge):
    """The sum of several inputs of one shape: `Add()([a, b])`."""

    def call(self, x: Any) -> Any:
        return reduce(ops.add, x)


class Concatenate(_Merge):
    """Several inputs joined along an axis: `Concatenate()([a, b])`.

    Args:
        axis: that of the batch excepted.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Any) -> Any:
        return ops.concatenate(x, axis=self.axis)
