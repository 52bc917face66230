"""Tiles, the layout of depth-first programs: (tiles, values ..., 16), samples in the lanes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core
from convkit.graph import SOURCE_TYPES

TILE = 16


def to_tiles(x: np.ndarray) -> np.ndarray:
    """(N, ...) as whole tiles; lanes beyond the last sample repeat it."""
    n = len(x)
    rows = np.minimum(np.arange(-(-n // TILE) * TILE), n - 1)
    tiles = x[rows].reshape(-1, TILE, *x.shape[1:])
    return np.ascontiguousarray(np.moveaxis(tiles, 1, -1))


def gradient_to_tiles(dy: np.ndarray) -> np.ndarray:
    """The same for a gradient, which is zero beyond the last sample."""
    n = len(dy)
    padded = np.zeros((-(-n // TILE) * TILE, *dy.shape[1:]), dy.dtype)
    padded[:n] = dy
    return to_tiles(padded)


def from_tiles(y: np.ndarray, n: int) -> np.ndarray:
    """The first n samples (n, ...) of whole tiles."""
    rows = np.moveaxis(y, -1, 1)
    return np.ascontiguousarray(rows.reshape(-1, *y.shape[1:-1])[:n])


class Descent:
    """A program that takes gradients of weights, added up over tiles, from parameters.

    Args:
        kernel, spec: what makes the gradients: "tile_dense_backward_kernel" or the like.
        x, dy: rows of samples. Zeros fill the last tile: its gathering would repeat a sample.
        nodes: for each call of the kernel the names of the sums that its dkernel and dbias are
            added to, or None for no dbias. A name that comes twice is one sum.
        tiles_at_once: as of a program.
    """

    def __init__(
        self,
        kernel: str,
        spec: Any,
        x: np.ndarray,
        dy: np.ndarray,
        nodes: Sequence[tuple[str, str | None]],
        tiles_at_once: int = 1,
    ) -> None:
        width = x.dtype.itemsize
        fill = [(0, -len(x) % TILE)]
        self._good = [np.pad(a, fill + [(0, 0)] * (a.ndim - 1)) for a in (dy, x)]
        self._rows = [a.copy() for a in self._good]
        self._native = native = _core.Program(x.dtype.name)
        bound: list[tuple[int, np.ndarray]] = []
        tiles = []
        for array in self._rows:
            size = array[0].size
            fed, tile = native.fed(width, size), native.tile(width, size)
            rows = _core.Gather(size=size, type=SOURCE_TYPES[x.dtype.name], scale=1, offset=0)
            native.node("tile_gather", rows, [fed, -1, tile], True)
            bound.append((fed, array))
            tiles.append(tile)
        sums: dict[str, int] = {}
        self._parameters: dict[str, np.ndarray] = {}
        for names in nodes:
            for name, size in zip(names, weights(spec), strict=True):
                if name is not None and name not in sums:
                    sums[name] = native.sum(width, size)
                    self._parameters[name] = np.zeros(size, x.dtype)
            native.node(kernel, spec, [*tiles, *(sums.get(name, -1) for name in names)], True)
        rate = native.state(width, 1)
        bound.append((rate, np.ones(1, x.dtype)))
        for name, parameter in self._parameters.items():
            state = native.state(width, parameter.size)
            sgd = _core.Sgd(size=parameter.size, momentum=0, nesterov=0)
            native.node("sgd", sgd, [rate, sums[name], -1, state])
            bound.append((state, parameter))
        native.set_tiles_at_once(tiles_at_once)
        for value, array in bound:
            native.bind(value, array)

    def run(self, n: int, batch: int) -> dict[str, np.ndarray]:
        """The gradients of the first n samples by the names of their sums, which held NaN before.

        They are summed `batch` at a time; both are taken for whole tiles.
        """
        n, batch = (-(-count // TILE) * TILE for count in (n, batch))
        if self._rows[0].size:
            for array in self._rows:
                array[...] = np.nan
            self._native.run(0, len(array), len(array), float("inf"))
            assert all(np.isnan(values).any() for values in self._parameters.values())
        for array, good in zip(self._rows, self._good, strict=True):
            array[...] = good
        for values in self._parameters.values():
            values[...] = 0
        self._native.run(0, n, batch, float("inf"))
        return {name: -values for name, values in self._parameters.items()}


def weights(spec: Any) -> tuple[int, int]:
    """Values of the kernel and of the bias."""
    if isinstance(spec, _core.Dense):
        return spec.inputs * spec.units, spec.units
    window = spec.kernel_height * spec.kernel_width
    return window * spec.channels // spec.groups * spec.filters, spec.filters
