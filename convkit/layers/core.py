"""Input, Dense, Activation, Rescaling, Flatten, Reshape and Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from convkit import _core, activations, geometry, graph, initializers, ops, random
from convkit.geometry import Shape
from convkit.graph import LayerCall, Symbol, Variable
from convkit.layers.base import Layer, sample_shape
from convkit.ops import common


class InputLayer(Layer):
    """Where a model begins.

    Args:
        shape: the shape of a sample, without the batch.
    """

    def __init__(
        self, shape: Sequence[int], *, name: str | None = None, dtype: str | None = None
    ) -> None:
        super().__init__(name=name, dtype=dtype, input_shape=shape)
        assert self.batch_input_shape is not None
        self.shape = self.batch_input_shape[1:]
        self.built = True
        self.symbol = Symbol(self.batch_input_shape, self.dtype, place="fed")
        self.symbol.history = LayerCall(self, None, self.symbol)
        self.output = self.symbol

    def call(self, x: Any) -> Any:
        return x


def Input(shape: Sequence[int], *, name: str | None = None, dtype: str | None = None) -> Symbol:
    """A symbol for what goes into a model.

    Args:
        shape: the shape of a sample, without the batch, such as (28, 28, 1).
        name: the input's name.
        dtype: "float32" or "float64"; None: `convkit.config.floatx()`.
    """
    return InputLayer(shape, name=name, dtype=dtype).symbol


class Dense(Layer):
    """x @ kernel + bias over the last axis, then an activation.

    Args:
        units: size of the output's last axis.
        activation: a name, a function of `convkit.ops`, or None.
        use_bias: whether a bias is added.
        kernel_initializer, bias_initializer: names or initializers.

    Input shape: (N, ..., inputs). Output shape: (N, ..., units).
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.units = geometry.integer(self.name, "units", units, 1)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise geometry.fail(self.name, "an input of shape (N, ..., inputs)", input_shape)
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight("kernel", shape, self.kernel_initializer)
        if self.use_bias:
            self.bias = self.add_weight("bias", (self.units,), self.bias_initializer)
        self.built = True

    def call(self, x: Any) -> Any:
        return self.activation(ops.dense(x, self.kernel, self.bias))


class Activation(Layer):
    """An activation as a layer of its own.

    Args:
        activation: a name, or a function of `convkit.ops`.
    """

    def __init__(self, activation: Any, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.activation = activations.get(activation)

    def call(self, x: Any) -> Any:
        return self.activation(x)


class ReLU(Layer):
    """max(x, 0), or x * negative_slope below 0.

    Args:
        negative_slope: at least 0.
    """

    def __init__(self, *, negative_slope: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.negative_slope = geometry.number(
            self.name, "negative_slope", negative_slope, 0, float("inf")
        )

    def call(self, x: Any) -> Any:
        return ops.leaky_relu(x, self.negative_slope) if self.negative_slope else ops.relu(x)


class Softmax(Layer):
    """exp(x) / sum(exp(x)) along an axis.

    Args:
        axis: the axis that sums to one, that of the batch excepted.
    """

    def __init__(self, axis: int = -1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.axis = axis

    def call(self, x: Any) -> Any:
        return ops.softmax(x, self.axis)


class Rescaling(Layer):
    """x * scale + offset: 1 / 255 takes pixels to 0 .. 1, 1 / 127.5 and -1 to -1 .. 1.

    As a model's first layer it costs nothing: the images are rescaled while they are read.

    Args:
        scale, offset: numbers.
    """

    def __init__(self, scale: float, offset: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        infinity = float("inf")
        self.scale = geometry.number(self.name, "scale", scale, -infinity, infinity)
        self.offset = geometry.number(self.name, "offset", offset, -infinity, infinity)

    def call(self, x: Any) -> Any:
        return ops.rescale(x, self.scale, self.offset)


class Flatten(Layer):
    """(N, a, b, ...) to (N, a * b * ...).

    Args:
        data_format: with "channels_first" the channels are moved to the end first, as Keras does.
    """

    def __init__(self, data_format: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(self.name, data_format)

    def call(self, x: Any) -> Any:
        if self.data_format == "channels_first" and len(x.shape) > 2:
            n, channels, *rest = x.shape
            size = prod(rest)
            spec = _core.Transpose(rows=channels, columns=size)
            dtype = x.dtype if isinstance(x, Symbol) else x.dtype.name
            x = graph.call("transpose", spec, n, [x], [(n, size, channels)], dtype)[0]
        return graph.reshape(x, (x.shape[0], prod(x.shape[1:])))


class Reshape(Layer):
    """Each sample under another shape.

    Args:
        target_shape: without the batch; one size may be -1.
    """

    def __init__(self, target_shape: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(target_shape, (list, tuple)):
            raise TypeError(f"{self.name}: expected a shape, got {target_shape!r}")
        if list(target_shape).count(-1) > 1:
            raise geometry.fail(self.name, "at most one size of -1", tuple(target_shape))
        known = sample_shape(self.name, [size for size in target_shape if size != -1])
        sizes = iter(known)
        self.target_shape = tuple(-1 if size == -1 else next(sizes) for size in target_shape)

    def call(self, x: Any) -> Any:
        size = prod(x.shape[1:])
        known = prod(s for s in self.target_shape if s != -1)
        open_size = -1 in self.target_shape
        if (open_size and (not known or size % known)) or (not open_size and size != known):
            raise geometry.fail(
                self.name, f"samples that fit the shape {self.target_shape}", tuple(x.shape[1:])
            )
        shape = tuple(size // known if s == -1 else s for s in self.target_shape)
        return graph.reshape(x, (x.shape[0], *shape))


class Dropout(Layer):
    """Sets a share of the values to 0 while training and scales the others up by 1 / (1 - rate).

    Which values, is a function of the seed, the step and the element (Philox), not of threads.

    Args:
        rate: share of values dropped, 0 <= rate < 1.
        seed: None: drawn from the process's generator.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rate = geometry.number(self.name, "rate", rate, 0, 1)
        self.seed = None if seed is None else geometry.integer(self.name, "seed", seed, 0)
        self._state: Variable | None = None

    def build(self, input_shape: Shape) -> None:
        seed = random.draw_seed() if self.seed is None else self.seed
        self._state = Variable(np.array([seed, 0], np.int64), f"{self.name}/seed", trainable=False)
        self.built = True

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return x
        state = self._state
        assert state is not None
        n, size = geometry.samples(tuple(x.shape))
        if isinstance(x, Symbol):
            counter = _core.Elementwise(size=2)
            # A layer that stands in a model twice drops other values each time.
            stream = graph.after_step(lambda: graph.update("next_step", counter, [state.symbol]))
            spec = _core.Dropout(size=size, stream=stream, rate=self.rate)
            return graph.call("dropout", spec, n, [x, state.symbol], [x.shape], x.dtype)[0]
        (x,) = common.arguments(self.name, ("x",), (x,))
        spec = _core.Dropout(size=size, stream=0, rate=self.rate)
        y = graph.call("dropout", spec, n, [x, state.value], [x.shape], x.dtype.name)[0]
        state.value[1] += 1
        return y


def data_format_of(op: str, data_format: str | None) -> str:
    """The data_format; None is "channels_last"."""
    return geometry.choice(op, "data_format", data_format or "channels_last", geometry.DATA_FORMATS)


__all__ = [
    "Activation",
    "Dense",
    "Dropout",
    "Flatten",
    "Input",
    "InputLayer",
    "ReLU",
    "Rescaling",
    "Reshape",
    "Softmax",
]
