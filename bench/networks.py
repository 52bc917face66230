"""The networks that are measured, as plain data that every engine builds with its own layers.

To add a network, add an entry to NETWORKS; a kind of layer that is new here also needs a line in
each engine of `engines/`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Conv:
    """A convolution with bias, stride 1."""

    filters: int
    kernel_size: int
    padding: str = "valid"
    activation: str | None = None


@dataclass(frozen=True)
class Pool:
    """Pooling without overlap; `kind` is "max" or "average"."""

    size: int
    kind: str = "max"


@dataclass(frozen=True)
class Upsample:
    """Each pixel repeated `size` times in both directions: nearest-neighbour up-sampling."""

    size: int


@dataclass(frozen=True)
class Concatenate:
    """The channels so far, then those that came out of layer number `layer`: a skip."""

    layer: int


@dataclass(frozen=True)
class Flatten:
    """All values of a sample in one row, in the order (height, width, channels)."""


@dataclass(frozen=True)
class Dense:
    """A fully connected layer with bias."""

    units: int
    activation: str | None = None


Layer = Conv | Pool | Upsample | Concatenate | Flatten | Dense

MNIST = 60_000


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

    def shapes(self) -> list[tuple[int, ...]]:
        """The shape of each layer's input, then that of the output; one sample."""
        shapes: list[tuple[int, ...]] = [self.input_shape]
        for layer in self.layers:
            shape = shapes[-1]
            match layer:
                case Conv(filters, size, padding):
                    lost = 0 if padding == "same" else size - 1
                    shapes.append((shape[0] - lost, shape[1] - lost, filters))
                case Pool(size):
                    shapes.append((shape[0] // size, shape[1] // size, shape[2]))
                case Upsample(size):
                    shapes.append((shape[0] * size, shape[1] * size, shape[2]))
                case Concatenate(other):
                    shapes.append((*shape[:2], shape[2] + shapes[other + 1][2]))
                case Flatten():
                    shapes.append((math.prod(shape),))
                case Dense(units):
                    shapes.append((units,))
        return shapes

    def weights(self, seed: int = 0) -> list[np.ndarray]:
        """Glorot-uniform kernels (HWIO, and inputs x units) and zero biases, layer by layer."""
        rng = np.random.default_rng(seed)
        weights = []
        for layer, shape in zip(self.layers, self.shapes(), strict=False):
            match layer:
                case Conv(filters, size):
                    kernel = (size, size, shape[-1], filters)
                case Dense(units):
                    kernel = (shape[0], units)
                case _:
                    continue
            area = math.prod(kernel[:-2])
            limit = math.sqrt(6.0 / (area * (kernel[-2] + kernel[-1])))
            weights += [
                rng.uniform(-limit, limit, kernel).astype(np.float32),
                np.zeros(kernel[-1], np.float32),
            ]
        return weights

    def weights_channels_first(self, seed: int = 0) -> list[np.ndarray]:
        """The same weights for engines that want OIHW, units x inputs, and flatten as CHW."""
        weights = iter(self.weights(seed))
        converted = []
        flattened: tuple[int, ...] | None = None
        for layer, shape in zip(self.layers, self.shapes(), strict=False):
            match layer:
                case Conv():
                    converted += [next(weights).transpose(3, 2, 0, 1), next(weights)]
                case Dense(units):
                    kernel = next(weights)
                    if flattened is not None:
                        kernel = kernel.reshape(*flattened, units).transpose(2, 0, 1, 3)
                        kernel = kernel.reshape(-1, units)
                        flattened = None
                    converted += [kernel.T, next(weights)]
                case Flatten():
                    flattened = shape
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
                case Dense(units):
                    counts.append(shape[0] * units)
                case _:
                    counts.append(0)
        return counts


NETWORKS: dict[str, Network] = {
    "lenet": Network(
        (28, 28, 1),
        (
            Conv(6, 5, "same", "relu"),
            Pool(2),
            Conv(16, 5, "valid", "relu"),
            Pool(2),
            Flatten(),
            Dense(120, "relu"),
            Dense(84, "relu"),
            Dense(10),
        ),
    ),
    "lenet_1998": Network(
        (32, 32, 1),
        (
            Conv(6, 5, "valid", "tanh"),
            Pool(2, "average"),
            Conv(16, 5, "valid", "tanh"),
            Pool(2, "average"),
            Flatten(),
            Dense(120, "tanh"),
            Dense(84, "tanh"),
            Dense(10),
        ),
    ),
    "caffe": Network(
        (28, 28, 1),
        (
            Conv(20, 5),
            Pool(2),
            Conv(50, 5),
            Pool(2),
            Flatten(),
            Dense(500, "relu"),
            Dense(10),
        ),
    ),
    "mlp": Network(
        (28, 28, 1),
        (Flatten(), Dense(512, "relu"), Dense(256, "relu"), Dense(10)),
    ),
    "conv3x3": Network(
        (32, 32, 3),
        (
            Conv(32, 3, "same", "relu"),
            Conv(32, 3, "same", "relu"),
            Pool(2),
            Conv(64, 3, "same", "relu"),
            Conv(64, 3, "same", "relu"),
            Pool(2),
            Conv(128, 3, "same", "relu"),
            Flatten(),
            Dense(10),
        ),
        # An epoch of CIFAR-10's 50,000 images would take each engine half a minute.
        samples=10_000,
    ),
    "unet": Network(
        (28, 28, 1),
        (
            Conv(8, 3, "same", "relu"),
            Pool(2),
            Conv(16, 3, "same", "relu"),
            Pool(2),
            Conv(32, 3, "same", "relu"),
            Upsample(2),
            Concatenate(2),
            Conv(16, 3, "same", "relu"),
            Upsample(2),
            Concatenate(0),
            Conv(8, 3, "same", "relu"),
            Conv(1, 1),
        ),
    ),
}
