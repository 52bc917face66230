"""Optimizers, with Keras's names, defaults and definitions: state, and one update rule each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core, geometry, graph
from convkit.graph import Node, Symbol, Variable


class Optimizer:
    """Base class.

    Args:
        learning_rate: at least 0; may be changed at any time.
    """

    def __init__(self, learning_rate: float) -> None:
        self.iterations = Variable(np.zeros(1, np.int64), "iterations", trainable=False)
        self._rate = geometry.number(
            type(self).__name__, "learning_rate", learning_rate, 0, float("inf")
        )
        self._rates: dict[str, Variable] = {}
        self._slots: dict[tuple[int, str], Variable] = {}

    @property
    def learning_rate(self) -> float:
        return self._rate

    @learning_rate.setter
    def learning_rate(self, value: float) -> None:
        self._rate = geometry.number(type(self).__name__, "learning_rate", value, 0, float("inf"))
        for rate in self._rates.values():
            rate.assign([self._rate])

    def _rate_of(self, dtype: str) -> Variable:
        if dtype not in self._rates:
            value = np.array([self._rate], dtype)
            self._rates[dtype] = Variable(value, "learning_rate", trainable=False)
        return self._rates[dtype]

    def slot(self, variable: Variable, name: str) -> Variable:
        """The optimizer's own array for a parameter, zeros at first."""
        key = (id(variable), name)
        if key not in self._slots:
            zeros = np.zeros(variable.shape, variable.dtype)
            state = Variable(zeros, f"{variable.name}/{name}", False)
            # The parameter is kept with its state, so that its id is not given away again.
            state.parameter = variable  # type: ignore[attr-defined]
            self._slots[key] = state
        return self._slots[key]

    @property
    def variables(self) -> list[Variable]:
        """The step count and all state."""
        return [self.iterations, *self._slots.values()]

    def to(self, gpu: int | None) -> None:
        """Moves all that the optimizer keeps to a GPU, or to the host's memory."""
        for variable in [*self.variables, *self._rates.values()]:
            variable.to(gpu)

    def record(self, gradients: Sequence[Symbol], variables: Sequence[Variable]) -> list[Node]:
        """Records one update of the variables, step count first."""
        count = _core.Elementwise(size=1)
        nodes = [graph.update("next_step", count, [self.iterations.symbol])]
        for gradient, variable in zip(gradients, variables, strict=True):
            nodes.append(self.update(gradient, variable, self._rate_of(variable.dtype)))
        return nodes

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        """Records the update of one variable."""
        raise TypeError(f"{type(self).__name__}: a subclass of Optimizer must define update")

    def __repr__(self) -> str:
        return f"<{type(self).__name__}, learning_rate {self.learning_rate:g}>"


class SGD(Optimizer):
    """Stochastic gradient descent, with momentum and Nesterov's look-ahead (Sutskever et al.).

    v = momentum * v - learning_rate * g; w += v, or w += momentum * v - learning_rate * g.

    Args:
        learning_rate: at least 0.
        momentum: 0 <= momentum < 1.
        nesterov: whether the step looks ahead; needs momentum to make a difference.
    """

    def __init__(
        self, learning_rate: float = 0.01, momentum: float = 0.0, nesterov: bool = False
    ) -> None:
        super().__init__(learning_rate)
        self.momentum = geometry.number("SGD", "momentum", momentum, 0, 1)
        self.nesterov = bool(nesterov)

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        velocity = self.slot(variable, "velocity").symbol if self.momentum else None
        spec = _core.Sgd(
            size=variable.value.size, momentum=self.momentum, nesterov=int(self.nesterov)
        )
        return graph.update("sgd", spec, [rate.symbol, gradient, velocity, variable.symbol])


class Adam(Optimizer):
    """Adam (Kingma and Ba, 2015), with epsilon added outside the bias correction, as Keras does.

    Args:
        learning_rate: at least 0.
        beta_1, beta_2: 0 <= beta < 1, decay of the first and second moments.
        epsilon: at least 0, added to the square root of the second moment.
    """

    def __init__(
        self,
        learning_rate: float = 0.001,
        beta_1: float = 0.9,
        beta_2: float = 0.999,
        epsilon: float = 1e-7,
    ) -> None:
        super().__init__(learning_rate)
        self.beta_1 = geometry.number("Adam", "beta_1", beta_1, 0, 1)
        self.beta_2 = geometry.number("Adam", "beta_2", beta_2, 0, 1)
        self.epsilon = geometry.number("Adam", "epsilon", epsilon, 0, float("inf"))

    def update(self, gradient: Symbol, variable: Variable, rate: Variable) -> Node:
        spec = _core.Adam(
            size=variable.value.size,
            beta_1=self.beta_1,
            beta_2=self.beta_2,
            epsilon=self.epsilon,
        )
        return graph.update(
            "adam",
            spec,
            [
                rate.symbol,
                self.iterations.symbol,
                gradient,
                self.slot(variable, "m").symbol,
                self.slot(variable, "v").symbol,
                variable.symbol,
            ],
        )


NAMES: dict[str, type[SGD] | type[Adam]] = {"sgd": SGD, "adam": Adam}


def get(identifier: Any) -> Optimizer:
    """An optimizer from its name, a class or an instance."""
    if isinstance(identifier, Optimizer):
        return identifier
    if identifier in NAMES.values():
        return identifier()  # type: ignore[no-any-return]
    if isinstance(identifier, str):
        name = geometry.choice("optimizers.get", "optimizer", identifier.lower(), tuple(NAMES))
        return NAMES[name]()
    raise TypeError(f"optimizers.get: expected a name or an optimizer, got {identifier!r}")
