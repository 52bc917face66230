"""Gradients of ops by PyTorch's own functions for them, without the machinery that records what to
differentiate: for those of `torch_ops.py` that have such a function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Gradients = Callable[[Tensor], Any]
aten = torch.ops.aten


def _convolution(
    x: Tensor, kernel: Tensor, bias: Tensor, groups: int, padding: str | int, strides: int = 1
) -> Gradients:
    zeros = padding if isinstance(padding, int) else kernel.shape[-1] // 2 * (padding == "same")
    filters = len(bias)

    def gradients(dy: Tensor) -> Any:
        return aten.convolution_backward(
            dy,
            x,
            kernel,
            [filters],
            [strides] * 2,
            [zeros] * 2,
            [1, 1],
            False,
            [0, 0],
            groups,
            [True] * 3,
        )

    return gradients


def _conv2d(x: Tensor, kernel: Tensor, bias: Tensor, groups: int = 1, **options: Any) -> Gradients:
    return _convolution(x, kernel, bias, groups, **options)


def _depthwise_conv2d(x: Tensor, kernel: Tensor, bias: Tensor, **options: Any) -> Gradients:
    by_channel = _convolution(x, kernel.transpose(0, 1), bias, x.shape[1], **options)

    def gradients(dy: Tensor) -> Any:
        dx, dkernel, dbias = by_channel(dy)
        return dx, dkernel.transpose(0, 1), dbias

    return gradients


def _dense(x: Tensor, kernel: Tensor, bias: Tensor) -> Gradients:
    return lambda dy: (dy @ kernel.T, x.T @ dy, dy.sum(0))


def _max_pool2d(x: Tensor, pool_size: int, strides: int | None = None) -> Gradients:
    window, step = [pool_size] * 2, [strides or pool_size] * 2
    _, indices = aten.max_pool2d_with_indices(x, window, step)
    return lambda dy: aten.max_pool2d_with_indices_backward(
        dy, x, window, step, [0, 0], [1, 1], False, indices
    )


def _avg_pool2d(x: Tensor, pool_size: int, strides: int | None = None) -> Gradients:
    window, step = [pool_size] * 2, [strides or pool_size] * 2
    return lambda dy: aten.avg_pool2d_backward(dy, x, window, step, [0, 0], False, False, None)


def _upsample2d(x: Tensor, size: int, interpolation: str) -> Gradients:
    small, large = list(x.shape), [length * size for length in x.shape[2:]]
    if interpolation == "nearest":
        return lambda dy: aten.upsample_nearest2d_backward(dy, large, small)
    return lambda dy: aten.upsample_bilinear2d_backward(dy, large, small, False)


# From an op's inputs and options to the function from dy to the gradients of the inputs.
GRADIENTS: dict[str, Callable[..., Gradients]] = {
    "conv2d": _conv2d,
    "depthwise_conv2d": _depthwise_conv2d,
    "dense": _dense,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "upsample2d": _upsample2d,
}
