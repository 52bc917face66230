"""Noise while training: whole channels dropped, and normal numbers added."""

from __future__ import annotations

from typing import Any

from convkit import _core, geometry
from convkit.geometry import Shape
from convkit.layers.core import data_format_of, image_shape
from convkit.layers.random_layer import RandomLayer
from convkit.ops import common


class SpatialDropout2D(RandomLayer):
    """Sets a share of the channels to 0 while training and scales the others by 1 / (1 - rate).

    A channel of an image is dropped as a whole, since neighbours are much alike (Tompson et al.:
    Efficient object localization using convolutional networks, 2015).

    Args:
        rate: share of channels dropped, 0 <= rate < 1.
        data_format: "channels_last" (None) or "channels_first".
        seed: None: drawn from the process's generator.

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        rate: float,
        data_format: str | None = None,
        seed: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.rate = geometry.number(self.name, "rate", rate, 0, 1)
        self.data_format = data_format_of(self.name, data_format)

    def build(self, input_shape: Shape) -> None:
        image_shape(self.name, input_shape, self.data_format)
        super().build(input_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.rate:
            return x
        x = common.channels_last(self.name, x, "x", self.data_format)
        n, height, width, channels = x.shape

        def spec(stream: int) -> Any:
            return _core.SpatialDropout(
                rows=height * width, channels=channels, stream=stream, rate=self.rate
            )

        y = self.draw("spatial_dropout", spec, x, n, x.shape)
        return common.from_channels_last(y, self.data_format)


class GaussianNoise(RandomLayer):
    """Adds normal random numbers while training.

    Args:
        stddev: their standard deviation, 0 to 1.
        seed: None: drawn from the process's generator.

    Input shape: any. Output shape: the same.
    """

    def __init__(self, stddev: float, seed: int | None = None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.stddev = geometry.between(self.name, "stddev", stddev, 0, 1)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training or not self.stddev:
            return x
        n, size = geometry.samples(tuple(x.shape))

        def spec(stream: int) -> Any:
            return _core.GaussianNoise(size=size, stream=stream, stddev=self.stddev)

        return self.draw("gaussian_noise", spec, x, n, x.shape)


__all__ = ["GaussianNoise", "SpatialDropout2D"]
