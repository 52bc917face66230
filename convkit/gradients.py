"""The gradient of every kernel: the one place where it is said.

A rule takes a call (spec, n, inputs, outputs), the gradients of its outputs and which inputs need a
gradient, and gives one gradient per input, None where there is none. It is made of kernel calls, so
the same rule serves arrays (`ops.conv2d_backward`) and symbols (`fit`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from convkit import _core
from convkit.geometry import samples
from convkit.graph import Node, Symbol, Variable, call, on_behalf_of, ordered_nodes, reshape

Rule = Callable[..., list[Any]]
RULES: dict[str, Rule] = {}


class Call:
    """One kernel call as a rule sees it."""

    __slots__ = ("_out", "dtype", "inputs", "n", "needs", "outputs", "spec")

    def __init__(
        self,
        spec: Any,
        n: int | None,
        inputs: Sequence[Any],
        outputs: Sequence[Any],
        dtype: str,
        needs: Sequence[bool],
        out: Sequence[Any] | None = None,
    ) -> None:
        self.spec = spec
        self.n = n
        self.inputs = inputs
        self.outputs = outputs
        self.dtype = dtype
        self.needs = needs
        self._out = out

    def target(self, index: int) -> Any:
        """Where input `index`'s gradient goes: a shape, an array given for it, None if unneeded."""
        if not self.needs[index] or self.inputs[index] is None:
            return None
        if self._out is not None and self._out[index] is not None:
            return self._out[index]
        return self.inputs[index].shape

    def kernel(self, name: str, inputs: Sequence[Any], targets: Sequence[Any]) -> list[Any]:
        """Calls the backward kernel, unless nothing of it is needed."""
        for target in targets:
            if target is not None:
                return call(name, self.spec, self.n, inputs, targets, self.dtype)
        return [None] * len(targets)


def rule(*kernels: str) -> Callable[[Rule], Rule]:
    """Registers the gradient rule of the kernels of these names."""

    def register(function: Rule) -> Rule:
        for kernel in kernels:
            RULES[kernel] = function
        return function

    return register


def backward(kernel: str, dy: Any, one: Call) -> list[Any]:
    """The gradients of one call's inputs, given that of its (first) output."""
    return RULES[kernel](kernel, one, dy)


@rule("conv2d", "dense")
def _weighted(kernel: str, c: Call, dy: Any) -> list[Any]:
    x, weights, _ = c.inputs
    dx, dkernel, dbias = c.target(0), c.target(1), c.target(2)
    (dx,) = c.kernel(f"{kernel}_backward_input", [dy, weights], [dx])
    if dkernel is None and dbias is None:
        return [dx, None, None]
    # One kernel gives both; where the bias alone is asked for, dkernel is made and dropped.
    made = tuple(weights.shape) if dkernel is None else dkernel
    made, dbias = c.kernel(f"{kernel}_backward_kernel", [dy, x], [made, dbias])
    return [dx, None if dkernel is None else made, dbias]


@rule("max_pool2d")
def _max_pool2d(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("max_pool2d_backward", [dy, c.inputs[0]], [c.target(0)])


@rule("avg_pool2d", "upsample2d", "mean")
def _linear(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel(f"{kernel}_backward", [dy], [c.target(0)])


@rule("activation", "softmax", "log_softmax")
def _from_output(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel(f"{kernel}_backward", [dy, c.outputs[0]], [c.target(0)])


@rule("rescale")
def _rescale(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    spec = _core.Rescale(size=c.spec.size, scale=c.spec.scale, offset=0.0)
    return call("rescale", spec, c.n, [dy], [c.target(0)], c.dtype)


@rule("add")
def _add(kernel: str, c: Call, dy: Any) -> list[Any]:
    if isinstance(dy, Symbol):  # one value can serve both
        return [dy if need else None for need in c.needs]
    return c.kernel("add_backward", [dy], [c.target(0), c.target(1)])


@rule("concatenate")
def _concatenate(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("concatenate_backward", [dy], [c.target(0), c.target(1)])


@rule("transpose")
def _transpose(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    spec = _core.Transpose(rows=c.spec.columns, columns=c.spec.rows)
    return call("transpose", spec, c.n, [dy], [c.target(0)], c.dtype)


@rule("dropout")
def _dropout(kernel: str, c: Call, dy: Any) -> list[Any]:
    return [*c.kernel("dropout", [dy, c.inputs[1]], [c.target(0)]), None]


@rule(
    "categorical_crossentropy",
    "binary_crossentropy",
    "mean_squared_error",
    "mean_absolute_error",
)
def _loss(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel(f"{kernel}_backward", [dy, *c.inputs], [c.target(0), c.target(1)])


@rule("sparse_categorical_crossentropy")
def _sparse_loss(kernel: str, c: Call, dy: Any) -> list[Any]:
    target, prediction = c.inputs
    return [None, *c.kernel(f"{kernel}_backward", [dy, target, prediction], [c.target(1)])]


def gradients(loss: Symbol, wanted: Sequence[Symbol]) -> list[Symbol | None]:
    """d(loss) / d(symbol) for each wanted symbol; None where the loss does not depend on it.

    Args:
        loss: a symbol that is the result of a `mean` node, the scalar to be differentiated.
    """
    nodes = ordered_nodes([loss])
    leads = {id(symbol) for symbol in wanted}  # symbols on the way to what is wanted
    for node in nodes:
        if any(id(value) in leads for value in node.inputs if value is not None):
            leads.update(id(output) for output in node.outputs if output is not None)

    found: dict[int, Any] = {id(loss): _one(loss.dtype)}
    for node in reversed(nodes):
        dys = [None if output is None else found.get(id(output)) for output in node.outputs]
        if not dys or dys[0] is None or not any(id(o) in leads for o in node.outputs):
            continue
        for value, gradient in zip(node.inputs, _node_gradients(node, dys[0], leads), strict=True):
            if value is None or gradient is None:
                continue
            other = found.get(id(value))
            found[id(value)] = gradient if other is None else _sum(other, gradient)
    return [found.get(id(symbol)) for symbol in wanted]


def _one(dtype: str) -> Symbol:
    return Variable(np.ones(1, dtype), "one", trainable=False).symbol


def _node_gradients(node: Node, dy: Any, leads: set[int]) -> list[Any]:
    needs = [value is not None and id(value) in leads for value in node.inputs]
    if node.kernel == "reshape":
        source = node.inputs[0]
        assert source is not None
        return [reshape(dy, source.shape)]
    if node.kernel not in RULES:
        raise ValueError(f"gradients: expected kernels with a gradient, got {node.kernel}")
    output = node.outputs[0]
    assert output is not None
    one = Call(node.spec, None, node.inputs, node.outputs, output.dtype, needs)
    with on_behalf_of(node.layer):
        return backward(node.kernel, dy, one)


def _sum(a: Symbol, b: Symbol) -> Symbol:
    spec = _core.Elementwise(size=samples(a.shape)[1])
    result: Symbol = call("add", spec, None, [a, b], [a.shape], a.dtype)[0]
    return result
