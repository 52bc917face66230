"""The programs of a model: a training step, an evaluation, a prediction, each recorded once."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from convkit import _core, device, gradients, graph, metrics
from convkit.geometry import Shape, samples
from convkit.graph import Node, Symbol, Variable
from convkit.losses import Loss
from convkit.optimizers import Optimizer
from convkit.program import Program, gather


def _rows(symbol: Symbol) -> Any:
    return _core.Mean(rows=samples(symbol.shape)[1])


def _float(source: Symbol, index: Symbol | None, dtype: str) -> Symbol:
    """The rows of a source as numbers of the model's dtype; a fed array of that dtype as it is."""
    if index is None and source.dtype == dtype:
        return source
    return gather(source, index, dtype)


class Scores:
    """Running sums of the loss and the metrics, and the nodes that add to them."""

    def __init__(self, loss: Loss, chosen: Sequence[metrics.Metric]) -> None:
        self.loss = loss
        self.metrics = chosen
        self.names = [*_unique([metric.name for metric in chosen]), "loss"]
        self.totals = [Variable(np.zeros(2), name, trainable=False) for name in self.names]

    def record(self, y_true: Symbol, y_pred: Symbol, loss: Symbol) -> list[Node]:
        """The nodes that add up the metrics and the loss of each row."""
        rows = [metric.call(y_true, y_pred) for metric in self.metrics] + [loss]
        return [
            graph.update("accumulate", _rows(row), [row, total.symbol])
            for row, total in zip(rows, self.totals, strict=True)
        ]

    def reset(self) -> None:
        for total in self.totals:
            total.assign((0.0, 0.0))

    def logs(self) -> dict[str, float]:
        """The means so far; NaN before the first row."""
        result = {}
        for name, total in zip(self.names, self.totals, strict=True):
            value, count = total.host()
            result[name] = float(value / count) if count else float("nan")
        return result


def _unique(names: list[str]) -> list[str]:
    """A second metric of the same name gets a number, so that none is lost from the logs."""
    return [
        name if name not in names[:i] else f"{name}_{names[:i].count(name)}"
        for i, name in enumerate(names)
    ]


class TrainingStep:
    """Forward, loss, backward, scores and update as one program over arrays in memory.

    Args:
        model: gives `call(x, training=True)`.
        x, y: arrays of the shapes and dtypes that will be trained on.
        depth_first: whether tiles of samples go through the step one after the other; on a GPU,
            single samples, where they can.
    """

    def __init__(
        self,
        model: Any,
        x: Any,
        y: Any,
        scores: Scores,
        optimizer: Optimizer,
        depth_first: bool,
    ) -> None:
        dtype = model.dtype
        self.scores = scores
        self.x = Symbol((None, *x.shape[1:]), x.dtype.name, place="source")
        self.y = Symbol((None, *y.shape[1:]), y.dtype.name, place="source")
        self.index = Symbol((None,), "int64", place="fed")
        variables = model.trainable_weights
        with graph.training_step() as after:
            y_true = gather(self.y, self.index, "int32" if scores.loss.sparse else dtype)
            y_pred = model.call(gather(self.x, self.index, dtype), training=True)
            loss = scores.loss.call(y_true, y_pred)
            mean = graph.call("mean", _rows(loss), None, [loss], [(1,)], dtype)[0]
            found = gradients.gradients(mean, [variable.symbol for variable in variables])
            for variable, gradient in zip(variables, found, strict=True):
                if gradient is None:
                    raise ValueError(f"fit: expected the loss to depend on {variable.name}")
            # What changes variables comes after all gradients.
            effects = scores.record(y_true, y_pred, loss)
            effects += [record() for record in after]
            effects += optimizer.record([g for g in found if g is not None], variables)
        self.program = Program(dtype, effects=effects, depth_first=depth_first, gpu=model.gpu)
        self._lock = threading.Lock()

    @contextmanager
    def on(self, x: Any, y: Any, order: np.ndarray) -> Iterator[None]:
        """While the step works on these arrays, in this order of their rows.

        Args:
            order: int64, a number of a row for each; runs with a seed overwrite it (on a GPU they
                have one of their own there).

        Raises:
            RuntimeError: it is at work already: `fit` was called in a callback of `fit`, or in
                another thread.
        """
        if not self._lock.acquire(blocking=False):
            raise RuntimeError("fit: expected a model at rest, got one that is being trained")
        try:
            with self.program.bound((self.x, x), (self.y, y), (self.index, order)):
                yield
        finally:
            self._lock.release()


class Evaluation:
    """Forward, loss and scores over fed arrays."""

    def __init__(self, model: Any, x: Any, y: Any, scores: Scores, depth_first: bool) -> None:
        self.scores = scores
        self.x = Symbol((None, *x.shape[1:]), x.dtype.name, place="fed")
        self.y = Symbol((None, *y.shape[1:]), y.dtype.name, place="fed")
        y_true = self.y if scores.loss.sparse else _float(self.y, None, model.dtype)
        y_pred = model.call(_float(self.x, None, model.dtype), training=False)
        effects = scores.record(y_true, y_pred, scores.loss.call(y_true, y_pred))
        self.program = Program(model.dtype, effects=effects, depth_first=depth_first, gpu=model.gpu)
        self._lock = threading.Lock()

    def run(self, x: Any, y: Any, batch_size: int) -> dict[str, float]:
        """The loss and the metrics over all rows; one thread at a time."""
        with self._lock, self.program.bound((self.x, x), (self.y, y)):
            self.scores.reset()
            self.program.run(0, len(x), batch_size)
            return self.scores.logs()


class Prediction:
    """The forward pass over a fed array into another.

    Args:
        model: gives `call(x, training=False)`.
        x: an array of the shape and dtype that will be fed.
        depth_first: whether tiles of samples go through the model one after the other; whether
            there are several at all, that is.
    """

    def __init__(self, model: Any, x: Any, depth_first: bool) -> None:
        self.x = Symbol((None, *x.shape[1:]), x.dtype.name, place="fed")
        y = model.call(_float(self.x, None, model.dtype), training=False)
        self.shape: Shape = y.shape
        if graph.root(y).node is None:  # a model that changes nothing: its result is a copy
            y = gather(graph.root(y), None, model.dtype)
        self.y = y
        self.gpu: int | None = model.gpu
        self.program = Program(model.dtype, results=[y], depth_first=depth_first, gpu=self.gpu)
        # A function of one sample, or None where arrays are not as it takes them; any threads.
        self.one = None if depth_first or self.gpu is not None else self.prepared(1)
        self._lock = threading.Lock()

    def prepared(self, most: int) -> _core.Prepared:
        """A function of up to so many samples, for any number of threads."""
        return self.program.prepared(self.x, self.y, self.shape, most)

    def empty(self, x: Any) -> Any:
        """An array for the outputs, where x is; its contents are undefined."""
        shape = (len(x), *(s for s in self.shape if s is not None))
        if isinstance(x, np.ndarray):
            return np.empty(shape, self.y.dtype)
        try:
            with device.on(device.device_of(x)):
                return device.empty(shape, self.y.dtype)
        except MemoryError:
            raise MemoryError(f"predict: no room on the GPU for outputs of shape {shape}") from None

    def run(self, x: Any, batch_size: int, y: Any = None) -> Any:
        """The outputs for all rows, in y if that is given, where x is; one thread at a time."""
        if (
            y is None
            and len(x) == 1
            and self.one is not None
            and (one := self.one(x, None)) is not None
        ):
            return one
        if y is None:
            y = self.empty(x)
        if not self.program.takes(y):
            assert self.gpu is not None
            with device.on(self.gpu):
                y[...] = self.run(x, batch_size)
            return y
        with self._lock, self.program.bound((self.x, x), (self.y, y)):
            if self.gpu is not None:
                self.program.run(0, len(x), batch_size, wait=isinstance(x, np.ndarray))
                return y
            # Tiles need no memory for the batch, so all rows are one.
            whole = all(step.tiled for step in self.program.steps)
            self.program.run(0, len(x), len(x) if whole else batch_size)
        return y
