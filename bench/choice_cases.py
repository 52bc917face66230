"""The shapes at which `bench_choice.py` measures every algorithm for convolutions."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

# Times are of so many pixels or samples, whichever are fewer.
PIXELS, SAMPLES = 56 * 56, 8

# Where several algorithms are near each other: few channels and filters, pictures of LeNet's size.
NEAR = (
    (12, 28),
    (3, 5),
    (1, 2, 3, 4, 6, 8, 12, 16, 24, 32),
    (4, 6, 8, 12, 16, 24, 32),
)
# Smaller pictures, of which much is border, and larger ones.
SIDES = ((1, 2, 3, 4, 5, 7, 14, 56), (3, 5), (1, 3, 8, 16, 32), (6, 16, 32))
# The last layers of networks, whose pictures are small and of many channels.
SMALL = ((1, 2, 3, 4, 5), (3, 5), (16, 48, 128, 384), (16, 48, 128, 384))
# Layers of larger networks, 3 x 3: a picture's side, and widths of channels to as many filters and
# twice as many.
LARGE = (
    (2, (64, 128, 256, 512)),
    (3, (64, 128, 256, 512)),
    (4, (64, 128, 256, 512)),
    (7, (64, 128, 256, 512)),
    (12, (64, 128)),
    (14, (64, 128, 256)),
    (28, (64, 128)),
    (56, (64,)),
)
MOST_FILTERS = 512
# A few of other kernels: side, channels, filters, kernel.
OTHERS = (
    *((side, 16, 16, 1) for side in (7, 14, 28, 56)),
    *((side, 32, 64, 1) for side in (7, 14, 28, 56)),
    (2, 512, 512, 1),
    (7, 256, 512, 1),
    (14, 128, 128, 1),
    (28, 3, 8, 1),
    (28, 8, 4, 1),
    (56, 64, 256, 1),
    (56, 256, 64, 1),
    (7, 64, 64, 5),
    (14, 48, 64, 5),
    (28, 64, 64, 5),
    (14, 8, 8, 7),
    (28, 1, 8, 7),
    (28, 3, 24, 7),
    (28, 24, 8, 7),
    (56, 3, 64, 7),
)
# Without padding, and with strides: side, channels, filters, kernel, padding, stride.
BORDERS = (
    *((14, 6, 16, 5, "valid", 1), (32, 1, 6, 5, "valid", 1), (28, 1, 20, 5, "valid", 1)),
    *((12, 20, 50, 5, "valid", 1), (14, 32, 4, 5, "valid", 1), (7, 8, 8, 5, "valid", 1)),
    *((28, 3, 16, 3, "valid", 1), (28, 16, 16, 3, "valid", 1), (14, 16, 32, 3, "valid", 1)),
    *((6, 64, 64, 3, "valid", 1), (4, 128, 128, 3, "valid", 1)),
    *((28, 1, 6, 3, "same", 2), (28, 8, 8, 3, "same", 2), (28, 16, 32, 3, "same", 2)),
    *((14, 64, 128, 3, "same", 2), (56, 3, 32, 3, "same", 2), (56, 3, 8, 7, "same", 2)),
)


@dataclass(frozen=True)
class Shape:
    """A convolution of square pictures by a square kernel."""

    batch: int
    side: int
    channels: int
    filters: int
    kernel: int
    padding: str = "same"
    stride: int = 1

    @property
    def out_side(self) -> int:
        """Of what comes out."""
        side = self.side if self.padding == "same" else self.side - self.kernel + 1
        return -(-side // self.stride)

    @property
    def options(self) -> dict[str, Any]:
        """Of the op."""
        return {"padding": self.padding, "strides": self.stride}

    @property
    def x(self) -> tuple[int, int, int, int]:
        return self.batch, self.side, self.side, self.channels

    @property
    def y(self) -> tuple[int, int, int, int]:
        return self.batch, self.out_side, self.out_side, self.filters

    @property
    def weights(self) -> tuple[int, int, int, int]:
        return self.kernel, self.kernel, self.channels, self.filters

    def __str__(self) -> str:
        text = f"{'×'.join(map(str, self.x))} → {self.filters} by {self.kernel}×{self.kernel}"
        if self.padding != "same":
            text += f" {self.padding}"
        return text if self.stride == 1 else f"{text} stride {self.stride}"


def shapes(only: str = "", batches: Sequence[int] = ()) -> Iterator[Shape]:
    """Those with `only` in their text; each with these batches, or with one that is small."""
    for shape in dict.fromkeys(_grid()):
        for batch in batches or (max(1, min(SAMPLES, PIXELS // shape.side**2)),):
            found = replace(shape, batch=batch)
            if only in str(found):
                yield found


def _grid() -> Iterator[Shape]:
    for sizes in (NEAR, SIDES, SMALL):
        for side, kernel, channels, filters in itertools.product(*sizes):
            yield Shape(0, side, channels, filters, kernel)
    for side, widths in LARGE:
        for width in widths:
            for filters in (width, 2 * width):
                if filters <= MOST_FILTERS:
                    yield Shape(0, side, width, filters, 3)
    for sizes in (*OTHERS, *BORDERS):
        yield Shape(0, *sizes)
