"""Results that are too large for the caches: their bits, and the memory that they are given."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from checkers import assert_same_bits

from convkit import _core, ops

MIB = 1 << 20
PAST_CACHES = 16 * MIB  # csrc/cpu/stream.h
MOST_KEPT = 256 * MIB  # csrc/bind/results.cpp

FEW = (427, 431, 6)  # of a sample, channels that do not fill a vector
MANY = (257, 251, 17)  # and channels that fill more than one
WHOLE = (257, 251, 16)  # or whole vectors
SHAPES = {"few": FEW, "many": MANY, "whole": WHOLE}

Op = Callable[..., Any]


def halves(x: np.ndarray, window: int) -> np.ndarray:
    """As many values as there are windows at every second row and column."""
    height, width = ((size - window) // 2 + 1 for size in x.shape[1:3])
    return x[:, :height, :width]


CASES: dict[str, Op] = {
    "relu": lambda x, out: ops.relu(x, out=out),
    "relu_backward": lambda x, out: ops.relu_backward(x, x, out=out),
    "gelu": lambda x, out: ops.gelu(x, out=out),
    "gelu_backward": lambda x, out: ops.gelu_backward(x, x, out=out),
    "add": lambda x, out: ops.add(x, x, out=out),
    "multiply": lambda x, out: ops.multiply(x, x, out=out),
    "concatenate": lambda x, out: ops.concatenate((x, x), out=out),
    "concatenate_backward": lambda x, out: ops.concatenate_backward(
        x, (x[..., :1], x[..., 1:]), out=None if out is None else (None, out), needs=(False, True)
    )[1],
    **{
        f"{op}_{window}": lambda x, out, op=op, window=window: getattr(ops, op)(
            x, window, strides=1, out=out
        )
        for op in ("max_pool2d", "avg_pool2d")
        for window in (2, 3)
    },
    **{
        f"{op}_backward": lambda x, out, op=op: getattr(ops, f"{op}_backward")(
            x[:, 1:-1, 1:-1], x, 3, strides=1, out=out
        )
        for op in ("max_pool2d", "avg_pool2d")
    },
    **{
        f"{op}_{window}_backward": lambda x, out, op=op, window=window: getattr(
            ops, f"{op}_backward"
        )(halves(x, window), x, window, strides=2, out=out)
        for op in ("max_pool2d", "avg_pool2d")
        for window in (2, 3)
    },
    **{
        kind: lambda x, out, kind=kind: ops.upsample2d(x, (1, 2), interpolation=kind, out=out)
        for kind in ("nearest", "bilinear")
    },
    **{
        f"{kind}_backward": lambda x, out, kind=kind: ops.upsample2d_backward(
            x, x[:, :, ::2], (1, 2), interpolation=kind, out=out
        )
        for kind in ("nearest", "bilinear")
    },
}


@pytest.fixture(autouse=True)
def nothing_kept() -> Iterator[None]:
    _core.release_memory()
    yield
    _core.release_memory()


def large(name: str, shape: tuple[int, ...], rng: np.random.Generator) -> np.ndarray:
    """Samples of this shape, whose result goes past the caches while that of one does not."""
    if "backward" in name and ("nearest" in name or "bilinear" in name):
        shape = (shape[0], 2 * shape[1] // 4 * 4, shape[2])  # of dy, twice as wide as the result
    return rng.standard_normal((5, *shape), np.float32)


@pytest.mark.parametrize("channels", SHAPES)
@pytest.mark.parametrize("name", CASES)
def test_large_results_have_the_bits_of_small_ones(name, channels, backend, rng):
    op = CASES[name]
    x = large(name, SHAPES[channels], rng)
    y = op(x, None)
    assert y.nbytes >= PAST_CACHES > y[:1].nbytes
    for i in range(len(x)):
        assert_same_bits(y[i : i + 1], op(x[i : i + 1], None))
    # Where a vector never begins on a line of cache.
    memory = np.full(y.size + 2, np.nan, np.float32)
    out = memory[1:-1].reshape(y.shape)
    assert op(x, out) is out
    assert_same_bits(out, y)
    assert np.isnan(memory[0])
    assert np.isnan(memory[-1])


def test_large_results_may_take_the_place_of_what_they_are_made_of(backend, rng):
    x = large("relu", FEW, rng)
    right = ops.relu(x)
    assert_same_bits(ops.relu(x, out=x), right)


def test_memory_of_a_large_result_serves_the_next(rng):
    x = rng.standard_normal((2 * MIB,), np.float32)
    y = ops.relu(x)
    first = y.ctypes.data
    assert first % 64 == 0
    assert _core.kept_memory() == 0
    del y
    assert 8 * MIB <= _core.kept_memory() <= 12 * MIB
    y = ops.exp(x)
    assert y.ctypes.data == first
    assert _core.kept_memory() == 0
    assert_same_bits(y, ops.exp(x.reshape(2, -1)).reshape(-1))


@pytest.mark.parametrize("size", [MIB, 2 * MIB, 4 * MIB, 5 * MIB, 6 * MIB - 64, 16 * MIB, 33 * MIB])
def test_memory_of_a_large_result_is_little_more_than_its_values(size):
    y = ops.relu(np.ones(size // 4, np.float32))
    del y
    assert size < _core.kept_memory() <= size * 9 // 8 + MIB // 16


def test_much_smaller_results_leave_it_to_others():
    y = ops.relu(np.ones(8 * MIB, np.float32))
    del y
    kept = _core.kept_memory()
    small = ops.relu(np.ones(MIB, np.float32))
    assert _core.kept_memory() == kept
    assert small[-1] == 1


def test_what_is_kept_is_bounded():
    x = np.ones(16 * MIB // 4, np.float32)
    results = [ops.relu(x) for _ in range(20)]
    results.clear()
    assert MOST_KEPT - 32 * MIB <= _core.kept_memory() <= MOST_KEPT
    _core.release_memory()
    assert _core.kept_memory() == 0


def test_small_results_are_numpys_own():
    y = ops.relu(np.ones(1000, np.float32))
    del y
    assert _core.kept_memory() == 0


def test_large_results_are_arrays_as_any_other():
    y = ops.relu(np.arange(MIB, dtype=np.float32))
    assert y.flags.owndata
    assert y.base is None
    y.resize(2 * MIB, refcheck=False)
    assert y[MIB - 1] == MIB - 1
    assert not y[MIB:].any()
    y.resize(3, refcheck=False)
    assert y.tolist() == [0, 1, 2]
    assert np.empty(MIB, np.float32).flags.owndata  # NumPy goes on as before
    before = _core.kept_memory()
    np.empty(MIB, np.float32)
    assert _core.kept_memory() == before


def test_threads_share_it(rng):
    x = rng.standard_normal((MIB,), np.float32)
    right = ops.relu(x)
    wrong: list[int] = []

    def work(thread: int) -> None:
        for _ in range(20):
            if not np.array_equal(ops.relu(x), right):
                wrong.append(thread)

    threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_results_may_outlive_the_interpreter(tmp_path):
    program = """
import sys
import numpy as np
from convkit import ops
sys.kept_for_ever = [ops.relu(np.ones(1 << 20, np.float32)) for _ in range(4)]
sys.kept_for_ever.pop()
"""
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60, cwd=tmp_path)
