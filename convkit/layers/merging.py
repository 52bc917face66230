"""Layers that take several inputs."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

from convkit import geometry, graph, ops
from convkit.geometry import Shape
from convkit.layers.base import Layer


class _Merge(Layer):
    def build(self, input_shape: Any) -> None:
        if not isinstance(input_shape, list) or len(input_shape) < 2:
            raise geometry.fail(self.name, "a list of at least two inputs", input_shape)


class _Elementwise(_Merge):
    """Inputs are broadcast as in NumPy, but that the first axis is always the samples': inputs with
    fewer axes get axes of one value behind it."""

    most: int | None = None  # inputs

    def build(self, input_shape: Any) -> None:
        super().build(input_shape)
        if self.most is not None and len(input_shape) > self.most:
            raise geometry.fail(self.name, f"{self.most} inputs", len(input_shape))
        if len({shape[:1] for shape in input_shape}) > 1:
            raise geometry.fail(self.name, "inputs with as many samples", input_shape)


def _aligned(inputs: Sequence[Any]) -> list[Any]:
    """The inputs with as many axes each, those of one value put in behind the samples'."""
    axes = max(len(x.shape) for x in inputs)
    found = []
    for x in inputs:
        shape: Shape = tuple(x.shape)
        missing = axes - len(shape)
        found.append(graph.reshape(x, (*shape[:1], *(1,) * missing, *shape[1:])) if missing else x)
    return found


class Add(_Elementwise):
    """The sum of several inputs: `Add()([a, b])`.

    Shapes are the same, or can be broadcast sample by sample.
    """

    def call(self, x: Any) -> Any:
        return reduce(ops.add, _aligned(x))


class Subtract(_Elementwise):
    """The first of two inputs without the second; shapes as for `Add`."""

    most = 2

    def call(self, x: Any) -> Any:
        return ops.subtract(*_aligned(x))


class Multiply(_Elementwise):
    """The product of several inputs; shapes as for `Add`."""

    def call(self, x: Any) -> Any:
        return reduce(ops.multiply, _aligned(x))


class Average(_Elementwise):
    """The mean of several inputs; shapes as for `Add`."""

    def call(self, x: Any) -> Any:
        return ops.rescale(reduce(ops.add, _aligned(x)), 1 / len(x))


class Maximum(_Elementwise):
    """The largest of several inputs, element by element; shapes as for `Add`."""

    def call(self, x: Any) -> Any:
        return reduce(ops.maximum, _aligned(x))


class Minimum(_Elementwise):
    """The smallest of several inputs, element by element; shapes as for `Add`."""

    def call(self, x: Any) -> Any:
        return reduce(ops.minimum, _aligned(x))


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
