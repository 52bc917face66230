"""Input, Dense, Activation, Rescaling, Flatten, Reshape and Dropout."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np

from convkit import (
    _core,
    activations,
    constraints,
    geometry,
    graph,
    initializers,
    ops,
    regularizers,
)
from convkit.geometry import Shape
from convkit.graph import LayerCall, Symbol, Variable
from convkit.layers.base import Layer, sample_shape
from convkit.layers.constants import beside
from convkit.layers.random_layer import RandomLayer
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
        kernel_regularizer, bias_regularizer: penalties on the weights, names or regularizers.
        activity_regularizer: a penalty on the layer's output, a mean over the samples.
        kernel_constraint, bias_constraint: what the weights are held to, names or constraints.

    Input shape: (N, ..., inputs). Output shape: (N, ..., units).
    """

    def __init__(
        self,
        units: int,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        bias_regularizer: Any = None,
        activity_regularizer: Any = None,
        kernel_constraint: Any = None,
        bias_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(activity_regularizer=activity_regularizer, **kwargs)
        self.units = geometry.integer(self.name, "units", units, 1)
        self.activation = activations.get(activation)
        self.use_bias = bool(use_bias)
        self.kernel_initializer = initializers.get(kernel_initializer)
        self.bias_initializer = initializers.get(bias_initializer)
        self.kernel_regularizer = regularizers.get(kernel_regularizer)
        self.bias_regularizer = regularizers.get(bias_regularizer)
        self.kernel_constraint = constraints.get(kernel_constraint)
        self.bias_constraint = constraints.get(bias_constraint)
        self.kernel: Variable
        self.bias: Variable | None = None

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2 or input_shape[-1] is None:
            raise geometry.fail(self.name, "an input of shape (N, ..., inputs)", input_shape)
        shape = (input_shape[-1], self.units)
        self.kernel = self.add_weight(
            "kernel",
            shape,
            self.kernel_initializer,
            regularizer=self.kernel_regularizer,
            constraint=self.kernel_constraint,
        )
        if self.use_bias:
            self.bias = self.add_weight(
                "bias",
                (self.units,),
                self.bias_initializer,
                regularizer=self.bias_regularizer,
                constraint=self.bias_constraint,
            )

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

    With numbers, as a model's first layer, it costs nothing: the images are rescaled while they are
    read.

    Args:
        scale, offset: numbers, or a list of one for each channel, the last axis.
    """

    def __init__(self, scale: Any, offset: Any = 0.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.scale = self._numbers("scale", scale)
        self.offset = self._numbers("offset", offset)
        self._channels: list[Variable] = []  # scale and offset of each

    def _numbers(self, name: str, value: Any) -> float | tuple[float, ...]:
        infinity = float("inf")
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            return geometry.number(self.name, name, value, -infinity, infinity)
        return tuple(geometry.number(self.name, name, one, -infinity, infinity) for one in value)

    def build(self, input_shape: Shape) -> None:
        for name in ("scale", "offset"):
            value = getattr(self, name)
            if not isinstance(value, tuple):
                continue
            if len(input_shape) < 2 or input_shape[-1] != len(value):
                expected = f"an input of shape (N, ..., {len(value)}), as many as {name} has"
                raise geometry.fail(self.name, expected, input_shape)
        if isinstance(self.scale, tuple) or isinstance(self.offset, tuple):
            channels = input_shape[-1] or 0
            self._channels = [
                Variable(
                    np.broadcast_to(np.asarray(value, self.dtype), channels),
                    f"{self.name}/{name}",
                    trainable=False,
                )
                for name, value in (("scale", self.scale), ("offset", self.offset))
            ]

    def call(self, x: Any) -> Any:
        if isinstance(self.scale, float) and isinstance(self.offset, float):
            return ops.rescale(x, self.scale, self.offset)
        return scaled_channels(x, *(beside(x, each) for each in self._channels))


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


class Dropout(RandomLayer):
    """Sets a share of the values to 0 while training and scales the others up by 1 / (1 - rate).

    Which values, is a function of the seed, the step and the element (Philox), not of threads.

    Args:
        rate: share of values dropped, 0 <= rate < 1.
        seed: None: drawn from the process's generator.
    """

    def __init__(self, rate: float, *, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.rate = geometry.number(self.name, "rate", rate, 0, 1)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return x
        n, size = geometry.samples(tuple(x.shape))

        def spec(stream: int) -> Any:
            return _core.Dropout(size=size, stream=stream, rate=self.rate)

        return self.draw("dropout", spec, x, n, x.shape)


def scaled_channels(x: Any, scale: Any, shift: Any) -> Any:
    """x * scale + shift, with a number for each value of the last axis: all arrays or symbols."""
    n, rows = geometry.samples(tuple(x.shape[:-1]))
    spec = geometry.channel_affine(x.shape[-1], rows)
    inputs = [x, scale, shift]
    return graph.call("channel_affine", spec, n, inputs, [x.shape], common.dtype_of(x))[0]


def data_format_of(op: str, data_format: str | None) -> str:
    """The data_format; None is "channels_last"."""
    return geometry.choice(op, "data_format", data_format or "channels_last", geometry.DATA_FORMATS)


def channels_of(op: str, shape: Shape, data_format: str) -> int:
    """How many channels images of this shape have."""
    if len(shape) != 4:
        axes = "N, H, W, C" if data_format == "channels_last" else "N, C, H, W"
        raise geometry.fail(op, f"an input of shape ({axes})", shape)
    channels = shape[-1] if data_format == "channels_last" else shape[1]
    assert channels is not None
    return channels


def image_shape(op: str, shape: Shape, data_format: str) -> tuple[int, int, int]:
    """(height, width, channels) of images of this shape."""
    channels = channels_of(op, shape, data_format)
    height, width = shape[1:3] if data_format == "channels_last" else shape[2:]
    assert height is not None and width is not None
    return height, width, channels


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
