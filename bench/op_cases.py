"""The ops that are measured, at LeNet's shapes: every public op of `convkit.ops`, both ways."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy_baseline

BATCHES = (1, 32, 128)


@dataclass(frozen=True)
class Input:
    """One array of an op: its shape without the batch (None: no batch axis), and its contents.

    `fill` is "normal", "probability" (rows that sum to one), "one_hot", or "label".
    """

    name: str
    shape: tuple[int, ...]
    batched: bool = True
    fill: str = "normal"

    def make(self, batch: int, rng: np.random.Generator) -> np.ndarray:
        shape = (batch, *self.shape) if self.batched else self.shape
        if self.fill == "label":
            return rng.integers(0, 10, batch, dtype=np.int32)
        if self.fill == "one_hot":
            return np.eye(shape[-1], dtype=np.float32)[rng.integers(0, shape[-1], batch)]
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
        text = "×".join(map(str, (self.batch, *shape)))
        if self.multiply_adds:
            text += f" → {self.inputs[1].shape[-1]}"
        marks = [
            name if value is True else str(value)
            for name, value in self.arguments.items()
            if name not in ("pool_size", "size", "scale", "offset")
        ]
        return " ".join([text, *marks])

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


def _unary(op: str, *shape: int, **options: Any) -> dict[str, Any]:
    return {"op": op, "inputs": (Input("x", shape),), "options": options}


def _binary(op: str, *shape: int) -> dict[str, Any]:
    return {"op": op, "inputs": (Input("a", shape), Input("b", shape))}


def _loss(op: str, target: str, **options: Any) -> dict[str, Any]:
    fill = "normal" if options else "probability"
    shape = () if target == "label" else (10,)
    inputs = (Input("target", shape, fill=target), Input("prediction", (10,), fill=fill))
    return {"op": op, "inputs": inputs, "options": options}


_OPS: tuple[dict[str, Any], ...] = (
    _conv(28, 28, 1, 6, "same"),
    _conv(14, 14, 6, 16, "valid"),
    _unary("max_pool2d", 28, 28, 6, pool_size=2),
    _unary("max_pool2d", 10, 10, 16, pool_size=2),
    _unary("avg_pool2d", 28, 28, 6, pool_size=2),
    _unary("avg_pool2d", 10, 10, 16, pool_size=2),
    _unary("upsample2d", 14, 14, 6, size=2, interpolation="nearest"),
    _unary("upsample2d", 14, 14, 6, size=2, interpolation="bilinear"),
    _dense(400, 120),
    _dense(120, 84),
    _dense(84, 10),
    *(_unary(op, 28, 28, 6) for op in ("relu", "leaky_relu", "sigmoid", "tanh", "exp")),
    _unary("rescale", 28, 28, 6, scale=1 / 127.5, offset=-1.0),
    _unary("softmax", 10),
    _unary("log_softmax", 10),
    _binary("add", 28, 28, 6),
    _binary("concatenate", 14, 14, 6),
    _loss("categorical_crossentropy", "one_hot"),
    _loss("categorical_crossentropy", "one_hot", from_logits=True),
    _loss("sparse_categorical_crossentropy", "label"),
    _loss("sparse_categorical_crossentropy", "label", from_logits=True),
    _loss("binary_crossentropy", "one_hot"),
    _loss("binary_crossentropy", "one_hot", from_logits=True),
    _loss("mean_squared_error", "one_hot"),
    _loss("mean_absolute_error", "one_hot"),
)


def cases(batches: tuple[int, ...] = BATCHES) -> Iterator[Case]:
    """Every op forward, then backward, at each batch."""
    for fields in _OPS:
        for backward in (False, True):
            for batch in batches:
                yield Case(**fields, batch=batch, backward=backward)
