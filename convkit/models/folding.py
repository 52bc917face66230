"""Inference without batch norm: its scale and shift are taken into the weights before it.

A convolution or dense layer, then scale and shift per channel with fixed statistics, is one with
other weights (Jacob et al., 2018, section 3.2). The folded weights are variables of their own, and
worked out by a small program whenever the model's have changed since; see `graph.version`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core
from convkit.graph import Node, Symbol, Variable, ordered_nodes, root

# Kernels into whose weights a scale and a shift of their last axis can be taken.
FOLDED = ("conv2d", "dense")


def fold(results: Sequence[Symbol]) -> list[Node]:
    """Rewrites the nodes that the results depend on, which nothing else may use.

    Returns:
        Nodes that write the folded weights, to be carried out before; none if nothing was folded.
    """
    nodes = ordered_nodes(results)
    readers: dict[int, int] = {id(root(result)): 1 for result in results}
    for node in nodes:
        for value in node.inputs:
            if value is not None:
                readers[id(value)] = readers.get(id(value), 0) + 1
    before: list[Node] = []
    for affine in nodes:
        if affine.kernel != "channel_affine":
            continue
        x, scale, shift = affine.inputs
        assert x is not None
        weighted = x.node
        if weighted is None or weighted.kernel not in FOLDED or readers[id(x)] != 1:
            continue
        known = [value for value in (*weighted.inputs[1:], scale, shift) if value is not None]
        if not all(_constant(value) for value in known):
            continue
        before += _folded(weighted, scale, shift, int(x.shape[-1] or 0))
        # What it made is now what the affine node did.
        (y,) = affine.outputs
        assert y is not None
        weighted.outputs = [y]
        y.node = weighted
    return before


def _constant(symbol: Symbol) -> bool:
    """Whether a value follows from variables alone."""
    return all(
        value is None or value.variable is not None or value.node is not None
        for node in ordered_nodes([symbol])
        for value in node.inputs
    ) and (symbol.variable is not None or symbol.node is not None)


def _folded(weighted: Node, scale: Symbol | None, shift: Symbol | None, filters: int) -> list[Node]:
    # A depthwise kernel has its filters along the last two axes, the others along the last.
    _, kernel, bias = weighted.inputs
    assert kernel is not None
    dtype = kernel.dtype
    sizes = tuple(int(size or 0) for size in kernel.shape)
    made = Variable(np.zeros(sizes, dtype), "folded kernel", trainable=False)
    added = Variable(np.zeros(filters, dtype), "folded bias", trainable=False)

    def values(symbol: Symbol | None, otherwise: float) -> Symbol:
        if symbol is not None:
            return symbol
        return Variable(np.full(filters, otherwise, dtype), "constant", trainable=False).symbol

    spec = _core.Fold(rows=made.value.size // filters, filters=filters)
    given: list[Any] = [kernel, bias, values(scale, 1), values(shift, 0)]
    weighted.inputs[1:] = [made.symbol, added.symbol]
    return [Node("fold_affine", spec, given, [made.symbol, added.symbol])]
