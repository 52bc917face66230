"""The ops that are measured, at LeNet's shapes: every public op of `convkit.ops`, both ways."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache, partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy_baseline

BATCHES = (1, 32, 128)
BINARY = ("add", "subtract", "multiply", "divide", "maximum", "minimum")


@dataclass(frozen=True)
class Input:
    """One array of an op: its shape without the batch (None: no batch axis), and its contents.

    `fill` is "normal", "positive" (0.5 .. 1.5), "probability" (rows that sum to one), "one_hot", or
    "label". What is `constant` has no gradient.
    """

    name: str
    shape: tuple[int, ...]
    batched: bool = True
    fill: str = "normal"
    constant: bool = False

    def make(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        shape = (batch, *self.shape) if self.batched else self.shape
        if self.fill == "label":
            return rng.integers(0, 10, batch, dtype=np.int32)
        if self.fill == "one_hot":
            return np.eye(shape[-1], dtype=np.float32)[rng.integers(0, shape[-1], batch)]
        if self.fill == "positive":
            return rng.random(shape, np.float32) + np.float32(0.5)
        values = rng.standard_normal(shape, np.float32)
        if self.fill == "probability":
            return numpy_baseline.softmax(values)
        return values


@dataclass(frozen=True)
class Case:
    """One op at one shape and batch. `multiply_adds` (of one sample, forward) is 0 where the op
    is bound by memory, and its speed is then given in GB/s."""

    op: str
    inputs: tuple[Input, ...]
    batch: int
    backward: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    multiply_adds: int = 0

    @property
    def function(self) -> str:
        return f"{self.op}_backward" if self.backward else self.op

    @property
    def names(self) -> list[str]:
        """What each of `arrays()` is."""
        return ["dy"] * self.backward + [item.name for item in self.inputs]

    @property
    def arguments(self) -> dict[str, Any]:
        """The options of this direction: a gradient is measured without its layer's activation,
        since a training step has that one's output at hand and would not compute it again."""
        if self.backward:
            return {name: value for name, value in self.options.items() if name != "activation"}
        return self.options

    @property
    def shape(self) -> str:
        """The shape of the first input that has one, and what else tells this case apart."""
        shape = self.inputs[0].shape or self.inputs[-1].shape
        text = _times((self.batch, *shape))
        if self.multiply_adds:
            text += f" → {self.inputs[-1].shape[-1]}"
            if len(self.inputs[1].shape) == 4:
                text += f" by {_times(self.inputs[1].shape[:2])}"
        elif "pool_size" in self.options:
            text += f" by {_times((self.options['pool_size'],) * 2)}"
        elif self.op in BINARY and self.inputs[1].shape != shape:
            text += f" by {_times(self.inputs[1].shape)}"
        elif self.op == "batch_norm" and len(self.inputs) == 5:
            text += " given moments"
        marks = [
            value if isinstance(value, str) else name if value is True else f"{name} {value}"
            for name, value in self.arguments.items()
            if name not in ("pool_size", "size", "scale", "offset", "x_min", "x_max")
        ]
        return " ".join([text, *marks])

    @property
    def differentiated(self) -> list[bool]:
        """Which of `inputs` have a gradient."""
        return [not item.constant for item in self.inputs]

    @property
    def flops(self) -> int:
        """Floating-point operations; the backward pass has two products for the forward's one."""
        return 2 * self.batch * self.multiply_adds * (2 if self.backward else 1)

    def arrays(self) -> list[np.ndarray]:
        """The op's arrays, the same in every process; dy stands first in a backward case."""
        rng = np.random.default_rng(0)
        arrays = [item.make(self.batch, rng) for item in self.inputs]
        if self.backward:
            y = replace(self, backward=False).bind(numpy_baseline, arrays)()
            arrays.insert(0, rng.standard_normal(y.shape, np.float32))
        return arrays

    def bind(self, module: ModuleType, arrays: list[np.ndarray]) -> Callable[[], Any]:
        """The call of this op in `module`: `convkit.ops`, or `numpy_baseline`, shaped like it."""
        arguments: list[Any] = list(arrays)
        if self.op == "concatenate":
            arguments = [arrays[0], arrays[1:]] if self.backward else [arrays]
        return partial(getattr(module, self.function), *arguments, **self.arguments)


class LargeCase(Case):
    """An op at shapes that are too large to ask the baseline how large its result is: those of
    convolutions, pooling, up-sampling, dense layers, and of what keeps a shape."""

    @property
    def output(self) -> tuple[int, ...]:
        """The shape of what the op makes."""
        shape = (self.batch, *self.inputs[0].shape)
        if self.op == "dense":
            return (self.batch, self.inputs[1].shape[-1])
        if self.op == "upsample2d":
            size = self.options["size"]
            return (self.batch, shape[1] * size, shape[2] * size, shape[3])
        if self.op.endswith("pool2d"):
            window = self.options["pool_size"]
            places = self._places(window, self.options.get("strides", window), 0)
            return (self.batch, *places, shape[3])
        if self.op.endswith("conv2d"):
            size, _, _, filters = self.inputs[1].shape
            padding = self.options["padding"]
            zeros = {"same": size // 2, "valid": 0}.get(padding, padding)
            places = self._places(size, self.options.get("strides", 1), zeros)
            return (self.batch, *places, shape[3] if self.op != "conv2d" else filters)
        return shape

    @property
    def bytes(self) -> int:
        """Of the arrays that must be read or written, each once, in float32. The gradients of sums
        do not need what was summed, only the gradient of the result."""
        inputs = [(self.batch, *i.shape) if i.batched else i.shape for i in self.inputs]
        moved = [*inputs, self.output]
        if self.backward and self.op not in ("avg_pool2d", "upsample2d"):
            moved += inputs
        return 4 * sum(map(math.prod, moved))

    def _places(self, window: int, stride: int, zeros: int) -> tuple[int, int]:
        height, width = (size + 2 * zeros for size in self.inputs[0].shape[:2])
        return (height - window) // stride + 1, (width - window) // stride + 1

    def arrays(self) -> list[np.ndarray]:
        """The op's arrays, the same in every process; dy stands first in a backward case."""
        shapes = [(self.batch, *i.shape) if i.batched else i.shape for i in self.inputs]
        shapes = [self.output] * self.backward + shapes
        return [_random(shape, number) for number, shape in enumerate(shapes)]


@cache
def _random(shape: tuple[int, ...], seed: int) -> np.ndarray:
    """Between -0.5 and 0.5; cases share it, since so many would fill a machine's memory."""
    return np.random.default_rng(seed).random(shape, np.float32) - np.float32(0.5)


def _conv(height: int, width: int, channels: int, filters: int, padding: str) -> dict[str, Any]:
    out = height * width if padding == "same" else (height - 4) * (width - 4)
    return {
        "op": "conv2d",
        "inputs": (
            Input("x", (height, width, channels)),
            Input("kernel", (5, 5, channels, filters), batched=False),
            Input("bias", (filters,), batched=False),
        ),
        "options": {"padding": padding, "activation": "relu"},
        "multiply_adds": out * 25 * channels * filters,
    }


def _dense(inputs: int, units: int) -> dict[str, Any]:
    return {
        "op": "dense",
        "inputs": (
            Input("x", (inputs,)),
            Input("kernel", (inputs, units), batched=False),
            Input("bias", (units,), batched=False),
        ),
        "options": {"activation": "relu"},
        "multiply_adds": inputs * units,
    }


def _conv2d_transpose(
    height: int, width: int, channels: int, filters: int, size: int, padding: str
) -> dict[str, Any]:
    return {
        "op": "conv2d_transpose",
        "inputs": (
            Input("x", (height, width, channels)),
            Input("kernel", (size, size, filters, channels), batched=False),
            Input("bias", (filters,), batched=False),
        ),
        "options": {"strides": 2, "padding": padding, "activation": "relu"},
        "multiply_adds": height * width * size * size * channels * filters,
    }


def _depthwise(height: int, width: int, channels: int) -> dict[str, Any]:
    return {
        "op": "depthwise_conv2d",
        "inputs": (
            Input("x", (height, width, channels)),
            Input("kernel", (3, 3, channels, 1), batched=False),
            Input("bias", (channels,), batched=False),
        ),
        "options": {"padding": "same", "activation": "relu"},
        "multiply_adds": height * width * 9 * channels,
    }


def _separable(height: int, width: int, channels: int, filters: int) -> dict[str, Any]:
    return {
        "op": "separable_conv2d",
        "inputs": (
            Input("x", (height, width, channels)),
            Input("depthwise_kernel", (3, 3, channels, 1), batched=False),
            Input("pointwise_kernel", (1, 1, channels, filters), batched=False),
            Input("bias", (filters,), batched=False),
        ),
        "options": {"padding": "same", "activation": "relu"},
        "multiply_adds": height * width * channels * (9 + filters),
    }


def _unary(op: str, *shape: int, fill: str = "normal", **options: Any) -> dict[str, Any]:
    return {"op": op, "inputs": (Input("x", shape, fill=fill),), "options": options}


def _binary(op: str, *shape: int, fill: str = "normal") -> dict[str, Any]:
    return {"op": op, "inputs": (Input("a", shape), Input("b", shape, fill=fill))}


def _numbers(*names: str, size: tuple[int, ...]) -> tuple[Input, ...]:
    """One for each channel or value; those of a moment are given, and positive."""
    moments = ("mean", "variance")
    fills = {name: "positive" if name in moments else "normal" for name in names}
    return tuple(
        Input(name, size, batched=False, fill=fills[name], constant=name in moments)
        for name in names
    )


def _batch_norm(*shape: int, moments: bool = False) -> dict[str, Any]:
    names = ("gamma", "beta", "mean", "variance") if moments else ("gamma", "beta")
    return {"op": "batch_norm", "inputs": (Input("x", shape), *_numbers(*names, size=shape[-1:]))}


def _loss(op: str, target: str, fill: str = "probability", **options: Any) -> dict[str, Any]:
    """`target` and `fill`: what the target and the prediction hold."""
    fill = "normal" if "from_logits" in options else fill
    shape = () if target == "label" else (10,)
    inputs = (
        Input("target", shape, fill=target, constant=True),
        Input("prediction", (10,), fill=fill),
    )
    return {"op": op, "inputs": inputs, "options": options}


_ELEMENTWISE = (
    "relu",
    "leaky_relu",
    "sigmoid",
    "tanh",
    "exp",
    "elu",
    "selu",
    "softplus",
    "softsign",
    "silu",
    "gelu",
    "hard_sigmoid",
    "hard_swish",
    "relu6",
    "mish",
    "absolute",
    "square",
)
_OPS: tuple[dict[str, Any], ...] = (
    _conv(28, 28, 1, 6, "same"),
    _conv(14, 14, 6, 16, "valid"),
    _conv2d_transpose(14, 14, 16, 6, 4, "same"),
    _conv2d_transpose(14, 14, 16, 6, 2, "valid"),
    _depthwise(28, 28, 6),
    _depthwise(14, 14, 16),
    _separable(14, 14, 6, 16),
    _unary("max_pool2d", 28, 28, 6, pool_size=2),
    _unary("max_pool2d", 10, 10, 16, pool_size=2),
    _unary("avg_pool2d", 28, 28, 6, pool_size=2),
    _unary("avg_pool2d", 10, 10, 16, pool_size=2),
    _unary("global_max_pool2d", 10, 10, 16),
    _unary("global_avg_pool2d", 10, 10, 16),
    _unary("upsample2d", 14, 14, 6, size=2, interpolation="nearest"),
    _unary("upsample2d", 14, 14, 6, size=2, interpolation="bilinear"),
    _dense(400, 120),
    _dense(120, 84),
    _dense(84, 10),
    *(_unary(op, 28, 28, 6) for op in _ELEMENTWISE),
    _unary("gelu", 28, 28, 6, approximate=True),
    _unary("clip", 28, 28, 6, x_min=-1.0, x_max=1.0),
    *(_unary(op, 28, 28, 6, fill="positive") for op in ("sqrt", "log")),
    _unary("rescale", 28, 28, 6, scale=1 / 127.5, offset=-1.0),
    _unary("softmax", 10),
    _unary("log_softmax", 10),
    *(_binary(op, 28, 28, 6) for op in BINARY if op != "divide"),
    _binary("divide", 28, 28, 6, fill="positive"),
    {"op": "multiply", "inputs": (Input("a", (28, 28, 6)), Input("b", (6,), batched=False))},
    *(_unary(op, 28, 28, 6, axis=(1, 2)) for op in ("sum", "mean", "max", "min")),
    _batch_norm(28, 28, 6),
    _batch_norm(10, 10, 16),
    _batch_norm(28, 28, 6, moments=True),
    {"op": "layer_norm", "inputs": (Input("x", (120,)), *_numbers("gamma", "beta", size=(120,)))},
    {"op": "prelu", "inputs": (Input("x", (28, 28, 6)), *_numbers("alpha", size=(1, 1, 6)))},
    _binary("concatenate", 14, 14, 6),
    _unary("pad2d", 28, 28, 6, padding=2),
    _unary("crop2d", 28, 28, 6, cropping=2),
    _unary("permute", 28, 28, 6, axes=(3, 1, 2)),
    _unary("repeat", 14, 28, 6, repeats=2, axis=1),
    _loss("categorical_crossentropy", "one_hot"),
    _loss("categorical_crossentropy", "one_hot", from_logits=True),
    _loss("sparse_categorical_crossentropy", "label"),
    _loss("sparse_categorical_crossentropy", "label", from_logits=True),
    _loss("binary_crossentropy", "one_hot"),
    _loss("binary_crossentropy", "one_hot", from_logits=True),
    _loss("categorical_focal_crossentropy", "one_hot"),
    _loss("categorical_focal_crossentropy", "one_hot", from_logits=True),
    _loss("binary_focal_crossentropy", "one_hot"),
    _loss("binary_focal_crossentropy", "one_hot", from_logits=True),
    _loss("mean_squared_error", "one_hot"),
    _loss("mean_absolute_error", "one_hot"),
    _loss("mean_absolute_percentage_error", "positive"),
    _loss("mean_squared_logarithmic_error", "probability"),
    _loss("huber", "one_hot", "normal"),
    _loss("log_cosh", "one_hot", "normal"),
    _loss("poisson", "one_hot"),
    _loss("kl_divergence", "probability"),
    _loss("hinge", "one_hot", "normal"),
    _loss("squared_hinge", "one_hot", "normal"),
    _loss("categorical_hinge", "one_hot", "normal"),
    _loss("cosine_similarity", "one_hot", "normal"),
    _loss("dice", "one_hot"),
    _loss("dice", "one_hot", axis=-1),
)


def _times(shape: tuple[int, ...]) -> str:
    return "×".join(map(str, shape))


def cases(batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Every op forward, then backward, at each batch."""
    for fields in _OPS:
        for backward in (False, True):
            for batch in batches:
                yield Case(**fields, batch=batch, backward=backward)
