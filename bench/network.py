"""Networks as plain data, which every engine builds with its own layers."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

MNIST = 60_000


@dataclass(frozen=True)
class Conv:
    """A convolution. "same" is half a kernel of zeros on each side, whatever the stride."""

    filters: int
    kernel_size: int
    padding: str = "valid"
    activation: str | None = None
    stride: int = 1
    bias: bool = True


@dataclass(frozen=True)
class Depthwise:
    """A convolution of each channel with a filter of its own, without bias, padded as "same"."""

    kernel_size: int
    stride: int = 1


@dataclass(frozen=True)
class BatchNorm:
    """Normalisation of channels by the batch's moments, with EPSILON; moving averages of them,
    which keep MOMENTUM of themselves in a step, serve after training."""

    activation: str | None = None

    EPSILON = 1e-3
    MOMENTUM = 0.99


@dataclass(frozen=True)
class Pool:
    """Pooling without overlap; `kind` is "max" or "average"."""

    size: int
    kind: str = "max"


@dataclass(frozen=True)
class GlobalPool:
    """The mean of each channel."""


@dataclass(frozen=True)
class Upsample:
    """Each pixel repeated `size` times in both directions: nearest-neighbour up-sampling."""

    size: int


@dataclass(frozen=True)
class Concatenate:
    """The channels so far, then those that came out of layer number `layer`: a skip."""

    layer: int


@dataclass(frozen=True)
class Add:
    """What came so far plus what came out of layer number `layer`, then an activation."""

    layer: int
    activation: str | None = None


@dataclass(frozen=True)
class Branch:
    """What came out of layer number `layer`, once more: what follows goes on from there."""

    layer: int


@dataclass(frozen=True)
class Flatten:
    """All values of a sample in one row, in the order (height, width, channels)."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias."""

    units: int
    activation: str | None = None


Layer = (
    Conv
    | Depthwise
    | BatchNorm
    | Pool
    | GlobalPool
    | Upsample
    | Concatenate
    | Add
    | Branch
    | Flatten
    | Dense
)


@dataclass(frozen=True)
class Network:
    """Layers from an image of `input_shape` (height, width, channels) to logits.

    A network that ends in a dense layer sorts images into classes, and its logits go through a
    softmax; one that ends in a convolution of one filter says yes or no to each pixel, through a
    sigmoid. Each engine appends them where its users would have them. `samples` is an epoch.
    """

    input_shape: tuple[int, int, int]
    layers: tuple[Layer, ...]
    samples: int = MNIST

    @property
    def output_shape(self) -> tuple[int, ...]:
        """One sample's logits: (classes,) or (height, width, 1)."""
        return self.shapes()[-1]

    @property
    def per_pixel(self) -> bool:
        """Whether each pixel has a target of its own."""
        return isinstance(self.layers[-1], Conv)

    @property
    def targets(self) -> int:
        """How many answers there are for one sample: one, or one for each pixel."""
        return math.prod(self.output_shape[:-1])

    @property
    def skips(self) -> set[int]:
        """The numbers of the layers whose output is used a second time."""
        joins = (Concatenate, Add, Branch)
        return {layer.layer for layer in self.layers if isinstance(layer, joins)}

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each layer's input, then that of the output; one sample."""
        shapes: list[tuple[int, ...]] = [self.input_shape]
        for layer in self.layers:
            shape = shapes[-1]
            match layer:
                case Conv(filters, size, padding, _, stride):
                    shapes.append((*_places(shape, size, padding, stride), filters))
                case Depthwise(size, stride):
                    shapes.append((*_places(shape, size, "same", stride), shape[2]))
                case Pool(size):
                    shapes.append((shape[0] // size, shape[1] // size, shape[2]))
                case GlobalPool():
                    shapes.append((shape[-1],))
                case Upsample(size):
                    shapes.append((shape[0] * size, shape[1] * size, shape[2]))
                case Concatenate(other):
                    shapes.append((*shape[:2], shape[2] + shapes[other + 1][2]))
                case Branch(other):
                    shapes.append(shapes[other + 1])
                case BatchNorm() | Add():
                    shapes.append(shape)
                case Flatten():
                    shapes.append((math.prod(shape),))
                case Dense(units):
                    shapes.append((units,))
        return shapes

    def weights_by_layer(self, seed: int = 0) -> list[list[np.ndarray]]:
        """What is trained, a list for each layer: Glorot-uniform kernels (HWIO, depthwise HWC1, and
        inputs x units) and zero biases; ones and zeros of a normalisation."""
        rng = np.random.default_rng(seed)
        weights = []
        for layer, shape in zip(self.layers, self.shapes(), strict=False):
            match layer:
                case Conv(filters, size):
                    kernel = (size, size, shape[-1], filters)
                    fans = size * size * (shape[-1] + filters)
                case Depthwise(size):
                    kernel = (size, size, shape[-1], 1)
                    fans = 2 * size * size
                case Dense(units):
                    kernel = (shape[0], units)
                    fans = shape[0] + units
                case BatchNorm():
                    ones = np.ones(shape[-1], np.float32)
                    weights.append([ones, np.zeros_like(ones)])
                    continue
                case _:
                    weights.append([])
                    continue
            limit = math.sqrt(6.0 / fans)
            made = [rng.uniform(-limit, limit, kernel).astype(np.float32)]
            if getattr(layer, "bias", not isinstance(layer, Depthwise)):
                made.append(np.zeros(kernel[-1], np.float32))
            weights.append(made)
        return weights

    def weights(self, seed: int = 0) -> list[np.ndarray]:
        """The same in one list."""
        return [array for made in self.weights_by_layer(seed) for array in made]

    def weights_channels_first(self, seed: int = 0) -> list[np.ndarray]:
        """The same weights for engines that want OIHW, units x inputs, and flatten as CHW."""
        converted = []
        flattened: tuple[int, ...] | None = None
        shapes = self.shapes()
        for layer, shape, made in zip(
            self.layers, shapes, self.weights_by_layer(seed), strict=False
        ):
            match layer:
                case Conv():
                    made[0] = made[0].transpose(3, 2, 0, 1)
                case Depthwise():
                    made[0] = made[0].transpose(2, 3, 0, 1)
                case Dense(units):
                    if flattened is not None:
                        kernel = made[0].reshape(*flattened, units).transpose(2, 0, 1, 3)
                        made[0] = kernel.reshape(-1, units)
                        flattened = None
                    made[0] = made[0].T
                case Flatten():
                    flattened = shape
            converted += made
        return [np.ascontiguousarray(array) for array in converted]

    def multiply_adds(self) -> int:
        """Multiply-adds of one sample's forward pass, counted directly: padding included."""
        return sum(self._multiply_adds())

    def training_multiply_adds(self) -> int:
        """The same of one sample's forward and backward pass.

        Each layer has three products of the same size: its output, the gradient of its weights and
        that of its input, which the first layer does not need.
        """
        counts = self._multiply_adds()
        return 3 * sum(counts) - next(count for count in counts if count)

    def _multiply_adds(self) -> list[int]:
        counts = []
        shapes = self.shapes()
        for layer, shape, out in zip(self.layers, shapes, shapes[1:], strict=False):
            match layer:
                case Conv(_, size):
                    counts.append(math.prod(out) * size * size * shape[-1])
                case Depthwise(size):
                    counts.append(math.prod(out) * size * size)
                case Dense(units):
                    counts.append(shape[0] * units)
                case _:
                    counts.append(0)
        return counts


def _places(shape: tuple[int, ...], size: int, padding: str, stride: int) -> tuple[int, int]:
    """Height and width of what a window gives."""
    zeros = size // 2 * 2 if padding == "same" else 0
    return (shape[0] + zeros - size) // stride + 1, (shape[1] + zeros - size) // stride + 1
