"""Philox4x32-10 (Salmon et al., SC 2011) in NumPy, and what kernels make of its numbers."""

from __future__ import annotations

import numpy as np


def words(seed: int, step: int, stream: int, blocks: np.ndarray) -> np.ndarray:
    """The four numbers of each block: (len(blocks), 4), uint32."""
    low = np.uint64(0xFFFFFFFF)
    half = np.uint64(32)
    c0, c1 = (np.asarray(blocks, np.uint64) & low, np.asarray(blocks, np.uint64) >> half)
    c2 = np.full_like(c0, step & 0xFFFFFFFF)
    c3 = np.full_like(c0, step >> 32)
    key_0, key_1 = seed & 0xFFFFFFFF, (seed >> 32) ^ stream
    for _ in range(10):
        a, b = np.uint64(0xD2511F53) * c0, np.uint64(0xCD9E8D57) * c2
        c0, c1, c2, c3 = (
            (b >> half) ^ c1 ^ np.uint64(key_0),
            b & low,
            (a >> half) ^ c3 ^ np.uint64(key_1),
            a & low,
        )
        key_0, key_1 = (key_0 + 0x9E3779B9) & 0xFFFFFFFF, (key_1 + 0xBB67AE85) & 0xFFFFFFFF
    return np.stack([c0, c1, c2, c3], axis=-1).astype(np.uint32)


def uniform(numbers: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1) on a grid of 2^-24."""
    return (numbers >> 8) / 2.0**24


def of_elements(seed: int, step: int, stream: int, count: int) -> np.ndarray:
    """One number for each of `count` elements."""
    return words(seed, step, stream, np.arange(-(-count // 4))).ravel()[:count]


def of_samples(seed: int, step: int, stream: int, n: int, each: int) -> np.ndarray:
    """`each` numbers, a multiple of four, for each of n samples."""
    return words(seed, step, stream, np.arange(n * each // 4)).reshape(n, each)


def normal(seed: int, step: int, stream: int, count: int) -> np.ndarray:
    """One normal number for each element (Box and Muller, 1958)."""
    pairs = of_elements(seed, step, stream, -(-count // 4) * 4).reshape(-1, 2)
    radius = np.sqrt(-2 * np.log(uniform(pairs[:, 0]) + 2.0**-24))
    angle = 2 * np.pi * uniform(pairs[:, 1])
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1).ravel()[:count]
