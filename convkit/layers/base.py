"""What every layer is: a name, weights, and a call on symbols or arrays."""

from __future__ import annotations

import functools
import inspect
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextvars import ContextVar
from typing import Any, Self

import numpy as np

from convkit import (
    config,
    configuration,
    constraints,
    device,
    geometry,
    graph,
    initializers,
    ops,
    registered,
    regularizers,
    structure,
)
from convkit.geometry import Shape
from convkit.graph import LayerCall, Symbol, Variable

_names: Counter[str] = Counter()
# Whether the layer whose `call` is being carried out is in training: so are those that it calls.
_training: ContextVar[bool] = ContextVar("_training", default=False)


def unique_name(kind: str) -> str:
    """conv2d, conv2d_1, conv2d_2, … as Keras counts them, for "Conv2D"."""
    base = re.sub(r"(?<=[a-z])([A-Z])|(?<=[A-Z])([A-Z][a-z])", r"_\1\2", kind)
    base = base.replace("2_D", "2D").lower()
    number = _names[base]
    _names[base] += 1
    return f"{base}_{number}" if number else base


def input_shape_of(x: Any) -> Any:
    """The shape of one input, or a list or dictionary of the shapes of several."""
    return structure.mapped(lambda value: tuple(value.shape), x)


class Layer:
    """Base class of layers.

    A layer is a constructor, `build(input_shape)`, which makes the weights, and `call(x)`, which is
    made of functions of `convkit.ops`; the gradient follows from those. What computes in NumPy is
    an `ArrayLayer`. Constructor arguments that are kept as attributes of the same names make
    `get_config` and `from_config`, with which models are saved and loaded.

    Args:
        name: unique within a model; None: made from the class's name.
        trainable: whether `fit` changes the weights.
        dtype: "float32" or "float64"; None: `convkit.config.floatx()`.
        activity_regularizer: a penalty on what the layer returns, a mean over the samples.
        input_shape: the shape of a sample, for the first layer of a `Sequential`.
        input_dim: the same for samples of one axis.

    Example:
        >>> class Scale(Layer):
        ...     def build(self, input_shape):
        ...         self.factor = self.add_weight("factor", input_shape[1:], "ones")
        ...     def call(self, x):
        ...         return ops.multiply(x, self.factor)
    """

    _takes_training = False  # whether `call` does

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
        activity_regularizer: Any = None,
        input_shape: Sequence[int] | None = None,
        input_dim: int | None = None,
        **unknown: Any,
    ) -> None:
        if unknown:
            known = [p for p in inspect.signature(type(self).__init__).parameters if p != "self"]
            known = [*(p for p in known if p != "kwargs"), "name", "dtype", "input_shape"]
            raise TypeError(
                f"{type(self).__name__}: expected arguments among {', '.join(known)}, "
                f"got {', '.join(unknown)}"
            )
        self.name = name or unique_name(type(self).__name__)
        self.trainable = trainable
        self.dtype = geometry.choice(
            self.name, "dtype", dtype or config.floatx(), ("float32", "float64")
        )
        self.activity_regularizer = regularizers.get(activity_regularizer)
        self.batch_input_shape: Shape | None = None
        if input_dim is not None:
            input_shape = (input_dim,)
        if input_shape is not None:
            self.batch_input_shape = (None, *sample_shape(self.name, input_shape))
        self.built = False
        self._variables: list[Variable] = []
        self.output: Any = None  # of the last call on symbols

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "call" in vars(cls):
            cls._takes_training = "training" in inspect.signature(cls.call).parameters
        if "build" in vars(cls):
            cls.build = _sets_built(cls.build)  # type: ignore[method-assign,assignment]

    def add_weight(
        self,
        name: str | None = None,
        shape: Shape = (),
        initializer: Any = "glorot_uniform",
        trainable: bool = True,
        *,
        regularizer: Any = None,
        constraint: Any = None,
    ) -> Variable:
        """A new weight; `build` calls this.

        Args:
            name: unique within the layer; None: weight, weight_1, ...
            shape: its sizes.
            initializer: a name, or an initializer.
            trainable: whether `fit` changes it.
            regularizer: a penalty that is added to the loss, or its name.
            constraint: what it is held to after each update, or its name.
        """
        if name is None:
            count = len(self._variables)
            name = f"weight_{count}" if count else "weight"
        elif not isinstance(name, str):
            raise TypeError(f"{self.name}: expected name to be a text, got {name!r}; write shape=")
        value = initializers.get(initializer)(tuple(int(s or 0) for s in shape), self.dtype)
        variable = Variable(np.asarray(value, self.dtype), f"{self.name}/{name}", trainable)
        if variable.shape != tuple(shape):
            raise geometry.fail(
                self.name, f"an initial {name} of shape {tuple(shape)}", variable.shape
            )
        variable.regularizer = regularizers.get(regularizer)
        variable.constraint = constraints.get(constraint)
        self._variables.append(variable)
        return variable

    def add_loss(self, values: Any) -> None:
        """Adds the mean of `values`, one or several for each sample, to the loss; for `call`.

        On arrays it does nothing.
        """
        if isinstance(values, Symbol) and values.shape[:1] == (None,):
            graph.add_loss(values)
        elif graph.is_step_recorded():
            raise TypeError(
                f"{self.name}: expected add_loss to be given what follows from x, a value or more "
                "for each row; for a penalty on weights there is add_weight(regularizer=...)"
            )

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs of this shape, the batch included; then `built` is True."""
        self.built = True

    def call(self, x: Any) -> Any:
        """The layer's function; may take `training` as a second argument."""
        raise TypeError(f"{type(self).__name__}: a subclass of Layer must define call(x)")

    def __call__(self, x: Any, training: bool | None = None) -> Any:
        """The layer's outputs for symbols or arrays.

        Args:
            training: None: as the layer that calls this one, False outside of one.
        """
        if training is None:
            training = _training.get()
        values = structure.flatten(x)
        if not graph.is_symbolic(values):
            x = structure.pack(x, [self._array(graph.array_of(value)) for value in values])
            self.ensure_built(input_shape_of(x))
            return self.run(x, training)
        for value in values:
            if not isinstance(value, Symbol):
                raise TypeError(
                    f"{self.name}: expected symbols or arrays, got both: {type(value).__name__} "
                    "beside a symbol"
                )
        if isinstance(x, tuple):
            x = list(x)
        self.ensure_built(input_shape_of(x))
        y = self.run(x, training)
        results = structure.flatten(y)
        for i, result in enumerate(results):
            if not isinstance(result, Symbol):
                raise TypeError(
                    f"{self.name}: expected call to make its result of x by convkit.ops, got "
                    f"{type(result).__name__}"
                )
            if result.history is not None or any(result is value for value in values):
                results[i] = graph.reshape(result, result.shape)  # a symbol of this layer's own
        y = structure.pack(y, results)
        call = LayerCall(self, x, y)
        for result in results:
            result.history = call
        self.output = y
        return y

    def _array(self, x: Any) -> Any:
        """In the layer's dtype; where it is on a GPU, it stays there."""
        if not device.is_device_array(x):
            return np.asarray(x, self.dtype)
        x = device.as_array(self.name, "x", x)
        with device.on(device.device_of(x)):
            return x.astype(self.dtype, copy=False)

    def run(self, x: Any, training: bool) -> Any:
        """`call`, with `training` for layers that ask for it."""
        token = _training.set(training)
        try:
            with graph.on_behalf_of(self.name), graph.recording(structure.flatten(x)):
                asked = {"training": training} if self._takes_training else {}
                y = self.call(x, **asked)
                if self.activity_regularizer is not None:
                    for value in structure.flatten(y):
                        if isinstance(value, Symbol):
                            self.add_loss(_activity(self.activity_regularizer, value))
                return y
        finally:
            _training.reset(token)

    def ensure_built(self, input_shape: Any) -> None:
        """Builds the layer at its first call."""
        if not self.built:
            self.build(input_shape)

    def compute_output_shape(self, input_shape: Any) -> Any:
        """The output's shape for inputs of this shape (the batch first, None for any size)."""
        x = of_shapes(
            lambda shape: Symbol((None, *shape[1:]), self.dtype, place="fed"), input_shape
        )
        self.ensure_built(input_shape_of(x))
        return input_shape_of(self.run(x, False))

    @property
    def input_shape(self) -> Any:
        """The shape of the input at the last call on symbols; None before one."""
        call = self._last_call()
        if call is None:
            return None
        return input_shape_of(call.outputs if call.inputs is None else call.inputs)

    @property
    def output_shape(self) -> Any:
        """The shape of the output at the last call on symbols; None before one."""
        return None if self.output is None else input_shape_of(self.output)

    @property
    def input(self) -> Any:
        """What the layer was last called with on symbols."""
        call = self._last_call()
        if call is None:
            raise ValueError(f"{self.name}: expected a layer that was called, got one that was not")
        return call.outputs if call.inputs is None else call.inputs

    def _last_call(self) -> LayerCall | None:
        results = structure.flatten(self.output)
        return results[0].history if results and results[0] is not None else None

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes the weights; setting it sets it for all sublayers."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = bool(value)
        graph.rearrange()
        for layer in self.sublayers:
            layer.trainable = self._trainable

    @property
    def weights(self) -> list[Variable]:
        """All weights, in the order of `get_weights`, whatever is trainable."""
        return self.ordered_weights()

    @property
    def trainable_weights(self) -> list[Variable]:
        """The weights that `fit` changes: none where `trainable` is False."""
        if not self.trainable:
            return []
        own = [v for v in self._variables if v.trainable]
        return once(own, *(layer.trainable_weights for layer in self.sublayers))

    @property
    def non_trainable_weights(self) -> list[Variable]:
        """All other weights."""
        trainable = {id(v) for v in self.trainable_weights}
        return [v for v in self.ordered_weights() if id(v) not in trainable]

    @property
    def sublayers(self) -> list[Layer]:
        """The layers that this one keeps as attributes, whose weights are its own too."""
        found: dict[int, Layer] = {}
        for attribute in vars(self).values():
            if isinstance(attribute, Layer):
                found[id(attribute)] = attribute
            elif isinstance(attribute, (list, tuple, dict)):
                for value in structure.flatten(attribute):
                    if isinstance(value, Layer):
                        found[id(value)] = value
        return list(found.values())

    def get_weights(self) -> list[np.ndarray]:
        """Copies of the weights' values."""
        return [variable.numpy() for variable in self.ordered_weights()]

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all weights, in the order of `get_weights`; nothing is changed if one is wrong."""
        variables = self.ordered_weights()
        if not variables and not self.built:
            raise ValueError(f"{self.name}: expected a built layer, got one without weights yet")
        if len(weights) != len(variables):
            raise geometry.fail(self.name, f"{len(variables)} weights", len(weights))
        arrays = [np.asarray(weight) for weight in weights]
        for variable, array in zip(variables, arrays, strict=True):
            if array.dtype.kind not in "fiub":
                raise TypeError(f"{variable.name}: expected numbers, got dtype {array.dtype}")
            if array.shape != variable.shape:
                raise geometry.fail(
                    variable.name, f"a value of shape {variable.shape}", array.shape
                )
        for variable, array in zip(variables, arrays, strict=True):
            variable.assign(array)

    def ordered_weights(self) -> list[Variable]:
        """All weights in the order of files and `get_weights`."""
        # The order must not change when `trainable` does, or files would not load.
        return once(self._variables, *(layer.ordered_weights() for layer in self.sublayers))

    @property
    def states(self) -> list[Variable]:
        """What moves on with training and is no weight: seeds and steps of random numbers."""
        weights = {id(variable) for variable in self._variables}
        own = [
            value
            for value in vars(self).values()
            if isinstance(value, Variable) and id(value) not in weights
        ]
        return once(own, *(layer.states for layer in self.sublayers))

    def get_config(self) -> dict[str, Any]:
        """The arguments of the constructor as plain values, from which `from_config` makes one."""
        return configuration.config_of(self, leave_out=("input_shape", "input_dim"))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """A new layer like the one whose `get_config` gave this; its weights are new."""
        return cls(**registered.made(config))

    def count_params(self) -> int:
        """How many numbers the weights hold."""
        return sum(variable.value.size for variable in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


def _sets_built(build: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    """As Keras does: a layer that was built by hand is not built again at its first call."""

    @functools.wraps(build)
    def built(self: Any, input_shape: Any) -> None:
        build(self, input_shape)
        self.built = True

    return built


def once(*groups: Iterable[Variable]) -> list[Variable]:
    """The variables in order without repetitions: a layer may stand in two places."""
    return list({id(variable): variable for group in groups for variable in group}.values())


def _activity(regularizer: Any, value: Any) -> Any:
    """l1 |y| + l2 y^2 of each sample."""
    rows = graph.reshape(value, (value.shape[0], int(np.prod(value.shape[1:]))))
    parts = []
    for factor, function in ((regularizer.l1, ops.absolute), (regularizer.l2, ops.square)):
        if factor:
            parts.append(ops.rescale(ops.sum(function(rows), axis=1), float(factor)))
    if not parts:
        return ops.rescale(ops.sum(rows, axis=1), 0.0)
    return parts[0] if len(parts) == 1 else ops.add(*parts)


def of_shapes(function: Callable[[Shape], Any], shapes: Any) -> Any:
    """The function's results for one shape, or for a list or dictionary of them."""
    if isinstance(shapes, dict):
        return {key: of_shapes(function, part) for key, part in shapes.items()}
    if shapes and isinstance(shapes[0], (list, tuple)):
        return [of_shapes(function, part) for part in shapes]
    return function(tuple(shapes))


def sample_shape(op: str, shape: Any) -> tuple[int, ...]:
    """The shape of one sample: sizes of at least 1."""
    if not isinstance(shape, (list, tuple)):
        raise TypeError(f"{op}: expected a shape such as (28, 28, 1), got {shape!r}")
    return tuple(geometry.integer(op, "each size of the shape", size, 1) for size in shape)
