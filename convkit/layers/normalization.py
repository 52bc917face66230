"""Normalisation by the moments of a batch, or of each sample."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any

from convkit import _core, constraints, geometry, graph, initializers, ops, regularizers
from convkit.geometry import Shape
from convkit.graph import Symbol, Variable
from convkit.layers.base import Layer


class _Normalization(Layer):
    """What both have: gamma and beta, with their initializers, regularizers and constraints."""

    def __init__(
        self,
        axis: Any,
        epsilon: float,
        center: bool,
        scale: bool,
        beta_initializer: Any,
        gamma_initializer: Any,
        beta_regularizer: Any,
        gamma_regularizer: Any,
        beta_constraint: Any,
        gamma_constraint: Any,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = axis
        self.epsilon = geometry.number(self.name, "epsilon", epsilon, 0, inf)
        self.center = bool(center)
        self.scale = bool(scale)
        self.beta_initializer = initializers.get(beta_initializer)
        self.gamma_initializer = initializers.get(gamma_initializer)
        self.beta_regularizer = regularizers.get(beta_regularizer)
        self.gamma_regularizer = regularizers.get(gamma_regularizer)
        self.beta_constraint = constraints.get(beta_constraint)
        self.gamma_constraint = constraints.get(gamma_constraint)
        self.gamma: Variable | None = None
        self.beta: Variable | None = None

    def _add_numbers(self, shape: Shape) -> None:
        if self.scale:
            self.gamma = self.add_weight(
                "gamma",
                shape,
                self.gamma_initializer,
                regularizer=self.gamma_regularizer,
                constraint=self.gamma_constraint,
            )
        if self.center:
            self.beta = self.add_weight(
                "beta",
                shape,
                self.beta_initializer,
                regularizer=self.beta_regularizer,
                constraint=self.beta_constraint,
            )


class BatchNormalization(_Normalization):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, channel by channel (Ioffe and Szegedy,
    2015).

    While training, mean and variance are those of the batch, and moving averages of them are kept,
    which serve otherwise. With `trainable = False` the layer stays as it is: it works with the
    moving averages while training too, and does not change them.

    Args:
        axis: that of the channels; not that of the samples.
        momentum: of the moving averages, 0 to 1: what they keep in each step.
        epsilon: at least 0.
        center, scale: whether there is a beta, a gamma.
        beta_initializer, gamma_initializer: names or initializers.
        moving_mean_initializer, moving_variance_initializer: names or initializers.
        beta_regularizer, gamma_regularizer: penalties on the weights, names or regularizers.
        beta_constraint, gamma_constraint: what the weights are held to, names or constraints.

    Input and output shape: (N, ..., channels).
    """

    def __init__(
        self,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        moving_mean_initializer: Any = "zeros",
        moving_variance_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )
        self.momentum = geometry.between(self.name, "momentum", momentum, 0, 1)
        self.moving_mean_initializer = initializers.get(moving_mean_initializer)
        self.moving_variance_initializer = initializers.get(moving_variance_initializer)
        self.moving_mean: Variable
        self.moving_variance: Variable

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) < 2:
            raise geometry.fail(self.name, "an input of shape (N, ..., channels)", input_shape)
        index = geometry.axis_index(self.name, self.axis, len(input_shape))
        if index == 0:
            raise geometry.fail(self.name, "an axis other than that of the samples", self.axis)
        shape = (input_shape[index],)
        self._add_numbers(shape)
        self.moving_mean = self.add_weight(
            "moving_mean", shape, self.moving_mean_initializer, trainable=False
        )
        self.moving_variance = self.add_weight(
            "moving_variance", shape, self.moving_variance_initializer, trainable=False
        )

    def call(self, x: Any, training: bool = False) -> Any:
        options = {"axis": self.axis, "epsilon": self.epsilon}
        if not (training and self.trainable):
            moments = (self.moving_mean, self.moving_variance)
            return ops.batch_norm(x, self.gamma, self.beta, *moments, **options)
        y, mean, variance = ops.batch_norm(x, self.gamma, self.beta, return_moments=True, **options)
        self._move(self.moving_mean, mean)
        self._move(self.moving_variance, variance)
        return y

    def _move(self, moving: Variable, value: Any) -> None:
        """Takes a batch's moment into its moving average: at the end of the step, or at once."""
        spec = _core.MovingAverage(size=value.shape[0], momentum=self.momentum)
        if isinstance(value, Symbol):
            inputs = [value, moving.symbol]
            graph.after_step(lambda: graph.update("moving_average", spec, inputs))
        else:
            graph.call("moving_average", spec, 1, [value], [moving.value], moving.dtype)
            graph.touch()


class LayerNormalization(_Normalization):
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, with mean and variance of each sample's
    last axis, or of several at the end (Ba et al., 2016).

    Args:
        axis: -1, or a tuple of axes at the end.
        epsilon: at least 0.
        center, scale: whether there is a beta, a gamma; both have the shape of these axes.
        beta_initializer, gamma_initializer: names or initializers.
        beta_regularizer, gamma_regularizer: penalties on the weights, names or regularizers.
        beta_constraint, gamma_constraint: what the weights are held to, names or constraints.

    Input and output shape: (N, ..., sizes).
    """

    def __init__(
        self,
        axis: int | Sequence[int] = -1,
        epsilon: float = 1e-3,
        center: bool = True,
        scale: bool = True,
        beta_initializer: Any = "zeros",
        gamma_initializer: Any = "ones",
        beta_regularizer: Any = None,
        gamma_regularizer: Any = None,
        beta_constraint: Any = None,
        gamma_constraint: Any = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(
            tuple(axis) if isinstance(axis, list) else axis,
            epsilon,
            center,
            scale,
            beta_initializer,
            gamma_initializer,
            beta_regularizer,
            gamma_regularizer,
            beta_constraint,
            gamma_constraint,
            **kwargs,
        )

    def build(self, input_shape: Shape) -> None:
        geometry.layer_norm(self.name, tuple(input_shape), (), self.axis, self.epsilon)
        count = len(self.axis) if isinstance(self.axis, tuple) else 1
        self._add_numbers(tuple(input_shape[-count:]))

    def call(self, x: Any) -> Any:
        return ops.layer_norm(x, self.gamma, self.beta, axis=self.axis, epsilon=self.epsilon)


__all__ = ["BatchNormalization", "LayerNormalization"]
