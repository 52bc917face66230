"""Constraints: what weights are held to after each update, with Keras's names and definitions."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf, prod
from typing import Any

import numpy as np

from convkit import _core, configuration, geometry, graph
from convkit.graph import Node, Variable

NON_NEGATIVE, UNIT_NORM, MIN_MAX_NORM = range(3)  # ConstraintKind


class Constraint(configuration.Configured):
    """Base class: a kind of `_core.Constraint`, and what it is held to."""

    kind = NON_NEGATIVE
    axis: int | tuple[int, ...] = 0
    # Norms between low and high, approached by `rate` of the way at each update.
    low, high, rate = 0.0, inf, 1.0

    def __call__(self, w: Any) -> np.ndarray:
        """A copy of an array or a variable that is held to the constraint."""
        values = np.array(w.host() if isinstance(w, Variable) else w, order="C")
        if values.dtype not in (np.float32, np.float64):
            values = values.astype(np.float64)
        _core.run_kernel("constrain", self.spec(values.shape), 1, values.dtype.name, [], [values])
        return values

    def spec(self, shape: tuple[int, ...]) -> Any:
        """The spec of its kernel for a weight of this shape.

        Raises:
            ValueError: the weight has no such axes, or they do not lie side by side.
        """
        outer, size, inner = 1, prod(shape), 1
        if self.kind != NON_NEGATIVE:
            op = type(self).__name__
            given = self.axis if isinstance(self.axis, tuple) else (self.axis,)
            axes = sorted({geometry.axis_index(op, axis, len(shape)) for axis in given})
            first, last = axes[0], axes[-1] + 1
            if last - first != len(axes):
                raise geometry.fail(op, "axes that lie side by side", self.axis)
            outer, size, inner = prod(shape[:first]), prod(shape[first:last]), prod(shape[last:])
        return _core.Constraint(
            outer=outer,
            size=size,
            inner=inner,
            kind=self.kind,
            low=self.low,
            high=self.high,
            rate=self.rate,
        )

    def record(self, variable: Variable) -> Node:
        """Records that a variable is held to the constraint."""
        return graph.update("constrain", self.spec(variable.shape), [variable.symbol])

    def _axes(self, axis: Any) -> Any:
        if isinstance(axis, Sequence) and not isinstance(axis, str) and len(axis):
            return tuple(self._axes(each) for each in axis)
        return geometry.integer(type(self).__name__, "axis", axis, -geometry.LARGEST)

    def _number(self, name: str, value: Any) -> float:
        return geometry.number(type(self).__name__, name, value, 0, inf)


class NonNeg(Constraint):
    """Weights below 0 become 0."""


class UnitNorm(Constraint):
    """Each vector of weights has norm 1.

    Args:
        axis: the axis, or axes side by side, that a vector lies along: 0 for the kernel of a dense
            layer, (0, 1, 2) for that of a convolution.
    """

    kind = UNIT_NORM

    def __init__(self, axis: int | Sequence[int] = 0) -> None:
        self.axis = self._axes(axis)


class MaxNorm(Constraint):
    """Each vector of weights has a norm of at most `max_value`.

    Args:
        max_value: at least 0.
        axis: as of `UnitNorm`.
    """

    kind = MIN_MAX_NORM

    def __init__(self, max_value: float = 2, axis: int | Sequence[int] = 0) -> None:
        self.high = self.max_value = self._number("max_value", max_value)
        self.axis = self._axes(axis)


class MinMaxNorm(Constraint):
    """Each vector of weights has a norm between min_value and max_value.

    Args:
        min_value, max_value: at least 0.
        rate: 0 <= rate <= 1, the share of the way there that an update takes.
        axis: as of `UnitNorm`.
    """

    kind = MIN_MAX_NORM

    def __init__(
        self,
        min_value: float = 0.0,
        max_value: float = 1.0,
        rate: float = 1.0,
        axis: int | Sequence[int] = 0,
    ) -> None:
        self.low = self.min_value = self._number("min_value", min_value)
        self.high = self.max_value = self._number("max_value", max_value)
        self.rate = geometry.between(type(self).__name__, "rate", rate, 0, 1)
        self.axis = self._axes(axis)


NAMES: dict[str, type[Constraint]] = {
    "max_norm": MaxNorm,
    "min_max_norm": MinMaxNorm,
    "non_neg": NonNeg,
    "unit_norm": UnitNorm,
}


def get(identifier: Any) -> Constraint | None:
    """A constraint from its name, a class or an instance; None stays None."""
    if identifier is None or isinstance(identifier, Constraint):
        return identifier
    if isinstance(identifier, str):
        known = {**NAMES, **{cls.__name__: cls for cls in NAMES.values()}}
        return known[geometry.choice("constraints.get", "name", identifier, tuple(known))]()
    if isinstance(identifier, type) and issubclass(identifier, Constraint):
        return identifier()
    raise TypeError(f"constraints.get: expected a name or a constraint, got {identifier!r}")
