"""What every layer is: a name, weights, and a call on symbols or arrays."""

from __future__ import annotations

import inspect
import re
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import config, device, geometry, graph, initializers
from convkit.geometry import Shape
from convkit.graph import Symbol, Variable

_names: Counter[str] = Counter()


def unique_name(kind: str) -> str:
    """conv2d, conv2d_1, conv2d_2, … as Keras counts them, for "Conv2D"."""
    base = re.sub(r"(?<=[a-z])([A-Z])|(?<=[A-Z])([A-Z][a-z])", r"_\1\2", kind)
    base = base.replace("2_D", "2D").lower()
    number = _names[base]
    _names[base] += 1
    return f"{base}_{number}" if number else base


def input_shape_of(x: Any) -> Any:
    """The shape of one input, or a list of the shapes of several."""
    if isinstance(x, (list, tuple)):
        return [tuple(value.shape) for value in x]
    return tuple(x.shape)


class Layer:
    """Base class of layers.

    A layer is a constructor, `build(input_shape)`, which makes the weights, and `call(x)`, which is
    made of functions of `convkit.ops`; the gradient follows from those.

    Args:
        name: unique within a model; None: made from the class's name.
        trainable: whether `fit` changes the weights.
        dtype: "float32" or "float64"; None: `convkit.config.floatx()`.
        input_shape: the shape of a sample, for the first layer of a `Sequential`.
        input_dim: the same for samples of one axis.
    """

    def __init__(
        self,
        *,
        name: str | None = None,
        trainable: bool = True,
        dtype: str | None = None,
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
        self.batch_input_shape: Shape | None = None
        if input_dim is not None:
            input_shape = (input_dim,)
        if input_shape is not None:
            self.batch_input_shape = (None, *sample_shape(self.name, input_shape))
        self.built = False
        self._variables: list[Variable] = []
        self.output: Symbol | None = None  # of the last call on symbols

    def add_weight(
        self, name: str, shape: Shape, initializer: Any, trainable: bool = True
    ) -> Variable:
        """A new weight; `build` calls this."""
        value = initializers.get(initializer)(tuple(int(s or 0) for s in shape), self.dtype)
        variable = Variable(np.asarray(value, self.dtype), f"{self.name}/{name}", trainable)
        if variable.shape != tuple(shape):
            raise geometry.fail(
                self.name, f"an initial {name} of shape {tuple(shape)}", variable.shape
            )
        self._variables.append(variable)
        return variable

    def build(self, input_shape: Any) -> None:
        """Makes the weights for inputs of this shape, the batch included, and sets `built`."""
        self.built = True

    def call(self, x: Any) -> Any:
        """The layer's function; may take `training` as a second argument."""
        raise TypeError(f"{type(self).__name__}: a subclass of Layer must define call(x)")

    def __call__(self, x: Any, training: bool = False) -> Any:
        values = list(x) if isinstance(x, (list, tuple)) else [x]
        if not graph.is_symbolic(values):
            arrays = [self._array(graph.array_of(value)) for value in values]
            x = arrays if isinstance(x, (list, tuple)) else arrays[0]
            self.ensure_built(input_shape_of(x))
            return self.run(x, training)
        self.ensure_built(input_shape_of(x))
        y = self.run(x, training)
        if y.history is not None or any(y is value for value in values):
            y = graph.reshape(y, y.shape)  # a symbol of this layer's own
        y.history = (self, x)
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
        with graph.on_behalf_of(self.name):
            if _takes_training(type(self)):
                return self.call(x, training=training)  # type: ignore[call-arg]
            return self.call(x)

    def ensure_built(self, input_shape: Any) -> None:
        """Builds the layer at its first call."""
        if not self.built:
            self.build(input_shape)
            self.built = True

    def compute_output_shape(self, input_shape: Any) -> Shape:
        """The output's shape for inputs of this shape (the batch first, None for any size)."""
        if input_shape and isinstance(input_shape[0], (list, tuple)):
            x: Any = [Symbol(tuple(shape), self.dtype, place="fed") for shape in input_shape]
        else:
            x = Symbol((None, *input_shape[1:]), self.dtype, place="fed")
        self.ensure_built(input_shape_of(x))
        shape: Shape = self.run(x, False).shape
        return shape

    @property
    def input_shape(self) -> Any:
        """The shape of the input at the last call on symbols; None before one."""
        if self.output is None or self.output.history is None:
            return None
        x = self.output.history[1]
        return self.output.shape if x is None else input_shape_of(x)

    @property
    def output_shape(self) -> Shape | None:
        """The shape of the output at the last call on symbols; None before one."""
        return None if self.output is None else self.output.shape

    @property
    def weights(self) -> list[Variable]:
        """All weights, trainable ones first."""
        return self.trainable_weights + self.non_trainable_weights

    @property
    def trainable_weights(self) -> list[Variable]:
        return [v for v in self._variables if v.trainable and self.trainable]

    @property
    def non_trainable_weights(self) -> list[Variable]:
        return [v for v in self._variables if not (v.trainable and self.trainable)]

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
        return list(self._variables)

    def count_params(self) -> int:
        """How many numbers the weights hold."""
        return sum(variable.value.size for variable in self.weights)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name}>"


_training_cache: dict[type, bool] = {}


def _takes_training(cls: type[Layer]) -> bool:
    if cls not in _training_cache:
        _training_cache[cls] = "training" in inspect.signature(cls.call).parameters
    return _training_cache[cls]


def sample_shape(op: str, shape: Any) -> tuple[int, ...]:
    """The shape of one sample: sizes of at least 1."""
    if not isinstance(shape, (list, tuple)):
        raise TypeError(f"{op}: expected a shape such as (28, 28, 1), got {shape!r}")
    return tuple(geometry.integer(op, "each size of the shape", size, 1) for size in shape)
