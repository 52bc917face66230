"""Arrays on a GPU: CuPy's, and those of other libraries that CuPy reads where they lie.

CuPy is imported here and nowhere else, when it is first needed. New arrays are from CuPy's pool,
work goes to CuPy's current stream of the arrays' device, and the caller's device and stream are
current afterwards as they were before.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from convkit import _core
from convkit.geometry import Shape

# Types of devices in DLPack whose memory kernels can reach: kDLCUDA and kDLCUDAManaged.
_DLPACK_CUDA = (2, 13)
# CUDA's default stream by a handle that is not null; CuPy has null for it.
_DEFAULT_STREAM = 1


class _Binding(NamedTuple):
    module: Any  # CuPy, or what stands for it
    backend: str  # the kernels that run on its arrays


_binding: _Binding | None = None  # once there is one


def _bound(op: str) -> _Binding:
    global _binding
    if _binding is None:
        _binding = _bind(op)
    return _binding


def _bind(op: str) -> _Binding:
    try:
        backend = _core.load_device()
    except RuntimeError as error:
        raise RuntimeError(f"{op}: {str(error).removeprefix('cuda: ')}") from None
    try:
        return _Binding(importlib.import_module("cupy"), backend)
    except Exception as error:  # CuPy's import asks the driver, which may fail in many ways
        if isinstance(error, ModuleNotFoundError) and error.name == "cupy":
            reason = "CuPy is missing: pip install cupy-cuda13x or cupy-cuda12x"
        else:
            told = str(error).strip() or type(error).__name__
            reason = f"CuPy cannot be imported: {told.splitlines()[0]}"
        raise RuntimeError(f"{op}: {reason}") from None


@contextmanager
def stand_in(module: Any, backend: str) -> Iterator[None]:
    """For tests: another module in CuPy's place, whose arrays kernels of `backend` can reach."""
    global _binding
    before = _binding
    _binding = _Binding(module, backend)
    try:
        yield
    finally:
        _binding = before


def require(op: str) -> None:
    """RuntimeError, in one sentence, where no GPU can be used: no CUDA kernels in this build, no
    CuPy, no driver, no GPU, or one of them too old."""
    _bound(op)


def available() -> bool:
    """Whether arrays on a GPU can be used."""
    try:
        require("cuda")
    except RuntimeError:
        return False
    return True


def array_module(op: str = "cuda") -> Any:
    """CuPy. RuntimeError as `require`."""
    return _bound(op).module


def backend(op: str = "cuda") -> str:
    """The name of the kernels that run on the arrays, as `_core` knows it."""
    return _bound(op).backend


def is_device_array(x: object) -> bool:
    """Whether x is an array on a GPU: CuPy's, or one that says so by DLPack or by
    `__cuda_array_interface__`. Does not import CuPy."""
    if x is None or isinstance(x, np.ndarray):
        return False
    if _binding is not None and isinstance(x, _binding.module.ndarray):
        return True
    if hasattr(x, "__dlpack_device__"):
        try:
            return x.__dlpack_device__()[0] in _DLPACK_CUDA
        except Exception:  # of a tensor that is in several places, for one
            return False
    return hasattr(x, "__cuda_array_interface__")


def as_array(op: str, name: str, x: Any) -> Any:
    """An array on a GPU as CuPy's, in the same memory.

    CuPy's current stream waits for what the array's own library has yet to do, where that says so.

    Raises:
        TypeError: naming op and argument, where CuPy cannot read it.
        RuntimeError: as `require`.
    """
    module = _bound(op).module
    if isinstance(x, module.ndarray):
        return x
    try:
        return module.from_dlpack(x) if hasattr(x, "__dlpack__") else module.asarray(x)
    except (TypeError, ValueError, AttributeError, BufferError, RuntimeError) as error:
        raise TypeError(
            f"{op}: expected {name} to be an array that CuPy can read, got a "
            f"{type(x).__name__} ({error})"
        ) from None


def device_of(x: Any) -> int:
    """The device that a CuPy array is on."""
    device: int = x.data.device_id
    return device


def pointer(x: Any) -> int:
    """Where a CuPy array's memory begins."""
    address: int = x.data.ptr
    return address


def overlap(a: Any, b: Any) -> bool:
    """Whether two contiguous CuPy arrays have memory in common; anything else has none."""
    if not isinstance(b, _bound("cuda").module.ndarray):
        return False
    first, second = a.data.ptr, b.data.ptr
    return bool(first < second + b.nbytes and second < first + a.nbytes)


def current() -> tuple[int, int]:
    """CuPy's current device and the handle of its current stream there, which is never null."""
    cuda = _bound("cuda").module.cuda
    device: int = cuda.runtime.getDevice()
    return device, cuda.get_current_stream(device).ptr or _DEFAULT_STREAM


@contextmanager
def on(device: int) -> Iterator[None]:
    """Makes a device CuPy's current one for a while."""
    cuda = _bound("cuda").module.cuda
    if cuda.runtime.getDevice() == device:
        yield
    else:
        with cuda.Device(device):
            yield


# ---- on CuPy's current device and stream -------------------------------------------------------


def empty(shape: Shape, dtype: Any) -> Any:
    """A new CuPy array, its contents undefined."""
    return _bound("cuda").module.empty(shape, dtype)


def zeros(shape: Shape, dtype: Any) -> Any:
    """A new CuPy array of zeros."""
    return _bound("cuda").module.zeros(shape, dtype)


def from_numpy(x: np.ndarray) -> Any:
    """A copy of a NumPy array on the device."""
    return _bound("cuda").module.asarray(x)


def to_numpy(x: Any) -> np.ndarray:
    """A copy of a CuPy array on the host. Waits for CuPy's current stream of its device."""
    with on(device_of(x)):
        return np.asarray(_bound("cuda").module.asnumpy(x))


# ---- kernels -----------------------------------------------------------------------------------


def run_kernel(
    kernel: str,
    spec: Any,
    n: int,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    dtype: str,
) -> list[Any]:
    """As `_core.run_kernel`, on contiguous CuPy arrays that are all on the first input's device.

    Returns as soon as the kernel waits in CuPy's current stream of that device.
    """
    binding = _bound(kernel)
    cuda = binding.module.cuda
    device = inputs[0].data.device_id
    if cuda.runtime.getDevice() == device:
        return _run(binding, device, kernel, spec, n, inputs, outputs, dtype)
    with cuda.Device(device):
        return _run(binding, device, kernel, spec, n, inputs, outputs, dtype)


def _run(
    binding: _Binding,
    device: int,
    kernel: str,
    spec: Any,
    n: int,
    inputs: Sequence[Any],
    outputs: Sequence[Any],
    dtype: str,
) -> list[Any]:
    module, backend = binding
    results = [
        module.empty(output, dtype) if isinstance(output, tuple) else output for output in outputs
    ]
    _core.run_on_device(
        backend,
        kernel,
        spec,
        n,
        dtype,
        [None if a is None else (a.data.ptr, a.size, a.dtype) for a in (*inputs, *results)],
        device,
        module.cuda.get_current_stream(device).ptr or _DEFAULT_STREAM,
        module.cuda.alloc,
    )
    return results
