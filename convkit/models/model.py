"""Models: layers in a graph, compiled, trained, evaluated and used."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from convkit import geometry, losses, metrics, optimizers, planner, profiling, random
from convkit.callbacks import Callback, CallbackList, History, ProgressBar, describe
from convkit.config import get_precision
from convkit.geometry import Shape
from convkit.graph import Symbol, Variable
from convkit.layers import InputLayer, Layer
from convkit.layers.base import unique_name
from convkit.models import data, files, placement
from convkit.models.compiled import CompiledModel
from convkit.models.steps import Evaluation, Prediction, Scores, TrainingStep
from convkit.models.summary import summary_table

# How long a program runs before Python looks at the progress bar again.
SECONDS_PER_LOOK = 0.1
# The key, among a model's programs, of the functions that predict one image, by its dtype.
ONE_IMAGE = "one image"


class Model(Layer):
    """Layers between an input and an output.

    Args:
        inputs: a symbol from `convkit.layers.Input`.
        outputs: a symbol that layers made of it.
        name: the model's name.

    Example:
        >>> x = Input((28, 28, 1))
        >>> y = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
        >>> model = Model(x, y)
    """

    def __init__(
        self, inputs: Symbol | None = None, outputs: Symbol | None = None, name: str | None = None
    ) -> None:
        functional = type(self) is Model
        super().__init__(name=name or (unique_name("Functional") if functional else None))
        self.stop_training = False
        self.optimizer: optimizers.Optimizer | None = None
        self.loss: losses.Loss | None = None
        self._metrics: list[Any] = []
        self._chosen: list[metrics.Metric] | None = None
        self._programs: dict[Any, Any] = {}
        self._layers: list[Layer] = []
        self._calls: list[tuple[Layer, Symbol | list[Symbol], Symbol]] = []
        self._recording = threading.RLock()  # programs are recorded by one thread at a time
        self.gpu: int | None = None  # the number of the one that programs run on
        self._in_fit = False
        self.inputs: Symbol | None = None
        self.outputs: Symbol | None = None
        if functional or inputs is not None:
            self._connect(inputs, outputs)
        elif not isinstance(self, Sequential):
            raise TypeError(
                f"{type(self).__name__}: expected super().__init__(inputs, outputs), got neither; "
                "a model is made of layers, and a function of one's own is a subclass of Layer"
            )

    def _connect(self, inputs: Any, outputs: Any) -> None:
        for role, value in (("inputs", inputs), ("outputs", outputs)):
            if isinstance(value, (list, tuple)) and len(value) == 1:
                value = value[0]
            if not isinstance(value, Symbol):
                raise TypeError(f"Model: expected {role} to be one symbol, got {value!r}")
            setattr(self, role, value)
        assert self.inputs is not None and self.outputs is not None
        self._calls = _layer_calls(self.inputs, self.outputs)
        first = self.inputs.history[0] if self.inputs.history else None
        layers = [first] if isinstance(first, InputLayer) else []
        for layer in [*layers, *(layer for layer, _, _ in self._calls)]:
            if layer not in self._layers:
                self._layers.append(layer)
        self.dtype = self.inputs.dtype
        self.built = True

    @property
    def input_shape(self) -> Any:
        """The shape of the model's input, None for any number of samples."""
        return None if self.inputs is None else self.inputs.shape

    @property
    def output_shape(self) -> Any:
        """The shape of the model's output, None for any number of samples."""
        return None if self.outputs is None else self.outputs.shape

    # ---- layers and weights ----------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, inputs first."""
        return list(self._layers)

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of this name, or the one at this index."""
        if (name is None) == (index is None):
            raise geometry.fail("get_layer", "a name or an index", "both or neither")
        if index is not None:
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self._layers)
        raise geometry.fail("get_layer", f"one of {names}", repr(name))

    @property
    def trainable_weights(self) -> list[Variable]:
        if not self.trainable:
            return []
        return _once(v for layer in self._layers for v in layer.trainable_weights)

    @property
    def non_trainable_weights(self) -> list[Variable]:
        if not self.trainable:
            return _once(v for layer in self._layers for v in layer.weights)
        return _once(v for layer in self._layers for v in layer.non_trainable_weights)

    def ordered_weights(self) -> list[Variable]:
        self._require_built("weights")
        return _once(v for layer in self._layers for v in layer.ordered_weights())

    def call(self, x: Any, training: bool = False) -> Any:
        """The output for a symbol or an array, layer by layer."""
        self._require_built("call")
        assert self.inputs is not None and self.outputs is not None
        values = {id(self.inputs): x}
        for layer, source, result in self._calls:
            given = (
                [values[id(one)] for one in source]
                if isinstance(source, list)
                else values[id(source)]
            )
            values[id(result)] = layer.run(given, training)
        return values[id(self.outputs)]

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The output's shape for inputs of this shape."""
        self._require_built("compute_output_shape")
        return super().compute_output_shape(input_shape)

    # ---- devices ---------------------------------------------------------------------------------

    @property
    def device(self) -> str:
        """Where the model trains and predicts: "cpu" or "cuda:0"."""
        return placement.name_of(self.gpu)

    def to(self, device: str) -> Model:
        """Moves the model: its weights, the optimizer's state, and all that it does from then on.

        Args:
            device: "cpu", "cuda" (CuPy's current GPU) or "cuda:1".

        Returns:
            The model itself.

        Raises:
            RuntimeError: in one sentence, why no GPU can be used; or the model is being trained.
            MemoryError: there is no room; the model is where it was.

        Weights that several models share are where the last of them was used.
        """
        gpu = placement.gpu_of("to", device)
        if self._in_fit:
            raise RuntimeError("to: expected a model at rest, got one that is being trained")
        before, self.gpu = self.gpu, gpu
        try:
            for variable in self.ordered_weights() if self.built else []:
                variable.to(gpu)
            if self.optimizer is not None:
                self.optimizer.to(gpu)
        except MemoryError:
            self.gpu = before
            for variable in self.ordered_weights() if self.built else []:
                variable.to(before)
            if self.optimizer is not None:
                self.optimizer.to(before)
            raise MemoryError(
                f"to: no room on the GPU for {self.count_params():,} weights and what the "
                "optimizer keeps of them"
            ) from None
        if gpu != before:
            self.forget()
        return self

    def forget(self) -> None:
        """Has programs recorded anew: the weights have moved."""
        self._programs = {}

    def _require_built(self, op: str) -> None:
        if not self.built:
            raise ValueError(
                f"{op}: expected a built model, got one whose input shape is not known; give the "
                "first layer input_shape=(...), begin with layers.Input, or call build(shape)"
            )

    def symbol_of(self, layer: Layer) -> Symbol:
        """What a layer makes in this model: `Model(model.inputs, model.symbol_of(layer))`."""
        for candidate, _, result in self._calls:
            if candidate is layer:
                return result
        raise geometry.fail("symbol_of", "a layer that this model calls", repr(layer))

    def summary(self, print_fn: Any = None, *, plan: bool = False, batch_size: int = 128) -> None:
        """Prints the layers, their output shapes and how many parameters they have.

        Args:
            print_fn: what prints the text; None: print.
            plan: whether to add how the model is carried out: the kernels of a training step (of a
                forward pass, if the model is not compiled), what runs depth-first, how much it is
                and the memory that it takes. `convkit.profile` adds the times.
            batch_size: for the plan.
        """
        self._require_built("summary")
        text = summary_table(self)
        if plan:
            batch = geometry.integer("summary", "batch_size", batch_size, 1)
            text += f"\n\n{self._plan(batch)}"
        (print_fn or print)(text)

    def _plan(self, batch: int) -> profiling.Profile:
        assert self.input_shape is not None and self.output_shape is not None
        x = np.zeros((1, *self.input_shape[1:]), self.dtype)
        y = None
        if self.optimizer is not None and self.loss is not None:
            shape = self.output_shape[1:-1] if self.loss.sparse else self.output_shape[1:]
            y = np.zeros((1, *shape), np.int32 if self.loss.sparse else self.dtype)
        title, program, _, _ = self._program_for_profile(x, y, batch, measured=False)
        return profiling.describe(title, program, batch)

    def _program_for_profile(
        self, x: Any, y: Any, batch: int, measured: bool = True
    ) -> tuple[str, Any, Any, int]:
        """(title, program, the context in which its arrays are bound, samples).

        Args:
            measured: whether it is for the times of single kernels: on a GPU it is not fused then.
        """
        if y is None:
            self._build_for("profile", x)
            x = data.inputs("profile", x, self.input_shape, self.dtype, self.gpu)
            tiled = self._depth_first(batch, training=False)
            if measured and self.gpu is not None:
                tiled = False
            forward = Prediction(self, x, tiled)
            out = forward.empty(x)
            bound = forward.program.bound((forward.x, x), (forward.y, out))
            return f"{self.name}: forward pass", forward.program, bound, len(x)
        x, y = self._arrays("profile", x, y)
        step = self._training_step(x, y, batch, measured)
        order = np.arange(len(x), dtype=np.int64)
        return f"{self.name}: training step", step.program, step.on(x, y, order), len(x)

    def save_weights(self, path: Any) -> None:
        """Writes the weights to a safetensors file: whole, or not at all."""
        self._require_built("save_weights")
        files.save(path, self)

    def load_weights(self, path: Any) -> None:
        """Reads the weights from a safetensors file; nothing is changed if one does not fit."""
        self._require_built("load_weights")
        files.load(path, self)

    # ---- training --------------------------------------------------------------------------------

    def compile(
        self, optimizer: Any, loss: Any = None, *, metrics: Sequence[Any] | None = None
    ) -> None:
        """Says how the model is to be trained.

        Args:
            optimizer: a name ("sgd", "adam") or an optimizer.
            loss: a name ("categorical_crossentropy", …), a loss, or a function of y_true and
                y_pred made of `convkit.ops` that gives one value per sample.
            metrics: names ("accuracy", "mse", …) or metrics.
        """
        self.optimizer = optimizers.get(optimizer)
        self.loss = None if loss is None else losses.get(loss)
        if isinstance(metrics, str):
            raise TypeError(f"compile: expected a list of metrics, got {metrics!r}")
        self._metrics = list(metrics or [])
        self._chosen = None
        self._programs = {}
        if self.built:
            self._choose_metrics()

    def _choose_metrics(self) -> list[metrics.Metric]:
        if self._chosen is None:
            assert self.loss is not None or not self._metrics or self.built
            sparse = self.loss is not None and self.loss.sparse
            self._chosen = [metrics.get(m, self.output_shape, sparse) for m in self._metrics]
        return self._chosen

    def _ready(self, op: str, x: Any) -> losses.Loss:
        if self.optimizer is None:
            raise ValueError(f"{op}: expected a compiled model, got one without compile(...)")
        if self.loss is None:
            raise ValueError(f"{op}: expected a loss, got compile(...) without one")
        self._build_for(op, x)
        return self.loss

    def _build_for(self, op: str, x: Any) -> None:
        """Builds a model that waited for the shape of its first input."""
        if not self._layers:
            raise geometry.fail(op, "a model with at least one layer", "none")
        if not self.built:
            self.build((None, *np.shape(x)[1:]))

    def _program(self, kind: tuple[Any, ...], make: Any, *arrays: Any) -> Any:
        """The program for arrays of these dtypes, recorded at first use."""
        trainable = tuple(id(v) for v in self.trainable_weights) if kind[0] == "train" else ()
        key = (kind, trainable, *((a.dtype, a.shape[1:]) for a in arrays))
        program = self._programs.get(key)
        if program is None:
            with self._recording:
                program = self._programs.get(key)
                if program is None:
                    program = make()  # which may move variables, and so forget the others
                    self._programs[key] = program
                    for variable in program.program.variables:
                        variable.add_user(self)
        return program

    def sample_bytes(self) -> int:
        """Of all that the layers make of one sample."""
        total = 0
        for layer, _, result in self._calls:
            total += layer.sample_bytes() if isinstance(layer, Model) else 0
            total += geometry.samples(result.shape)[1] * np.dtype(self.dtype).itemsize
        return total

    def _depth_first(self, samples: int, training: bool) -> bool:
        if self.gpu is not None:  # whatever the number; blocks of threads know float32 alone
            return get_precision() == "float32"
        return samples >= planner.least_depth_first(self.sample_bytes(), training)

    def _at_once(self, samples: int, batch: int) -> int:
        """Samples that go through the network at a time where no weights change after each batch.

        On a GPU it is not for the caller to know how many keep it busy.
        """
        if self.gpu is None:
            return batch
        return max(1, min(samples, placement.AT_ONCE // max(1, self.sample_bytes())))

    def _training_step(self, x: Any, y: Any, batch: int, measured: bool = False) -> TrainingStep:
        assert self.loss is not None and self.optimizer is not None
        loss, optimizer = self.loss, self.optimizer
        tiled = self._depth_first(batch, training=True)
        if measured and self.gpu is not None:
            tiled = False
        return self._program(  # type: ignore[no-any-return]
            ("train", tiled),
            lambda: TrainingStep(
                self, x, y, Scores(loss, self._choose_metrics()), optimizer, tiled
            ),
            x,
            y,
        )

    def _arrays(self, op: str, x: Any, y: Any) -> tuple[Any, Any]:
        loss = self._ready(op, x)
        x = data.inputs(op, x, self.input_shape, self.dtype, self.gpu)
        y = data.targets(op, y, loss, self.output_shape, len(x), self.dtype, self.gpu)
        return x, y

    def _one_side(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Both in NumPy, or both on the GPU if one of them is there."""
        if self.gpu is None or isinstance(x, np.ndarray) == isinstance(y, np.ndarray):
            return x, y
        x, y = placement.to_gpu(self.gpu, [x, y], 0)
        return x, y

    def fit(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        epochs: int = 1,
        verbose: str | int = "auto",
        callbacks: Callback | Sequence[Callback] | None = None,
        validation_split: float = 0.0,
        validation_data: tuple[Any, Any] | None = None,
        shuffle: bool = True,
        initial_epoch: int = 0,
        validation_batch_size: int | None = None,
        validation_freq: int = 1,
        device: str | None = None,
    ) -> History:
        """Trains the model. Every sample is used once an epoch; the last batch may be smaller.

        Args:
            x: (N, ...), any real dtype (uint8 images are taken as they are, 0 .. 255). Where the
                model is on a GPU, CuPy arrays are used where they are, and NumPy arrays copied
                there once, as they are, if they fit; if not, batch by batch while it computes.
            y: targets for the loss: (N, classes), labels (N,), or whatever the output's shape is.
            batch_size: samples per update; None: 32.
            epochs: number of the epoch to end at.
            verbose: "auto" (a bar on a terminal, else nothing), 0 (nothing), 1 (a bar), 2 (a line
                per epoch).
            callbacks: a `convkit.callbacks.Callback` or several.
            validation_split: share of the samples, from the end, that is kept for validation.
            validation_data: (x, y) for validation after each epoch.
            shuffle: whether each epoch has an order of its own.
            initial_epoch: number of the epoch to begin with.
            validation_batch_size: None: batch_size.
            validation_freq: validation after every so many epochs.
            device: where to train, as for `to`: the model stays there. None: where it is.

        Returns:
            History: `history.history["loss"]` and so on, a value per epoch.

        Ctrl-C ends training between two updates: the model stays whole and can go on.
        """
        op = "fit"
        if device is not None:
            self.to(device)
        batch = geometry.integer(op, "batch_size", 32 if batch_size is None else batch_size, 1)
        epochs = geometry.integer(op, "epochs", epochs, 0)
        initial_epoch = geometry.integer(op, "initial_epoch", initial_epoch, 0)
        frequency = geometry.integer(op, "validation_freq", validation_freq, 1)
        share = geometry.number(op, "validation_split", validation_split, 0, 1)
        if validation_data is None and share:
            x, y, validation_data = data.split(op, x, y, share)
        x, y = self._arrays(op, x, y)
        if not len(x):
            raise geometry.fail(op, "at least one sample", "none")
        held_out = None
        if validation_data is not None:
            if not isinstance(validation_data, (tuple, list)) or len(validation_data) != 2:
                raise TypeError(f"{op}: expected validation_data to be (x, y)")
            held_out = self._arrays(op, *validation_data)
        validation_batch = geometry.integer(
            op,
            "validation_batch_size",
            batch if validation_batch_size is None else validation_batch_size,
            1,
        )
        step = self._training_step(x, y, min(batch, len(x)))
        if self.gpu is not None:
            room = step.program.native.arena_bytes(min(batch, len(x)))
            x, y = placement.to_gpu(self.gpu, [x, y], room)
            if held_out is not None:
                held_out = tuple(placement.to_gpu(self.gpu, list(held_out), room))
        order = np.arange(len(x), dtype=np.int64)

        history, bar = History(), _bar(verbose)
        steps = -(-len(x) // batch)
        called = CallbackList(
            [history, *data.listed(callbacks), *([bar] if bar else [])],
            self,
            {"epochs": epochs, "steps": steps, "verbose": verbose},
        )
        self.stop_training = False
        called("on_train_begin", {})
        self._in_fit = True
        try:
            for epoch in range(initial_epoch, epochs):
                called("on_epoch_begin", epoch, {})
                seed = random.draw_seed() if shuffle else None
                if step.program.forgotten:  # a callback used another model with these weights
                    step = self._training_step(x, y, min(batch, len(x)))
                with step.on(x, y, order):
                    logs = self._epoch(step, len(x), batch, seed, called, bar)
                if held_out is not None and (epoch + 1) % frequency == 0:
                    scores = self._evaluate(*held_out, validation_batch)
                    logs.update({f"val_{name}": value for name, value in scores.items()})
                called("on_epoch_end", epoch, logs)
                if self.stop_training:
                    break
        finally:
            self._in_fit = False
            if bar:
                bar.close()
        called("on_train_end", {})
        return history

    def _epoch(
        self,
        step: TrainingStep,
        rows: int,
        batch: int,
        seed: int | None,
        called: CallbackList,
        bar: ProgressBar | None,
    ) -> dict[str, float]:
        step.scores.reset()
        seconds = 0.0 if called.every_batch else (SECONDS_PER_LOOK if bar else float("inf"))
        at = 0
        while at < rows:
            number = at // batch
            if called.every_batch:
                called("on_train_batch_begin", number, {})
            at = step.program.run(at, rows, batch, seconds, seed)
            seed = None  # the order stays until the next epoch
            if called.every_batch:
                called("on_train_batch_end", number, step.scores.logs())
            if bar:
                bar.progress(-(-at // batch), step.scores.logs())
        return step.scores.logs()

    def train_on_batch(self, x: Any, y: Any, return_dict: bool = False) -> Any:
        """One update on one batch.

        Returns:
            The batch's loss and metrics before the update, in the form of `evaluate`.
        """
        x, y = self._arrays("train_on_batch", x, y)
        if not len(x):
            raise geometry.fail("train_on_batch", "at least one sample", "none")
        x, y = self._one_side(x, y)
        step = self._training_step(x, y, len(x))
        with step.on(x, y, np.arange(len(x), dtype=np.int64)):
            step.scores.reset()
            step.program.run(0, len(x), len(x))
        return _scores(step.scores.logs(), return_dict)

    # ---- use -------------------------------------------------------------------------------------

    def _evaluate(self, x: Any, y: Any, batch_size: int) -> dict[str, float]:
        assert self.loss is not None
        loss = self.loss
        tiled = self._depth_first(min(batch_size, len(x)), training=False)
        program: Evaluation = self._program(
            ("evaluate", tiled),
            lambda: Evaluation(self, x, y, Scores(loss, self._choose_metrics()), tiled),
            x,
            y,
        )
        at_once = self._at_once(len(x), batch_size)
        try:
            return program.run(x, y, at_once)
        except MemoryError:
            if at_once <= batch_size:
                raise
        return program.run(x, y, batch_size)

    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None = None,
        verbose: str | int = "auto",
        return_dict: bool = False,
    ) -> Any:
        """The loss and the metrics over all samples.

        Args:
            x, y: as for `fit`.
            batch_size: samples at a time; None: 32.
            verbose: 0: nothing is printed; "auto": a line on a terminal.
            return_dict: a dictionary in place of [loss, metric, ...].

        Returns:
            The loss alone where there are no metrics; else a list, the loss first.
        """
        x, y = self._one_side(*self._arrays("evaluate", x, y))
        if not len(x):
            raise geometry.fail("evaluate", "at least one sample", "none")
        batch = geometry.integer(
            "evaluate", "batch_size", 32 if batch_size is None else batch_size, 1
        )
        start = time.perf_counter()
        logs = self._evaluate(x, y, batch)
        if _shows(verbose):
            seconds = time.perf_counter() - start
            print(f"{len(x)} samples in {seconds:.2f} s - {describe(logs)}", file=sys.stderr)
        return _scores(logs, return_dict)

    def predict(self, x: Any, batch_size: int | None = None, verbose: str | int = 0) -> Any:
        """The outputs for x.

        Args:
            x: (N, ...), as for `fit`.
            batch_size: samples at a time; None: 32. (On a GPU as many as keep it busy; so many if
                there is no room for more.) As long as all numbers are finite, the result does not
                depend on it, bit for bit. (On the number of samples it does, by rounding: from 11
                on, of large images from 24 on, 16 go through the model together.)
            verbose: taken for Keras's sake; nothing is printed.

        Returns:
            (N, ...) of the model's dtype; a CuPy array for one.
        """
        if batch_size is None:
            for one in self._programs.get(ONE_IMAGE, {}).values():
                y: Any = one(x, None)
                if y is not None:
                    return y
        self._build_for("predict", x)
        batch = geometry.integer(
            "predict", "batch_size", 32 if batch_size is None else batch_size, 1
        )
        x = data.inputs("predict", x, self.input_shape, self.dtype, self.gpu)
        tiled = self._depth_first(len(x), training=False)
        program: Prediction = self._program(
            ("predict", tiled), lambda: Prediction(self, x, tiled), x
        )
        if program.one is not None:
            self._programs.setdefault(ONE_IMAGE, {})[x.dtype] = program.one
        at_once = self._at_once(len(x), batch)
        try:
            return program.run(x, at_once)
        except MemoryError:
            if at_once <= batch:
                raise
        return program.run(x, batch)

    def compiled(self, batch_size: int = 1) -> CompiledModel:
        """The model's inference as a function of arrays, for services.

        Args:
            batch_size: how many samples a call takes at most.

        Returns:
            A callable that gives for an array (n, ...) with n <= batch_size what `predict` gives,
            in microseconds. The model's weights stay its own, and are used as they are when it is
            called. Where the model is on a GPU, it takes CuPy arrays too, for which it returns
            CuPy's; when the model has moved it is of no use any more.
        """
        self._require_built("compiled")
        with self._recording:
            return CompiledModel(self, batch_size)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}, {len(self._layers)} layers>"


class Sequential(Model):
    """Layers one after the other.

    Args:
        layers: layers, or a symbol from `convkit.layers.Input` first.
        name: the model's name.

    The model is built as soon as it knows its input's shape: from `Input`, from the first layer's
    `input_shape=`, from `build(shape)`, or from the first array it meets.
    """

    def __init__(self, layers: Iterable[Any] | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self._input: InputLayer | None = None
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Appends a layer (or an input, at the beginning)."""
        if isinstance(layer, Symbol) and layer.history is not None and layer.history[1] is None:
            layer = layer.history[0]
        if not isinstance(layer, Layer):
            raise TypeError(f"Sequential.add: expected a layer, got {layer!r}")
        if isinstance(layer, InputLayer):
            if self._input is not None or self._layers:
                raise ValueError("Sequential.add: expected an input only at the beginning")
            self._input = layer
            return
        if any(layer.name == other.name for other in self._layers):
            raise geometry.fail(
                "Sequential.add", "layers of different names", f"{layer.name} twice"
            )
        if self._input is None and not self._layers and layer.batch_input_shape is not None:
            self._input = _input(layer.batch_input_shape, layer.dtype)
        self._layers.append(layer)
        try:
            self._rebuild()
        except Exception:
            self._layers.pop()
            raise

    def pop(self) -> Layer:
        """Removes and returns the last layer."""
        if not self._layers:
            raise ValueError("Sequential.pop: expected at least one layer, got none")
        layer = self._layers.pop()
        self.built = False
        self._rebuild()
        return layer

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs of this shape, the batch included: (None, 28, 28, 1)."""
        if not self._layers:
            raise ValueError(f"{self.name}: expected at least one layer, got none")
        if self._input is None:
            self._input = _input(tuple(input_shape), None)
        self._rebuild()

    def _rebuild(self) -> None:
        self._programs, self._chosen = {}, None
        if self._input is None or not self._layers:
            return
        layers = list(self._layers)
        x = self._input.symbol
        y = x
        for layer in layers:
            y = layer(y)
        self._connect(x, y)
        self._layers = layers


def _input(shape: Shape, dtype: str | None) -> InputLayer:
    return InputLayer([size for size in shape[1:] if size is not None], dtype=dtype)


def _layer_calls(
    inputs: Symbol, outputs: Symbol
) -> list[tuple[Layer, Symbol | list[Symbol], Symbol]]:
    """The layers' calls between two symbols, each after those it depends on."""
    calls: list[tuple[Layer, Symbol | list[Symbol], Symbol]] = []
    done = {id(inputs)}
    reached = inputs is outputs
    stack: list[tuple[Symbol, bool]] = [(outputs, False)]
    while stack:
        symbol, visited = stack.pop()
        reached = reached or symbol is inputs
        if id(symbol) in done:
            continue
        if symbol.history is None:
            raise ValueError(
                f"Model: expected outputs made by layers, got {symbol!r}, which is none's result"
            )
        layer, x = symbol.history
        if x is None:
            raise ValueError(f"Model: expected outputs that follow from inputs, got {layer.name}")
        if visited:
            done.add(id(symbol))
            calls.append((layer, x, symbol))
        else:
            stack.append((symbol, True))
            stack.extend((source, False) for source in (x if isinstance(x, list) else [x]))
    if not reached:
        raise ValueError("Model: expected outputs that follow from inputs, got others")
    return calls


def _once(variables: Iterable[Variable]) -> list[Variable]:
    """Without repetitions, in order: a layer may stand in a model twice."""
    return list({id(variable): variable for variable in variables}.values())


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
