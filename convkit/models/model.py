"""Models: layers in a graph."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Self

import numpy as np

from convkit import geometry, profiling
from convkit.geometry import Shape
from convkit.graph import LayerCall, Symbol, Variable
from convkit.interpreter import Interpreter
from convkit.layers import InputLayer, Layer
from convkit.layers.base import once, unique_name
from convkit.models import files, placement, sharing
from convkit.models.data import Arrays, by_name, rows_of
from convkit.models.steps import Prediction
from convkit.models.summary import summary_table
from convkit.models.training import Trainer
from convkit.structure import flatten, mapped

# Modules of which a model's configuration names classes.
LAYERS = (
    "layers",
    "models",
    "initializers",
    "regularizers",
    "constraints",
)


class Model(Trainer):
    """Layers between inputs and outputs.

    Args:
        inputs: a symbol from `convkit.layers.Input`, or a list or a dictionary of them.
        outputs: a symbol that layers made of them, or a list or a dictionary.
        name: the model's name.

    A model is a layer: called on symbols it stands in other models, with the same weights.

    Example:
        >>> x = Input((28, 28, 1))
        >>> y = layers.Dense(10, activation="softmax")(layers.Flatten()(x))
        >>> model = Model(x, y)
    """

    def __init__(self, inputs: Any = None, outputs: Any = None, name: str | None = None) -> None:
        functional = type(self) is Model
        super().__init__(name or (unique_name("Functional") if functional else None))
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
            symbols = list(value.values()) if isinstance(value, dict) else value
            symbols = list(symbols) if isinstance(symbols, (list, tuple)) else [symbols]
            if not symbols or not all(isinstance(symbol, Symbol) for symbol in symbols):
                raise TypeError(
                    f"Model: expected {role} to be symbols (one, a list or a dictionary), "
                    f"got {value!r}"
                )
            setattr(self, role, mapped(lambda symbol: symbol, value))
        sources, results = flatten(self.inputs), flatten(self.outputs)
        dtypes = {symbol.dtype for symbol in [*sources, *results]}
        if len(dtypes) > 1:
            raise TypeError(f"Model: expected one dtype, got {', '.join(sorted(dtypes))}")
        if len({id(symbol) for symbol in sources}) < len(sources):
            raise geometry.fail("Model", "inputs that differ", "one of them twice")
        self._calls = _layer_calls(sources, results)
        made_by = [symbol.history.layer for symbol in sources if symbol.history is not None]
        layers = [layer for layer in made_by if isinstance(layer, InputLayer)]
        every = [*self._layers, *layers, *(call.layer for call in self._calls)]
        self._layers = list({id(layer): layer for layer in every}.values())
        named: dict[str, Layer] = {}
        for layer in self._layers:
            if named.setdefault(layer.name, layer) is not layer:
                raise geometry.fail("Model", "layers of different names", f"{layer.name} twice")
        self.dtype = sources[0].dtype
        self._sample_bytes, self._trained_ids = 0, (-1, ())
        self.built = True

    @property
    def input_shape(self) -> Any:
        """The shapes of the model's inputs, None for any number of samples."""
        return None if self.inputs is None else mapped(lambda one: one.shape, self.inputs)

    @property
    def output_shape(self) -> Any:
        """The shapes of the model's outputs, None for any number of samples."""
        return None if self.outputs is None else mapped(lambda one: one.shape, self.outputs)

    @property
    def input(self) -> Any:
        """The model's input, or a list or a dictionary of several: `inputs`."""
        return self.inputs

    # ---- layers and weights ----------------------------------------------------------------------

    @property
    def layers(self) -> list[Layer]:
        """The layers, inputs first."""
        return list(self._layers)

    @property
    def sublayers(self) -> list[Layer]:
        return self.layers

    def get_layer(self, name: str | None = None, index: int | None = None) -> Layer:
        """The layer of this name, or the one at this index."""
        if (name is None) == (index is None):
            raise geometry.fail("get_layer", "a name or an index", "both or neither")
        if index is not None:
            count = len(self._layers)
            if not -count <= index < count:
                raise geometry.fail("get_layer", f"an index below {count}", index)
            return self._layers[index]
        for layer in self._layers:
            if layer.name == name:
                return layer
        names = ", ".join(layer.name for layer in self._layers)
        raise geometry.fail("get_layer", f"one of {names}", repr(name))

    @property
    def trainable_weights(self) -> list[Variable]:
        return once(*(layer.trainable_weights for layer in self._layers))

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return once(*(layer.non_trainable_weights for layer in self._layers))

    def ordered_weights(self) -> list[Variable]:
        self._require_built("weights")
        return once(*(layer.ordered_weights() for layer in self._layers))

    def call(self, x: Any, training: bool = False) -> Any:
        """The outputs for symbols or arrays in the form of the inputs, layer by layer."""
        self._require_built("call")
        symbols = flatten(self.inputs)
        if isinstance(x, dict):
            given = by_name(self.name, "inputs", x, self.input_names)
        else:
            given = flatten(x)
        if len(given) != len(symbols):
            raise geometry.fail(self.name, f"{len(symbols)} inputs", len(given))
        values = {id(symbol): value for symbol, value in zip(symbols, given, strict=True)}
        for one in self._calls:
            result = one.layer.run(mapped(lambda v: values[id(v)], one.inputs), training)
            for symbol, value in zip(flatten(one.outputs), flatten(result), strict=True):
                values[id(symbol)] = value
        return mapped(lambda symbol: values[id(symbol)], self.outputs)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for inputs of this shape."""
        self._require_built("compute_output_shape")
        return super().compute_output_shape(input_shape)

    # ---- configuration ---------------------------------------------------------------------------

    def get_config(self) -> dict[str, Any]:
        """Layers and their connections as plain values: what `from_config` makes a model of.

        Symbols are numbers: those of the inputs first, then what each call returned in turn.
        """
        self._require_built("get_config")
        numbers: dict[int, int] = {}

        def number(symbol: Symbol) -> int:
            return numbers.setdefault(id(symbol), len(numbers))

        inputs = mapped(number, self.inputs)
        calls = []
        for one in self._calls:
            given = mapped(lambda symbol: numbers[id(symbol)], one.inputs)
            calls.append([one.layer.name, given, mapped(number, one.outputs)])
        symbols = flatten(self.inputs)
        return {
            "name": self.name,
            "inputs": inputs,
            "input_layers": [
                {"name": name, "shape": list(symbol.shape[1:]), "dtype": symbol.dtype}
                for name, symbol in zip(self._input_layer_names(), symbols, strict=True)
            ],
            "layers": self._described_layers(),
            "calls": calls,
            "outputs": mapped(lambda symbol: numbers[id(symbol)], self.outputs),
        }

    def _described_layers(self) -> list[dict[str, Any]]:
        with sharing.describing(self):
            return [
                sharing.described(layer)
                for layer in self._layers
                if not isinstance(layer, InputLayer)
            ]

    def _input_layer_names(self) -> list[str]:
        """Names for the inputs' layers, also where what other layers made is an input."""
        taken = {layer.name for layer in self._layers if not isinstance(layer, InputLayer)}
        names = []
        for name in self._names_of_inputs():
            while name in taken:
                name += "_input"
            names.append(name)
            taken.add(name)
        return names

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new model like the one whose `get_config` gave this; its weights are new."""
        with sharing.making():
            layers = {
                layer.name: layer
                for layer in (sharing.made(one, *LAYERS) for one in config["layers"])
            }
        symbols = [
            InputLayer(one["shape"], name=one["name"], dtype=one["dtype"]).symbol
            for one in config["input_layers"]
        ]
        values = dict(zip(flatten(config["inputs"]), symbols, strict=True))
        for name, given, outputs in config["calls"]:
            result = layers[name](mapped(lambda number: values[number], given))
            values.update(zip(flatten(outputs), flatten(result), strict=True))
        model = cls(
            mapped(lambda number: values[number], config["inputs"]),
            mapped(lambda number: values[number], config["outputs"]),
        )
        model.name = config["name"]
        for one in config["layers"]:
            if one["config"].get("trainable") is False:
                layers[one["config"]["name"]].trainable = False
        return model

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
        self._move("to", device)
        return self

    def _move(self, op: str, device: str) -> None:
        gpu = placement.gpu_of(op, device)
        if self._in_fit:
            raise RuntimeError(f"{op}: expected a model at rest, got one that is being trained")
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
                f"{op}: no room on the GPU for {self.count_params():,} weights and what the "
                "optimizer keeps of them"
            ) from None
        if gpu != before:
            self.forget()

    def _require_built(self, op: str) -> None:
        if not self.built:
            raise ValueError(
                f"{op}: expected a built model, got one whose input shape is not known; give the "
                "first layer input_shape=(...), begin with layers.Input, or call build(shape)"
            )

    def symbol_of(self, layer: Layer) -> Any:
        """What a layer makes in this model: `Model(model.inputs, model.symbol_of(layer))`."""
        for one in self._calls:
            if one.layer is layer:
                return one.outputs
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
        def like(symbols: list[Symbol]) -> list[Any]:
            return [np.zeros((1, *symbol.shape[1:]), self.dtype) for symbol in symbols]

        arrays = Arrays(like(flatten(self.inputs)), [], [])
        if self.optimizer is not None and any(one.loss for one in self.objectives()):
            targets: list[Any] = []
            for one, symbol in zip(self.objectives(), flatten(self.outputs), strict=True):
                sparse = one.loss is not None and one.loss.sparse
                shape = symbol.shape[1:-1] if sparse else symbol.shape[1:]
                kind = np.int32 if sparse else self.dtype
                targets.append(None if one.loss is None else np.zeros((1, *shape), kind))
            arrays = Arrays(arrays.x, targets, [None] * len(targets))
        title, program, _, _ = self._profiled(arrays, batch, measured=False)
        return profiling.describe(title, program, batch)

    def _program_for_profile(self, x: Any, y: Any, batch: int) -> tuple[str, Any, Any, int]:
        """(title, program, the context in which its arrays are bound, samples)."""
        if y is None:
            self._build_for("profile", x)
            arrays = Arrays(self._inputs("profile", x), [], [])
        else:
            arrays = self._arrays("profile", x, y)
        return self._profiled(arrays, batch, measured=True)

    def _profiled(self, arrays: Arrays, batch: int, measured: bool) -> tuple[str, Any, Any, int]:
        """As above.

        Args:
            measured: whether it is for the times of single kernels: on a GPU it is not fused then.
        """
        rows = rows_of(arrays)
        if not arrays.y:
            tiled = self._depth_first(batch, training=False)
            if measured and self.gpu is not None:
                tiled = False
            forward = Prediction(self, arrays.x, tiled)
            _require_plan(forward.program, measured)
            out = [forward.empty(arrays.x[0], i) for i in range(len(forward.y))]
            bound = forward.program.bound(
                *zip(forward.x, arrays.x, strict=True), *zip(forward.y, out, strict=True)
            )
            return f"{self.name}: forward pass", forward.program, bound, rows
        step = self._training_step(arrays, batch, measured)
        _require_plan(step.program, measured)
        order = np.arange(rows, dtype=np.int64)
        return f"{self.name}: training step", step.program, step.on(arrays, order), rows

    def save(self, path: Any, include_optimizer: bool = True) -> None:
        """Writes the model to a safetensors file: architecture, weights, optimizer and its state.

        Args:
            path: of the file, which is written whole or not at all.
            include_optimizer: whether how it is trained is part of it.

        `convkit.models.load_model` reads it.
        """
        from convkit.models import saving  # which makes models

        saving.save(self, path, include_optimizer)

    def __reduce__(self) -> tuple[Any, ...]:
        """Pickles, and copies by `copy`, hold what files hold; they are in the host's memory."""
        from convkit.models import saving  # which makes models

        return saving.reduced(self)

    def save_weights(self, path: Any) -> None:
        """Writes the weights to a safetensors file: whole, or not at all."""
        self._require_built("save_weights")
        files.save(path, self)

    def load_weights(self, path: Any) -> None:
        """Reads the weights from a safetensors file; nothing is changed if one does not fit."""
        self._require_built("load_weights")
        files.load(path, self)

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
        self._input: InputLayer | None = None
        super().__init__(name=name)
        for layer in layers or []:
            self.add(layer)

    def add(self, layer: Any) -> None:
        """Appends a layer (or an input, at the beginning)."""
        if isinstance(layer, Symbol) and layer.history and layer.history.inputs is None:
            layer = layer.history.layer
        if not isinstance(layer, Layer):
            raise TypeError(f"Sequential.add: expected a layer, got {layer!r}")
        if layer is self:
            raise geometry.fail("Sequential.add", "another model or a layer", "the model itself")
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
        before = list(self._layers)
        self._layers.append(layer)
        try:
            if self.built:
                self._join(layer(self.outputs))
            else:
                self._rebuild()
        except Exception:
            self._layers = before
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

    def get_config(self) -> dict[str, Any]:
        """The layers as plain values, and the shape of a sample if it is known."""
        shape = None if self._input is None else list(self._input.shape)
        return {
            "name": self.name,
            "input_shape": shape,
            "input_name": None if self._input is None else self._input.name,
            "dtype": self.dtype,
            "layers": self._described_layers(),
        }

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new model like the one whose `get_config` gave this; its weights are new."""
        with sharing.making():
            layers: list[Any] = [sharing.made(one, *LAYERS) for one in config["layers"]]
        if config["input_shape"] is not None:
            shape, name = config["input_shape"], config["input_name"]
            layers = [InputLayer(shape, name=name, dtype=config["dtype"]), *layers]
        return cls(layers, name=config["name"])

    def _rebuild(self) -> None:
        if self._input is None or not self._layers:
            return
        y = self._input.symbol
        for layer in self._layers:
            y = layer(y)
        self._join(y)

    def _join(self, outputs: Any) -> None:
        """Takes what the last layer made as the model's output."""
        assert self._input is not None
        self._programs, self._objectives = {}, None
        layers = list(self._layers)
        self._connect(self._input.symbol, outputs)
        self._layers = layers  # without the input


def _require_plan(program: Any, measured: bool) -> None:
    if isinstance(program, Interpreter):
        raise geometry.fail(
            "profile" if measured else "summary",
            "a model made of ops alone",
            "one with a layer that computes in Python",
        )


def _input(shape: Shape, dtype: str | None) -> InputLayer:
    return InputLayer([size for size in shape[1:] if size is not None], dtype=dtype)


def clone_model(model: Model) -> Model:
    """A model of new layers like those of `model`, with new weights."""
    if not isinstance(model, Model):
        raise TypeError(f"clone_model: expected a model, got {model!r}")
    return type(model).from_config(model.get_config())


def _layer_calls(inputs: list[Symbol], outputs: list[Symbol]) -> list[LayerCall]:
    """The layers' calls between symbols, each after those it depends on."""
    calls: list[LayerCall] = []
    given = {id(symbol) for symbol in inputs}
    done: set[int] = set()
    reached: set[int] = set()
    stack: list[tuple[Symbol, bool]] = [(symbol, False) for symbol in reversed(outputs)]
    while stack:
        symbol, visited = stack.pop()
        if id(symbol) in given:
            reached.add(id(symbol))
            continue
        call = symbol.history
        if call is None:
            raise ValueError(
                f"Model: expected outputs made by layers, got {symbol!r}, which is none's result"
            )
        if id(call) in done:
            continue
        if call.inputs is None:
            raise ValueError(
                f"Model: expected outputs that follow from inputs, got {call.layer.name}"
            )
        if visited:
            done.add(id(call))
            calls.append(call)
        else:
            stack.append((symbol, True))
            stack.extend((source, False) for source in reversed(flatten(call.inputs)))
    for i, symbol in enumerate(inputs):
        if id(symbol) not in reached:
            raise ValueError(
                f"Model: expected outputs that follow from all inputs, got none from input {i}"
            )
    return calls
