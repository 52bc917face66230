"""CuPy's pool: results and workspaces are from it and go back, and no more is taken over time."""

from __future__ import annotations

from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from gpu.small_models import images, small, train

from convkit import _core, device, ops

CALLS = 100


def used(cp: Any) -> tuple[int, ...]:
    """What the pool holds, what of it is in use, what the kernels' library has taken itself, and
    what is free on the GPU."""
    cp.cuda.Stream.null.synchronize()
    pool = cp.get_default_memory_pool()
    return (
        pool.total_bytes(),
        pool.used_bytes(),
        _core.device_blocks(device.backend()),
        cp.cuda.runtime.memGetInfo()[0],
    )


def assert_no_growth(before: tuple[int, ...], after: tuple[int, ...]) -> None:
    assert after[:3] == before[:3]
    # The driver may take a little for itself, but not a little for each call.
    assert before[3] - after[3] < CALLS * 1024 * 1024 // 2


def test_ops_take_no_more_after_the_first_call(cp):
    rng = np.random.default_rng(0)
    x, kernel, weights = (
        cp.asarray(rng.normal(size=shape).astype(np.float32))
        for shape in ((32, 28, 28, 6), (5, 5, 6, 16), (16, 10))
    )
    labels = cp.asarray(rng.integers(0, 16, (32, 24, 24)))

    def call() -> None:
        y = ops.conv2d(x, kernel, activation="relu")
        ops.conv2d_backward(y, x, kernel, activation="relu")
        ops.max_pool2d_backward(ops.max_pool2d(x, 3, strides=1), x, 3, strides=1)
        ops.dense(ops.avg_pool2d(y, 24).reshape(32, 16), weights)
        ops.sparse_categorical_crossentropy(labels, y, from_logits=True)
        ops.softmax(y, axis=1)

    for _ in range(3):
        call()
    before = used(cp)
    for _ in range(CALLS):
        call()
    assert_no_growth(before, used(cp))


def test_models_take_no_more_after_the_first_use(cp):
    x, y = images()
    there = cp.asarray(x)
    model = small().to("cuda")
    run = model.compiled(8)

    def use() -> None:
        train(model, x, y, epochs=1)
        model.evaluate(x, y, verbose=0)
        model.predict(there)
        run(there[:3])

    for _ in range(3):
        use()
    before = used(cp)
    for _ in range(CALLS):
        use()
    assert_no_growth(before, used(cp))


def test_results_live_in_the_pool(cp):
    x = cp.asarray(np.zeros((64, 64), np.float32))
    pool = cp.get_default_memory_pool()
    before = pool.used_bytes()
    y = ops.relu(x)
    assert pool.used_bytes() - before >= y.nbytes
    del y
    assert pool.used_bytes() == before


def test_the_allocator_that_is_current_is_asked(cp):
    x = cp.asarray(np.arange(2 * 9 * 9 * 3, dtype=np.float32).reshape(2, 9, 9, 3))
    own = cp.cuda.MemoryPool()
    with cp.cuda.using_allocator(own.malloc):
        y = ops.max_pool2d(x, 3, strides=1)
        assert own.used_bytes() >= y.nbytes
        before = own.total_bytes()
        dx = ops.max_pool2d_backward(y, x, 3, strides=1)
        assert own.total_bytes() - before >= dx.nbytes
    assert device.to_numpy(y).shape == (2, 7, 7, 3)


def test_a_limit_of_the_pool_is_a_memory_error(cp):
    x = cp.asarray(np.ones(1 << 20, np.float32))
    own = cp.cuda.MemoryPool()
    own.set_limit(size=x.nbytes + (x.nbytes >> 1))
    with cp.cuda.using_allocator(own.malloc):
        first = ops.relu(x)
        with pytest.raises(MemoryError):
            ops.relu(x)
        del first
        assert float(ops.relu(x)[0]) == 1
