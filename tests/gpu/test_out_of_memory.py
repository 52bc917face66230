"""More than there is: a MemoryError, after which everything goes on."""

from __future__ import annotations

import gc
from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from gpu.small_models import assert_same_state, images, small, train

from convkit import device, layers, models, ops
from convkit.models import placement

SPARE = 1 << 30  # bytes of the GPU that a test leaves free
PIECE = 64 << 20  # in which it takes the others


def total_bytes(cp: Any) -> int:
    return cp.cuda.runtime.memGetInfo()[1]


@pytest.fixture
def nearly_full(cp: Any) -> Any:
    """Takes the GPU's memory but for SPARE bytes, and gives it back at the end."""
    gc.collect()
    cp.get_default_memory_pool().free_all_blocks()
    if cp.cuda.runtime.memGetInfo()[0] < 2 * SPARE:
        pytest.skip("needs a GPU with 2 GiB free")
    held = []
    while cp.cuda.runtime.memGetInfo()[0] > SPARE + PIECE:
        held.append(cp.cuda.memory.Memory(PIECE))
    yield held
    held.clear()


def test_a_result_that_does_not_fit(cp):
    side = 1024
    x = cp.asarray(np.ones((1, side, side, 1), np.float32))
    factor = 1 + int((1.5 * total_bytes(cp) / x.nbytes) ** 0.5)
    with pytest.raises(MemoryError):
        ops.upsample2d(x, factor)
    pool = cp.get_default_memory_pool()
    used = pool.used_bytes()
    with pytest.raises(MemoryError):
        ops.upsample2d(x, factor, interpolation="bilinear")
    assert pool.used_bytes() == used
    y = ops.upsample2d(x, 2)
    assert y.shape == (1, 2 * side, 2 * side, 1)
    assert float(y[0, -1, -1, 0]) == 1


def test_steps_that_do_not_fit(cp):
    filters = 4096
    rows = 1 + total_bytes(cp) // (4 * 8 * 8 * filters)
    model = models.Sequential(
        [layers.Input((8, 8, 1)), layers.Conv2D(filters, 1), layers.Flatten(), layers.Dense(2)]
    )
    model.compile("sgd", "mse")
    model.to("cuda")
    before = model.get_weights()
    x, y = np.ones((rows, 8, 8, 1), np.uint8), np.zeros((rows, 2), np.float32)
    with pytest.raises(MemoryError, match=r"no room on the GPU for .* smaller batch_size"):
        train(model, x, y, batch_size=rows, epochs=1)
    for a, b in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    train(model, x[:32], y[:32], batch_size=8, epochs=1)
    assert model.optimizer.iterations.numpy() == 4
    assert model.predict(x[:5]).shape == (5, 2)


def test_ops_and_models_with_little_room(cp, nearly_full):
    big = cp.asarray(np.ones((SPARE // 10,), np.float32))  # two find room, three do not
    first = ops.relu(big)
    with pytest.raises(MemoryError):
        ops.relu(big)
    del first
    gc.collect()
    x, y = images()
    trained, expected = small().to("cuda"), small().to("cuda")
    train(trained, x, y)
    nearly_full.clear()
    del big
    train(expected, x, y)
    assert_same_state(trained, expected)


def test_data_that_do_not_fit_are_brought_batch_by_batch(cp, nearly_full):
    count = int(1.5 * SPARE) // (8 * 8)
    x = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), np.uint8)
    y = (x[:, 0, 0, 0] % 5).astype(np.int64)
    options = {"batch_size": 32768, "epochs": 1}
    streamed = small().to("cuda")
    train(streamed, x, y, **options)
    found = streamed.predict(x[:100])
    nearly_full.clear()
    cp.get_default_memory_pool().free_all_blocks()
    if cp.cuda.runtime.memGetInfo()[0] > 4 * x.nbytes:
        resident = small().to("cuda")
        train(resident, x, y, **options)
        assert_same_state(streamed, resident)
        np.testing.assert_array_equal(resident.predict(x[:100]), found)


def test_a_limit_for_the_data(cp, monkeypatch):
    x, y = images(500, np.uint8)
    resident, streamed = small().to("cuda"), small().to("cuda")
    train(resident, x, y)
    monkeypatch.setenv(placement.LIMIT, "0")
    train(streamed, x, y)
    assert_same_state(resident, streamed)
    assert device.current()[0] == 0
