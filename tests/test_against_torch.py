"""Ops and their gradients against PyTorch, where it is installed."""

from __future__ import annotations

import numpy as np
import pytest
from cases import AVG_POOL2D, CASES, MAX_POOL2D, Case
from checkers import backward, expected, forward

torch = pytest.importorskip("torch")
functional = torch.nn.functional


def pair(value) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else tuple(value)


def images(x):
    return x.permute(0, 3, 1, 2)


def channels_last(y):
    return y.permute(0, 2, 3, 1)


def pads(x, window, strides, dilation, padding) -> tuple[int, int, int, int]:
    """torch.nn.functional.pad's (left, right, top, bottom)."""
    sides = []
    for i in range(2):
        size, reach = x.shape[1 + i], (window[i] - 1) * dilation[i] + 1
        if padding == "same":
            total = max((-(-size // strides[i]) - 1) * strides[i] + reach - size, 0)
            sides.append((total // 2, total - total // 2))
        elif padding == "valid":
            sides.append((0, 0))
        else:
            side = pair(padding)[i]
            sides.append((side, side) if isinstance(side, int) else side)
    return (*sides[1], *sides[0])


def conv2d(x, kernel, bias, *, strides=1, padding="valid", dilation_rate=1, groups=1):
    steps, dilation = pair(strides), pair(dilation_rate)
    border = pads(x, kernel.shape[:2], steps, dilation, padding)
    wide = functional.pad(images(x), border)
    filters = kernel.permute(3, 2, 0, 1).contiguous()
    y = functional.conv2d(wide, filters, bias, steps, 0, dilation, groups)
    return channels_last(y)


def max_pool2d(x, pool_size=2, *, strides=None, padding="valid", dilation_rate=1, ceil_mode=False):
    window, dilation = pair(pool_size), pair(dilation_rate)
    steps = pair(strides or pool_size)
    border = pads(x, window, steps, dilation, padding)
    wide = functional.pad(images(x), border, value=-torch.inf)
    y = functional.max_pool2d(wide, window, steps, 0, dilation, ceil_mode)
    return channels_last(y)


def avg_pool2d(
    x, pool_size=2, *, strides=None, padding="valid", ceil_mode=False, count_include_pad=False
):
    window, steps = pair(pool_size), pair(strides or pool_size)
    if isinstance(padding, int):
        inside = functional.avg_pool2d(
            images(x), window, steps, padding, ceil_mode, count_include_pad
        )
        return channels_last(inside)
    border = pads(x, window, steps, (1, 1), padding)
    wide = functional.pad(images(x), border)
    count = functional.pad(torch.ones_like(images(x)), border)
    y, share = (
        functional.avg_pool2d(a, window, steps, 0, ceil_mode, count_include_pad)
        for a in (wide, count)
    )
    return channels_last(y if count_include_pad else y / share)


def upsample2d(x, size=2, *, interpolation="nearest"):
    corners = None if interpolation == "nearest" else False
    height, width = pair(size)
    target = (x.shape[1] * height, x.shape[2] * width)
    y = functional.interpolate(images(x), target, mode=interpolation, align_corners=corners)
    return channels_last(y)


def dense(x, kernel, bias):
    return x @ kernel if bias is None else x @ kernel + bias


def categorical_crossentropy(y_true, y_pred, *, from_logits=False, axis=-1):
    logits = y_pred if from_logits else torch.log(y_pred / y_pred.sum(axis, keepdim=True))
    return -(y_true * torch.log_softmax(logits, axis)).sum(axis)


def sparse_categorical_crossentropy(y_true, y_pred, *, from_logits=False):
    logits = y_pred if from_logits else torch.log(y_pred)
    flat = functional.cross_entropy(
        logits.reshape(-1, logits.shape[-1]), y_true.reshape(-1), reduction="none"
    )
    return flat.reshape(y_true.shape)


def binary_crossentropy(y_true, y_pred, *, from_logits=False, axis=-1):
    loss = (
        functional.binary_cross_entropy_with_logits
        if from_logits
        else functional.binary_cross_entropy
    )
    return loss(y_pred, y_true, reduction="none").mean(axis)


def huber(y_true, y_pred, *, delta=1.0):
    return functional.huber_loss(y_pred, y_true, delta=delta, reduction="none").mean(-1)


def poisson(y_true, y_pred):
    loss = functional.poisson_nll_loss(y_pred, y_true, False, eps=1e-7, reduction="none")
    return loss.mean(-1)


def binary_focal_crossentropy(
    y_true,
    y_pred,
    *,
    apply_class_balancing=False,
    alpha=0.25,
    gamma=2.0,
    from_logits=False,
    axis=-1,
):
    p = torch.sigmoid(y_pred) if from_logits else y_pred
    cost = functional.binary_cross_entropy(p, y_true, reduction="none")
    weight = y_true * alpha + (1 - y_true) * (1 - alpha) if apply_class_balancing else 1
    return (weight * (y_true * (1 - p) + (1 - y_true) * p) ** gamma * cost).mean(axis)


def categorical_focal_crossentropy(
    y_true, y_pred, *, alpha=0.25, gamma=2.0, from_logits=False, axis=-1
):
    p = torch.softmax(y_pred, axis) if from_logits else y_pred / y_pred.sum(axis, keepdim=True)
    return -(alpha * (1 - p) ** gamma * y_true * torch.log(p)).sum(axis)


PEERS = {
    "conv2d": conv2d,
    "max_pool2d": max_pool2d,
    "avg_pool2d": avg_pool2d,
    "upsample2d": upsample2d,
    "dense": dense,
    "relu": functional.relu,
    "leaky_relu": lambda x, negative_slope=0.2: functional.leaky_relu(x, negative_slope),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "softmax": lambda x, axis=-1: torch.softmax(x, axis),
    "log_softmax": lambda x, axis=-1: torch.log_softmax(x, axis),
    "rescale": lambda x, scale, offset=0.0: x * scale + offset,
    "concatenate": lambda *arrays, axis=-1: torch.cat(arrays, axis),
    "add": torch.add,
    "categorical_crossentropy": categorical_crossentropy,
    "sparse_categorical_crossentropy": sparse_categorical_crossentropy,
    "binary_crossentropy": binary_crossentropy,
    "mean_squared_error": lambda y_true, y_pred: ((y_pred - y_true) ** 2).mean(-1),
    "mean_absolute_error": lambda y_true, y_pred: (y_pred - y_true).abs().mean(-1),
    "huber": huber,
    "kl_divergence": lambda t, p: functional.kl_div(p.log(), t, reduction="none").sum(-1),
    "poisson": poisson,
    "cosine_similarity": lambda t, p, axis=-1: -functional.cosine_similarity(t, p, axis),
    "binary_focal_crossentropy": binary_focal_crossentropy,
    "categorical_focal_crossentropy": categorical_focal_crossentropy,
}


def comparable(case: Case) -> bool:
    """Left out: what PyTorch does not have, refuses, or counts by another rule."""
    if case.op not in PEERS or case.name.startswith("empty_batch"):
        return False
    if case in AVG_POOL2D and case.options.get("count_include_pad"):
        return isinstance(case.options["padding"], int)
    # A window that starts in the padding below counts for PyTorch, which sees padded input here.
    uneven = isinstance(case.options.get("padding"), tuple)
    return not (case in [*MAX_POOL2D, *AVG_POOL2D] and case.options.get("ceil_mode") and uneven)


@pytest.mark.parametrize("case", list(filter(comparable, CASES)), ids=str)
def test_torch_agrees(case):
    given, dy, _, _ = expected(case)
    tensors = [
        None if array is None else torch.tensor(array, requires_grad=array.dtype.kind == "f")
        for array in given
    ]
    right = PEERS[case.op](*tensors, **case.options)
    right.backward(torch.tensor(dy))
    y = forward(case, given)
    np.testing.assert_allclose(y, right.detach().numpy(), rtol=1e-10, atol=1e-10)
    for gradient, tensor in zip(backward(case, dy, given), tensors, strict=True):
        if gradient is not None:
            scale = float(tensor.grad.abs().max()) if tensor.grad.numel() else 0.0
            np.testing.assert_allclose(
                gradient, tensor.grad.numpy(), rtol=1e-10, atol=1e-10 * max(scale, 1.0)
            )
