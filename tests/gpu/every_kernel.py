"""Calls every kernel on small arrays, forward and backward, and trains a few steps.

`sanitize.py` runs it under compute-sanitizer; alone it says whether all kernels ran. Values are
looked at by other tests.
"""

from __future__ import annotations

import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import numpy as np
from cases import CASES, CONV2D, CONV2D_LARGE, DENSE, DENSE_LARGE, Case, arrays, typical, upstream
from checkers import backward, forward

import convkit
from convkit import _core, device, geometry, layers, models, optimizers, utils
from convkit.models import placement

# Those that only processors have.
ELSEWHERE = ("tile_", "untile", "multiply_add_peak")


def main() -> int:
    called: set[str] = set()
    _note_calls(called)
    cp = device.array_module()
    many = [case for case in CASES if case.op not in ("conv2d", "dense")]
    for dtype in (np.float32, np.float64):
        for case in [*typical(CASES), *many]:
            _call(case, dtype, cp)
    print("ops: done", flush=True)
    for precision in ("float32", "tf32", "bf16"):
        convkit.set_precision(precision)
        for case in [*CONV2D, *DENSE, *CONV2D_LARGE, *DENSE_LARGE]:
            _call(case, np.float32, cp)
        print(f"convolutions and dense layers in {precision}: done", flush=True)
    convkit.set_precision("float32")
    _of_programs()
    print("kernels that only programs use: done", flush=True)
    _train()
    print("training: done", flush=True)
    cp.cuda.get_current_stream().synchronize()
    missed = [n for n in _core.kernel_names() if n not in called and not n.startswith(ELSEWHERE)]
    print(f"{len(called)} kernels were called" + (f"; not: {', '.join(missed)}" if missed else ""))
    return 1 if missed else 0


def _note_calls(called: set[str]) -> None:
    """From now on `called` holds the names of kernels that Python asks for."""
    for name in ("run_on_device", "run_kernel"):
        native = getattr(_core, name)

        def noted(*arguments: Any, native: Any = native, **named: Any) -> Any:
            called.add(arguments[0] if native.__name__ == "run_kernel" else arguments[1])
            return native(*arguments, **named)

        setattr(_core, name, noted)


def _call(case: Case, dtype: Any, cp: Any) -> None:
    given = arrays(case, dtype)
    there = [None if array is None else cp.asarray(array) for array in given]
    y = forward(case, there)
    backward(case, cp.asarray(upstream(case, y.shape, dtype)), there)


def _of_programs() -> None:
    """On NumPy arrays, which are copied to the GPU and back."""
    before = _core.backend_name()
    _core.use_backend(device.backend())
    try:
        for dtype in ("float32", "float64"):
            for n, size in ((3, 7), (70, 33)):
                _data_and_sums(n, size, dtype)
                _losses(n, size, dtype)
                _counts(n, size, dtype)
                _updates(n * size, dtype)
            _joined_layers(dtype)
    finally:
        _core.use_backend(before)


def _data_and_sums(n: int, size: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(n, size)).astype(dtype)
    index = rng.integers(0, n, n)
    pixels = rng.integers(0, 200, (n, size)).astype(np.uint8)
    rows = _core.Gather(size=size, type=0, scale=1 / 255, offset=-0.5)
    _core.run_kernel("gather", rows, n, dtype, [pixels, index], [x.shape])
    labels = _core.Gather(size=1, type=0, scale=1.0, offset=0.0)
    found = np.zeros(n, np.int32)
    _core.run_kernel("gather_labels", labels, n, dtype, [pixels[:, 0].copy(), index], [found])
    random = np.array([7, 1])
    dropout = _core.Dropout(size=size, stream=3, rate=0.3)
    _core.run_kernel("dropout", dropout, n, dtype, [x, random], [x.shape])
    turned = _core.Transpose(rows=1, columns=size)
    _core.run_kernel("transpose", turned, n, dtype, [x], [x.shape])
    turned = _core.Transpose(rows=n, columns=size)
    _core.run_kernel("transpose", turned, 1, dtype, [x], [x.shape])
    mean = _core.Mean(rows=size)
    _core.run_kernel("mean", mean, n, dtype, [x], [(1,)])
    _core.run_kernel("mean_backward", mean, n, dtype, [np.ones(1, dtype)], [x.shape])
    _core.run_kernel("accumulate", mean, n, dtype, [x], [np.zeros(2)])


def _losses(n: int, size: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    spec = _core.Loss(rows=1, size=size, inner=1, from_logits=1)
    x, shares = rng.normal(size=(n, size)).astype(dtype), rng.random((n, size)).astype(dtype)
    labels, dloss = rng.integers(0, size, n).astype(np.int32), np.ones(n, dtype)
    for name, target in (("softmax", shares), ("sparse_softmax", labels)):
        y, _ = _core.run_kernel(
            f"{name}_crossentropy", spec, n, dtype, [target, x], [x.shape, (n,)]
        )
        inputs = [dloss, target, y]
        _core.run_kernel(f"{name}_crossentropy_backward", spec, n, dtype, inputs, [x.shape])
    for name, target in (("categorical", shares), ("sparse_categorical", labels), ("binary", x)):
        _core.run_kernel(f"{name}_accuracy", spec, n, dtype, [target, x], [(n,)])


def _counts(n: int, size: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    y, x = (rng.random((n, size)).astype(dtype) for _ in range(2))
    labels = rng.integers(0, size, n).astype(np.int32)
    top, pairs = _core.TopK(rows=1, size=size, inner=1, k=3), _core.Confusion(rows=1, columns=size)
    for prefix, target in (("", y), ("sparse_", labels)):
        _core.run_kernel(f"{prefix}top_k_accuracy", top, n, dtype, [target, x], [(n,)])
        inputs = [target, x, np.zeros((size, size))]
        _core.run_kernel(f"{prefix}confusion_matrix", pairs, n, dtype, inputs, [])
    for per_column, largest in ((0, 0), (1, 1), (1, -2)):
        spec = _core.ThresholdCounts(
            rows=1, columns=size, thresholds=5, per_column=per_column, largest=largest
        )
        counts = np.zeros((4, 5, size if per_column else 1))
        inputs = [y, x, np.linspace(0, 1, 5), counts]
        _core.run_kernel("threshold_counts", spec, n, dtype, inputs, [])


def _updates(size: int, dtype: str) -> None:
    rng = np.random.default_rng(0)
    gradient, parameter, m = (rng.normal(size=size).astype(dtype) for _ in range(3))
    rate, step = np.array([0.01], dtype), np.array([1])
    for momentum, velocity in ((0.9, m), (0.0, None)):
        sgd = _core.Sgd(size=size, momentum=momentum, nesterov=1)
        _core.run_kernel("sgd", sgd, 1, dtype, [rate, gradient], [velocity, parameter])
    adam = _core.Adam(size=size, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    inputs = [rate, step, gradient]
    _core.run_kernel("adam", adam, 1, dtype, inputs, [m, rng.random(size).astype(dtype), parameter])
    _core.run_kernel("next_step", _core.Elementwise(size=1), 1, dtype, [], [step])


def _joined_layers(dtype: str) -> None:
    """Convolutions with pooling and activation, dense layers with activation."""
    for case in (c for c in CONV2D if c.name.startswith("lenet")):
        strides, groups = case.options.get("strides", 1), case.options.get("groups", 1)
        padding = case.options.get("padding", "valid")
        conv, (n, height, width, filters) = geometry.conv2d(
            "conv2d", *case.shapes, strides, padding, 1, groups
        )
        spec = _core.FusedConv2d(conv=conv, activation=0, slope=0, pool_height=2, pool_width=2)
        shape = (n, height // 2, width // 2, filters)
        _core.run_kernel("fused_conv2d", spec, n, dtype, arrays(case, dtype), [shape])
    for case in (c for c in DENSE if c.name.startswith("lenet")):
        some = replace(case, shapes=((9, *case.shapes[0][1:]), *case.shapes[1:]))
        dense, shape = geometry.dense("dense", *some.shapes)
        spec = _core.FusedDense(dense=dense, activation=0, slope=0)
        _core.run_kernel("fused_dense", spec, shape[0], dtype, arrays(some, dtype), [shape])


def _model(dtype: str, optimizer: Any, loss: str) -> models.Sequential:
    utils.set_random_seed(0)
    model = models.Sequential(
        [
            layers.Input((12, 12, 1), dtype=dtype),
            layers.Conv2D(6, 3, padding="same", activation="relu", dtype=dtype),
            layers.MaxPooling2D(2, dtype=dtype),
            layers.Conv2D(8, 3, activation="tanh", dtype=dtype),
            layers.AveragePooling2D(2, dtype=dtype),
            layers.Flatten(dtype=dtype),
            layers.Dense(16, activation="relu", dtype=dtype),
            layers.Dropout(0.2, dtype=dtype),
            layers.Dense(5, activation="softmax", dtype=dtype),
        ]
    )
    model.compile(optimizer, loss, metrics=["accuracy"])
    return model


def _train() -> None:
    """Two epochs of two steps of eight and one of three: single kernels, then graphs."""
    rng = np.random.default_rng(0)
    x, labels = rng.integers(0, 256, (19, 12, 12, 1)).astype(np.uint8), rng.integers(0, 5, 19)
    one_hot = utils.to_categorical(labels, 5)
    sparse, categorical = "sparse_categorical_crossentropy", "categorical_crossentropy"
    for dtype, optimizer, loss in (
        ("float32", "adam", sparse),
        ("float32", optimizers.SGD(0.01, momentum=0.9), categorical),
        ("float64", "adam", categorical),
    ):
        targets = labels if loss == sparse else one_hot
        for limit in (None, "0"):  # data on the GPU, and brought there batch by batch
            if limit is not None:
                os.environ[placement.LIMIT] = limit
            model = _model(dtype, optimizer, loss).to("cuda")
            model.fit(x, targets, batch_size=8, epochs=2, verbose=0)
            model.evaluate(x, targets, batch_size=8, verbose=0)
            model.predict(x, batch_size=8)
            model.compiled(4)(x[:3])
            os.environ.pop(placement.LIMIT, None)


if __name__ == "__main__":
    sys.exit(main())
