"""Tensors of PyTorch, Numba and JAX in the same memory, and their streams."""

from __future__ import annotations

from typing import Any

import gpu.required  # noqa: F401
import numpy as np
import pytest
from gpu.small_models import images, small

from convkit import device, ops

BUSY = 1 << 26


@pytest.fixture
def rows() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)


@pytest.fixture
def torch() -> Any:
    module = pytest.importorskip("torch")
    if not module.cuda.is_available():
        pytest.skip("PyTorch has no CUDA here")
    return module


@pytest.fixture
def numba() -> Any:
    module = pytest.importorskip("numba.cuda")
    if not module.is_available():
        pytest.skip("Numba has no CUDA here")
    return module


def relu(x: np.ndarray) -> np.ndarray:
    return np.maximum(x, 0)


# ---- PyTorch -----------------------------------------------------------------------------------


def test_tensors_are_read_where_they_lie(cp, torch, rows):
    x = torch.from_numpy(rows).cuda()
    assert device.is_device_array(x)
    assert device.pointer(device.as_array("relu", "x", x)) == x.data_ptr()
    y = ops.relu(x)
    assert isinstance(y, cp.ndarray)
    np.testing.assert_array_equal(device.to_numpy(y), relu(rows))
    back = torch.from_dlpack(y)
    assert back.data_ptr() == device.pointer(y)
    np.testing.assert_array_equal(back.cpu().numpy(), relu(rows))


def test_results_are_written_into_a_tensors_memory(cp, torch, rows):
    x = torch.from_numpy(rows).cuda()
    out = torch.empty_like(x)
    ops.relu(x, out=cp.from_dlpack(out))
    cp.cuda.get_current_stream().synchronize()
    np.testing.assert_array_equal(out.cpu().numpy(), relu(rows))


def test_convolutions_agree_with_pytorchs(torch):
    rng = np.random.default_rng(0)
    x, kernel, bias = (
        torch.from_numpy(rng.normal(size=shape).astype(np.float32)).cuda()
        for shape in ((16, 14, 14, 6), (5, 5, 6, 16), (16,))
    )
    with torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
        expected = torch.nn.functional.conv2d(
            x.permute(0, 3, 1, 2), kernel.permute(3, 2, 0, 1), bias
        ).permute(0, 2, 3, 1)
    found = torch.from_dlpack(ops.conv2d(x, kernel, bias))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_tensors_of_other_strides_and_numbers(torch, rows):
    x = torch.from_numpy(rows).cuda()
    np.testing.assert_array_equal(device.to_numpy(ops.relu(x.T)), relu(rows.T))
    np.testing.assert_array_equal(device.to_numpy(ops.relu(x[:, ::3])), relu(rows[:, ::3]))
    half = device.to_numpy(ops.relu(x.half()))
    np.testing.assert_array_equal(half, relu(rows.astype(np.float16)).astype(np.float32))
    labels = torch.arange(64, device="cuda") % 32
    loss = ops.sparse_categorical_crossentropy(labels, x, from_logits=True)
    right = torch.nn.functional.cross_entropy(x, labels, reduction="none")
    np.testing.assert_allclose(device.to_numpy(loss), right.cpu().numpy(), 1e-5, 1e-5)


def test_a_tensor_that_requires_gradients_is_refused(torch, rows):
    x = torch.from_numpy(rows).cuda().requires_grad_()
    with pytest.raises(TypeError, match="relu: expected x to be an array that CuPy can read"):
        ops.relu(x)
    np.testing.assert_array_equal(device.to_numpy(ops.relu(x.detach())), relu(rows))


def test_the_work_of_pytorchs_stream_is_waited_for(cp, torch):
    side = torch.cuda.Stream()
    x = torch.zeros(BUSY, device="cuda")
    torch.cuda.synchronize()
    for value in range(1, 6):
        with torch.cuda.stream(side):
            for _ in range(50):
                x.mul_(0.5)
            x.fill_(value)
            y = ops.relu(x)  # in CuPy's stream, after what `side` was given
            assert (device.to_numpy(y[-5:]) == value).all()
            with cp.cuda.Stream(non_blocking=True):
                assert (device.to_numpy(ops.relu(x)[:5]) == value).all()


def test_models_take_tensors(cp, torch):
    x, y = images()
    model = small().to("cuda")
    expected = model.predict(x)
    there = model.predict(torch.from_numpy(x).cuda())
    assert isinstance(there, cp.ndarray)
    np.testing.assert_array_equal(device.to_numpy(there), expected)
    other = small().to("cuda")
    model.fit(x, y, batch_size=8, verbose=0, shuffle=False)
    other.fit(
        torch.from_numpy(x).cuda(),
        torch.from_numpy(y).cuda(),
        batch_size=8,
        verbose=0,
        shuffle=False,
    )
    for a, b in zip(model.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


# ---- Numba and JAX -----------------------------------------------------------------------------


def test_arrays_of_numba(cp, numba, rows):
    x = numba.to_device(rows)
    assert device.is_device_array(x)
    assert device.pointer(device.as_array("relu", "x", x)) == x.device_ctypes_pointer.value
    np.testing.assert_array_equal(device.to_numpy(ops.relu(x)), relu(rows))
    out = numba.device_array_like(rows)
    ops.relu(x, out=cp.asarray(out))
    cp.cuda.get_current_stream().synchronize()
    np.testing.assert_array_equal(out.copy_to_host(), relu(rows))


def test_the_work_of_numbas_stream_is_waited_for(numba):
    stream = numba.stream()
    many = np.full(BUSY, 3, np.float32)
    x = numba.to_device(many, stream=stream)
    assert (device.to_numpy(ops.relu(x)[-5:]) == 3).all()


def test_arrays_of_jax(cp, rows, monkeypatch):
    monkeypatch.setenv("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # leaves memory to other tests
    jax = pytest.importorskip("jax")
    try:
        x = jax.device_put(rows, jax.devices("gpu")[0])
    except RuntimeError:
        pytest.skip("JAX has no GPU here")
    assert device.is_device_array(x)
    assert device.pointer(device.as_array("relu", "x", x)) == x.unsafe_buffer_pointer()
    np.testing.assert_array_equal(device.to_numpy(ops.relu(x)), relu(rows))
    back = jax.dlpack.from_dlpack(ops.relu(x))
    np.testing.assert_array_equal(np.asarray(back), relu(rows))
