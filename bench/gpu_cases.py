"""The ops that are measured on a GPU, in three rooms, each forward and backward.

- `bandwidth`: pooling, up-sampling and activations on arrays far larger than any cache, beside a
  copy of as many bytes;
- `lenet`: LeNet's convolutions and dense layers at batch 128;
- `resnet`: the 3 x 3 convolutions of ResNet-50 at batch 64, in float32 and TF32.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from op_cases import Input, LargeCase, cases

ROOMS = ("bandwidth", "lenet", "resnet")
LARGE = (64, 112, 112, 64)  # 206 MB of float32
RESNET = ((56, 64), (28, 128), (14, 256), (7, 512))  # height and width, channels
RESNET_BATCH, LENET_BATCH = 64, 128


@dataclass(frozen=True)
class GpuCase(LargeCase):
    """An op at one shape, as `Case`, in a precision of `convkit.set_precision`."""

    precision: str = "float32"


def gpu_cases(room: str, only: str = "", scale: int = 1) -> Iterator[GpuCase]:
    """The cases of a room with `only` in their function; batches are divided by `scale`."""
    for case in {"bandwidth": _bandwidth, "lenet": _lenet, "resnet": _resnet}[room]():
        if only in case.function or case.op == "copy":
            yield replace(case, batch=max(1, case.batch // scale))


def _bandwidth() -> Iterator[GpuCase]:
    batch, *image = LARGE
    half = (image[0] // 2, image[1] // 2, image[2])
    whole = Input("x", tuple(image))
    yield GpuCase("copy", (whole,), batch)
    ops: list[tuple[str, Input, dict[str, Any]]] = [
        *((op, whole, {"pool_size": 2}) for op in ("max_pool2d", "avg_pool2d")),
        *(
            ("upsample2d", Input("x", half), {"size": 2, "interpolation": kind})
            for kind in ("nearest", "bilinear")
        ),
        *((op, whole, {}) for op in ("relu", "leaky_relu", "sigmoid", "tanh")),
    ]
    for op, given, options in ops:
        for backward in (False, True):
            yield GpuCase(op, (given,), batch, backward, options)


def _lenet() -> Iterator[GpuCase]:
    for case in cases((LENET_BATCH,)):
        if case.op in ("conv2d", "dense"):
            yield GpuCase(
                case.op, case.inputs, case.batch, case.backward, case.options, case.multiply_adds
            )


def _resnet() -> Iterator[GpuCase]:
    for precision in ("float32", "tf32"):
        for side, channels in RESNET:
            inputs = (
                Input("x", (side, side, channels)),
                Input("kernel", (3, 3, channels, channels), batched=False),
            )
            work = side * side * 9 * channels * channels
            for backward in (False, True):
                yield GpuCase(
                    "conv2d", inputs, RESNET_BATCH, backward, {"padding": "same"}, work, precision
                )
