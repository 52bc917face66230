"""The ops of `op_cases.py` in PyTorch, eager or compiled: its own functions where it has them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from op_cases import Case
from torch import Tensor

from engines.clock import fastest
from engines.torch_gradients import GRADIENTS

Array = np.ndarray
EPSILON = 1e-7
COMPILED = ("max_pool2d", "avg_pool2d", "upsample2d")


def operation(case: Case, arrays: list[Array], *, compiled: bool) -> Callable[[], Any]:
    """The fastest of PyTorch's forms, by a trial: images and kernels with channels last or first
    for convolutions; the function as it is or compiled for what the compiler writes itself."""
    tensors = [to_tensor(array, name) for name, array in zip(case.names, arrays, strict=True)]
    calls = [_call(case, tensors, torch.channels_last, compiled)]
    if case.op in ("conv2d", "depthwise_conv2d") and not compiled:
        calls.append(_call(case, tensors, torch.contiguous_format, False))
    if case.op in COMPILED and not compiled:
        calls.append(_call(case, tensors, torch.channels_last, True))
    return fastest(calls)


def _call(
    case: Case, tensors: list[Tensor], layout: torch.memory_format, compiled: bool
) -> Callable[[], Any]:
    tensors = [
        tensor.contiguous(memory_format=layout) if tensor.ndim == 4 else tensor
        for tensor in tensors
    ]
    if case.backward and case.op not in GRADIENTS:
        return _recorded(case, *tensors, compiled=compiled)
    if case.backward:
        dy, *inputs = tensors
        function, given = GRADIENTS[case.op](*inputs, **case.arguments), [dy]
    else:
        function, given = partial(OPS[case.op], **case.arguments), tensors
    if compiled:
        function = _compiled(function)

    def run() -> Any:
        with torch.inference_mode():
            return function(*given)

    return run


def _recorded(case: Case, dy: Tensor, *inputs: Tensor, compiled: bool) -> Callable[[], Any]:
    """The gradients as PyTorch derives them from what it recorded of the forward pass."""
    op = _compiled(OPS[case.op]) if compiled else OPS[case.op]
    pairs = zip(inputs, case.differentiated, strict=True)
    wanted = [tensor.detach() for tensor, with_gradient in pairs if with_gradient]
    for tensor in wanted:
        tensor.requires_grad_()
    rest = iter(wanted)
    given = [
        next(rest) if with_gradient else tensor
        for tensor, with_gradient in zip(inputs, case.differentiated, strict=True)
    ]
    y = op(*given, **case.arguments)
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def _compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    # Each shape is compiled for itself; beyond a limit PyTorch would give that up.
    torch._dynamo.config.recompile_limit = 256
    return torch.compile(function, dynamic=False)


def to_tensor(array: Array, name: str) -> Tensor:
    """In PyTorch's order of axes; images keep their memory, which it calls channels_last."""
    if array.dtype == np.int32:
        return torch.from_numpy(array.astype(np.int64))
    tensor = torch.from_numpy(array)
    if array.ndim != 4:
        return tensor
    if name.endswith("kernel"):
        return tensor.permute(3, 2, 0, 1).contiguous()
    return tensor.permute(0, 3, 1, 2)


# ---- convolution and dense layers ----------------------------------------------------------------


def _conv2d(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    padding: str | int,
    strides: int = 1,
    activation: str | None = None,
    groups: int = 1,
) -> Tensor:
    return _finish(F.conv2d(x, kernel, bias, strides, padding, groups=groups), activation)


def _dense(x: Tensor, kernel: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    return _finish(torch.addmm(bias, x, kernel), activation)


def _finish(y: Tensor, activation: str | None) -> Tensor:
    return torch.relu_(y) if activation else y


def _conv2d_transpose(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor,
    strides: int,
    padding: str,
    activation: str | None = None,
) -> Tensor:
    cut = (kernel.shape[-1] - strides) // 2 if padding == "same" else 0
    y = F.conv_transpose2d(x, kernel, bias, strides, cut)
    return _finish(y, activation)


def _depthwise_conv2d(
    x: Tensor, kernel: Tensor, bias: Tensor, padding: str, activation: str | None = None
) -> Tensor:
    y = F.conv2d(x, kernel.transpose(0, 1), bias, padding=padding, groups=x.shape[1])
    return _finish(y, activation)


def _separable_conv2d(
    x: Tensor,
    depthwise_kernel: Tensor,
    pointwise_kernel: Tensor,
    bias: Tensor,
    padding: str,
    activation: str | None = None,
) -> Tensor:
    kernel = depthwise_kernel.transpose(0, 1)
    z = F.conv2d(x, kernel, padding=padding, groups=x.shape[1])
    y = F.conv2d(z, pointwise_kernel, bias)
    return _finish(y, activation)


# ---- normalisation, axes, and arrays of two shapes -----------------------------------------------


def _batch_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    mean: Tensor | None = None,
    variance: Tensor | None = None,
) -> Tensor:
    return F.batch_norm(x, mean, variance, gamma, beta, training=mean is None, eps=1e-3)


def _dims(axis: tuple[int, ...]) -> tuple[int, ...]:
    """Where PyTorch has these axes of images whose channels are the last."""
    return tuple((0, 2, 3, 1)[i] for i in axis)


def _multiply(a: Tensor, b: Tensor) -> Tensor:
    return a * (b[:, None, None] if b.ndim == 1 else b)


def _permute(x: Tensor, axes: tuple[int, ...]) -> Tensor:
    """From and to images as `to_tensor` makes them; what is copied is the same."""
    return x.permute(0, 2, 3, 1).permute(0, *axes).contiguous().permute(0, 3, 1, 2)


def _crop2d(x: Tensor, cropping: int) -> Tensor:
    y = x[:, :, cropping:-cropping, cropping:-cropping]
    return y.contiguous(memory_format=torch.channels_last)


# ---- losses --------------------------------------------------------------------------------------


def _logs(prediction: Tensor, from_logits: bool) -> Tensor:
    """The logarithms of the classes' probabilities."""
    if from_logits:
        return F.log_softmax(prediction, -1)
    return torch.log(prediction / prediction.sum(-1, keepdim=True))


def _categorical_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    return -(target * _logs(prediction, from_logits)).sum(-1)


def _sparse_categorical_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    return F.nll_loss(_logs(prediction, from_logits), target, reduction="none")


def _categorical_focal_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    logs = _logs(prediction, from_logits)
    return -(0.25 * (1 - torch.exp(logs)) ** 2 * target * logs).sum(-1)


def _binary_focal_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    p = torch.sigmoid(prediction) if from_logits else prediction
    wrong = target * (1 - p) + (1 - target) * p
    return (wrong**2 * F.binary_cross_entropy(p, target, reduction="none")).mean(-1)


def _binary_crossentropy(target: Tensor, prediction: Tensor, from_logits: bool = False) -> Tensor:
    if from_logits:
        loss = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    else:
        loss = F.binary_cross_entropy(prediction, target, reduction="none")
    return loss.mean(-1)


def _hinge(target: Tensor, prediction: Tensor) -> Tensor:
    return F.relu(1 - (2 * target - 1) * prediction)


def _categorical_hinge(target: Tensor, prediction: Tensor) -> Tensor:
    others = ((1 - target) * prediction).amax(-1)
    return F.relu(others - (target * prediction).sum(-1) + 1)


def _mean_squared_logarithmic_error(target: Tensor, prediction: Tensor) -> Tensor:
    return ((torch.log1p(prediction) - torch.log1p(target)) ** 2).mean(-1)


def _log_cosh(target: Tensor, prediction: Tensor) -> Tensor:
    off = prediction - target
    return (off + F.softplus(-2 * off) - np.log(2.0)).mean(-1)


def _poisson(target: Tensor, prediction: Tensor) -> Tensor:
    losses = F.poisson_nll_loss(prediction, target, False, eps=EPSILON, reduction="none")
    return losses.mean(-1)


def _dice(target: Tensor, prediction: Tensor, axis: int | None = None) -> Tensor:
    total = target.sum(axis) + prediction.sum(axis) + EPSILON
    loss = 1 - 2 * (target * prediction).sum(axis) / total
    return loss.expand(len(target)) if axis is None else loss


OPS: dict[str, Callable[..., Tensor]] = {
    "conv2d": _conv2d,
    "conv2d_transpose": _conv2d_transpose,
    "depthwise_conv2d": _depthwise_conv2d,
    "separable_conv2d": _separable_conv2d,
    "dense": _dense,
    "max_pool2d": lambda x, pool_size, strides=None: F.max_pool2d(x, pool_size, strides),
    "avg_pool2d": lambda x, pool_size, strides=None: F.avg_pool2d(x, pool_size, strides),
    "upsample2d": lambda x, size, interpolation: F.interpolate(
        x, scale_factor=size, mode=interpolation
    ),
    "global_max_pool2d": lambda x: x.amax((2, 3)),
    "global_avg_pool2d": lambda x: x.mean((2, 3)),
    "rescale": lambda x, scale, offset: x * scale + offset,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "elu": F.elu,
    "selu": F.selu,
    "softplus": F.softplus,
    "softsign": F.softsign,
    "silu": F.silu,
    "gelu": lambda x, approximate=False: F.gelu(x, approximate="tanh" if approximate else "none"),
    "hard_sigmoid": F.hardsigmoid,
    "hard_swish": F.hardswish,
    "relu6": F.relu6,
    "mish": F.mish,
    "clip": lambda x, x_min, x_max: torch.clamp(x, x_min, x_max),
    "absolute": torch.abs,
    "square": torch.square,
    "sqrt": torch.sqrt,
    "log": torch.log,
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "add": torch.add,
    "subtract": torch.sub,
    "multiply": _multiply,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "sum": lambda x, axis: x.sum(_dims(axis)),
    "mean": lambda x, axis: x.mean(_dims(axis)),
    "max": lambda x, axis: x.amax(_dims(axis)),
    "min": lambda x, axis: x.amin(_dims(axis)),
    "batch_norm": _batch_norm,
    "layer_norm": lambda x, gamma, beta: F.layer_norm(x, x.shape[-1:], gamma, beta, 1e-3),
    "prelu": lambda x, alpha: F.prelu(x, alpha.flatten()),
    "concatenate": lambda a, b: torch.cat((a, b), 1),
    "pad2d": lambda x, padding: F.pad(x, (padding,) * 4),
    "crop2d": _crop2d,
    "permute": _permute,
    "repeat": lambda x, repeats, axis: x.repeat_interleave(repeats, _dims((axis,))[0]),
    "categorical_crossentropy": _categorical_crossentropy,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
    "binary_crossentropy": _binary_crossentropy,
    "categorical_focal_crossentropy": _categorical_focal_crossentropy,
    "binary_focal_crossentropy": _binary_focal_crossentropy,
    "mean_squared_error": lambda target, prediction: ((prediction - target) ** 2).mean(-1),
    "mean_absolute_error": lambda target, prediction: (prediction - target).abs().mean(-1),
    "mean_absolute_percentage_error": lambda target, prediction: (
        100 * ((prediction - target).abs() / target.abs().clamp_min(EPSILON)).mean(-1)
    ),
    "mean_squared_logarithmic_error": _mean_squared_logarithmic_error,
    "huber": lambda target, prediction: F.huber_loss(prediction, target, "none").mean(-1),
    "log_cosh": _log_cosh,
    "poisson": _poisson,
    "kl_divergence": lambda target, prediction: F.kl_div(
        torch.log(prediction), target, reduction="none"
    ).sum(-1),
    "hinge": lambda target, prediction: _hinge(target, prediction).mean(-1),
    "squared_hinge": lambda target, prediction: _hinge(target, prediction).square().mean(-1),
    "categorical_hinge": _categorical_hinge,
    "cosine_similarity": lambda target, prediction: -F.cosine_similarity(target, prediction, -1),
    "dice": _dice,
}
