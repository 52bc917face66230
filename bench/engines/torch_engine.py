"""PyTorch, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from networks import Concatenate, Conv, Dense, Flatten, Network, Pool, Upsample
from op_cases import Case
from torch import Tensor

Array = np.ndarray
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}


def set_up(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)


def version() -> str:
    return f"torch {torch.__version__}"


class _Skipping(torch.nn.Module):
    """Parts one after the other, some joined with the output of an earlier one."""

    def __init__(self, network: Network, parts: list[list[torch.nn.Module]]) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleList(torch.nn.Sequential(*part) for part in parts)
        self.joins = [getattr(layer, "layer", None) for layer in network.layers]

    def forward(self, x: Tensor) -> Tensor:
        outputs: list[Tensor] = []
        for part, join in zip(self.parts, self.joins, strict=True):
            x = part(x) if join is None else torch.cat((x, outputs[join]), 1)
            outputs.append(x)
        return x


def model(network: Network) -> torch.nn.Module:
    parts: list[list[torch.nn.Module]] = []
    for layer, shape in zip(network.layers, network.shapes(), strict=False):
        match layer:
            case Conv(filters, size, padding):
                part = [torch.nn.Conv2d(shape[-1], filters, size, padding=padding)]
            case Pool(size, "max"):
                part = [torch.nn.MaxPool2d(size)]
            case Pool(size):
                part = [torch.nn.AvgPool2d(size)]
            case Upsample(size):
                part = [torch.nn.Upsample(scale_factor=size, mode="nearest")]
            case Concatenate():
                part = []  # `_Skipping` joins them
            case Flatten():
                part = [torch.nn.Flatten()]
            case Dense(units):
                part = [torch.nn.Linear(shape[0], units)]
        activation = getattr(layer, "activation", None)
        if activation:
            part.append(ACTIVATIONS[activation]())
        parts.append(part)
    skips = any(isinstance(layer, Concatenate) for layer in network.layers)
    made = _Skipping(network, parts) if skips else torch.nn.Sequential(*chain(*parts))
    with torch.no_grad():
        for parameter, value in zip(
            made.parameters(), network.weights_channels_first(), strict=True
        ):
            parameter.copy_(torch.from_numpy(value))
    return made


def trainer(
    network: Network, x: Array, targets: Array, batch_size: int, *, compiled: bool
) -> Callable[[], tuple[float, float]]:
    # Never slower than channels first here, and by a quarter faster for 3 x 3 convolutions.
    trained = model(network).to(memory_format=torch.channels_last)
    images = torch.from_numpy(x).permute(0, 3, 1, 2)
    if network.per_pixel:
        wanted = torch.from_numpy(targets).permute(0, 3, 1, 2)
    else:
        wanted = torch.from_numpy(targets.astype(np.int64))
    optimizer = torch.optim.Adam(trained.parameters(), eps=1e-7, fused=True)

    def forward(batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = trained(batch)
        if network.per_pixel:
            loss = F.binary_cross_entropy_with_logits(logits, target)
            return loss, ((logits > 0) == (target > 0.5)).sum()
        return F.cross_entropy(logits, target), (logits.argmax(1) == target).sum()

    if compiled:
        forward = torch.compile(forward, dynamic=False)

    def epoch() -> tuple[float, float]:
        total, right = torch.zeros(()), torch.zeros((), dtype=torch.int64)
        for index in torch.randperm(len(images)).split(batch_size):
            loss, hits = forward(images[index], wanted[index])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.detach() * len(index)
            right += hits
        return total.item() / len(images), right.item() / (len(images) * network.targets)

    return epoch


def predictor(network: Network, *, compiled: bool) -> Callable[[Array], Array]:
    chances = torch.nn.Sigmoid() if network.per_pixel else torch.nn.Softmax(1)
    made = torch.nn.Sequential(model(network), chances).eval()
    if compiled:
        # Each number of images is compiled for itself; beyond a limit PyTorch would give that up.
        torch._dynamo.config.recompile_limit = 64
        made = torch.compile(made, dynamic=False)

    def predict(x: Array) -> Array:
        with torch.inference_mode():
            # Nothing is copied: the layout is what PyTorch calls channels_last.
            y = made(torch.from_numpy(x).permute(0, 3, 1, 2))
            return (y.permute(0, 2, 3, 1) if network.per_pixel else y).numpy()

    return predict


def operation(case: Case, arrays: list[Array], *, compiled: bool) -> Callable[[], Any]:
    op = torch.compile(OPS[case.op]) if compiled else OPS[case.op]
    tensors = [to_tensor(array, name) for name, array in zip(case.names, arrays, strict=True)]
    if not case.backward:

        def forward() -> Any:
            with torch.inference_mode():
                return op(*tensors, **case.arguments)

        return forward
    dy, *inputs = tensors
    wanted = [
        tensor for tensor, name in zip(inputs, case.names[1:], strict=True) if name != "target"
    ]
    for tensor in wanted:
        tensor.requires_grad_()
    y = op(*inputs, **case.arguments)
    return lambda: torch.autograd.grad(y, wanted, dy, retain_graph=True)


def to_tensor(array: Array, name: str) -> Tensor:
    """In PyTorch's order of axes; images keep their memory, which it calls channels_last."""
    if array.dtype == np.int32:
        return torch.from_numpy(array.astype(np.int64))
    tensor = torch.from_numpy(array)
    if array.ndim != 4:
        return tensor
    return (
        tensor.permute(3, 2, 0, 1).contiguous() if name == "kernel" else tensor.permute(0, 3, 1, 2)
    )


def _conv2d(
    x: Tensor, kernel: Tensor, bias: Tensor, padding: str, activation: str | None = None
) -> Tensor:
    y = F.conv2d(x, kernel, bias, padding=padding)
    return F.relu(y) if activation else y


def _dense(x: Tensor, kernel: Tensor, bias: Tensor, activation: str | None = None) -> Tensor:
    y = torch.addmm(bias, x, kernel)
    return F.relu(y) if activation else y


def _categorical_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    logs = F.log_softmax(prediction, -1) if from_logits else torch.log(prediction)
    return -(target * logs).sum(-1)


def _sparse_categorical_crossentropy(
    target: Tensor, prediction: Tensor, from_logits: bool = False
) -> Tensor:
    logs = F.log_softmax(prediction, -1) if from_logits else torch.log(prediction)
    return F.nll_loss(logs, target, reduction="none")


def _binary_crossentropy(target: Tensor, prediction: Tensor, from_logits: bool = False) -> Tensor:
    if from_logits:
        loss = F.binary_cross_entropy_with_logits(prediction, target, reduction="none")
    else:
        loss = F.binary_cross_entropy(prediction, target, reduction="none")
    return loss.mean(-1)


OPS: dict[str, Callable[..., Tensor]] = {
    "conv2d": _conv2d,
    "dense": _dense,
    "max_pool2d": lambda x, pool_size: F.max_pool2d(x, pool_size),
    "avg_pool2d": lambda x, pool_size: F.avg_pool2d(x, pool_size),
    "upsample2d": lambda x, size, interpolation: F.interpolate(
        x, scale_factor=size, mode=interpolation
    ),
    "rescale": lambda x, scale, offset: x * scale + offset,
    "relu": F.relu,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "exp": torch.exp,
    "softmax": lambda x: F.softmax(x, -1),
    "log_softmax": lambda x: F.log_softmax(x, -1),
    "add": torch.add,
    "concatenate": lambda a, b: torch.cat((a, b), 1),
    "categorical_crossentropy": _categorical_crossentropy,
    "sparse_categorical_crossentropy": _sparse_categorical_crossentropy,
    "binary_crossentropy": _binary_crossentropy,
    "mean_squared_error": lambda target, prediction: ((prediction - target) ** 2).mean(-1),
    "mean_absolute_error": lambda target, prediction: (prediction - target).abs().mean(-1),
}
