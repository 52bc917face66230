"""Gradients for training loops of one's own."""

from __future__ import annotations

import threading
from contextlib import nullcontext
from typing import Any

import numpy as np

from convkit import _core, device, geometry, graph
from convkit.graph import Node, Variable
from convkit.models.data import Arrays, form_of, rows_of
from convkit.models.objectives import objectives
from convkit.models.steps import Gradients, Sources, Totals, make_program, regularized
from convkit.structure import flatten


class ValueAndGrad:
    """What `value_and_grad` returns: (x, y) -> (loss, gradients)."""

    def __init__(self, model: Any, loss: Any) -> None:
        self.model = model
        self.loss = loss
        self._programs: dict[Any, _Step] = {}
        self._lock = threading.Lock()

    def __call__(self, x: Any, y: Any, sample_weight: Any = None) -> tuple[float, list[Any]]:
        """The loss of a batch, and its gradients.

        Args:
            x, y, sample_weight: as for `fit`.

        Returns:
            The mean loss, with the penalties of regularizers and what layers add; and for each of
            `model.trainable_weights` an array of its shape: CuPy's where the model is on a GPU.
        """
        model = self.model
        model._build_for("value_and_grad", x)
        shapes = [symbol.shape for symbol in flatten(model.outputs)]
        chosen = objectives(model.output_names, shapes, self.loss, None, None)
        if all(one.loss is None for one in chosen):
            raise geometry.fail("value_and_grad", "a loss", "none")
        trained = model._trained()
        if not trained:
            raise geometry.fail("value_and_grad", "weights that can be trained", "none")
        arrays = model._compared_arrays("value_and_grad", x, y, sample_weight, None, chosen)
        if not rows_of(arrays):
            raise geometry.fail("value_and_grad", "at least one sample", "none")
        tiled = model._depth_first(rows_of(arrays), training=True)
        key = (form_of(flatten(arrays)), tiled, model.gpu, trained)
        with self._lock:
            step = self._programs.get(key)
            if step is None or step.program.forgotten or step.outputs is not model.outputs:
                with model._recording:
                    step = self._programs[key] = _Step(model, chosen, arrays, tiled)
            return step.run(arrays)


class _Step:
    """The program for arrays of one form.

    Attributes:
        outputs: of the model as it was recorded.
    """

    def __init__(self, model: Any, chosen: Any, arrays: Arrays, depth_first: bool) -> None:
        self.outputs = model.outputs
        self.sources = Sources(arrays, "fed")
        self.scores = Totals(chosen, regularized(model.trainable_weights))
        step = Gradients(model, chosen, self.sources, None, self.scores, "value_and_grad")
        self.found = [
            Variable(np.zeros(variable.shape, variable.dtype), f"d {variable.name}", False)
            for variable in step.variables
        ]
        effects = list(step.after)
        for i, (gradient, target) in enumerate(zip(step.found, self.found, strict=True)):
            variable = step.variables[i]
            if variable.regularizer is not None:
                gradient = variable.regularizer.add_to(gradient, variable)
            # Held to an infinite range: as it is, where the caller finds it.
            spec = _core.Clip(size=target.value.size, limit=float("inf"))
            effects.append(Node("clip_value", spec, [gradient], [target.symbol]))
        self.program = make_program(model, effects=effects, depth_first=depth_first)

    def run(self, arrays: Arrays) -> tuple[float, list[Any]]:
        rows = rows_of(arrays)
        with self.program.bound(*self.sources.pairs(arrays)):
            self.scores.reset()
            try:
                self.program.run(0, rows, rows)
            finally:
                graph.touch()
        with nullcontext() if self.program.gpu is None else device.on(self.program.gpu):
            found = [target.value.copy() for target in self.found]
        return self.scores.logs()["loss"], found


def value_and_grad(model: Any, loss: Any) -> ValueAndGrad:
    """A function of a batch that gives the loss and its gradients, for loops of one's own.

    Dropout, batch norm and augmentation are as in training, and move on with each call.

    Args:
        model: a built `Model`; it need not be compiled.
        loss: as for `compile`: a name, a loss, a function made of `convkit.ops`, or a list or
            dictionary of them for several outputs.

    Example:
        >>> step = convkit.value_and_grad(model, "categorical_crossentropy")
        >>> optimizer = convkit.optimizers.Adam(0.001)
        >>> for x, y in batches:
        ...     loss, gradients = step(x, y)
        ...     optimizer.apply(gradients, model.trainable_weights)
    """
    if not hasattr(model, "_compared_arrays"):
        raise TypeError(f"value_and_grad: expected a model, got {model!r}")
    return ValueAndGrad(model, loss)
