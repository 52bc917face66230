"""`convkit bench`: a look at this machine in seconds; `bench/` measures with more care."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

import convkit
from convkit import _core, models, utils

_EPOCH = 60_000  # images in an epoch of MNIST
_TRAINED_ON = 12_800
_BATCH = 128
_INFERENCE_BATCHES = (1, 256)
_SECONDS = 0.4  # for each figure of inference


def run(arguments: argparse.Namespace) -> None:
    """Prints how long an epoch of LeNet and predictions take, beside plain NumPy."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    x = rng.random((_TRAINED_ON, 28, 28, 1), np.float32)
    y = rng.integers(0, 10, _TRAINED_ON)
    model = models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])

    threads = convkit.get_num_threads()
    print(
        f"LeNet on random images of 28 x 28, float32; {_core.backend_name()}, "
        f"{threads} thread{'s' if threads > 1 else ''}\n"
    )
    print(f"{'':<34}{'convkit':>12}{'NumPy':>12}", flush=True)
    model.fit(x[: 4 * _BATCH], y[: 4 * _BATCH], batch_size=_BATCH, verbose=0)
    start = time.perf_counter()
    model.fit(x, y, batch_size=_BATCH, verbose=0)
    seconds = (time.perf_counter() - start) * _EPOCH / _TRAINED_ON
    print(f"{f'training, epoch of {_EPOCH:,}, batch {_BATCH}':<34}{seconds:>10.2f} s", flush=True)
    weights = model.get_weights()
    for batch in _INFERENCE_BATCHES:
        images = x[:batch]
        ours = _median(partial(model.predict, images, batch))
        plain = _median(partial(numpy_lenet, images, weights))
        label = f"prediction of {batch} image{'s' if batch > 1 else ''}"
        print(f"{label:<34}{_time(ours):>12}{_time(plain):>12}{plain / ours:>9.1f} x", flush=True)


def _median(function: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    function()
    times: list[float] = []
    end = time.perf_counter() + _SECONDS
    while not times or time.perf_counter() < end:
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return float(np.median(times))


def _time(seconds: float) -> str:
    return f"{seconds * 1e3:.2f} ms" if seconds >= 1e-3 else f"{seconds * 1e6:.1f} µs"


def numpy_lenet(x: np.ndarray, weights: list[np.ndarray]) -> np.ndarray:
    """The forward pass of `convkit.models.lenet()` in plain NumPy: windows as rows of a matrix."""
    x = np.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0)))
    for kernel, bias in (weights[0:2], weights[2:4]):
        x = _pooled(np.maximum(_convolved(x, kernel) + bias, 0))
    x = x.reshape(len(x), -1)
    for kernel, bias in (weights[4:6], weights[6:8]):
        x = np.maximum(x @ kernel + bias, 0)
    x = x @ weights[8] + weights[9]
    x = np.exp(x - x.max(axis=1, keepdims=True))
    x /= x.sum(axis=1, keepdims=True)
    return x


def _convolved(x: np.ndarray, kernel: np.ndarray) -> np.ndarray:
    windows = sliding_window_view(x, kernel.shape[:2], (1, 2)).transpose(0, 1, 2, 4, 5, 3)
    rows = windows.reshape(-1, kernel[..., 0].size)
    y: np.ndarray = rows @ kernel.reshape(-1, kernel.shape[3])
    return y.reshape(*windows.shape[:3], -1)


def _pooled(x: np.ndarray) -> np.ndarray:
    n, height, width, channels = x.shape
    windows = x.reshape(n, height // 2, 2, width // 2, 2, channels)
    pooled: np.ndarray = windows.max(axis=(2, 4))
    return pooled
