"""PyTorch on a GPU: eager, compiled with CUDA graphs, or a graph recorded by hand.

All work is given to one stream of its own, since a graph cannot be recorded in the default one.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from gpu_cases import GpuCase
from network import Network
from torch import Tensor

from engines import torch_engine, torch_ops

WARM_UP = 3  # calls before a recording: libraries choose and allocate in them
_precision = ""
_device = "cuda"  # "cpu" where the processor stands for a GPU


def set_up(threads: int, place: str) -> None:
    global _device
    _device = "cpu" if place == "emulated" else "cuda"
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    torch.backends.cudnn.benchmark = True
    _set_precision("float32")
    if _device == "cuda":
        torch.cuda.set_stream(torch.cuda.Stream())  # RuntimeError without a GPU


def _set_precision(precision: str) -> None:
    global _precision
    if precision == _precision:
        return
    _precision = precision
    torch.set_float32_matmul_precision("highest" if precision == "float32" else "high")
    torch.backends.cudnn.allow_tf32 = precision != "float32"


def version() -> str:
    cudnn = f", cuDNN {torch.backends.cudnn.version()}" if _device == "cuda" else " (cpu)"
    return torch_engine.version() + cudnn


def place(array: np.ndarray) -> Tensor:
    return torch.from_numpy(array).to(_device)


def fetch(array: Tensor) -> np.ndarray:
    return array.cpu().numpy()


def finish() -> None:
    if _device == "cuda":
        torch.cuda.synchronize()


def recorded(call: Callable[[], Any], times: int = 1) -> Callable[[], None]:
    """A function that launches a graph of so many calls. They are called a few times before."""
    if _device == "cpu":
        return lambda: [call() for _ in range(times)]
    for _ in range(WARM_UP):
        call()
    finish()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
        for _ in range(times):
            call()
    return graph.replay


def by_events(launch: Callable[[], None]) -> float:
    if _device == "cpu":
        begin = time.perf_counter()
        launch()
        return time.perf_counter() - begin
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    launch()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3


# ---- training ------------------------------------------------------------------------------------


class _Training:
    """Model, optimizer, data and the sums of an epoch, all on the device."""

    def __init__(self, network: Network, x: np.ndarray, targets: np.ndarray, mode: str) -> None:
        self.network = network
        self.model = torch_engine.model(network).to(_device, memory_format=torch.channels_last)
        self.images = place(x).permute(0, 3, 1, 2)
        self.wanted = (
            place(targets).permute(0, 3, 1, 2) if network.per_pixel else place(targets).long()
        )
        self.optimizer = torch.optim.Adam(
            self.model.parameters(),
            eps=1e-7,
            fused=True,
            capturable=mode == "graph" and _device == "cuda",
        )
        self.forward = self._forward
        if mode == "compile":
            self.forward = torch.compile(self._forward, mode="reduce-overhead", dynamic=False)
        self.total = torch.zeros((), device=_device)
        self.right = torch.zeros((), dtype=torch.int64, device=_device)

    def _forward(self, batch: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(batch)
        if self.network.per_pixel:
            loss = F.binary_cross_entropy_with_logits(logits, target)
            return loss, ((logits > 0) == (target > 0.5)).sum()
        return F.cross_entropy(logits, target), (logits.argmax(1) == target).sum()

    def step(self, index: Tensor) -> None:
        loss, hits = self.forward(self.images[index], self.wanted[index])
        self.optimizer.zero_grad()
        loss.backward()
        self.optimizer.step()
        self.total += loss.detach() * len(index)
        self.right += hits

    def recorded_step(self, size: int) -> tuple[Tensor, Callable[[], None]]:
        """Where the rows of a batch are to be written, and the launch of a step on them. Training
        is afterwards as it was before."""
        rows = torch.zeros(size, dtype=torch.int64, device=_device)
        before = [parameter.detach().clone() for parameter in self.model.parameters()]
        launch = recorded(lambda: self.step(rows))
        with torch.no_grad():
            for parameter, value in zip(self.model.parameters(), before, strict=True):
                parameter.copy_(value)
            for state in self.optimizer.state.values():
                for value in state.values():
                    value.zero_()
        return rows, launch


def trainer(
    network: Network, x: np.ndarray, targets: np.ndarray, batch_size: int, *, mode: str
) -> Callable[[], tuple[float, float]]:
    training = _Training(network, x, targets, mode)
    samples = len(x)
    recordings = {}
    if mode == "graph":
        for size in {min(batch_size, samples), samples % batch_size} - {0}:
            recordings[size] = training.recorded_step(size)

    def epoch() -> tuple[float, float]:
        training.total.zero_()
        training.right.zero_()
        for index in torch.randperm(samples, device=_device).split(batch_size):
            if mode == "graph":
                rows, launch = recordings[len(index)]
                rows.copy_(index)
                launch()
            else:
                if mode == "compile":
                    torch.compiler.cudagraph_mark_step_begin()
                training.step(index)
        right = training.right.item() / (samples * network.targets)
        return training.total.item() / samples, right

    return epoch


# ---- inference and ops ---------------------------------------------------------------------------


def predictor(network: Network, *, mode: str) -> Callable[[Tensor], Tensor]:
    chances = torch.nn.Sigmoid() if network.per_pixel else torch.nn.Softmax(1)
    model = torch.nn.Sequential(torch_engine.model(network), chances).eval()
    model = model.to(_device, memory_format=torch.channels_last)
    if mode == "compile":
        torch._dynamo.config.recompile_limit = 64
        model = torch.compile(model, mode="reduce-overhead", dynamic=False)

    def forward(x: Tensor) -> Tensor:
        y = model(x.permute(0, 3, 1, 2))
        return y.permute(0, 2, 3, 1) if network.per_pixel else y

    recordings: dict[int, tuple[Tensor, dict[str, Tensor], Callable[[], None]]] = {}

    def record(x: Tensor) -> tuple[Tensor, dict[str, Tensor], Callable[[], None]]:
        given, result = x.clone(), {}
        return given, result, recorded(lambda: result.update(y=forward(given)))

    def predict(x: Tensor) -> Tensor:
        with torch.inference_mode():
            if mode == "compile":
                torch.compiler.cudagraph_mark_step_begin()
            if mode != "graph":
                return forward(x)
            if len(x) not in recordings:
                recordings[len(x)] = record(x)
            given, result, launch = recordings[len(x)]
            given.copy_(x)
            launch()
            return result["y"]

    return predict


def operation(case: GpuCase, arrays: list[np.ndarray], *, mode: str) -> Callable[[], Any]:
    assert mode == "eager"
    _set_precision(case.precision)
    tensors = [
        torch_ops.to_tensor(array, name).to(_device)
        for array, name in zip(arrays, case.names, strict=True)
    ]
    # Kernels as cuDNN has them beside such images: else PyTorch would turn them at every call.
    tensors = [
        one.contiguous(memory_format=torch.channels_last) if one.ndim == 4 else one
        for one in tensors
    ]
    if case.op == "copy":
        y = torch.empty_like(tensors[0])
        return lambda: y.copy_(tensors[0])
    op = _convolution if case.op == "conv2d" else torch_ops.OPS[case.op]
    if not case.backward:

        def forward() -> Any:
            _set_precision(case.precision)
            with torch.inference_mode():
                return op(*tensors, **case.arguments)

        return forward
    dy, *inputs = tensors
    for one in inputs:
        one.requires_grad_()
    y = op(*inputs, **case.arguments)

    def backward() -> Any:
        _set_precision(case.precision)
        return torch.autograd.grad(y, inputs, dy, retain_graph=True)

    return backward


def _convolution(
    x: Tensor,
    kernel: Tensor,
    bias: Tensor | None = None,
    padding: str = "valid",
    activation: str | None = None,
) -> Tensor:
    y = F.conv2d(x, kernel, bias, padding=padding)
    return F.relu(y) if activation else y
