"""Layers that compute in NumPy or CuPy, with a gradient of their own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import device, geometry, graph
from convkit.geometry import Shape
from convkit.graph import Symbol
from convkit.layers.base import Layer


class ArrayLayer(Layer):
    """Base class of layers whose function and gradient are written in NumPy (CuPy on a GPU).

    Define `forward(x, *weights)` and `backward(dy, x, y, *weights)`, and `compute_output_shape`
    where the output's shape is not the input's. Weights are those that `build` made with
    `add_weight`, in that order. A model with such a layer is carried out node by node from Python,
    so it trains more slowly; a layer made of `convkit.ops` does not.

    Example:
        >>> class Cube(ArrayLayer):
        ...     def forward(self, x):
        ...         return x**3
        ...     def backward(self, dy, x, y):
        ...         return 3 * x**2 * dy
    """

    def forward(self, x: Any, *weights: Any) -> Any:
        """The output for an array (or a list of arrays) x of (n, ...): an array (n, ...)."""
        raise TypeError(f"{type(self).__name__}: a subclass of ArrayLayer must define forward")

    def backward(self, dy: Any, x: Any, y: Any, *weights: Any) -> Any:
        """The gradient of x; where there are weights (dx, dweight, ...), None for one that is 0.

        Of a list x, dx is a list.
        """
        raise TypeError(f"{type(self).__name__}: a subclass of ArrayLayer must define backward")

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for inputs of this shape, (None, ...): as the (first) input's."""
        return input_shape[0] if isinstance(input_shape, list) else tuple(input_shape)

    def call(self, x: Any) -> Any:
        several = isinstance(x, (list, tuple))
        values = list(x) if several else [x]
        if not isinstance(values[0], Symbol):
            weights = [variable.value for variable in self._variables]
            return self._checked(self.forward(x, *weights), values[0], None)
        shapes = [tuple(value.shape) for value in values]
        shape = tuple(self.compute_output_shape(shapes if several else shapes[0]))
        spec = _Function(self, len(values), several)
        symbols = [*values, *(variable.symbol for variable in self._variables)]
        return graph.call("python", spec, None, symbols, [(None, *shape[1:])], self.dtype)[0]

    def _checked(self, array: Any, beside: Any, shape: Shape | None) -> Any:
        """An array as kernels take it; an error if it is none, of another shape or elsewhere.

        Args:
            beside: an array that it has to be beside, in the host's memory or on a GPU.
            shape: None: any.
        """
        on_gpu = device.is_device_array(array)
        if not on_gpu and not isinstance(array, np.ndarray):
            raise TypeError(
                f"{self.name}: expected forward and backward to return arrays, got "
                f"{type(array).__name__}"
            )
        if on_gpu != device.is_device_array(beside):
            wanted, got = ("NumPy's", "on the GPU") if on_gpu else ("on the GPU", "NumPy's")
            raise TypeError(
                f"{self.name}: expected forward and backward to return arrays {wanted}, got {got}"
            )
        if shape is not None and tuple(array.shape) != tuple(shape):
            raise geometry.fail(self.name, f"an array of shape {tuple(shape)}", array.shape)
        if isinstance(array, np.ndarray):
            return np.ascontiguousarray(array, self.dtype)
        with device.on(device.device_of(array)):
            return array.astype(self.dtype, order="C", copy=False)


class _Function:
    """The spec of a node that calls a layer's functions."""

    def __init__(self, layer: ArrayLayer, inputs: int, several: bool) -> None:
        self.layer = layer
        self.inputs = inputs
        self.several = several

    def __call__(
        self, kernel: str, given: Sequence[Any], outputs: Sequence[Symbol | None]
    ) -> list[Any]:
        """What `forward` or `backward` returns, checked.

        Args:
            given: x and the weights; before them, backward, dy and behind them y.
            outputs: what is wanted; None where a gradient is not needed.
        """
        layer = self.layer
        if kernel == "python":
            x, weights = self._split(given)
            y = layer.forward(x, *weights)
            shape = outputs[0].shape if outputs[0] is not None else ()
            return [layer._checked(y, given[0], (given[0].shape[0], *shape[1:]))]
        dy, *rest, y = given
        x, weights = self._split(rest)
        found = layer.backward(dy, x, y, *weights)
        if not weights:
            found = (found,)
        self._check("", found, 1 + len(weights))
        if self.several:
            self._check("a list of ", found[0], self.inputs)
        dx = list(found[0]) if self.several else [found[0]]
        made: list[Any] = []
        for gradient, wanted, like in zip([*dx, *found[1:]], outputs, rest, strict=True):
            if wanted is None:
                made.append(None)
            elif gradient is None:
                made.append(_zeros_like(like))
            else:
                made.append(layer._checked(gradient, like, like.shape))
        return made

    def _check(self, what: str, found: Any, count: int) -> None:
        """Fails where these are not so many gradients."""
        several = isinstance(found, (tuple, list))
        if not several or len(found) != count:
            of = " for x" if what else " (of x and each weight)"
            got = f"{len(found)}" if several else type(found).__name__
            raise geometry.fail(
                self.layer.name, f"backward to return {what}{count} gradients{of}", got
            )

    def _split(self, values: Sequence[Any]) -> tuple[Any, Sequence[Any]]:
        x = list(values[: self.inputs]) if self.several else values[0]
        return x, values[self.inputs :]


def _zeros_like(x: Any) -> Any:
    if isinstance(x, np.ndarray):
        return np.zeros_like(x)
    with device.on(device.device_of(x)):
        return device.zeros(x.shape, x.dtype)
