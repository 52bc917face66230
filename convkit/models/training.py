"""How models are compiled, trained, evaluated and used."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import numpy as np

from convkit import geometry, graph, losses, optimizers, planner
from convkit.callbacks import Callback, CallbackList, History, ProgressBar, describe
from convkit.config import get_precision
from convkit.geometry import samples
from convkit.graph import LayerCall, Symbol
from convkit.layers import Layer
from convkit.models import data, feeds, placement
from convkit.models.compiled import CompiledModel
from convkit.models.data import Arrays, rows_of
from convkit.models.epochs import ArrayFeed, Feed, Progress, StreamFeed
from convkit.models.objectives import Objective, objectives
from convkit.models.steps import Evaluation, Prediction, Totals, TrainingStep
from convkit.structure import flatten, pack

# The key, among a model's programs, of the functions that predict one image, by its dtype.
ONE_IMAGE = "one image"
P = TypeVar("P", TrainingStep, Evaluation, Prediction)


class Trainer(Layer):
    """The part of a model that trains and predicts; `Model` is the other."""

    def __init__(self, name: str | None) -> None:
        self._layers: list[Layer] = []
        super().__init__(name=name)
        # What is trained: `Model` connects it.
        self.inputs: Any = None
        self.outputs: Any = None
        self._calls: list[LayerCall] = []
        # How: see `compile` and `to`.
        self.optimizer: optimizers.Optimizer | None = None
        self._compiled: tuple[Any, Any, Any] = (None, None, None)
        self._objectives: list[Objective] | None = None
        self.gpu: int | None = None  # the number of the one that programs run on
        # Programs by what they are for, the weights that they train and the arrays' forms.
        self._programs: dict[Any, Any] = {}
        self._recording = threading.RLock()  # programs are recorded by one thread at a time
        self._sample_bytes = 0
        self._trained_ids: tuple[int, tuple[int, ...]] = (-1, ())
        # While `fit` runs: where it is, what it counts, and where it is to begin.
        self.stop_training = False
        self.progress = Progress(0, 0, None)
        self.scores: Totals
        self.resume_from: Progress | None = None
        self._in_fit = False
        self._feed: Feed | None = None

    # ---- what programs are made of ---------------------------------------------------------------

    def compile(
        self,
        optimizer: Any = "rmsprop",
        loss: Any = None,
        loss_weights: Any = None,
        metrics: Any = None,
    ) -> None:
        """Says how the model is to be trained.

        Args:
            optimizer: a name ("sgd", "adam", …) or an optimizer.
            loss: a name ("categorical_crossentropy", …), a loss, or a function of y_true and
                y_pred made of `convkit.ops` that gives one value per sample. For several outputs a
                list, or a dictionary by the outputs' names; None for one without targets.
            loss_weights: factors of the losses in their sum: a list, or a dictionary.
            metrics: names ("accuracy", "mse", …) or metrics; for several outputs a list of lists,
                or a dictionary of lists.
        """
        if isinstance(metrics, str):
            raise TypeError(f"compile: expected a list of metrics, got {metrics!r}")
        self.optimizer = optimizers.get(optimizer)
        if loss is not None and not isinstance(loss, (list, tuple, dict)):
            loss = losses.get(loss)
        self._compiled = (loss, loss_weights, metrics)
        self._objectives = None
        self._programs = {}
        if self.built:
            self.objectives()

    @property
    def loss(self) -> Any:
        """What `compile` was given: a loss, a list, a dictionary or None."""
        return self._compiled[0]

    @property
    def output_names(self) -> list[str]:
        """Of the outputs: the keys of a dictionary, or the names of the layers that made them."""
        if isinstance(self.outputs, dict):
            return list(self.outputs)
        return _names_of(flatten(self.outputs), "output")

    @property
    def input_names(self) -> list[str]:
        """Of the inputs: keys of the dictionary they are, or the names of their layers."""
        if isinstance(self.inputs, dict):
            return list(self.inputs)
        return self._names_of_inputs()

    def _names_of_inputs(self) -> list[str]:
        return _names_of(flatten(self.inputs), "input")

    def objectives(self) -> list[Objective]:
        """For each output its loss and metrics."""
        if self._objectives is None:
            loss, weights, chosen = self._compiled
            shapes = [symbol.shape for symbol in flatten(self.outputs)]
            self._objectives = objectives(self.output_names, shapes, loss, weights, chosen)
        return self._objectives

    def _require_compiled(self, op: str) -> None:
        if self.optimizer is None:
            raise ValueError(f"{op}: expected a compiled model, got one without compile(...)")

    def _build_for(self, op: str, x: Any) -> None:
        """Builds a model that waited for the shape of its first input."""
        if not self._layers:
            raise geometry.fail(op, "a model with at least one layer", "none")
        if not self.built:
            if isinstance(x, (list, tuple, dict)):
                x = data.alone(x)
            self.build((None, *np.shape(x)[1:]))

    def _program(self, kind: tuple[str, bool], make: Callable[[], P], arrays: Sequence[Any]) -> P:
        """The program for arrays of these dtypes, recorded at first use."""
        key = (kind, self._trained() if kind[0] != "predict" else (), data.form_of(arrays))
        program: P | None = self._programs.get(key)
        if program is None:
            with self._recording:
                program = self._programs.get(key)
                if program is None:
                    program = make()  # which may move variables, and so forget the others
                    self._programs[key] = program
                    for variable in program.variables:
                        variable.add_user(self)
        return program

    def forget(self) -> None:
        """Has programs recorded anew: the weights have moved."""
        self._programs = {}

    def _trained(self) -> tuple[int, ...]:
        """What tells the weights apart that are trainable now."""
        now = graph.arrangement()
        if self._trained_ids[0] != now:
            self._trained_ids = (now, tuple(id(v) for v in self.trainable_weights))
        return self._trained_ids[1]

    def sample_bytes(self) -> int:
        """Of all that the layers make of one sample."""
        if not self._sample_bytes:
            item = np.dtype(self.dtype).itemsize
            for call in self._calls:
                inner = call.layer.sample_bytes() if isinstance(call.layer, Trainer) else 0
                own = sum(samples(y.shape)[1] * item for y in flatten(call.outputs))
                self._sample_bytes += inner + own
        return self._sample_bytes

    def _depth_first(self, rows: int, training: bool) -> bool:
        if self.gpu is not None:  # whatever the number; blocks of threads know float32 alone
            return get_precision() == "float32"
        return rows >= planner.least_depth_first(self.sample_bytes(), training)

    def _at_once(self, rows: int, batch: int) -> int:
        """Samples that go through the network at a time where no weights change after each batch.

        On a GPU it is not for the caller to know how many keep it busy.
        """
        if self.gpu is None:
            return batch
        return max(1, min(rows, placement.AT_ONCE // max(1, self.sample_bytes())))

    def _training_step(self, arrays: Arrays, batch: int, measured: bool = False) -> TrainingStep:
        assert self.optimizer is not None
        optimizer = self.optimizer
        tiled = self._depth_first(batch, training=True)
        if measured and self.gpu is not None:
            tiled = False
        return self._program(
            ("train", tiled),
            lambda: TrainingStep(self, arrays, optimizer, tiled),
            flatten(arrays),
        )

    def _inputs(self, op: str, x: Any) -> list[Any]:
        """One array for each input, checked."""
        if isinstance(self.inputs, Symbol) and not isinstance(x, (dict, list, tuple)):
            return [data.inputs(op, x, self.inputs.shape, self.dtype, self.gpu)]
        names = self.input_names
        values = data.by_name(op, "x", x, names)
        shapes = [symbol.shape for symbol in flatten(self.inputs)]
        arrays = [
            data.inputs(
                op, value, shape, self.dtype, self.gpu, "x" if len(names) == 1 else f"x {name!r}"
            )
            for value, shape, name in zip(values, shapes, names, strict=True)
        ]
        for name, array in zip(names, arrays, strict=True):
            if len(array) != len(arrays[0]):
                raise geometry.fail(
                    op, f"x {name!r} with as many rows as the first ({len(arrays[0])})", len(array)
                )
        return arrays

    def _arrays(
        self, op: str, x: Any, y: Any, sample_weight: Any = None, class_weight: Any = None
    ) -> Arrays:
        self._require_compiled(op)
        self._build_for(op, x)
        chosen = self.objectives()
        if all(one.loss is None for one in chosen):
            raise ValueError(f"{op}: expected a loss, got compile(...) without one")
        return self._compared_arrays(op, x, y, sample_weight, class_weight, chosen)

    def _compared_arrays(
        self,
        op: str,
        x: Any,
        y: Any,
        sample_weight: Any,
        class_weight: Any,
        chosen: Sequence[Objective],
    ) -> Arrays:
        """A model's arrays, checked against what its outputs are compared by."""
        inputs = self._inputs(op, x)
        names, rows = [one.name for one in chosen], len(inputs[0])
        given = data.by_name(op, "y", y, names, every=False)
        if sample_weight is None or not isinstance(sample_weight, (dict, list, tuple)):
            weights = [sample_weight] * len(names)
        else:
            weights = data.by_name(op, "sample_weight", sample_weight, names, every=False)
        if class_weight is not None and len(names) > 1:
            raise geometry.fail(op, "class_weight for a model with one output", len(names))
        targets: list[Any] = []
        factors: list[Any] = []
        for one, value, weight in zip(chosen, given, weights, strict=True):
            if one.loss is None:
                targets.append(None)
                factors.append(None)
                continue
            if value is None:
                what = "y" if len(names) == 1 else f"y for the output {one.name!r}"
                raise geometry.fail(op, f"{what}, as there is a loss", "none")
            target = data.targets(op, value, one.loss, one.shape, rows, self.dtype, self.gpu)
            factor = data.weights(op, weight, one.shape[:-1], rows, self.dtype, self.gpu)
            if class_weight is not None:
                factor = data.class_weights(op, class_weight, target, one.loss.sparse, factor)
            targets.append(target)
            factors.append(factor)
        return self._one_side(Arrays(inputs, targets, factors))

    def _one_side(self, arrays: Arrays) -> Arrays:
        """All in NumPy, or all on the GPU if one of them is there."""
        there = [a for values in arrays for a in values if a is not None]
        if self.gpu is None or all(isinstance(a, np.ndarray) for a in there):
            return arrays
        gpu = self.gpu
        return data.moved(arrays, lambda some: placement.to_gpu(gpu, some, 0))

    # ---- training --------------------------------------------------------------------------------

    def fit(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Callback | Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: Any = None,
        shuffle: bool = True,
        class_weight: dict[int, float] | None = None,
        sample_weight: Any = None,
        initial_epoch: int = 0,
        steps_per_epoch: int | None = None,
        validation_steps: int | None = None,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        device: str | None = None,
    ) -> History:
        """Trains the model. Every sample is used once an epoch; the last batch may be smaller.

        Args:
            x: (N, ...), any real dtype (uint8 images are taken as they are, 0 .. 255); for several
                inputs a list, or a dictionary by their names. Where the model is on a GPU, CuPy
                arrays are used where they are, and NumPy arrays copied there once, as they are, if
                they fit; if not, batch by batch while it computes.
                Or a stream of batches (x, y) or (x, y, sample_weight): a `convkit.data.Dataset`,
                anything that can be iterated over (anew for each epoch), or a generator.
            y: targets for the loss: (N, classes), labels (N,), or whatever the output's shape is;
                for several outputs a list or a dictionary. None for streams.
            batch_size: samples per update; None: 32. Streams have batches of their own.
            epochs: number of the epoch to end at.
            verbose: "auto" (a bar on a terminal, else nothing), 0 (nothing), 1 (a bar), 2 (a line
                per epoch).
            callbacks: a `convkit.callbacks.Callback` or several.
            validation_split: share of the samples, from the end, that is kept for validation.
            validation_data: (x, y), (x, y, sample_weight) or a stream, for validation after each
                epoch.
            shuffle: whether each epoch has an order of its own.
            class_weight: factors of the losses of classes, {class: factor}; 1 for others.
            sample_weight: (N,), factors of the samples' losses, or one for each of their losses.
            initial_epoch: number of the epoch to begin with.
            steps_per_epoch: updates in an epoch; None: until all samples were used. Generators
                need it, or are one epoch.
            validation_steps: how many batches are used for validation; None: all.
            validation_batch_size: None: batch_size.
            validation_freq: validation after every so many epochs.
            device: where to train, as for `to`: the model stays there. None: where it is.

        Returns:
            History: `history.history["loss"]` and so on, a value per epoch.

        Ctrl-C ends training between two updates: the model stays whole and can go on.
        """
        op = "fit"
        if device is not None:
            self._move(op, device)
        batch = geometry.integer(op, "batch_size", 32 if batch_size is None else batch_size, 1)
        epochs = geometry.integer(op, "epochs", epochs, 0)
        initial_epoch = geometry.integer(op, "initial_epoch", initial_epoch, 0)
        frequency = geometry.integer(op, "validation_freq", validation_freq, 1)
        share = geometry.number(op, "validation_split", validation_split, 0, 1)
        if steps_per_epoch is not None:
            steps_per_epoch = geometry.integer(op, "steps_per_epoch", steps_per_epoch, 1)
        validation_batch = geometry.integer(
            op,
            "validation_batch_size",
            batch if validation_batch_size is None else validation_batch_size,
            1,
        )
        feed: Feed
        if feeds.is_stream(x):
            self._require_compiled(op)
            feeds.check_alone(op, y=y, sample_weight=sample_weight)
            if share or class_weight is not None:
                raise geometry.fail(
                    op, "arrays for validation_split and class_weight", "a stream of batches"
                )
            feed = StreamFeed(self, x, steps_per_epoch)
            held_out = self._held_out(op, validation_data)
        else:
            arrays = self._arrays(op, x, y, sample_weight, class_weight)
            if not rows_of(arrays):
                raise geometry.fail(op, "at least one sample", "none")
            if validation_data is None and share:
                whole = arrays if class_weight is None else self._arrays(op, x, y, sample_weight)
                arrays, held_out = data.split(op, arrays, whole, share)
            else:
                held_out = self._held_out(op, validation_data)
            step = self._training_step(arrays, min(batch, rows_of(arrays)))
            if self.gpu is not None:
                gpu, room = self.gpu, step.program.native.arena_bytes(min(batch, rows_of(arrays)))

                def there(some: list[Any]) -> list[Any]:
                    return placement.to_gpu(gpu, some, room)

                arrays = data.moved(arrays, there)
                if isinstance(held_out, Arrays):
                    held_out = data.moved(held_out, there)
            feed = ArrayFeed(self, arrays, batch, bool(shuffle), steps_per_epoch)

        held_out = feeds.counted(held_out)
        feed.held_out = held_out
        history, bar = History(), _bar(verbose)
        called = CallbackList(
            [*data.listed(callbacks), *([bar] if bar else []), history],
            self,
            {
                "epochs": epochs,
                "steps": feed.steps,
                "verbose": verbose,
                "validation": held_out is not None,
            },
        )
        before = self._in_fit, self._feed, self.progress  # of a `fit` whose callback calls this one
        self.stop_training = False
        self._in_fit, self._feed, self.progress = True, feed, Progress(initial_epoch, 0, None)
        self.resume_from = None
        try:
            called("on_train_begin", {})
            begun = self.resume_from or self.progress
            logs = begun.logs
            for epoch in range(begun.epoch, epochs):
                if self.stop_training and not (epoch == begun.epoch and begun.row):
                    break
                called("on_epoch_begin", epoch, {})
                logs = feed.epoch(epoch, called, bar)
                if held_out is not None and (epoch + 1) % frequency == 0:
                    called("on_test_begin", {})
                    scores = self._evaluate(held_out, validation_batch, validation_steps)
                    called("on_test_end", scores)
                    logs.update({f"val_{name}": value for name, value in scores.items()})
                self.progress = Progress(epoch + 1, 0, None, logs)
                called("on_epoch_end", epoch, logs)
            assert self.optimizer is not None
            if epochs > initial_epoch:
                self.optimizer.finalize_variable_values(self.trainable_weights)
            called("on_train_end", logs)
        finally:
            self._in_fit, self._feed, self.progress = before
            feed.close()
            if bar:
                bar.close()
        return history

    def feed_state(self) -> list[Any]:
        """Where the streams that are trained on and validated with are, if they know it."""
        return [None, None] if self._feed is None else self._feed.state()

    def _held_out(self, op: str, validation_data: Any) -> Any:
        """Validation data: arrays, a stream, or None."""
        if validation_data is None or feeds.is_stream(validation_data):
            return validation_data
        if not isinstance(validation_data, (tuple, list)) or len(validation_data) not in (2, 3):
            raise TypeError(
                f"{op}: expected validation_data to be (x, y) or (x, y, sample_weight), got "
                f"{type(validation_data).__name__}"
            )
        return self._arrays(op, *validation_data)

    def train_on_batch(
        self,
        x: Any,
        y: Any = None,
        sample_weight: Any = None,
        class_weight: dict[int, float] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """One update on one batch.

        Returns:
            The batch's loss and metrics before the update, in the form of `evaluate`.
        """
        arrays = self._arrays("train_on_batch", x, y, sample_weight, class_weight)
        rows = rows_of(arrays)
        if not rows:
            raise geometry.fail("train_on_batch", "at least one sample", "none")
        assert self.optimizer is not None
        step = self._training_step(arrays, rows)
        with step.on(arrays, np.arange(rows, dtype=np.int64)):
            step.scores.reset()
            self.optimizer.prepare(None, 1)
            step.program.run(0, rows, rows)
        return _scores(step.scores.logs(), return_dict)

    # ---- use -------------------------------------------------------------------------------------

    def _evaluation(self, arrays: Arrays, batch_size: int) -> Evaluation:
        tiled = self._depth_first(min(batch_size, rows_of(arrays)), training=False)
        return self._program(
            ("evaluate", tiled), lambda: Evaluation(self, arrays, tiled), flatten(arrays)
        )

    def _evaluate(
        self, held_out: Any, batch_size: int, steps: int | None = None
    ) -> dict[str, float]:
        if not isinstance(held_out, Arrays):
            return self._evaluate_stream(held_out, steps)
        held_out = data.first("evaluate", held_out, steps, batch_size)
        program = self._evaluation(held_out, batch_size)
        at_once = self._at_once(rows_of(held_out), batch_size)
        try:
            return program.run(held_out, at_once, None)
        except MemoryError:
            if at_once <= batch_size:
                raise
        return program.run(held_out, batch_size, None)

    def _evaluate_stream(self, stream: Any, steps: int | None) -> dict[str, float]:
        """Of several batches: the scores go on in the counters of one program after the other."""
        totals: Totals | None = None
        logs: dict[str, float] = {}
        for x, y, weights in feeds.batches("evaluate", stream, steps):
            arrays = self._arrays("evaluate", x, y, weights)
            if not rows_of(arrays):
                continue
            program = self._evaluation(arrays, rows_of(arrays))
            logs = program.run(arrays, rows_of(arrays), totals)
            totals = program.scores
        if totals is None:
            raise geometry.fail("evaluate", "at least one sample", "none")
        return logs

    def evaluate(
        self,
        x: Any,
        y: Any = None,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        sample_weight: Any = None,
        steps: int | None = None,
        callbacks: Callback | Sequence[Callback] | None = None,
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics over all samples.

        Args:
            x, y, sample_weight: as for `fit`; x may be a stream of batches.
            batch_size: samples at a time; None: 32.
            verbose: 0: nothing is printed; "auto": a line on a terminal.
            steps: how many batches are used; None: all.
            callbacks: of which on_test_begin and on_test_end are called.
            return_dict: a dictionary in place of [loss, metric, ...].

        Returns:
            The loss alone where there are no metrics; else a list, the loss first.
        """
        batch = geometry.integer(
            "evaluate", "batch_size", 32 if batch_size is None else batch_size, 1
        )
        if feeds.is_stream(x):
            held_out = x
            feeds.check_alone("evaluate", y=y, sample_weight=sample_weight)
            self._require_compiled("evaluate")
        else:
            held_out = self._arrays("evaluate", x, y, sample_weight)
            if not rows_of(held_out):
                raise geometry.fail("evaluate", "at least one sample", "none")
        called = CallbackList(data.listed(callbacks), self, {"verbose": verbose})
        called("on_test_begin", {})
        start = time.perf_counter()
        logs = self._evaluate(held_out, batch, steps)
        seconds = time.perf_counter() - start
        called("on_test_end", logs)
        if _shows(verbose):
            rows = f"{rows_of(held_out)} samples in " if isinstance(held_out, Arrays) else ""
            print(f"{rows}{seconds:.2f} s - {describe(logs)}", file=sys.stderr)
        return _scores(logs, return_dict)

    def test_on_batch(
        self, x: Any, y: Any = None, sample_weight: Any = None, return_dict: bool = False
    ) -> Any:
        """The loss and the metrics of one batch, in the form of `evaluate`."""
        rows = self._arrays("test_on_batch", x, y, sample_weight)
        if not rows_of(rows):
            raise geometry.fail("test_on_batch", "at least one sample", "none")
        return _scores(self._evaluate(rows, rows_of(rows)), return_dict)

    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: str | int = 0,
        steps: int | None = None,
    ) -> Any:
        """The outputs for x.

        Args:
            x: (N, ...), as for `fit`; or a stream of batches x, or (x, y) of which x is used.
            batch_size: samples at a time; None: 32. (On a GPU as many as keep it busy; so many if
                there is no room for more.) As long as all numbers are finite, the result does not
                depend on it, bit for bit. (On the number of samples it does, by rounding: from 11
                on, of large images from 24 on, 16 go through the model together. And a value that
                was written into a weight's array, not by `assign`, may be seen by some of it only:
                what follows from weights is kept until `assign`, `load_weights` or training.)
            verbose: taken for Keras's sake; nothing is printed.
            steps: how many batches are used; None: all.

        Returns:
            (N, ...) of the model's dtype, a CuPy array for one; of several outputs a list or a
            dictionary, as the model has them.
        """
        if batch_size is None:
            one = self._programs.get(ONE_IMAGE, {}).get(getattr(x, "dtype", None))
            if one is not None and (y := one(x, None)) is not None:
                return y
        if feeds.is_stream(x):
            parts = [
                flatten(self.predict(values)) for values in feeds.inputs_of("predict", x, steps)
            ]
            if not parts:
                raise geometry.fail("predict", "at least one batch", "none")
            return pack(self.outputs, [data.joined(one) for one in zip(*parts, strict=True)])
        self._build_for("predict", x)
        batch = geometry.integer(
            "predict", "batch_size", 32 if batch_size is None else batch_size, 1
        )
        given = data.first("predict", Arrays(self._inputs("predict", x), [], []), steps, batch)
        arrays = self._one_side(given).x
        rows = len(arrays[0])
        tiled = self._depth_first(rows, training=False)
        program = self._program(("predict", tiled), lambda: Prediction(self, arrays, tiled), arrays)
        if program.one is not None:
            self._programs.setdefault(ONE_IMAGE, {})[arrays[0].dtype] = program.one
        at_once = self._at_once(rows, batch)
        try:
            return pack(self.outputs, program.run(arrays, at_once))
        except MemoryError:
            if at_once <= batch:
                raise
        return pack(self.outputs, program.run(arrays, batch))

    def predict_on_batch(self, x: Any) -> Any:
        """The outputs for one batch: `predict`."""
        return self.predict(x)

    def compiled(self, batch_size: int = 1) -> CompiledModel:
        """The model's inference as a function of arrays, for services.

        Args:
            batch_size: how many samples a call takes at most.

        Returns:
            A callable that gives for an array (n, ...) with n <= batch_size what `predict` gives,
            in microseconds. The model's weights stay its own, and are used as they are when it is
            called, as they were last assigned, loaded or trained. Where the model is on a GPU, it
            takes CuPy arrays too, for which it returns CuPy's; when the model has moved it is of no
            use any more.

        Raises:
            ValueError: the model has several inputs or outputs.
        """
        self._require_built("compiled")
        for role, nest in (("input", self.inputs), ("output", self.outputs)):
            if not isinstance(nest, Symbol):
                raise geometry.fail(
                    "compiled",
                    f"a model with one {role}",
                    f"{len(flatten(nest))} in a {type(nest).__name__}",
                )
        with self._recording:
            return CompiledModel(self, batch_size)

    def _require_built(self, op: str) -> None:
        raise NotImplementedError

    def _move(self, op: str, device: str) -> None:
        raise NotImplementedError


def _names_of(symbols: Sequence[Symbol], otherwise: str) -> list[str]:
    """Those of the layers that made them; a number is added to one that is taken."""
    names: list[str] = []
    for symbol in symbols:
        wanted = otherwise if symbol.history is None else symbol.history.layer.name
        name, number = wanted, 0
        while name in names:
            number += 1
            name = f"{wanted}_{number}"
        names.append(name)
    return names


def _shows(verbose: str | int) -> bool:
    if verbose == "auto":
        return sys.stderr.isatty()
    if verbose not in (0, 1, 2):
        raise geometry.fail("verbose", '"auto", 0, 1 or 2', repr(verbose))
    return verbose != 0


def _bar(verbose: str | int) -> ProgressBar | None:
    return ProgressBar(bar=verbose != 2) if _shows(verbose) else None


def _scores(logs: dict[str, float], return_dict: bool) -> Any:
    """Logs as Keras returns them: the loss alone, or [loss, metric, ...], or a dictionary."""
    if return_dict:
        return logs
    values = [logs.pop("loss"), *logs.values()]
    return values if len(values) > 1 else values[0]
