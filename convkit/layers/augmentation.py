"""Images changed at random while training; at inference these layers pass them on.

They stand in front of what is trained, such as `Sequential([Input((32, 32, 3)),
RandomFlip("horizontal"), RandomTranslation(0.1, 0.1), Rescaling(1 / 255), Conv2D(...), ...])`, and
have no gradient. What is drawn for an image is a function of the layer's seed, the step and the
image's place in the batch (Philox), so it is the same for any number of threads, on a GPU, and
whichever way a batch is cut.
"""

from __future__ import annotations

from math import pi
from typing import Any

from convkit import _core, geometry, ops
from convkit.geometry import Shape
from convkit.layers.core import data_format_of, image_shape
from convkit.layers.random_layer import RandomLayer
from convkit.ops import common

# In the order of FillMode in csrc/specs.h.
FILL_MODES = ("constant", "nearest", "reflect", "wrap")
INTERPOLATIONS = ("nearest", "bilinear")
LARGEST_SIDE = 2**24  # pixels; coordinates have 32 bits for their fraction

_UNCHANGED: dict[str, Any] = {
    "crop": 0,
    "bilinear": 0,
    "fill": 0,
    "fill_value": 0.0,
    "flip_horizontal": 0.0,
    "flip_vertical": 0.0,
    **{
        f"{what}_{end}": 0.0
        for what in ("angle", "shift_height", "shift_width")
        for end in ("low", "high")
    },
    **{f"{what}_{end}": 1.0 for what in ("zoom_height", "zoom_width") for end in ("low", "high")},
    "zoom_both": 0,
}


class _Augmentation(RandomLayer):
    """What a subclass says in `_changes`, drawn for each image."""

    def __init__(self, seed: int | None, data_format: str | None, **kwargs: Any) -> None:
        super().__init__(seed, **kwargs)
        self.data_format = data_format_of(self.name, data_format)

    def build(self, input_shape: Shape) -> None:
        height, width, _ = image_shape(self.name, input_shape, self.data_format)
        if max(height, width) > LARGEST_SIDE:
            raise geometry.fail(
                self.name, f"images of at most {LARGEST_SIDE} pixels a side", (height, width)
            )
        super().build(input_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        x = common.channels_last(self.name, x, "x", self.data_format)
        n, height, width, channels = x.shape
        down, across = self._size(height, width)

        def spec(stream: int) -> Any:
            return _core.RandomTransform(
                height=height,
                width=width,
                channels=channels,
                out_height=down,
                out_width=across,
                stream=stream,
                **{**_UNCHANGED, **self._changes()},
            )

        y = self.draw("random_transform", spec, x, n, (n, down, across, channels))
        return common.from_channels_last(y, self.data_format)

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return height, width

    def _changes(self) -> dict[str, Any]:
        """Values of the spec that are not those of an image that stays as it is."""
        raise NotImplementedError


class _Sampled(_Augmentation):
    """Values between pixels, and beyond the image."""

    def __init__(
        self,
        fill_mode: str,
        interpolation: str,
        seed: int | None,
        fill_value: float,
        data_format: str | None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.fill_mode = geometry.choice(self.name, "fill_mode", fill_mode, FILL_MODES)
        self.interpolation = geometry.choice(
            self.name, "interpolation", interpolation, INTERPOLATIONS
        )
        infinity = float("inf")
        self.fill_value = geometry.number(self.name, "fill_value", fill_value, -infinity, infinity)

    def _sampling(self) -> dict[str, Any]:
        return {
            "bilinear": INTERPOLATIONS.index(self.interpolation),
            "fill": FILL_MODES.index(self.fill_mode),
            "fill_value": self.fill_value,
        }


class RandomFlip(_Augmentation):
    """Images flipped, each with the probability 1/2.

    Args:
        mode: "horizontal" swaps left and right, "vertical" top and bottom;
            "horizontal_and_vertical" does each or not, independently.
        seed: None: drawn from the process's generator.
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        mode: str = "horizontal_and_vertical",
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        modes = ("horizontal", "vertical", "horizontal_and_vertical")
        self.mode = geometry.choice(self.name, "mode", mode, modes)

    def _changes(self) -> dict[str, Any]:
        return {f"flip_{way}": 0.5 * (way in self.mode) for way in ("horizontal", "vertical")}


class RandomTranslation(_Sampled):
    """Images shifted.

    Args:
        height_factor: a share of the height, -1 to 1: by how much images are shifted down (up below
            0), from (low, high); a number a stands for (-a, a).
        width_factor: the same for the width; above 0 to the right.
        fill_mode: what is beyond the image: "reflect" (d c b a | a b c d | d c b a), "wrap"
            (a b c d | a b c d | a b c d), "nearest" (a a a a | a b c d | d d d d), or "constant".
        interpolation: "bilinear", or "nearest" for the nearest pixel.
        seed: None: drawn from the process's generator.
        fill_value: what is beyond the image where fill_mode is "constant".
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._bounds = {
            "shift_height": bounds(self.name, "height_factor", height_factor, -1, 1),
            "shift_width": bounds(self.name, "width_factor", width_factor, -1, 1),
        }

    def _changes(self) -> dict[str, Any]:
        return {**self._sampling(), **_ends(self._bounds)}


class RandomRotation(_Sampled):
    """Images turned about their centre.

    Args:
        factor: a share of a whole turn, -1 to 1, from (low, high), above 0 counter-clockwise; a
            number a stands for (-a, a).
        fill_mode, interpolation, seed, fill_value, data_format: as for `RandomTranslation`.

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        factor: Any,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.factor = bounds(self.name, "factor", factor, -1, 1)

    def _changes(self) -> dict[str, Any]:
        low, high = self.factor
        return {**self._sampling(), **_ends({"angle": (2 * pi * low, 2 * pi * high)})}


class RandomZoom(_Sampled):
    """Images zoomed about their centre.

    Args:
        height_factor: by which share the view grows, above -1 and up to 1, from (low, high): 0.2
            zooms out by 20 %, -0.2 zooms in; a number a stands for (-a, a).
        width_factor: the same for the width; None: each image's height and width alike.
        fill_mode, interpolation, seed, fill_value, data_format: as for `RandomTranslation`.

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        height_factor: Any,
        width_factor: Any = None,
        fill_mode: str = "reflect",
        interpolation: str = "bilinear",
        seed: int | None = None,
        fill_value: float = 0.0,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(fill_mode, interpolation, seed, fill_value, data_format, **kwargs)
        self.height_factor, self.width_factor = height_factor, width_factor
        self._bounds = {"zoom_height": self._zooms("height_factor", height_factor)}
        self._bounds["zoom_width"] = (
            self._bounds["zoom_height"]
            if width_factor is None
            else self._zooms("width_factor", width_factor)
        )

    def _zooms(self, name: str, factor: Any) -> tuple[float, float]:
        low, high = bounds(self.name, name, factor, -1, 1)
        if -1 in _two(self.name, name, factor, factor):
            raise geometry.fail(self.name, f"-1 < {name} <= 1", repr(factor))
        return 1 + low, 1 + high

    def _changes(self) -> dict[str, Any]:
        both = int(self.width_factor is None)
        return {**self._sampling(), **_ends(self._bounds), "zoom_both": both}


class RandomCrop(_Augmentation):
    """A window of each image, at a place of its own; at inference, the one in the middle.

    Args:
        height, width: of the window, at most those of the images.
        seed: None: drawn from the process's generator.
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: (N, height, width, C).
    """

    def __init__(
        self,
        height: int,
        width: int,
        seed: int | None = None,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, data_format, **kwargs)
        self.height = geometry.integer(self.name, "height", height, 1)
        self.width = geometry.integer(self.name, "width", width, 1)

    def build(self, input_shape: Shape) -> None:
        self._room(input_shape)
        super().build(input_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        down, across = self._room(x.shape)
        if training:
            return super().call(x, training)
        sides = ((down // 2, down - down // 2), (across // 2, across - across // 2))
        return ops.crop2d(x, sides, data_format=self.data_format)

    def _room(self, shape: Shape) -> tuple[int, int]:
        """How many rows and columns are cut off images of this shape."""
        height, width, _ = image_shape(self.name, shape, self.data_format)
        if height < self.height or width < self.width:
            raise geometry.fail(
                self.name,
                f"images of at least {self.height} x {self.width} pixels",
                f"{height} x {width}",
            )
        return height - self.height, width - self.width

    def _size(self, height: int, width: int) -> tuple[int, int]:
        return self.height, self.width

    def _changes(self) -> dict[str, Any]:
        return {"crop": 1}


class RandomContrast(RandomLayer):
    """(x - mean) * factor + mean, with a factor for each image and the mean of each channel.

    Args:
        factor: (lower, upper): the image's factor is in 1 - lower .. 1 + upper; a number stands for
            both. lower is at most 1.
        value_range: (low, high), to which the result is clipped.
        seed: None: drawn from the process's generator.
        data_format: "channels_last" (None) or "channels_first".

    Input shape: (N, H, W, C). Output shape: the same.
    """

    def __init__(
        self,
        factor: Any,
        value_range: Any = (0, 255),
        seed: int | None = None,
        *,
        data_format: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(seed, **kwargs)
        self.factor = _two(self.name, "factor", factor, factor)
        lower, upper = self.factor
        if lower > 1 or lower + upper < 0:
            raise geometry.fail(self.name, "factor (lower, upper) with lower <= 1", repr(factor))
        self.value_range = _two(self.name, "value_range", value_range, None)
        if self.value_range[0] > self.value_range[1]:
            raise geometry.fail(self.name, "value_range (low, high)", repr(value_range))
        self.data_format = data_format_of(self.name, data_format)

    def build(self, input_shape: Shape) -> None:
        image_shape(self.name, input_shape, self.data_format)
        super().build(input_shape)

    def call(self, x: Any, training: bool = False) -> Any:
        if not training:
            return x
        x = common.channels_last(self.name, x, "x", self.data_format)
        n, height, width, channels = x.shape
        lower, upper = self.factor
        low, high = self.value_range

        def spec(stream: int) -> Any:
            return _core.RandomContrast(
                rows=height * width,
                channels=channels,
                stream=stream,
                low=1 - lower,
                high=1 + upper,
                value_low=low,
                value_high=high,
            )

        y = self.draw("random_contrast", spec, x, n, x.shape)
        return common.from_channels_last(y, self.data_format)


def bounds(op: str, name: str, factor: Any, low: float, high: float) -> tuple[float, float]:
    """(least, most) of a factor: two numbers in any order, or one that stands for -a and a."""
    first, second = (
        geometry.between(op, name, f, low, high) for f in _two(op, name, factor, factor)
    )
    if not isinstance(factor, (tuple, list)):
        return -abs(first), abs(first)
    return min(first, second), max(first, second)


def _two(op: str, name: str, value: Any, alone: Any) -> tuple[float, float]:
    """Two numbers, or one twice where `alone` is not None."""
    if alone is not None and not isinstance(value, (tuple, list)):
        value = (value, value)
    if not isinstance(value, (tuple, list)) or len(value) != 2:
        kinds = "two numbers" if alone is None else "a number or two"
        raise TypeError(f"{op}: expected {name} to be {kinds}, got {value!r}")
    infinity = float("inf")
    first, second = (geometry.number(op, name, one, -infinity, infinity) for one in value)
    return first, second


def _ends(found: dict[str, tuple[float, float]]) -> dict[str, Any]:
    return {
        f"{what}_{end}": value
        for what, pair in found.items()
        for end, value in zip(("low", "high"), pair, strict=True)
    }


__all__ = [
    "RandomContrast",
    "RandomCrop",
    "RandomFlip",
    "RandomRotation",
    "RandomTranslation",
    "RandomZoom",
]
