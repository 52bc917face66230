"""Tiles, the layout of depth-first programs: (tiles, values ..., 16), samples in the lanes."""

from __future__ import annotations

import numpy as np

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
