"""Regularizers: penalties on weights, added to the loss, with Keras's names and definitions.

A penalty is no node of the loss: its gradient is added to that of the weights (`Optimizer.record`),
and its value to the loss that is shown (`penalty_nodes`).
"""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

import numpy as np

from convkit import _core, configuration, geometry, graph
from convkit.graph import Node, Symbol, Variable


class Regularizer(configuration.Configured):
    """Base class: l1 * sum(|w|) + l2 * sum(w ** 2) of all values w of a weight.

    Attributes:
        l1, l2: at least 0.
    """

    l1: float = 0.0
    l2: float = 0.0

    def __call__(self, x: Any) -> float:
        """The penalty of an array or a variable."""
        values = np.asarray(x.host() if isinstance(x, Variable) else x, np.float64)
        return float(self.l1 * np.abs(values).sum() + self.l2 * np.square(values).sum())

    def spec(self, size: int) -> Any:
        """The spec of its kernels for a weight of so many values."""
        return _core.Regularizer(size=size, l1=self.l1, l2=self.l2)

    def add_to(self, gradient: Symbol, variable: Variable) -> Symbol:
        """Records the gradient with that of the penalty added to it."""
        inputs = [gradient, variable.symbol]
        return graph.call(  # type: ignore[no-any-return]
            "regularize",
            self.spec(variable.value.size),
            None,
            inputs,
            [variable.shape],
            variable.dtype,
        )[0]

    def _factor(self, name: str, value: Any) -> float:
        return geometry.number(type(self).__name__, name, value, 0, inf)


class L1(Regularizer):
    """l1 * sum(|w|).

    Args:
        l1: at least 0.
    """

    def __init__(self, l1: float = 0.01) -> None:
        self.l1 = self._factor("l1", l1)


class L2(Regularizer):
    """l2 * sum(w ** 2).

    Args:
        l2: at least 0.
    """

    def __init__(self, l2: float = 0.01) -> None:
        self.l2 = self._factor("l2", l2)


class L1L2(Regularizer):
    """l1 * sum(|w|) + l2 * sum(w ** 2).

    Args:
        l1, l2: at least 0.
    """

    def __init__(self, l1: float = 0.0, l2: float = 0.0) -> None:
        self.l1, self.l2 = self._factor("l1", l1), self._factor("l2", l2)


NAMES: dict[str, type[Regularizer]] = {"l1": L1, "l2": L2, "l1_l2": L1L2, "l1l2": L1L2}


def get(identifier: Any) -> Regularizer | None:
    """A regularizer from its name, a class or an instance; None stays None.

    Functions of one's own have no kernel: `Layer.add_loss` takes what a layer's `call` makes.
    """
    if identifier is None or isinstance(identifier, Regularizer):
        return identifier
    if isinstance(identifier, str):
        name = geometry.choice("regularizers.get", "name", identifier.lower(), tuple(NAMES))
        return NAMES[name]()
    if isinstance(identifier, type) and issubclass(identifier, Regularizer):
        return identifier()
    raise TypeError(f"regularizers.get: expected a name or a regularizer, got {identifier!r}")


def penalty_nodes(variables: Sequence[Variable], total: Variable) -> list[Node]:
    """Records that the penalties of all variables are added to a total.

    Args:
        variables: those without a regularizer are passed over.
        total: two float64 numbers; (the sum over samples of all penalties) / (number of samples) is
            the first divided by the second, for any number of variables.
    """
    chosen = [variable for variable in variables if variable.regularizer is not None]
    nodes = []
    for variable in chosen:
        regularizer = variable.regularizer
        # Each variable counts all samples once more.
        spec = _core.Regularizer(
            size=variable.value.size,
            l1=regularizer.l1 * len(chosen),
            l2=regularizer.l2 * len(chosen),
        )
        nodes.append(graph.update("penalty", spec, [variable.symbol, total.symbol]))
    return nodes
