"""Values brought to a mean of 0 and a variance of 1, as measured on a data set."""

from __future__ import annotations

from collections.abc import Iterable
from math import prod
from typing import Any

import numpy as np

from convkit import device, geometry, graph, ops
from convkit.geometry import Shape
from convkit.graph import Variable
from convkit.layers.base import Layer
from convkit.layers.constants import beside
from convkit.layers.core import scaled_channels

# Its root is Keras's least standard deviation, 1e-7, which keeps a constant from becoming infinite.
LEAST_VARIANCE = 1e-14
ROWS = 1024  # of an array in memory, that are measured at a time


class Normalization(Layer):
    """(x - mean) / sqrt(variance), with a mean and a variance that are given or measured.

    Call `adapt(data)` before the model is trained, or give both.

    Args:
        axis: the axis, or axes, of which each value has a mean and a variance of its own, never
            that of the samples; None: one mean and variance for all.
        mean, variance: numbers, or arrays that fit the sizes along `axis`; both or neither.
        invert: whether the layer does the opposite: x * sqrt(variance) + mean.

    Input shape: any. Output shape: the same.
    """

    def __init__(
        self,
        axis: Any = -1,
        mean: Any = None,
        variance: Any = None,
        invert: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.axis = tuple(axis) if isinstance(axis, (list, tuple)) else axis
        if (mean is None) != (variance is None):
            missing = "mean" if mean is None else "variance"
            raise TypeError(
                f"{self.name}: expected mean and variance, or neither, got no {missing}"
            )
        self.mean, self.variance = mean, variance
        self.invert = bool(invert)
        self._kept: tuple[int, ...] = ()  # axes with means of their own, the samples' being 0
        self._sizes: tuple[int, ...] = ()  # of samples
        self._mean: Variable
        self._variance: Variable

    def build(self, input_shape: Shape) -> None:
        self._sizes = sample_sizes(self.name, input_shape)
        axes = () if self.axis is None else self.axis
        axes = axes if isinstance(axes, tuple) else (axes,)
        kept = {geometry.axis_index(self.name, axis, len(input_shape)) for axis in axes}
        if 0 in kept:
            raise geometry.fail(self.name, "an axis other than that of the samples", self.axis)
        self._kept = tuple(sorted(kept))
        shape = tuple(self._sizes[axis - 1] for axis in self._kept)
        if self.mean is None:
            self._mean = self.add_weight("mean", shape, "zeros", trainable=False)
            self._variance = self.add_weight("variance", shape, "ones", trainable=False)
        else:
            self._mean = self._given("mean", self.mean, shape)
            self._variance = self._given("variance", self.variance, shape)

    def _given(self, name: str, value: Any, shape: tuple[int, ...]) -> Variable:
        array = np.asarray(value, self.dtype)
        try:
            array = np.broadcast_to(array, shape)
        except ValueError:
            raise geometry.fail(self.name, f"{name} that fits {shape}", array.shape) from None
        return Variable(array, f"{self.name}/{name}", trainable=False)

    def adapt(self, data: Any) -> None:
        """Measures the mean and the variance; what was measured before is forgotten.

        Args:
            data: an array (N, ...), or an iterable of batches, of which one that is a tuple begins
                with the array.

        Raises:
            ValueError: there is no data, batches have other shapes than the layer was built for, or
                the mean was given.
        """
        if self.mean is not None:
            raise ValueError(f"{self.name}: expected to measure, got a mean that was given")
        total: _Moments | None = None
        for batch in _batches(self.name, data):
            shape = (None, *batch.shape[1:])
            self.ensure_built(shape)
            if tuple(batch.shape[1:]) != self._sizes:
                raise geometry.fail(self.name, f"data of shape (N, *{self._sizes})", batch.shape)
            if len(batch):
                part = _Moments(batch, self._kept)
                total = part if total is None else total.with_more(part)
        if total is None:
            raise ValueError(f"{self.name}: expected data to measure, got none")
        self._mean.assign(total.mean)
        self._variance.assign(total.variance)

    def call(self, x: Any) -> Any:
        # From the first axis that is kept, all values count as channels.
        first = self._kept[0] - 1 if self._kept else len(self._sizes)
        channels = prod(self._sizes[first:])
        rows = prod(self._sizes[:first])
        flat = graph.reshape(x, (x.shape[0], rows, channels))
        mean, variance = (self._spread(beside(x, each)) for each in (self._mean, self._variance))
        if self.invert:
            deviation = ops.sqrt(ops.rescale(variance, 1.0, LEAST_VARIANCE))
            flat = scaled_channels(flat, deviation, mean)
        else:
            flat = ops.batch_norm(flat, mean=mean, variance=variance, epsilon=LEAST_VARIANCE)
        return graph.reshape(flat, x.shape)

    def _spread(self, value: Any) -> Any:
        """Numbers along the kept axes, repeated along the others behind the first of them."""
        first = self._kept[0] if self._kept else len(self._sizes) + 1
        behind = range(first, len(self._sizes) + 1)
        sizes = [self._sizes[axis - 1] if axis in self._kept else 1 for axis in behind]
        value = graph.reshape(value, tuple(sizes) or (1,))
        for place, axis in enumerate(behind):
            if axis not in self._kept and self._sizes[axis - 1] > 1:
                value = ops.repeat(value, self._sizes[axis - 1], axis=place)
        return graph.reshape(value, (prod(value.shape),))


class _Moments:
    """How many values there are for each mean, the mean, and the (biased) variance."""

    def __init__(self, x: np.ndarray, kept: tuple[int, ...]) -> None:
        over = tuple(axis for axis in range(x.ndim) if axis not in kept)
        self.count = prod(x.shape[axis] for axis in over)
        self.mean = x.mean(axis=over, dtype=np.float64)
        self.variance = x.var(axis=over, dtype=np.float64)

    def with_more(self, other: _Moments) -> _Moments:
        """Those of both together (Chan, Golub and LeVeque, 1983)."""
        total = self.count + other.count
        share = other.count / total
        gap = other.mean - self.mean
        self.variance = (
            self.variance * (1 - share) + other.variance * share + gap**2 * share * (1 - share)
        )
        self.mean = self.mean + gap * share
        self.count = total
        return self


def _batches(op: str, data: Any) -> Iterable[np.ndarray]:
    if device.is_device_array(data):
        data = device.to_numpy(device.as_array(op, "data", data))
    if isinstance(data, np.ndarray):
        yield from (data[i : i + ROWS] for i in range(0, len(data), ROWS))
        return
    if not isinstance(data, Iterable):
        raise TypeError(f"{op}: expected an array or an iterable of batches, got {data!r}")
    for batch in data:
        x = batch[0] if isinstance(batch, (tuple, list)) else batch
        if device.is_device_array(x):
            x = device.to_numpy(device.as_array(op, "data", x))
        yield np.asarray(x)


def sample_sizes(op: str, shape: Shape) -> tuple[int, ...]:
    """The sizes of a sample."""
    if len(shape) < 2 or any(size is None for size in shape[1:]):
        raise geometry.fail(op, "an input of shape (N, ...)", shape)
    return tuple(size for size in shape[1:] if size is not None)


__all__ = ["Normalization"]
