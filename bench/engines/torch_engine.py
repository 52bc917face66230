"""PyTorch, eager or compiled."""

from __future__ import annotations

from collections.abc import Callable
from itertools import chain

import numpy as np
import torch
import torch.nn.functional as F
from network import (
    Add,
    BatchNorm,
    Branch,
    Concatenate,
    Conv,
    Dense,
    Depthwise,
    Flatten,
    GlobalPool,
    Layer,
    Network,
    Pool,
    Upsample,
)
from torch import Tensor

from engines.torch_ops import OPS as OPS
from engines.torch_ops import operation as operation

Array = np.ndarray
ACTIVATIONS = {"relu": torch.nn.ReLU, "tanh": torch.nn.Tanh}


def set_up(threads: int) -> None:
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    torch.manual_seed(0)


def version() -> str:
    return f"torch {torch.__version__}"


class _Joining(torch.nn.Module):
    """Parts one after the other, some joined with the output of an earlier one."""

    def __init__(self, network: Network, parts: list[torch.nn.Module]) -> None:
        super().__init__()
        self.layers, self.skips = network.layers, network.skips
        self.parts = torch.nn.ModuleList(parts)

    def forward(self, x: Tensor) -> Tensor:
        outputs: dict[int, Tensor] = {}
        for number, (layer, part) in enumerate(zip(self.layers, self.parts, strict=True)):
            match layer:
                case Concatenate(other):
                    x = torch.cat((x, outputs[other]), 1)
                case Add(other):
                    x = x + outputs[other]
                case Branch(other):
                    x = outputs[other]
            x = part(x)
            if number in self.skips:
                outputs[number] = x
        return x


def model(network: Network) -> torch.nn.Module:
    parts: list[torch.nn.Module] = []
    for layer, shape in zip(network.layers, network.shapes(), strict=False):
        part = _part(layer, shape)
        activation = getattr(layer, "activation", None)
        if activation:
            part.append(ACTIVATIONS[activation]())
        parts.append(torch.nn.Sequential(*part))
    made = _Joining(network, parts) if network.skips else torch.nn.Sequential(*chain(*parts))
    with torch.no_grad():
        for parameter, value in zip(
            made.parameters(), network.weights_channels_first(), strict=True
        ):
            parameter.copy_(torch.from_numpy(value))
    return made


def _part(layer: Layer, shape: tuple[int, ...]) -> list[torch.nn.Module]:
    """A layer without its activation; nothing for what `_Joining` does."""
    match layer:
        case Conv(filters, size, padding, _, stride, bias):
            zeros = size // 2 if padding == "same" else 0
            return [torch.nn.Conv2d(shape[-1], filters, size, stride, zeros, bias=bias)]
        case Depthwise(size, stride):
            channels = shape[-1]
            return [
                torch.nn.Conv2d(
                    channels, channels, size, stride, size // 2, groups=channels, bias=False
                )
            ]
        case BatchNorm():
            return [torch.nn.BatchNorm2d(shape[-1], layer.EPSILON, 1 - layer.MOMENTUM)]
        case Pool(size, "max"):
            return [torch.nn.MaxPool2d(size)]
        case Pool(size):
            return [torch.nn.AvgPool2d(size)]
        case GlobalPool():
            return [torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()]
        case Upsample(size):
            return [torch.nn.Upsample(scale_factor=size, mode="nearest")]
        case Flatten():
            return [torch.nn.Flatten()]
        case Dense(units):
            return [torch.nn.Linear(shape[0], units)]
    return []


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
