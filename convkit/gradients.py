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
from convkit.broadcasting import summing
from convkit.geometry import BINARY_KINDS, REDUCE_KINDS, samples
from convkit.graph import Node, Symbol, Variable, call, on_behalf_of, ordered_nodes, reshape

Rule = Callable[..., list[Any]]
RULES: dict[str, Rule] = {}


class Call:
    """One kernel call as a rule sees it."""

    __slots__ = ("_out", "dtype", "dys", "inputs", "n", "needs", "outputs", "spec")

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
        self.dys: Sequence[Any] = ()  # of all outputs, where there are several and all are needed

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


@rule("channel_affine")
def _channel_affine(kernel: str, c: Call, dy: Any) -> list[Any]:
    x, scale, _ = c.inputs
    dx, dscale, dshift = c.target(0), c.target(1), c.target(2)
    passed = None
    if scale is None and isinstance(dy, Symbol):  # one value can serve both
        passed, dx = (dy if c.needs[0] else None), None
    inputs = [dy, x if dscale is not None else None, scale]
    dx, dscale, dshift = c.kernel("channel_affine_backward", inputs, [dx, dscale, dshift])
    return [dx if passed is None else passed, dscale, dshift]


@rule("batch_norm")
def _batch_norm(kernel: str, c: Call, dy: Any) -> list[Any]:
    x, gamma, _ = c.inputs
    inputs = [dy, x, gamma, *c.outputs[1:]]
    return c.kernel("batch_norm_backward", inputs, [c.target(0), c.target(1), c.target(2)])


@rule("batch_norm_affine")
def _batch_norm_affine(kernel: str, c: Call, dy: Any) -> list[Any]:
    # The mean and the variance are constants.
    found = c.kernel(
        "batch_norm_affine_backward", [*c.dys, *c.inputs[2:]], [c.target(0), c.target(1)]
    )
    return [*found, None, None]


@rule("layer_norm")
def _layer_norm(kernel: str, c: Call, dy: Any) -> list[Any]:
    inputs = [dy, *c.inputs[:2]]
    return c.kernel("layer_norm_backward", inputs, [c.target(0), c.target(1), c.target(2)])


@rule("prelu")
def _prelu(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("prelu_backward", [dy, *c.inputs], [c.target(0), c.target(1)])


@rule("conv2d_backward_input")
def _transposed(kernel: str, c: Call, dy: Any) -> list[Any]:
    """Of a convolution's gradient, taken as a function of its own: a transposed convolution."""
    x, weights = c.inputs
    (dx,) = c.kernel("conv2d", [dy, weights, None], [c.target(0)])
    dkernel, _ = c.kernel("conv2d_backward_kernel", [x, dy], [c.target(1), None])
    return [dx, dkernel]


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


@rule("unary")
def _unary(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("unary_backward", [dy, c.inputs[0]], [c.target(0)])


@rule("binary")
def _binary(kernel: str, c: Call, dy: Any) -> list[Any]:
    passes = c.spec.kind == BINARY_KINDS["subtract"] and isinstance(dy, Symbol)
    if passes and c.needs[0] and c.inputs[0].shape == dy.shape:  # as it is
        return [dy, *c.kernel("binary_backward", [dy, *c.inputs], [None, c.target(1)])[1:]]
    return c.kernel("binary_backward", [dy, *c.inputs], [c.target(0), c.target(1)])


@rule("reduce")
def _reduce(kernel: str, c: Call, dy: Any) -> list[Any]:
    extreme = c.spec.kind in (REDUCE_KINDS["max"], REDUCE_KINDS["min"])
    return c.kernel("reduce_backward", [dy, c.inputs[0] if extreme else None], [c.target(0)])


@rule("expand")
def _expand(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    return call("reduce", summing(c.spec), c.n, [dy], [c.target(0)], c.dtype)


@rule("broadcast")
def _broadcast(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("broadcast_backward", [dy], [c.target(0)])


@rule("concatenate")
def _concatenate(kernel: str, c: Call, dy: Any) -> list[Any]:
    return c.kernel("concatenate_backward", [dy], [c.target(0), c.target(1)])


@rule("transpose")
def _transpose(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    spec = _core.Transpose(rows=c.spec.columns, columns=c.spec.rows)
    return call("transpose", spec, c.n, [dy], [c.target(0)], c.dtype)


@rule("pad2d")
def _pad2d(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    s = c.spec
    back = _core.Pad2d(
        height=s.out_height,
        width=s.out_width,
        channels=s.channels,
        top=-s.top,
        left=-s.left,
        out_height=s.height,
        out_width=s.width,
    )
    return call("pad2d", back, c.n, [dy], [c.target(0)], c.dtype)


@rule("permute")
def _permute(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.target(0) is None:
        return [None]
    s = c.spec
    sizes = (s.size_0, s.size_1, s.size_2, s.size_3)
    source = (s.from_0, s.from_1, s.from_2, s.from_3)
    back = _core.Permute(
        **{f"size_{i}": sizes[place] for i, place in enumerate(source)},
        **{f"from_{i}": source.index(i) for i in range(4)},
        inner=s.inner,
    )
    return call("permute", back, c.n, [dy], [c.target(0)], c.dtype)


@rule("dropout", "spatial_dropout")
def _dropout(kernel: str, c: Call, dy: Any) -> list[Any]:
    return [*c.kernel(kernel, [dy, c.inputs[1]], [c.target(0)]), None]


@rule("gaussian_noise")
def _noise(kernel: str, c: Call, dy: Any) -> list[Any]:
    return [dy if c.needs[0] else None, None]


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


@rule("pointwise_loss", "dice", "batch_dice")
def _loss_of_predictions(kernel: str, c: Call, dy: Any) -> list[Any]:
    if c.needs[0]:
        raise ValueError(f"{kernel}: expected targets that no weights make, got others")
    return [None, *c.kernel(f"{kernel}_backward", [dy, *c.inputs], [c.target(1)])]


@rule("python")
def _python(kernel: str, c: Call, dy: Any) -> list[Any]:
    targets = [c.target(i) for i in range(len(c.inputs))]
    return c.kernel("python_backward", [dy, *c.inputs, c.outputs[0]], targets)


def gradients(losses: Sequence[Symbol], wanted: Sequence[Symbol]) -> list[Symbol | None]:
    """d(sum of losses) / d(symbol) for each wanted symbol; None where they do not depend on it.

    Args:
        losses: symbols that are results of `mean` nodes, scalars.
    """
    nodes = ordered_nodes(losses)
    leads = {id(symbol) for symbol in wanted}  # symbols on the way to what is wanted
    for node in nodes:
        if any(id(value) in leads for value in node.inputs if value is not None):
            leads.update(id(output) for output in node.outputs if output is not None)

    found: dict[int, Any] = {id(loss): _one(loss.dtype) for loss in losses}
    for node in reversed(nodes):
        dys = [None if output is None else found.get(id(output)) for output in node.outputs]
        if not dys or dys[0] is None or not any(id(o) in leads for o in node.outputs):
            continue
        for value, gradient in zip(node.inputs, _node_gradients(node, dys, leads), strict=True):
            if value is None or gradient is None:
                continue
            other = found.get(id(value))
            found[id(value)] = gradient if other is None else _sum(other, gradient)
    return [found.get(id(symbol)) for symbol in wanted]


def _one(dtype: str) -> Symbol:
    return Variable(np.ones(1, dtype), "one", trainable=False).symbol


def _node_gradients(node: Node, dys: Sequence[Any], leads: set[int]) -> list[Any]:
    dy = dys[0]
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
    one.dys = dys
    with on_behalf_of(node.layer):
        return backward(node.kernel, dy, one)


def _sum(a: Symbol, b: Symbol) -> Symbol:
    spec = _core.Elementwise(size=samples(a.shape)[1])
    result: Symbol = call("add", spec, None, [a, b], [a.shape], a.dtype)[0]
    return result
