"""PReLU, an activation with weights."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convkit import constraints, geometry, initializers, ops, regularizers
from convkit.geometry import Shape
from convkit.graph import Variable
from convkit.layers.base import Layer


class PReLU(Layer):
    """x where x > 0, else alpha * x, with an alpha that is learned (He et al., 2015).

    Args:
        alpha_initializer: a name or an initializer.
        alpha_regularizer: a penalty on alpha, a name or a regularizer.
        alpha_constraint: what alpha is held to, a name or a constraint.
        shared_axes: axes along which alpha is the same, counted with that of the samples: [1, 2] of
            (N, H, W, C) for one alpha per channel. None: each value of a sample has its own.

    Input and output shape: (N, ...).
    """

    def __init__(
        self,
        alpha_initializer: Any = "zeros",
        alpha_regularizer: Any = None,
        alpha_constraint: Any = None,
        shared_axes: int | Sequence[int] | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.alpha_initializer = initializers.get(alpha_initializer)
        self.alpha_regularizer = regularizers.get(alpha_regularizer)
        self.alpha_constraint = constraints.get(alpha_constraint)
        if isinstance(shared_axes, int):
            shared_axes = (shared_axes,)
        self.shared_axes = None if shared_axes is None else tuple(shared_axes)
        self.alpha: Variable

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise geometry.fail(self.name, "an input of shape (N, ...)", input_shape)
        shape = list(input_shape[1:])
        for axis in self.shared_axes or ():
            index = geometry.axis_index(self.name, axis, len(input_shape))
            if index == 0:
                raise geometry.fail(self.name, "shared_axes other than that of the samples", axis)
            shape[index - 1] = 1
        self.alpha = self.add_weight(
            "alpha",
            tuple(shape),
            self.alpha_initializer,
            regularizer=self.alpha_regularizer,
            constraint=self.alpha_constraint,
        )

    def call(self, x: Any) -> Any:
        return ops.prelu(x, self.alpha)


__all__ = ["PReLU"]
