"""The ops that are measured on a processor, in two rooms.

- `table`: what is asked of the ops, at LeNet's shapes and at those of larger networks. Each row
  says how many times as fast as the best of the others convkit should be, at least and as an aim;
- `lenet`: every op, at LeNet's shapes: `op_cases.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from measured import NETWORKS
from op_cases import BATCHES as LENET_BATCHES
from op_cases import Case, Input, LargeCase, cases

BATCHES = (1, 16)
GROUPED = ((56, 128), (14, 512))  # height and width, channels
GROUPS = 32
SQUARES = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels
POOLED = ((128, 28, 6), (1, 112, 64), (16, 112, 64))  # batch, height and width, channels
UPSAMPLED = ((128, 14, 6), (1, 56, 64), (16, 56, 64))
NUMPY_ASKED = (3.0, 20.0)  # of every op against plain NumPy

Asked = tuple[float, float]  # at least, aim


@dataclass(frozen=True)
class Row(LargeCase):
    """An op at one shape, and what is asked of it."""

    asked: Asked = (1.0, 1.0)


@dataclass(frozen=True)
class NetworkRow:
    """One network, from images to probabilities, or one step of training."""

    network: str
    batch: int
    training: bool
    asked: Asked

    @property
    def function(self) -> str:
        return "training step" if self.training else "inference"

    @property
    def shape(self) -> str:
        sizes = (self.batch, *NETWORKS[self.network].input_shape)
        return f"{self.network} {'×'.join(map(str, sizes))}"

    @property
    def flops(self) -> int:
        """Floating-point operations, counted directly."""
        network = NETWORKS[self.network]
        one = network.training_multiply_adds() if self.training else network.multiply_adds()
        return 2 * self.batch * one


def cpu_cases(
    room: str, only: str = "", batches: Sequence[int] | None = None
) -> Iterator[Case | NetworkRow]:
    """The cases of a room with `only` in the name of their function or in their shape, at the given
    batches where not at all."""
    every = _table() if room == "table" else cases(tuple(batches or LENET_BATCHES))
    for case in every:
        if batches and case.batch not in batches:
            continue
        if only in case.function or only in case.shape:
            yield case


def _table() -> Iterator[Row | NetworkRow]:
    yield from _lenet()
    yield from _convolutions()
    yield from _pools()
    yield from _upsampling()
    yield from _dense()
    for batch in BATCHES:
        for network in ("vgg", "resnet18"):
            yield NetworkRow(network, batch, training=False, asked=(1.3, 2.0))
            yield NetworkRow(network, batch, training=True, asked=(1.1, 1.6))


def _lenet() -> Iterator[Row]:
    first = _conv(28, 1, 6, 5, padding="same", activation="relu")
    second = _conv(14, 6, 16, 5, padding="valid", activation="relu")
    for fields, many, back in (
        (first, (3.0, 6.0), (3.0, 6.0)),
        (second, (1.3, 2.0), (2.0, 3.5)),
    ):
        for batch in LENET_BATCHES:
            yield Row(**fields, batch=batch, asked=(3.0, 8.0) if batch == 1 else many)
            yield Row(**fields, batch=batch, backward=True, asked=back)


def _convolutions() -> Iterator[Row]:
    last = {1: (1.4, 1.8), 16: (1.3, 2.2)}
    for side, channels in SQUARES:
        fields = _conv(side, channels, channels, 3, padding="same")
        for batch in BATCHES:
            asked = last[batch] if side == SQUARES[-1][0] else (1.8, 2.7)
            yield Row(**fields, batch=batch, asked=asked)
        yield Row(**fields, batch=BATCHES[-1], backward=True, asked=(1.2, 2.0))
    for fields in (
        _conv(56, 256, 64, 1, padding="valid"),
        _conv(224, 3, 64, 7, padding=3, strides=2),
    ):
        yield Row(**fields, batch=BATCHES[-1], asked=(1.0, 1.2))
        yield Row(**fields, batch=BATCHES[-1], backward=True, asked=(1.3, 1.8))
    for side, channels in ((112, 64), (14, 512)):
        fields = _depthwise(side, channels)
        for batch in BATCHES:
            yield Row(**fields, batch=batch, asked=(1.2, 2.0))
        yield Row(**fields, batch=BATCHES[-1], backward=True, asked=(1.2, 2.0))
    for side, channels in GROUPED:
        fields = _conv(side, channels, channels, 3, padding="same", groups=GROUPS)
        yield Row(**fields, batch=BATCHES[-1], asked=(1.0, 2.0))
        yield Row(**fields, batch=BATCHES[-1], backward=True, asked=(1.0, 2.0))


def _pools() -> Iterator[Row]:
    for op in ("max_pool2d", "avg_pool2d"):
        for window in (2, 3):
            for batch, side, channels in POOLED:
                inputs = (Input("x", (side, side, channels)),)
                options = {"pool_size": window, "strides": 2}
                yield Row(op, inputs, batch, options=options, asked=(1.1, 3.0))
                yield Row(op, inputs, batch, backward=True, options=options, asked=(1.5, 6.0))


def _upsampling() -> Iterator[Row]:
    for kind, asked in (("nearest", (1.0, 1.2)), ("bilinear", (2.0, 4.0))):
        for batch, side, channels in UPSAMPLED:
            inputs = (Input("x", (side, side, channels)),)
            options = {"size": 2, "interpolation": kind}
            for backward in (False, True):
                yield Row("upsample2d", inputs, batch, backward, options, asked=asked)


def _dense() -> Iterator[Row]:
    for inputs, units in ((400, 120), (1024, 1024), (4096, 4096)):
        arrays = (
            Input("x", (inputs,)),
            Input("kernel", (inputs, units), batched=False),
            Input("bias", (units,), batched=False),
        )
        for batch in LENET_BATCHES:
            for backward, asked in ((False, (1.0, 1.3)), (True, (1.1, 1.5))):
                yield Row("dense", arrays, batch, backward, {}, inputs * units, asked)


def _conv(side: int, channels: int, filters: int, size: int, **options: Any) -> dict[str, Any]:
    group = channels // options.get("groups", 1)
    inputs = (
        Input("x", (side, side, channels)),
        Input("kernel", (size, size, group, filters), batched=False),
        Input("bias", (filters,), batched=False),
    )
    _, height, width, _ = LargeCase("conv2d", inputs, 1, options=options).output
    work = height * width * size * size * group * filters
    return {"op": "conv2d", "inputs": inputs, "options": options, "multiply_adds": work}


def _depthwise(side: int, channels: int) -> dict[str, Any]:
    return {
        "op": "depthwise_conv2d",
        "inputs": (
            Input("x", (side, side, channels)),
            Input("kernel", (3, 3, channels, 1), batched=False),
            Input("bias", (channels,), batched=False),
        ),
        "options": {"padding": "same"},
        "multiply_adds": side * side * 9 * channels,
    }
