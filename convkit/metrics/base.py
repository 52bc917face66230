"""What every metric is: counters, nodes that add to them, and a result."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any, Self

import numpy as np

from convkit import _core, device, geometry, graph
from convkit.array import device_labels, label_array
from convkit.configuration import Configured
from convkit.geometry import Shape
from convkit.graph import Node, Variable
from convkit.ops import common


class Metric(Configured):
    """Base class: the mean of a score per row of the last axis, over all rows that were seen.

    A metric of one's own defines `call`, made of functions of `convkit.ops`, and that is all. One
    that is no mean of scores defines `build`, which makes its counters by `add_variable`, `record`,
    which has kernels add to them by `add`, and `result`, which reads them.

    Used alone: `update_state`, `result` and `reset_state`. After `fit` or `evaluate` the result is
    that of the run that began last.

    Args:
        name: the key in logs and in the history; None: that of the class.
        dtype: "float32" or "float64", in which `update_state` computes; None: that of y_pred.
            Counters are float64.

    Attributes:
        sparse: whether y_true holds labels; None: either will do.
    """

    name = "metric"
    sparse: bool | None = False
    dtype: str | None = None

    def __init__(self, name: str | None = None, dtype: str | None = None) -> None:
        if name is not None:
            self.name = name
        if dtype is not None:
            self.dtype = geometry.choice(self.name, "dtype", dtype, ("float32", "float64"))

    # ---- what subclasses define ------------------------------------------------------------------

    def call(self, y_true: Any, y_pred: Any) -> Any:
        """One score per row."""
        raise TypeError(f"{type(self).__name__}: a subclass of Metric must define call")

    def build(self, y_true: Shape, y_pred: Shape) -> None:
        """Makes the counters for targets and predictions of these shapes, the batch included."""
        self.total = self.add_variable("total", (2,))

    def record(self, y_true: Any, y_pred: Any) -> list[Node]:
        """The nodes that add to the counters; on arrays, which adds at once, none."""
        scores = self.call(y_true, y_pred)
        return self.add(
            "accumulate", rows_of(scores), [scores], self.total, common.dtype_of(scores)
        )

    def result(self) -> Any:
        """The metric of all that was seen: a number, or an array, which logs leave out."""
        if not self.variables:
            return float("nan")
        total, count = self.total.host()
        return float(total / count) if count else float("nan")

    # ---- for subclasses --------------------------------------------------------------------------

    def add_variable(self, name: str, shape: Sequence[int]) -> Variable:
        """A new counter, zeros of float64; for `build`."""
        # The last part of the name is what profiles show.
        owner = f"metrics/{self.name}" if name == "total" else f"metrics/{self.name} {name}"
        made = Variable(np.zeros(tuple(shape)), owner, trainable=False)
        self._variables = [*self.variables, made]
        return made

    def add(
        self, kernel: str, spec: Any, inputs: Sequence[Any], counter: Variable, dtype: str
    ) -> list[Node]:
        """Has a kernel add to a counter, its last argument: a node for symbols, at once for arrays.

        Args:
            inputs: symbols or arrays (of one sample to the kernel), and variables.
            dtype: that of the kernel, "float32" or "float64".
        """
        arguments = [*inputs, counter]
        if graph.is_symbolic(inputs):
            return [graph.update(kernel, spec, [graph.symbol_of(value) for value in arguments])]
        arrays = [value for value in inputs if not isinstance(value, Variable)]
        gpu = None if isinstance(arrays[0], np.ndarray) else device.device_of(arrays[0])
        for value in arguments:
            if isinstance(value, Variable):
                value.to(gpu)
        graph.call(kernel, spec, 1, [graph.array_of(value) for value in arguments], [], dtype)
        return []

    # ---- use -------------------------------------------------------------------------------------

    @property
    def variables(self) -> list[Variable]:
        """The counters; none before the first batch."""
        found: list[Variable] = getattr(self, "_variables", [])
        return found

    def ensure_built(self, y_true: Shape, y_pred: Shape) -> None:
        """Makes the counters, unless there are some."""
        if not self.variables:
            self.build(tuple(y_true), tuple(y_pred))

    def update_state(self, y_true: Any, y_pred: Any) -> None:
        """Adds a batch of targets and predictions to what was seen."""
        y_true, y_pred = self.arguments(y_true, y_pred)
        self.ensure_built(y_true.shape, y_pred.shape)
        self.record(y_true, y_pred)

    def reset_state(self) -> None:
        """Forgets all that was seen."""
        for variable in self.variables:
            variable.assign(np.zeros(variable.shape))

    def __call__(self, y_true: Any, y_pred: Any) -> Any:
        """`update_state`, then `result`."""
        self.update_state(y_true, y_pred)
        return self.result()

    def arguments(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        """Targets and predictions as arrays that kernels take."""
        y_true, y_pred = (graph.array_of(value) for value in (y_true, y_pred))
        if self.dtype is not None and not device.is_device_array(y_pred):
            y_pred = np.asarray(y_pred, self.dtype)
        (y_pred,) = common.arguments(self.name, ("y_pred",), (y_pred,))
        if device.is_device_array(y_true):
            return self._on_device(y_true, y_pred)
        y_true = np.asarray(y_true)
        if self._are_labels(y_true.shape, y_pred.shape):
            return self.labels(y_true, y_pred), y_pred
        if y_true.shape != y_pred.shape and y_true.size == y_pred.size:  # (N,) for (N, 1)
            y_true = y_true.reshape(y_pred.shape)
        names, values = ("y_true", "y_pred"), (y_true.astype(y_pred.dtype), y_pred)
        y_true, y_pred = common.arguments(self.name, names, values)
        return y_true, y_pred

    def labels(self, y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
        """Labels as int32, of the shape of y_pred without its last axis."""
        if y_true.shape == (*y_pred.shape[:-1], 1):
            y_true = y_true[..., 0]
        return label_array(self.name, "y_true", y_true, y_pred.shape[-1])

    def _are_labels(self, y_true: Shape, y_pred: Shape) -> bool:
        if self.sparse is not None:
            return self.sparse
        return y_true != y_pred

    def _on_device(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        y_true = device.as_array(self.name, "y_true", y_true)
        if self._are_labels(y_true.shape, y_pred.shape):
            return device_labels(self.name, "y_true", y_true), y_pred
        y_true, y_pred = common.arguments(self.name, ("y_true", "y_pred"), (y_true, y_pred))
        return y_true, y_pred

    # ---- several runs of one metric --------------------------------------------------------------

    def fresh(self, name: str) -> Self:
        """The same metric under another name, with counters of its own."""
        made = copy.copy(self)
        made.name = name
        made._variables = []
        return made

    def follow(self, other: Self) -> None:
        """From now on shows what another, made by `fresh`, has counted."""
        name = self.name
        self.__dict__.update(other.__dict__)
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def is_labels(y_true: Any) -> bool:
    """Whether targets that kernels take are labels."""
    return str(y_true.dtype) == "int32"


def rows_of(x: Any) -> Any:
    """The spec of a kernel over all values of a batch."""
    return _core.Mean(rows=per_sample(x.shape))


def per_sample(shape: Shape) -> int:
    """How many values a sample has; an array is one sample."""
    return geometry.samples(shape)[1]
