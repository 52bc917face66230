"""A model's layers in the order of their calls, and what they make of arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from convkit.geometry import Shape, fail
from convkit.graph import Symbol
from convkit.layers import InputLayer, Layer
from convkit.models import Model
from convkit.models.steps import Prediction
from convkit.structure import flatten, mapped


@dataclass(frozen=True)
class Step:
    """One call of a layer.

    Attributes:
        layer: what is called.
        path: the models inside the model, outermost first, that the call is in: for each its name
            and which call of it this is.
        inputs, outputs: numbers of values, in the nests in which the layer takes and gives them.
    """

    layer: Layer
    path: tuple[tuple[str, int], ...]
    inputs: Any
    outputs: Any

    @property
    def name(self) -> str:
        """The layer's name, behind those of the models that it is in."""
        return "/".join([*(name for name, _ in self.path), self.layer.name])


class Walk:
    """The calls of a model.

    Args:
        op: what messages begin with.
        model: a built model.
        expand: whether calls of models inside it are the calls of their layers.

    Attributes:
        steps: the calls, each after those that it depends on.
        inputs, outputs: numbers of the model's values.
        input_layers: the layer of each input.
        shapes: by number.
    """

    def __init__(self, op: str, model: Any, expand: bool = True) -> None:
        if not isinstance(model, Model):
            raise TypeError(f"{op}: expected a model, got {model!r}")
        if not model.built:
            raise ValueError(f"{op}: expected a built model, got one without input shape")
        self.op = op
        self.model = model
        self.steps: list[Step] = []
        self.shapes: list[Shape] = []
        self._expand = expand
        self._calls = 0
        symbols = flatten(model.inputs)
        self.inputs = [self._number(symbol) for symbol in symbols]
        self.input_layers = [_input_layer(symbol) for symbol in symbols]
        numbers = self._go(model, self.inputs, ())
        self.outputs = [numbers[id(symbol)] for symbol in flatten(model.outputs)]

    def _number(self, symbol: Symbol) -> int:
        self.shapes.append(symbol.shape)
        return len(self.shapes) - 1

    def _go(
        self, model: Model, inputs: Sequence[int], path: tuple[tuple[str, int], ...]
    ) -> dict[int, int]:
        """Notes the calls of a model; the numbers of its symbols by their ids."""
        numbers = {id(s): n for s, n in zip(flatten(model.inputs), inputs, strict=True)}
        for call in model._calls:
            given = mapped(lambda symbol: numbers[id(symbol)], call.inputs)
            inner = call.layer
            results = flatten(call.outputs)
            if self._expand and isinstance(inner, Model):
                if isinstance(given, dict):
                    given = [given[name] for name in inner.input_names]
                self._calls += 1
                made = self._go(inner, flatten(given), (*path, (inner.name, self._calls)))
                ends = [made[id(symbol)] for symbol in flatten(inner.outputs)]
                numbers.update({id(s): n for s, n in zip(results, ends, strict=True)})
                continue
            numbers.update({id(symbol): self._number(symbol) for symbol in results})
            outputs = mapped(lambda symbol: numbers[id(symbol)], call.outputs)
            self.steps.append(Step(inner, path, given, outputs))
        return numbers

    def find(self, layer: Any) -> Step:
        """The first call of a layer.

        Args:
            layer: itself, its name (of one inside another model "model/layer", if need be), or its
                index among the model's layers.
        """
        if isinstance(layer, int):
            layer = self.model.get_layer(index=layer)
        for step in self.steps:
            if step.layer is layer or layer in (step.layer.name, step.name):
                return step
        raise fail(self.op, "a layer of the model", repr(layer))

    def run(self, symbols: Sequence[Symbol]) -> list[Any]:
        """Records the calls on symbols for the inputs, as for inference; all values by number."""
        values: list[Any] = [None] * len(self.shapes)
        for number, symbol in zip(self.inputs, symbols, strict=True):
            values[number] = symbol
        for step in self.steps:
            result = step.layer.run(mapped(lambda number: values[number], step.inputs), False)
            for number, value in zip(flatten(step.outputs), flatten(result), strict=True):
                values[number] = value
        return values

    def values(self, x: Any, wanted: Sequence[int]) -> list[np.ndarray]:
        """What the model makes of inputs x at the values of these numbers."""
        arrays = self.model._inputs(self.op, x)
        made = Prediction(_Tapped(self, wanted), arrays, depth_first=False).run(
            arrays, len(arrays[0])
        )
        return [np.asarray(value) for value in made]


class _Tapped:
    """A model whose outputs are other values of its."""

    def __init__(self, walk: Walk, wanted: Sequence[int]) -> None:
        self.walk = walk
        self.wanted = wanted
        self.dtype = walk.model.dtype
        self.gpu = walk.model.gpu
        self.inputs = walk.model.inputs
        self.outputs = list(wanted)

    def call(self, x: Any, training: bool) -> list[Any]:
        values = self.walk.run(flatten(x))
        return [values[number] for number in self.wanted]


def _input_layer(symbol: Symbol) -> Layer:
    layer = symbol.history.layer if symbol.history is not None else None
    if isinstance(layer, InputLayer):
        return layer
    return InputLayer([int(size or 0) for size in symbol.shape[1:]])


def one_sample(walk: Walk, image: Any) -> np.ndarray:
    """One input with its batch axis, of an image with or without it."""
    shape = walk.model.input_shape
    if not isinstance(shape, tuple):
        raise fail(walk.op, "a model with one input", f"{len(walk.inputs)} inputs")
    x: np.ndarray = np.asarray(image)
    if x.shape == tuple(shape[1:]):
        x = x[np.newaxis]
    if x.shape != (1, *shape[1:]):
        raise ValueError(
            f"{walk.op}: expected one image of shape {tuple(shape[1:])}, got {x.shape}"
        )
    return x
