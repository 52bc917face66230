"""What layers share that draw random numbers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import _core, geometry, graph, random
from convkit.geometry import Shape
from convkit.graph import Symbol, Variable
from convkit.layers.base import Layer
from convkit.layers.constants import beside
from convkit.ops import common


class RandomLayer(Layer):
    """A layer that draws random numbers while training.

    They are a function of the seed, the step and a sample's or value's place in the batch (Philox),
    not of threads or of how a batch is cut.

    Args:
        seed: None: drawn from the process's generator.
    """

    def __init__(self, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.seed = None if seed is None else geometry.integer(self.name, "seed", seed, 0)
        self._state: Variable | None = None

    def build(self, input_shape: Shape) -> None:
        seed = random.draw_seed() if self.seed is None else self.seed
        self._state = Variable(np.array([seed, 0], np.int64), f"{self.name}/seed", trainable=False)

    def draw(
        self, kernel: str, spec: Callable[[int], Any], x: Any, n: int | None, shape: Shape
    ) -> Any:
        """A kernel with the next numbers.

        Args:
            kernel: one of x and (seed, step), with one result.
            spec: the spec for a stream, which tells this call from others of the same step.
            x: an array or a symbol.
            n: samples, as the kernel counts them.
            shape: of the result.
        """
        state = self._state
        assert state is not None
        if isinstance(x, Symbol):
            counter = _core.Elementwise(size=2)
            # A layer that stands in a model twice draws other numbers each time.
            stream = graph.after_step(lambda: graph.update("next_step", counter, [state.symbol]))
            return graph.call(kernel, spec(stream), n, [x, state.symbol], [shape], x.dtype)[0]
        (x,) = common.arguments(self.name, ("x",), (x,))
        random_state = beside(x, state)
        y = graph.call(kernel, spec(0), n, [x, random_state], [shape], common.dtype_of(x))[0]
        state.assign(state.host() + np.array([0, 1]))
        return y
