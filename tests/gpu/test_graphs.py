"""CUDA graphs: those that training records, and those that a caller records of ops."""

from __future__ import annotations

from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from checkers import assert_same_bits
from gpu.small_models import assert_same_state, digits, images, lenet, small, train

from convkit import device, ops


def native(model: Any) -> Any:
    """The program of the training step that was recorded last, as the GPU runs it."""
    steps = [step for key, step in model._programs.items() if key[0][0] == "train"]
    return steps[-1].program._run


def kernel_by_kernel(model: Any, x: np.ndarray, y: np.ndarray, batch: int) -> Any:
    """The model, whose training makes no graphs."""
    step = model._training_step(model._arrays("fit", x, y), batch)
    step.program.profile(True)
    return model


@pytest.mark.parametrize("make", [small, lenet])
def test_a_replayed_step_is_the_step_kernel_by_kernel(make):
    x, y = images() if make is small else digits()[0]
    batch, options = (8, {}) if make is small else (64, {"batch_size": 64})
    replayed = make().to("cuda")
    single = kernel_by_kernel(make().to("cuda"), x, y, batch)
    for model in (replayed, single):
        train(model, x, y, epochs=3, **options)
    assert native(single).graphs() == 0
    assert native(replayed).graphs() > 0
    assert_same_state(replayed, single)


def test_epochs_are_replayed_and_record_nothing_new():
    (x, y), _ = digits()
    model = lenet().to("cuda")
    train(model, x, y, batch_size=32, epochs=2)
    graphs = native(model).graphs()
    assert 1 <= graphs <= 3  # full batches, one and several at a time, and the last of an epoch
    for rate in (1e-3, 5e-4):  # a rate is data
        model.optimizer.learning_rate = rate
        train(model, x, y, batch_size=32, epochs=2)
    assert native(model).graphs() == graphs


def test_a_caller_may_record_ops_into_a_graph_of_its_own(cp):
    rng = np.random.default_rng(0)
    shapes = (8, 14, 14, 6), (5, 5, 6, 16), (8, 10, 10, 16)
    x, kernel, dy = (cp.asarray(rng.normal(size=s).astype(np.float32)) for s in shapes)
    y, gradients = cp.empty_like(dy), tuple(cp.empty_like(a) for a in (x, kernel, kernel[0, 0, 0]))

    def work() -> None:
        ops.conv2d(x, kernel, activation="relu", out=y)
        ops.conv2d_backward(dy, x, kernel, kernel[0, 0, 0], out=gradients)

    # Workspaces stay where the graph knows them: in a pool that nobody else is given from.
    own = cp.cuda.MemoryPool()
    stream = cp.cuda.Stream(non_blocking=True)
    cp.cuda.Stream.null.synchronize()
    with stream, cp.cuda.using_allocator(own.malloc):
        work()
        stream.begin_capture()
        work()
        graph = stream.end_capture()
        for _ in range(3):
            x[...] = cp.asarray(rng.normal(size=x.shape).astype(np.float32))
            for array in (y, *gradients):
                array.fill(np.nan)
            graph.launch(stream)
            found = [device.to_numpy(array) for array in (y, *gradients)]
            work()
            for array, before in zip((y, *gradients), found, strict=True):
                assert_same_bits(device.to_numpy(array), before)
