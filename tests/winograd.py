"""What rounding may do to convolutions that go by Winograd's F(2 x 2, 5 x 5).

The transforms have fractions, so that not even integers are exact. Each step is a sum of products;
with absolute values in place of all numbers, its result bounds the roundings (Higham, as in
checkers.py) of the whole.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from checkers import gamma

SIDE = 6
A, B = 0.75, 1.5  # the places at which polynomials are evaluated: 0, A, -A, B, -B, infinity


def matrices() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(A', B', G) of Toom and Cook's method for these places."""
    places = [0.0, A, -A, B, -B]
    others = [[q for q in places if q != p] for p in places]
    scale = [np.prod([p - q for q in rest]) for p, rest in zip(places, others, strict=True)]
    back = np.array([[p**i for p in places] + [i == 1] for i in range(2)], float)
    patch = [np.append(np.poly(rest)[::-1], 0.0) for rest in others] + [np.poly(places)[::-1]]
    kernel = [[p**i / s for i in range(5)] for p, s in zip(places, scale, strict=True)]
    return back, np.array(patch), np.array([*kernel, [0, 0, 0, 0, 1.0]])


def may_be_used(spec: Any) -> bool:
    """Whether a tile's kernel may go this way: on some instruction sets it does not pay."""
    return (
        (spec.kernel_height, spec.kernel_width) == (5, 5)
        and (spec.stride_height, spec.stride_width) == (1, 1)
        and (spec.dilation_height, spec.dilation_width) == (1, 1)
        and spec.groups == 1
        and min(spec.channels, spec.filters) >= 6
    )


def transformed(
    x: np.ndarray,
    kernel: np.ndarray,
    pads: tuple[int, int],
    out: tuple[int, int],
    steps: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> np.ndarray:
    """The convolution of x (N, H, W, C) by these steps: (N, *out, F)."""
    back, patch, weights = steps
    rows, columns = (-(-size // 2) for size in out)
    height, width = 2 * rows + 4, 2 * columns + 4
    padded = np.zeros((len(x), height, width, x.shape[3]))
    high, wide = (
        min(size, most - pad)
        for size, most, pad in zip(x.shape[1:3], (height, width), pads, strict=True)
    )
    padded[:, pads[0] : pads[0] + high, pads[1] : pads[1] + wide] = x[:, :high, :wide]
    windows = np.lib.stride_tricks.sliding_window_view(padded, (SIDE, SIDE), axis=(1, 2))
    v = np.einsum("ai,nrckij,bj->nrcabk", patch, windows[:, ::2, ::2], patch, optimize=True)
    u = np.einsum("ai,ijkf,bj->abkf", weights, kernel, weights, optimize=True)
    m = np.einsum("nrcabk,abkf->nrcabf", v, u, optimize=True)
    z = np.einsum("pa,nrcabf,qb->nrpcqf", back, m, back, optimize=True)
    return z.reshape(len(x), 2 * rows, 2 * columns, -1)[:, : out[0], : out[1]]


def bound(
    x: np.ndarray, kernel: np.ndarray, pads: tuple[int, int], out: tuple[int, int], dtype: Any
) -> np.ndarray:
    """How far each output may be from the true one, for an array of what is given."""
    a, b, g = (np.abs(matrix) for matrix in matrices())
    roundings = x.shape[3] + 32  # of the sum, and of the steps of the transforms
    return gamma(roundings, dtype) * transformed(np.abs(x), np.abs(kernel), pads, out, (a, b, g))


def of_gradient(dy: np.ndarray, kernel: np.ndarray, spec: Any) -> tuple:
    """The convolution that makes dx: (x, kernel, pads, out)."""
    turned = kernel[::-1, ::-1].transpose(0, 1, 3, 2)
    return dy, turned, (4 - spec.pad_top, 4 - spec.pad_left), (spec.height, spec.width)
