"""Kernels, or ways of them, that programs use and no op does, on devices: against the processor's.

These have tests of their own, through programs.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits

from convkit import _core, ops

SOURCES = {0: np.uint8, 1: np.int32, 2: np.int64, 3: np.float32, 4: np.float64, 5: np.bool_}
# A single value, part of a warp, more than a block, and more than one block takes in one turn.
SIZES = [(1, 1), (3, 5), (7, 44), (33, 31), (300, 17), (2, 5000)]


def on_both(
    device: str, kernel: str, spec: Any, n: int, dtype: Any, inputs: list, outputs: list
) -> list[tuple[Any, Any]]:
    """What the device and the processor make of copies of the same arrays."""
    found = []
    for backend in (device, _core.available_backends()[-1]):
        _core.use_backend(backend)
        targets = [o.copy() if isinstance(o, np.ndarray) else o for o in outputs]
        found.append(_core.run_kernel(kernel, spec, n, np.dtype(dtype).name, inputs, targets))
    return list(zip(*found, strict=True))


def assert_exact(pairs: list[tuple[Any, Any]]) -> None:
    for actual, expected in pairs:
        if expected is not None:
            assert_same_bits(actual, expected)


def assert_close(pairs: list[tuple[Any, Any]], dtype: Any, factor: float = 16) -> None:
    tolerance = factor * np.finfo(dtype).eps
    for actual, expected in pairs:
        if expected is not None:
            np.testing.assert_allclose(actual, expected, rtol=tolerance, atol=tolerance)


# ---- activations, transposing and convolutions ---------------------------------------------------


@pytest.mark.parametrize(("n", "size"), SIZES)
def test_linear_is_a_copy(device_backend, dtype, rng, n, size):
    x, dy = (rng.normal(size=(n, size)).astype(dtype) for _ in range(2))
    spec = _core.Activation(size=size, kind=-1, slope=0.0)
    pairs = on_both(device_backend, "activation", spec, n, dtype, [x], [x.shape])
    assert_exact([*pairs, (pairs[0][0], x)])
    pairs = on_both(device_backend, "activation_backward", spec, n, dtype, [dy, x], [x.shape])
    assert_exact([*pairs, (pairs[0][0], dy)])


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 5, 7), (2, 33, 65), (3, 150, 151)])
def test_transpose(device_backend, dtype, rng, shape):
    n, rows, columns = shape
    x = rng.normal(size=shape).astype(dtype)
    spec = _core.Transpose(rows=rows, columns=columns)
    pairs = on_both(device_backend, "transpose", spec, n, dtype, [x], [(n, columns, rows)])
    assert_exact([*pairs, (pairs[0][0], np.ascontiguousarray(x.swapaxes(1, 2)))])


def test_windows_that_places_in_32_bits_do_not_hold(device_backend):
    x, kernel = np.full((1, 1, 1, 1), 3, np.float32), np.ones((2, 1, 1, 1), np.float32)
    far = {"dilation_rate": (2**28, 1), "padding": ((2**28, 0), (0, 0))}
    assert ops.conv2d(x, kernel, **far).tolist() == [[[[3]]]]
    farther = {"dilation_rate": (2**29, 1), "padding": ((2**29, 0), (0, 0))}
    with pytest.raises(RuntimeError, match=r"^conv2d: expected .* at most 2\^29, got 1073741824$"):
        ops.conv2d(x, kernel, **farther)


def test_more_blocks_than_a_launch_can_have(device_backend):
    """Backward, a stride makes as many classes of pixels, down and across, of a block each."""
    if device_backend != "cuda_emulated":
        pytest.skip("of the emulated device, which takes fewer")
    x, dy = np.zeros((1, 1026, 1026, 1), np.float32), np.zeros((1, 2, 2, 1), np.float32)
    with pytest.raises(RuntimeError, match=r"^conv2d_backward_input: more blocks than a launch"):
        ops.conv2d_backward(dy, x, np.ones((1, 1, 1, 1), np.float32), strides=1025)


# ---- data ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(("rows", "size"), SIZES)
@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("by_index", [False, True])
def test_gather(device_backend, dtype, rng, rows, size, source, by_index):
    data = rng.integers(0, 2 if source == 5 else 200, (rows + 3, size)).astype(SOURCES[source])
    index = rng.integers(0, rows + 3, rows) if by_index else None
    for scale, offset in ((1.0, 0.0), (1 / 255, -0.5)):
        spec = _core.Gather(size=size, type=source, scale=scale, offset=offset)
        pairs = on_both(device_backend, "gather", spec, rows, dtype, [data, index], [(rows, size)])
        assert_close(pairs, dtype, 2)


@pytest.mark.parametrize("source", SOURCES)
def test_gather_labels(device_backend, rng, source):
    values = [0, 1, 2, 199] if source != 5 else [0, 1]
    if source in (3, 4):
        values += [-1.5, np.nan, np.inf, -np.inf, 2.0**31, 2.0**31 - 129, -(2.0**31), 0.99]
    if source == 2:
        values += [2**31, 2**31 - 1, -(2**31), -(2**31) - 1, 2**40]
    data = np.array(values, SOURCES[source])
    index = rng.permutation(len(values))
    spec = _core.Gather(size=1, type=source, scale=1.0, offset=0.0)
    y = np.zeros(len(values), np.int32)
    pairs = on_both(
        device_backend, "gather_labels", spec, len(values), "float32", [data, index], [y]
    )
    assert_exact(pairs)


# ---- dropout -------------------------------------------------------------------------------------


@pytest.mark.parametrize(("n", "size"), SIZES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.999])
def test_dropout(device_backend, dtype, rng, n, size, rate):
    x = rng.normal(size=(n, size)).astype(dtype)
    for random in ([7, 1], [-1, 2**40]):
        spec = _core.Dropout(size=size, stream=3, rate=rate)
        inputs = [x, np.array(random)]
        assert_exact(on_both(device_backend, "dropout", spec, n, dtype, inputs, [x.shape]))


# ---- scores and sums -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shape", [(1, 1, 1, 1), (5, 1, 10, 1), (70, 3, 7, 2), (2, 2, 700, 1), (0, 1, 4, 1)]
)
@pytest.mark.parametrize("ties", [False, True])
def test_accuracies(device_backend, dtype, rng, shape, ties):
    n, rows, size, inner = shape
    spec = _core.Loss(rows=rows, size=size, inner=inner, from_logits=0)
    draw = (lambda: rng.integers(0, 3, shape)) if ties else (lambda: rng.random(shape))
    target, prediction = (draw().astype(dtype) for _ in range(2))
    if prediction.size > 3:
        prediction.ravel()[3] = np.nan
    labels = rng.integers(0, size, (n, rows, inner)).astype(np.int32)
    ones = (target > 0.5).astype(dtype)
    scores = [(n, rows, inner)]
    for kernel, first in (
        ("categorical_accuracy", target),
        ("sparse_categorical_accuracy", labels),
        ("binary_accuracy", ones),
    ):
        pairs = on_both(device_backend, kernel, spec, n, dtype, [first, prediction], scores)
        assert_close(pairs, dtype, 2)


@pytest.mark.parametrize("n", [0, 1, 3, 255, 1000, 70000])
def test_means_and_sums(device_backend, dtype, rng, n):
    spec = _core.Mean(rows=2)
    x = rng.random((n, 2)).astype(dtype)
    if n:
        assert_close(on_both(device_backend, "mean", spec, n, dtype, [x], [(1,)]), dtype, 64)
    dy = np.array([3.0], dtype)
    assert_exact(on_both(device_backend, "mean_backward", spec, n, dtype, [dy], [x.shape]))
    total = np.array([0.25, 4.0])
    assert_close(on_both(device_backend, "accumulate", spec, n, dtype, [x], [total]), np.float64)


@pytest.mark.parametrize("shape", [(1, 1, 1, 1), (5, 1, 10, 1), (40, 3, 7, 2), (2, 1, 700, 1)])
@pytest.mark.parametrize("sparse", [False, True])
def test_softmax_and_crossentropy_in_one(device_backend, dtype, rng, shape, sparse):
    n, rows, size, inner = shape
    spec = _core.Loss(rows=rows, size=size, inner=inner, from_logits=1)
    x = (4 * rng.normal(size=shape)).astype(dtype)
    x.ravel()[0] = 300  # the others of its row have a probability of 0
    name = "sparse_softmax_crossentropy" if sparse else "softmax_crossentropy"
    if sparse:
        target: np.ndarray = rng.integers(0, size, (n, rows, inner)).astype(np.int32)
        if n > 1:
            target.ravel()[-1] = size  # no class
    else:
        target = rng.random(shape).astype(dtype)
    losses = (n, rows, inner)
    for from_logits in (0, 1):
        spec = _core.Loss(rows=rows, size=size, inner=inner, from_logits=from_logits)
        pairs = on_both(device_backend, name, spec, n, dtype, [target, x], [shape, losses])
        assert_close(pairs, dtype, 128)
        dloss, y = rng.normal(size=losses).astype(dtype), pairs[0][1]
        inputs = [dloss, target, y]
        pairs = on_both(device_backend, f"{name}_backward", spec, n, dtype, inputs, [shape])
        assert_close(pairs, dtype, 128)


# ---- optimizers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5, 127, 256, 1025, 40000])
def test_updates(device_backend, dtype, rng, size):
    gradient, parameter, m = (rng.normal(size=size).astype(dtype) for _ in range(3))
    v = rng.random(size).astype(dtype)
    rate = np.array([0.01], dtype)
    for nesterov in (0, 1):
        spec = _core.Sgd(size=size, momentum=0.9, nesterov=nesterov)
        pairs = on_both(device_backend, "sgd", spec, 1, dtype, [rate, gradient], [m, parameter])
        assert_close(pairs, dtype)
    spec = _core.Sgd(size=size, momentum=0.0, nesterov=0)
    pairs = on_both(device_backend, "sgd", spec, 1, dtype, [rate, gradient], [None, parameter])
    assert_close(pairs, dtype)
    spec = _core.Adam(size=size, beta_1=0.9, beta_2=0.999, epsilon=1e-7)
    for step in (1, 1000):
        inputs = [rate, np.array([step]), gradient]
        pairs = on_both(device_backend, "adam", spec, 1, dtype, inputs, [m, v, parameter])
        assert_close(pairs, dtype, 64)


@pytest.mark.parametrize("counter", [[0], [41], [-7, 2**40]])
def test_counters_go_up(device_backend, counter):
    spec = _core.Elementwise(size=len(counter))
    pairs = on_both(device_backend, "next_step", spec, 1, "float32", [], [np.array(counter)])
    assert pairs[0][0].tolist() == [*counter[:-1], counter[-1] + 1]
    assert_exact(pairs)
