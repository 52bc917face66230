"""CuPy's streams: work goes to the current one, and the caller's is current afterwards."""

from __future__ import annotations

import threading
from contextlib import suppress
from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from checkers import assert_same_bits
from gpu.small_models import assert_same_state, images, small, train

from convkit import device, ops

BUSY = 64 << 20  # elements that keep a stream busy for some tens of microseconds a call


@pytest.fixture(params=["non-blocking", "blocking", "per-thread"])
def stream(request: pytest.FixtureRequest, cp: Any) -> Any:
    if request.param == "per-thread":
        return cp.cuda.Stream.ptds
    return cp.cuda.Stream(non_blocking=request.param == "non-blocking")


def keep_busy(cp: Any, calls: int = 100) -> None:
    """Gives the current stream some milliseconds of work."""
    x = cp.zeros(BUSY, np.float32)
    for _ in range(calls):
        ops.tanh(x, out=x)


def chain(x: Any, kernel: Any) -> tuple[Any, Any]:
    """Kernels with workspaces, whose results kernels read."""
    y = ops.max_pool2d(ops.conv2d(x, kernel, activation="relu"))
    dy = ops.max_pool2d_backward(y, ops.conv2d(x, kernel))
    return y, ops.conv2d_backward(dy, x, kernel)[1]


def inputs(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    shapes = (8, 20, 20, 3), (3, 3, 3, 8)
    return tuple(rng.normal(size=shape).astype(np.float32) for shape in shapes)


def test_a_chain_of_ops_behind_other_work(cp, stream):
    there = [cp.asarray(array) for array in inputs()]
    expected = [device.to_numpy(array) for array in chain(*there)]
    with stream:
        assert device.current()[1] == stream.ptr
        keep_busy(cp)
        found = chain(*there)
        for array, right in zip(found, expected, strict=True):
            assert_same_bits(device.to_numpy(array), right)


def test_calls_return_before_the_work_is_done(cp):
    with cp.cuda.Stream(non_blocking=True) as stream:
        x = cp.asarray(inputs()[0])
        ops.relu(x)
        stream.synchronize()
        keep_busy(cp, 500)
        ops.relu(x)
        assert not stream.done
        stream.synchronize()
        assert stream.done


def test_results_are_used_in_another_stream_after_an_event(cp):
    there = [cp.asarray(array) for array in inputs()]
    expected = [device.to_numpy(array) for array in chain(*there)]
    cp.cuda.Stream.null.synchronize()
    first, second = (cp.cuda.Stream(non_blocking=True) for _ in range(2))
    for _ in range(10):
        with first:
            keep_busy(cp, 20)
            y, _ = chain(*there)
            done = first.record()
        with second:
            second.wait_event(done)
            z = ops.add(y, y)
            assert_same_bits(device.to_numpy(z), 2 * expected[0])


def test_events_around_an_op_measure_it(cp):
    x = cp.zeros(BUSY, np.float32)
    ops.tanh(x, out=x)
    start, end = cp.cuda.Event(), cp.cuda.Event()
    start.record()
    ops.tanh(x, out=x)
    end.record()
    end.synchronize()
    milliseconds = cp.cuda.get_elapsed_time(start, end)
    assert 2 * x.nbytes / (milliseconds / 1e3) < 20e12  # no GPU's memory is as fast


def test_two_threads_with_two_streams(cp):
    given = [[cp.asarray(array) for array in inputs(seed)] for seed in range(2)]
    expected = [[device.to_numpy(array) for array in chain(*there)] for there in given]
    cp.cuda.Stream.null.synchronize()
    wrong: list[BaseException] = []

    def work(which: int) -> None:
        try:
            with cp.cuda.Stream(non_blocking=True) as stream:
                for _ in range(50):
                    found = chain(*given[which])
                    assert device.current() == (0, stream.ptr)
                    for array, right in zip(found, expected[which], strict=True):
                        assert_same_bits(device.to_numpy(array), right)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def test_two_threads_that_train(cp):
    x, y = images()
    trained = [small().to("cuda") for _ in range(2)]
    wrong: list[BaseException] = []
    turn = threading.Barrier(2)

    def work(which: int) -> None:
        try:
            turn.wait()
            with cp.cuda.Stream(non_blocking=True):
                trained[which].fit(x, y, batch_size=8, epochs=5, verbose=0)
        except BaseException as error:
            wrong.append(error)

    threads = [threading.Thread(target=work, args=(which,)) for which in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
    for model in trained:
        assert model.optimizer.iterations.numpy() == 25
        assert all(np.isfinite(w).all() for w in model.get_weights())


def test_training_and_prediction_in_a_stream(cp, stream):
    x, y = images()
    here, there = small().to("cuda"), small().to("cuda")
    train(here, x, y)
    images_here = cp.asarray(x)
    expected = device.to_numpy(here.predict(images_here))
    cp.cuda.Stream.null.synchronize()
    with stream:
        keep_busy(cp)
        train(there, x, y)
        keep_busy(cp)
        assert_same_bits(device.to_numpy(ops.relu(there.predict(images_here))), expected)
        assert device.current()[1] == stream.ptr
    assert_same_state(here, there)


def test_the_callers_device_and_stream_are_as_before(cp, stream):
    x, y = images()
    rows = cp.asarray(np.ones((3, 4), np.float32))
    whole = cp.asarray(np.ones((3, 8), np.float32))
    model = small()
    cp.cuda.Stream.null.synchronize()
    with stream:
        before = cp.cuda.runtime.getDevice(), cp.cuda.get_current_stream().ptr
        for call in (
            lambda: ops.relu(rows),
            lambda: ops.relu(whole[:, ::2]),
            lambda: ops.dense(rows, whole),  # refused
            lambda: ops.relu(rows, out=whole),  # refused
            lambda: model.to("cuda"),
            lambda: train(model, x, y),
            lambda: model.predict(cp.asarray(x)),
            lambda: model.evaluate(x, y, verbose=0),
            lambda: model.compiled(4)(x[:3]),
            lambda: model.to("cpu"),
        ):
            with suppress(ValueError):
                call()
            assert (cp.cuda.runtime.getDevice(), cp.cuda.get_current_stream().ptr) == before


def test_arrays_of_a_gpu_that_is_not_current(cp):
    if cp.cuda.runtime.getDeviceCount() < 2:
        pytest.skip("needs two GPUs")
    given = inputs()
    expected = [device.to_numpy(a) for a in chain(*(cp.asarray(array) for array in given))]
    with cp.cuda.Device(1):
        there = [cp.asarray(array) for array in given]
    found = chain(*there)
    assert cp.cuda.runtime.getDevice() == 0
    for array, right in zip(found, expected, strict=True):
        assert device.device_of(array) == 1
        assert_same_bits(device.to_numpy(array), right)
    x, y = images()
    models = [small().to(place) for place in ("cuda:0", "cuda:1")]
    for model in models:
        train(model, x, y)
    assert cp.cuda.runtime.getDevice() == 0
    assert_same_state(*models)
