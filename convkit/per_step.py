"""Numbers that change from step to step, known to a program for many steps at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from convkit import _core, graph
from convkit.graph import Node, Symbol, Variable

# The steps that a table holds at most.
TABLE = 1024


class PerStep:
    """A number for each step: a table of the coming ones, from which a program takes this step's.

    Args:
        name: for messages.
        dtype: "float32" or "float64".
        size: of the table.

    Attributes:
        value: the variable that holds this step's number once `record`'s node has run.
    """

    def __init__(self, name: str, dtype: str, size: int = TABLE) -> None:
        self.value = Variable(np.zeros(1, dtype), name, trainable=False)
        self._table = Variable(np.zeros(size, dtype), f"{name}/table", trainable=False)
        self._first = Variable(np.zeros(1, np.int64), f"{name}/first", trainable=False)
        self._known = np.zeros(0, dtype)  # of the table, on the host
        self._begin = 0

    @property
    def variables(self) -> list[Variable]:
        """All that it keeps; none of it is state."""
        return [self.value, self._table, self._first]

    def record(self, count: Symbol) -> Node:
        """Records taking a step's number.

        Args:
            count: how many steps were begun, this one included.
        """
        spec = _core.Elementwise(size=self._table.value.size)
        inputs = [count, self._first.symbol, self._table.symbol, self.value.symbol]
        return graph.update("rate_of_step", spec, inputs)

    def fill(self, first_step: int, values: Sequence[float]) -> None:
        """Sets the numbers of steps from `first_step` on (0: the first); the last one stays."""
        self._known = np.array(values, self._table.dtype)
        self._begin = first_step
        self._first.assign([first_step + 1])
        rest = self._table.value.size - len(values)
        self._table.assign(np.append(self._known, np.full(rest, self._known[-1])))

    def prepare(self, first_step: int, steps: int, function: Callable[[int], float]) -> int:
        """Makes the table hold the function's numbers of the coming steps.

        Args:
            first_step: the next one.
            steps: how many may come, at least 1.
            function: of the step, asked about no step beyond these.

        Returns:
            How many steps the table holds from `first_step` on.
        """
        number = function(first_step)
        at = first_step - self._begin
        # A function may have changed since: then its numbers have, most likely from this step on.
        if not 0 <= at < len(self._known) or self._known[at] != self._known.dtype.type(number):
            coming = range(first_step + 1, first_step + min(steps, self._table.value.size))
            self.fill(first_step, [number, *map(function, coming)])
            at = 0
        return len(self._known) - at
