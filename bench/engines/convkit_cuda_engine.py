"""This library on a GPU: CuPy arrays, and models moved there."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import GpuCase
from network import Network

import convkit
from convkit import _core, device, geometry, ops
from convkit.ops.activation import LEAKY_SLOPE
from engines import convkit_engine

_cp: Any = None  # CuPy, or what stands for it
_emulated = False
_until_the_end = ExitStack()


def set_up(threads: int, place: str) -> None:
    global _cp, _emulated
    convkit_engine.set_up(threads)
    _emulated = place == "emulated"
    if _emulated:
        sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tests"))
        import devices  # loads the emulated device
        import fake_cupy

        assert devices.EMULATED is not None, "the emulated device is not there: see docs/cuda.md"
        _until_the_end.enter_context(device.stand_in(fake_cupy, fake_cupy.BACKEND))
    _cp = device.array_module()


def version() -> str:
    text = f"convkit {convkit.__version__} ({device.backend()})"
    return text if _emulated else f"{text}, CuPy {_cp.__version__}"


def place(array: np.ndarray) -> Any:
    return _cp.asarray(array)


def fetch(array: Any) -> np.ndarray:
    return device.to_numpy(array)


def finish() -> None:
    _cp.cuda.get_current_stream().synchronize()


def trainer(
    network: Network, x: np.ndarray, targets: np.ndarray, batch_size: int
) -> Callable[[], tuple[float, float]]:
    model = convkit_engine.compiled_model(network).to("cuda")
    images, wanted = place(x), place(convkit_engine.wanted(network, targets))

    def epoch() -> tuple[float, float]:
        history = model.fit(images, wanted, batch_size=batch_size, epochs=1, verbose=0).history
        return history["loss"][-1], history["accuracy"][-1]

    return epoch


def predictor(network: Network) -> Callable[[Any], Any]:
    model = convkit_engine.model(network).to("cuda")
    made: dict[int, tuple[Any, Any]] = {}

    def predict(x: Any) -> Any:
        if len(x) not in made:
            shape = (len(x), *network.output_shape)
            made[len(x)] = model.compiled(len(x)), _cp.empty(shape, np.float32)
        run, out = made[len(x)]
        return run(x, out)

    return predict


def operation(case: GpuCase, arrays: list[np.ndarray]) -> Callable[[], Any]:
    there = [place(array) for array in arrays]
    if case.op == "copy":
        return _copy(*there)
    if case.backward and case.op in geometry.ACTIVATION_KINDS:
        return _activation_backward(case, *there)
    call = case.bind(ops, there)

    def run() -> Any:
        if convkit.get_precision() != case.precision:
            convkit.set_precision(case.precision)
        return call()

    return run


def _copy(x: Any) -> Callable[[], Any]:
    y = _cp.empty(x.shape, x.dtype)

    def run() -> Any:
        y[...] = x
        return y

    return run


def _activation_backward(case: GpuCase, dy: Any, x: Any) -> Callable[[], Any]:
    """From the layer's output, as in training; the function of `ops` would make it again."""
    y = getattr(ops, case.op)(x)
    kind, slope = geometry.ACTIVATION_KINDS[case.op], LEAKY_SLOPE
    spec = _core.Activation(size=math.prod(y.shape[1:]), kind=kind, slope=slope)
    return lambda: device.run_kernel(
        "activation_backward", spec, case.batch, [dy, y], [y.shape], "float32"
    )


def recorded(call: Callable[[], Any], times: int) -> Callable[[], None]:
    if _emulated:
        return lambda: [call() for _ in range(times)]
    stream = _cp.cuda.Stream(non_blocking=True)
    pool = _cp.cuda.MemoryPool()  # of the graph alone: what it uses is given to nobody else
    finish()
    with stream, _cp.cuda.using_allocator(pool.malloc):
        call()
        stream.begin_capture()
        for _ in range(times):
            call()
        graph = stream.end_capture()
        stream.synchronize()

    def launch(keep: Any = (call, pool)) -> None:
        graph.launch(_cp.cuda.get_current_stream())

    return launch


def by_events(launch: Callable[[], None]) -> float:
    if _emulated:
        begin = time.perf_counter()
        launch()
        finish()
        return time.perf_counter() - begin
    start, end = _cp.cuda.Event(), _cp.cuda.Event()
    start.record()
    launch()
    end.record()
    end.synchronize()
    return _cp.cuda.get_elapsed_time(start, end) / 1e3
