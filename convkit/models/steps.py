"""The programs of a model: a training step, an evaluation, a prediction, each recorded once."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from convkit import _core, device, geometry, gradients, graph, metrics, ops
from convkit.geometry import Shape, samples
from convkit.graph import Node, Symbol, Variable
from convkit.interpreter import Interpreter, has_python
from convkit.losses import Loss
from convkit.models import folding
from convkit.models.data import Arrays, rows_of
from convkit.models.kept_weights import transformed_steps
from convkit.models.objectives import Objective
from convkit.optimizers import Optimizer
from convkit.program import Program, gather
from convkit.regularizers import penalty_nodes
from convkit.structure import flatten, pack


def make_program(
    model: Any,
    results: Sequence[Symbol] = (),
    effects: Sequence[Node] = (),
    depth_first: bool = False,
) -> Any:
    """A native program; where a layer computes in Python, what carries it out node by node."""
    if has_python([*results, *effects]):
        return Interpreter(model.dtype, results, effects, model.gpu)
    return Program(model.dtype, results, effects, depth_first, model.gpu)


def _rows(symbol: Symbol) -> Any:
    return _core.Mean(rows=samples(symbol.shape)[1])


def _float(source: Symbol, index: Symbol | None, dtype: str) -> Symbol:
    """The rows of a source as numbers of the model's dtype; a fed array of that dtype as it is."""
    if index is None and source.dtype == dtype:
        return source
    return gather(source, index, dtype)


class Scores:
    """What the loss and the metrics of a run have counted, and the nodes that count."""

    def __init__(self, loss: Loss, chosen: Sequence[metrics.Metric]) -> None:
        self.loss = loss
        self.metrics = chosen
        self.names = [*_unique([metric.name for metric in chosen]), "loss"]
        # Training and evaluation count apart; the caller's own objects show the latest run.
        self._counting = [m.fresh(name) for m, name in zip(chosen, self.names, strict=False)]
        self._loss = Variable(np.zeros(2), "loss", trainable=False)

    def record(self, y_true: Symbol, y_pred: Symbol, loss: Symbol) -> list[Node]:
        """The nodes that add to the counters of the metrics, and the loss of each row."""
        nodes = []
        for metric in self._counting:
            metric.ensure_built(y_true.shape, y_pred.shape)
            nodes += metric.record(y_true, y_pred)
        nodes.append(graph.update("accumulate", _rows(loss), [loss, self._loss.symbol]))
        return nodes

    @property
    def variables(self) -> list[Variable]:
        """All counters."""
        return [*(v for metric in self._counting for v in metric.variables), self._loss]

    def reset(self) -> None:
        """Begins to count anew."""
        for counting in self._counting:
            counting.reset_state()
        self._loss.assign((0.0, 0.0))
        self.show()

    def show(self) -> None:
        """From now on the caller's metrics show what is counted here."""
        for metric, counting in zip(self.metrics, self._counting, strict=True):
            metric.follow(counting)

    def logs(self) -> dict[str, float]:
        """The results so far that are numbers; means are NaN before the first row."""
        result = {}
        for name, metric in zip(self.names, self._counting, strict=False):
            value = metric.result()
            if np.ndim(value) == 0:
                result[name] = float(value)
        total, count = self._loss.host()
        result["loss"] = float(total / count) if count else float("nan")
        return result


def _unique(names: list[str]) -> list[str]:
    """A second metric of the same name gets a number, so that none is lost from the logs."""
    return [
        name if name not in names[:i] else f"{name}_{names[:i].count(name)}"
        for i, name in enumerate(names)
    ]


class Totals:
    """The scores of all outputs, their losses' weighted sum and the penalty of the weights."""

    def __init__(self, chosen: Sequence[Objective], penalised: Sequence[Variable] = ()) -> None:
        self.scores = [
            (one, Scores(one.loss, one.metrics)) for one in chosen if one.loss is not None
        ]
        self.penalised = list(penalised)
        self.penalty = Variable(np.zeros(2), "penalty", trainable=False)
        self.added: list[Variable] = []  # for each loss that a layer adds

    def record(
        self, rows: Sequence[tuple[Symbol, Symbol, Symbol]], added: Sequence[Symbol] = ()
    ) -> list[Node]:
        """The nodes that add up metrics, losses, the penalty, and what layers add.

        Args:
            rows: (targets, predictions, losses) of each output that has a loss.
        """
        nodes = [
            node
            for (_, scores), (y_true, y_pred, loss) in zip(self.scores, rows, strict=True)
            for node in scores.record(y_true, y_pred, loss)
        ]
        if self.penalised:
            nodes += penalty_nodes(self.penalised, self.penalty)
        for values in added:
            total = Variable(np.zeros(2), "added loss", trainable=False)
            nodes.append(graph.update("accumulate", _rows(values), [values, total.symbol]))
            self.added.append(total)
        return nodes

    @property
    def variables(self) -> list[Variable]:
        """All counters."""
        own = [v for _, scores in self.scores for v in scores.variables]
        return [*own, self.penalty, *self.added]

    def _besides(self) -> list[Variable]:
        """The counters of what is added to the losses of outputs."""
        return [*([self.penalty] if self.penalised else []), *self.added]

    def reset(self) -> None:
        """Begins to count anew."""
        for _, scores in self.scores:
            scores.reset()
        for total in self._besides():
            total.assign((0.0, 0.0))

    def follow(self, other: Totals | None) -> None:
        """Goes on where another one of the same objectives is; None: begins anew."""
        if other is None:
            self.reset()
        elif other is not self:
            for variable, value in zip(self.variables, other.variables, strict=True):
                variable.assign(value.host())
            for _, scores in self.scores:
                scores.show()

    def logs(self) -> dict[str, float]:
        """The means so far; NaN before the first row. Losses of outputs first, "loss" last."""
        result: dict[str, float] = {}
        whole = 0.0
        parts: dict[str, float] = {}
        for one, scores in self.scores:
            logs = scores.logs()
            loss = logs.pop("loss")
            whole += one.weight * loss
            result.update({f"{one.prefix}{name}": value for name, value in logs.items()})
            if one.prefix:
                parts[f"{one.prefix}loss"] = loss
        for total in self._besides():
            value, count = total.host()
            whole += float(value / count) if count else 0.0
        return {**parts, **result, "loss": whole}


class Sources:
    """Symbols for a model's arrays: inputs, targets and weights of the samples.

    Args:
        arrays: of the shapes and dtypes that will be bound.
        place: "source", from which rows are gathered, or "fed".
    """

    def __init__(self, arrays: Arrays, place: str) -> None:
        def symbols(values: Sequence[Any]) -> list[Symbol | None]:
            return [
                None
                if value is None
                else Symbol((None, *value.shape[1:]), value.dtype.name, place=place)
                for value in values
            ]

        self.x, self.y, self.weights = (symbols(values) for values in arrays)

    def pairs(self, arrays: Arrays) -> list[tuple[Symbol, Any]]:
        """Each symbol with its array."""
        return [
            (symbol, array)
            for symbols, values in zip((self.x, self.y, self.weights), arrays, strict=True)
            for symbol, array in zip(symbols, values, strict=True)
            if symbol is not None
        ]


def _targets(
    chosen: Sequence[Objective], sources: Sources, index: Symbol | None, dtype: str
) -> list[tuple[Symbol, Symbol | None] | None]:
    """(targets, weights) of each output that has a loss.

    They come before the model's nodes: what is fused with the softmax reads targets.
    """
    return [
        None
        if one.loss is None or y is None
        else (
            _float(y, index, "int32" if one.loss.sparse else dtype),
            None if weights is None else _float(weights, index, dtype),
        )
        for one, y, weights in zip(chosen, sources.y, sources.weights, strict=True)
    ]


def _compared(
    chosen: Sequence[Objective],
    targets: Sequence[tuple[Symbol, Symbol | None] | None],
    predictions: Sequence[Symbol],
) -> list[tuple[Symbol, Symbol, Symbol]]:
    """(targets, predictions, losses of the rows) of each output that has a loss."""
    rows = []
    for one, target, y_pred in zip(chosen, targets, predictions, strict=True):
        if one.loss is None or target is None:
            continue
        y_true, weights = target
        loss = one.loss.call(y_true, y_pred)
        rows.append((y_true, y_pred, loss if weights is None else _weighted(loss, weights)))
    return rows


def _weighted(loss: Symbol, weights: Symbol) -> Symbol:
    """Losses times the weights of their samples, or of each of them."""
    size, one = samples(loss.shape)[1], samples(weights.shape)[1]
    if one not in (1, size):
        expected = "one number" if size == 1 else f"1 or {size} numbers"
        raise geometry.fail("sample_weight", f"{expected} for each sample, as this loss has", one)
    shape = loss.shape if one == size else (None, *(1 for _ in loss.shape[1:]))
    product: Symbol = ops.multiply(loss, graph.reshape(weights, shape))
    return product


def _mean(rows: Symbol, factor: float) -> Symbol:
    """factor times the mean over all rows."""
    if factor != 1:
        rows = ops.rescale(rows, factor)
    return graph.call("mean", _rows(rows), None, [rows], [(1,)], rows.dtype)[0]  # type: ignore[no-any-return]


def _zeros(variable: Variable) -> Symbol:
    return Variable(np.zeros(variable.shape, variable.dtype), "zeros", trainable=False).symbol


class Gradients:
    """Forward, loss and backward, recorded: what training steps of all kinds have in common.

    Args:
        model: gives `call(x, training=True)` and its weights.
        chosen: what each output is compared by.
        sources: symbols for its arrays.
        index: which rows; None: all of fed arrays.

    Attributes:
        variables, found: the trainable weights, and the gradient of each.
        after: nodes that come after all gradients: scores, counters of random numbers.
        means: the parts of the loss, scalars.
    """

    def __init__(
        self,
        model: Any,
        chosen: Sequence[Objective],
        sources: Sources,
        index: Symbol | None,
        totals: Totals,
        op: str,
    ) -> None:
        dtype = model.dtype
        self.variables: list[Variable] = model.trainable_weights
        with graph.training_step() as notes:
            targets = _targets(chosen, sources, index, dtype)
            inputs = [_float(x, index, dtype) for x in sources.x if x is not None]
            predictions = flatten(model.call(pack(model.inputs, inputs), training=True))
            rows = _compared(chosen, targets, predictions)
            weighted = [one for one in chosen if one.loss is not None]
            self.means = [
                _mean(loss, one.weight) for one, (_, _, loss) in zip(weighted, rows, strict=True)
            ]
            self.means += [_mean(values, 1.0) for values in notes.losses]
            found = gradients.gradients(self.means, [v.symbol for v in self.variables])
            unused = [v.name for v, g in zip(self.variables, found, strict=True) if g is None]
            if unused and len(unused) == len(found):
                raise ValueError(f"{op}: expected the loss to depend on {', '.join(unused)}")
            if unused and len(rows) == len(chosen):  # else there are outputs without a loss
                warnings.warn(
                    f"{op}: the loss does not depend on {', '.join(unused)}", stacklevel=2
                )
            self.found = [
                _zeros(variable) if gradient is None else gradient
                for variable, gradient in zip(self.variables, found, strict=True)
            ]
            # What changes variables comes after all gradients.
            self.after = totals.record(rows, notes.losses)
            self.after += [record() for record in notes.after]


class TrainingStep:
    """Forward, loss, backward, scores and update as one program over arrays in memory.

    Args:
        model: what is trained.
        arrays: of the shapes and dtypes that will be trained on.
        optimizer: gives the update.
        depth_first: whether tiles of samples go through the step one after the other; on a GPU,
            single samples, where they can.
    """

    def __init__(self, model: Any, arrays: Arrays, optimizer: Optimizer, depth_first: bool) -> None:
        self.sources = Sources(arrays, "source")
        self.index = Symbol((None,), "int64", place="fed")
        chosen = model.objectives()
        self.scores = Totals(chosen, regularized(model.trainable_weights))
        step = Gradients(model, chosen, self.sources, self.index, self.scores, "fit")
        effects = [*step.after, *optimizer.record(step.found, step.variables)]
        self.program = make_program(model, effects=effects, depth_first=depth_first)
        self.variables: list[Variable] = self.program.variables
        self._lock = threading.Lock()

    @contextmanager
    def on(self, arrays: Arrays, order: np.ndarray) -> Iterator[None]:
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
            with self.program.bound(*self.sources.pairs(arrays), (self.index, order)):
                yield
        finally:
            graph.touch()
            self._lock.release()


class Evaluation:
    """Forward, loss and scores over fed arrays."""

    def __init__(self, model: Any, arrays: Arrays, depth_first: bool) -> None:
        self.sources = Sources(arrays, "fed")
        chosen, dtype = model.objectives(), model.dtype
        self.scores = Totals(chosen, regularized(model.trainable_weights))
        targets = _targets(chosen, self.sources, None, dtype)
        inputs = [_float(x, None, dtype) for x in self.sources.x if x is not None]
        with graph.training_step() as notes:  # for what layers add to the loss
            predictions = flatten(model.call(pack(model.inputs, inputs), training=False))
        rows = _compared(chosen, targets, predictions)
        effects = self.scores.record(rows, notes.losses)
        self.program = make_program(model, effects=effects, depth_first=depth_first)
        self.variables: list[Variable] = self.program.variables
        self._lock = threading.Lock()

    def run(
        self, arrays: Arrays, batch_size: int, totals: Totals | None = None
    ) -> dict[str, float]:
        """The loss and the metrics over all rows; one thread at a time.

        Args:
            totals: what was counted so far; None: nothing.
        """
        with self._lock, self.program.bound(*self.sources.pairs(arrays)):
            self.scores.follow(totals)
            self.program.run(0, rows_of(arrays), batch_size)
            return self.scores.logs()


class Prediction:
    """The forward pass over fed arrays into others.

    Args:
        model: gives `call(x, training=False)`.
        x: arrays of the shapes and dtypes that will be fed, one for each input.
        depth_first: whether tiles of samples go through the model one after the other; whether
            there are several at all, that is.
    """

    def __init__(self, model: Any, x: Sequence[Any], depth_first: bool) -> None:
        self.x = [Symbol((None, *one.shape[1:]), one.dtype.name, place="fed") for one in x]
        inputs = [_float(one, None, model.dtype) for one in self.x]
        outputs = flatten(model.call(pack(model.inputs, inputs), training=False))
        self.shapes: list[Shape] = [y.shape for y in outputs]
        taken: set[int] = set()
        for i, y in enumerate(outputs):
            # What the model does not change, and what two outputs share, is copied.
            if graph.root(y).node is None or id(graph.root(y)) in taken:
                outputs[i] = _copy(graph.root(y), model.dtype)
            taken.add(id(graph.root(outputs[i])))
        self.y = outputs
        # What works out weights into which batch norm was folded.
        folded = [] if has_python(outputs) else folding.fold(outputs)
        self._fold = make_program(model, effects=folded) if folded else None
        self.gpu: int | None = model.gpu
        self.program = make_program(model, results=outputs, depth_first=depth_first)
        kept = transformed_steps(self.program) if isinstance(self.program, Program) else []
        if kept:
            self.program.keep_weights(kept)
        # Whether anything follows from weights, and when it last did.
        self._derives = self._fold is not None or bool(kept)
        self._derived_at = -1
        self._derive_lock = threading.Lock()
        # A function of one sample, or None where arrays are not as it takes them; any threads.
        plain = isinstance(model.inputs, Symbol) and isinstance(model.outputs, Symbol)
        simple = plain and isinstance(self.program, Program)
        self.one = None if depth_first or self.gpu is not None or not simple else self.prepared(1)
        self._lock = threading.Lock()

    def refresh(self) -> None:
        """Has what follows from weights worked out anew if these may have changed."""
        if not self._derives or self._derived_at == graph.version():
            return
        with self._derive_lock:
            if self._derived_at != (now := graph.version()):
                if self._fold is not None:
                    self._fold.run(0, 1, 1)
                if self.gpu is None:
                    self.program.native.weights_changed()
                self._derived_at = now

    @property
    def variables(self) -> list[Variable]:
        """All that is read."""
        folded = [] if self._fold is None else self._fold.variables
        return [*self.program.variables, *folded]

    def prepared(self, most: int) -> Any:
        """A function of up to so many samples, for any number of threads.

        Of a model with one input and one output.
        """
        function = self.program.prepared(self.x[0], self.y[0], self.shapes[0], most)
        if not self._derives:
            return function

        def refreshed(x: Any, out: Any) -> Any:
            self.refresh()
            return function(x, out)

        return refreshed

    def empty(self, x: Any, i: int = 0) -> Any:
        """An array for output i, where x is; its contents are undefined."""
        shape = (len(x), *(s for s in self.shapes[i] if s is not None))
        if isinstance(x, np.ndarray):
            return np.empty(shape, self.y[i].dtype)
        try:
            with device.on(device.device_of(x)):
                return device.empty(shape, self.y[i].dtype)
        except MemoryError:
            raise MemoryError(f"predict: no room on the GPU for outputs of shape {shape}") from None

    def run(self, x: Sequence[Any], batch_size: int, y: Any = None) -> list[Any]:
        """The outputs for all rows, in y if that is given, where x is; one thread at a time.

        Args:
            y: an array for the first output.
        """
        if (
            y is None
            and len(x[0]) == 1
            and self.one is not None
            and (one := self.one(x[0], None)) is not None
        ):
            return [one]
        self.refresh()
        made = [self.empty(x[0], i) if i or y is None else y for i in range(len(self.y))]
        if y is not None and not self.program.takes(y):
            assert self.gpu is not None
            with device.on(self.gpu):
                y[...] = self.run(x, batch_size)[0]
            return made
        pairs = [*zip(self.x, x, strict=True), *zip(self.y, made, strict=True)]
        with self._lock, self.program.bound(*pairs):
            rows = len(x[0])
            if self.gpu is not None:
                self.program.run(0, rows, batch_size, wait=isinstance(x[0], np.ndarray))
                return made
            # Tiles need no memory for the batch, so all rows are one.
            steps = self.program.steps
            whole = bool(steps) and all(step.tiled for step in steps)
            self.program.run(0, rows, rows if whole else batch_size)
        return made


def _copy(symbol: Symbol, dtype: str) -> Symbol:
    if symbol.place == "fed":
        return gather(symbol, None, dtype)
    copied: Symbol = ops.rescale(symbol, 1.0)
    return copied


def regularized(variables: Sequence[Variable]) -> list[Variable]:
    """Those with a regularizer."""
    return [variable for variable in variables if variable.regularizer is not None]
