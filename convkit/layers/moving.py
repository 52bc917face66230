"""Padding, cropping, other orders of axes, and repetition."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from convkit import geometry, graph, ops
from convkit.geometry import Shape
from convkit.layers.base import Layer
from convkit.layers.core import channels_of, data_format_of


class _Border2D(Layer):
    """A layer that changes the border of images."""

    def __init__(self, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.data_format = data_format_of(self.name, data_format)

    def build(self, input_shape: Shape) -> None:
        channels_of(self.name, input_shape, self.data_format)


class ZeroPadding2D(_Border2D):
    """Zeros around images.

    Args:
        padding: an integer, (rows, columns), or ((top, bottom), (left, right)).
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: (N, top + H + bottom, left + W + right, C).
    """

    def __init__(
        self, padding: Any = (1, 1), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.padding = geometry.borders(self.name, "padding", padding)

    def call(self, x: Any) -> Any:
        return ops.pad2d(x, self.padding, data_format=self.data_format)


class Cropping2D(_Border2D):
    """Images without their borders.

    Args:
        cropping: an integer, (rows, columns), or ((top, bottom), (left, right)).
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: (N, H - top - bottom, W - left - right, C).
    """

    def __init__(
        self, cropping: Any = ((0, 0), (0, 0)), data_format: str | None = None, **kwargs: Any
    ) -> None:
        super().__init__(data_format, **kwargs)
        self.cropping = geometry.borders(self.name, "cropping", cropping)

    def call(self, x: Any) -> Any:
        return ops.crop2d(x, self.cropping, data_format=self.data_format)


class Permute(Layer):
    """The axes of each sample in another order.

    Args:
        dims: which axis of the input comes first, second, ..., counted from 1, as the samples' own
            axis is 0: (2, 1) swaps the two axes of (N, a, b).

    Input shape: (N, ...). Output shape: (N, ...), with the sizes in that order.
    """

    def __init__(self, dims: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(dims, (list, tuple)):
            raise TypeError(f"{self.name}: expected dims such as (2, 1), got {dims!r}")
        self.dims = tuple(geometry.integer(self.name, "each of dims", dim, 1) for dim in dims)
        if sorted(self.dims) != list(range(1, len(self.dims) + 1)):
            expected = f"dims that are 1 .. {len(self.dims)} in some order"
            raise geometry.fail(self.name, expected, self.dims)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != len(self.dims) + 1:
            expected = f"an input of {len(self.dims)} axes besides the batch"
            raise geometry.fail(self.name, expected, input_shape)

    def call(self, x: Any) -> Any:
        return ops.permute(x, self.dims)


class RepeatVector(Layer):
    """Each sample's vector n times over.

    Args:
        n: how many times, at least 1.

    Input shape: (N, features). Output shape: (N, n, features).
    """

    def __init__(self, n: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.n = geometry.integer(self.name, "n", n, 1)

    def build(self, input_shape: Shape) -> None:
        if len(input_shape) != 2:
            raise geometry.fail(self.name, "an input of shape (N, features)", input_shape)

    def call(self, x: Any) -> Any:
        samples, features = x.shape
        return ops.repeat(graph.reshape(x, (samples, 1, features)), self.n, axis=1)


__all__ = ["Cropping2D", "Permute", "RepeatVector", "ZeroPadding2D"]
