"""What convkit uses of CuPy, on the emulated device: arrays, a pool, devices and streams.

`convkit.device.stand_in(fake_cupy, "cuda_emulated")` puts it in CuPy's place. Memory is the
device's, which the host cannot touch; whatever CuPy would do with kernels of its own (other dtypes,
strides) is done on the host, between two copies. There are DEVICES devices to this module, though
the emulator's memory is all one.
"""

from __future__ import annotations

import math
import threading
from collections import Counter
from types import SimpleNamespace
from typing import Any

import numpy as np

from convkit import _core

BACKEND = "cuda_emulated"
DEVICES = 2
ALIGNMENT = 512  # of what the pool gives, as CuPy's

_thread = threading.local()  # device: the current one; streams: the current one of each device


# ---- devices and streams -----------------------------------------------------------------------


def _current_device() -> int:
    return getattr(_thread, "device", 0)


class Device:
    """`with Device(1):` makes it the current one."""

    def __init__(self, device: int | None = None) -> None:
        self.id = _current_device() if device is None else int(device)
        if not 0 <= self.id < DEVICES:
            raise RuntimeError("cudaErrorInvalidDevice: invalid device ordinal")
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(_current_device())
        _thread.device = self.id
        return self

    def __exit__(self, *_: object) -> None:
        _thread.device = self._before.pop()


class Stream:
    """A stream of the current device, or its default one with null=True."""

    null: Stream

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.queue = _core.DeviceQueue(BACKEND, 0, 1 if null else 0)
        self.ptr = 0 if null else self.queue.stream
        self._before: list[Stream] = []

    def __enter__(self) -> Stream:
        self._before.append(get_current_stream())
        _streams()[_current_device()] = self
        return self

    def __exit__(self, *_: object) -> None:
        _streams()[_current_device()] = self._before.pop()

    def synchronize(self) -> None:
        self.queue.synchronise()

    def wait_stream(self, other: Stream) -> None:
        """`other.record()` and `wait_event` in one."""
        self.queue.wait_for(other.queue)


def _streams() -> dict[int, Stream]:
    if not hasattr(_thread, "streams"):
        _thread.streams = {}
    return _thread.streams


def get_current_stream(device_id: int = -1) -> Stream:
    device = _current_device() if device_id < 0 else device_id
    if device not in _streams():
        if not hasattr(Stream, "null"):
            Stream.null = Stream(null=True)
        _streams()[device] = Stream.null
    return _streams()[device]


# ---- memory ------------------------------------------------------------------------------------


class MemoryPool:
    """Keeps what is freed for the next that asks for as much in the same stream."""

    def __init__(self) -> None:
        self._free: dict[tuple[int, int, int], list[int]] = {}
        self._used = 0
        self._total = 0
        self.asked = Counter[str]()  # "arrays" and "workspaces"

    def malloc(self, size: int) -> MemoryPointer:
        self.asked["workspaces"] += 1
        return self.take(size)

    def take(self, size: int) -> MemoryPointer:
        device = _current_device()
        if size == 0:
            return MemoryPointer(0, device, None)
        rounded = -(-size // ALIGNMENT) * ALIGNMENT
        place = (device, get_current_stream().ptr, rounded)
        if self._free.get(place):
            address = self._free[place].pop()
        else:
            address = _core.device_allocate(BACKEND, 0, rounded)
            self._total += rounded
        self._used += rounded
        return MemoryPointer(address, device, _Block(self, address, place))

    def give_back(self, address: int, place: tuple[int, int, int]) -> None:
        self._used -= place[2]
        self._free.setdefault(place, []).append(address)

    def used_bytes(self) -> int:
        return self._used

    def total_bytes(self) -> int:
        return self._total

    def free_all_blocks(self) -> None:
        for (_, _, size), addresses in self._free.items():
            for address in addresses:
                _core.device_release(BACKEND, address)
                self._total -= size
        self._free.clear()


class _Block:
    def __init__(self, pool: MemoryPool, address: int, place: tuple[int, int, int]) -> None:
        self._given = (pool, address, place)

    def __del__(self) -> None:
        pool, address, place = self._given
        pool.give_back(address, place)


class MemoryPointer:
    def __init__(self, ptr: int, device_id: int, owner: object) -> None:
        self.ptr = ptr
        self.device_id = device_id
        self.owner = owner

    def __add__(self, bytes: int) -> MemoryPointer:
        return MemoryPointer(self.ptr + bytes, self.device_id, self.owner)


_pool = MemoryPool()


def get_default_memory_pool() -> MemoryPool:
    return _pool


# ---- arrays ------------------------------------------------------------------------------------


class _Flags:
    def __init__(self, array: ndarray) -> None:
        self.c_contiguous = array.size == 0 or all(
            size == 1 or stride == expected
            for size, stride, expected in zip(
                array.shape, array.strides, _strides(array.shape, array.itemsize), strict=True
            )
        )


def _strides(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    return tuple(itemsize * math.prod(shape[axis + 1 :]) for axis in range(len(shape)))


class ndarray:
    """An array in the device's memory. It has no __array__: NumPy cannot take it by mistake."""

    def __init__(
        self, shape: Any, dtype: Any = np.float32, memptr: Any = None, strides: Any = None
    ) -> None:
        self.shape = (int(shape),) if isinstance(shape, (int, np.integer)) else tuple(shape)
        self.dtype = np.dtype(dtype)
        self.itemsize = self.dtype.itemsize
        self.size = math.prod(self.shape)
        self.nbytes = self.size * self.itemsize
        self.ndim = len(self.shape)
        self.strides = _strides(self.shape, self.itemsize) if strides is None else tuple(strides)
        if memptr is None:
            _pool.asked["arrays"] += 1
            memptr = _pool.take(self.nbytes)
        self.data = memptr

    @property
    def flags(self) -> _Flags:
        return _Flags(self)

    @property
    def device(self) -> Device:
        return Device(self.data.device_id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "strides": None if self.flags.c_contiguous else self.strides,
            "version": 3,
            "stream": get_current_stream().ptr or 1,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.data.device_id

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: object, **__: object) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def _whole(self) -> np.ndarray:
        """The memory that the array's elements are in, as bytes. Strides are not negative."""
        places = zip(self.shape, self.strides, strict=True)
        last = sum((size - 1) * stride for size, stride in places)
        memory = np.empty(last + self.itemsize, np.uint8)
        get_current_stream().queue.to_host(memory, self.data.ptr)
        return memory

    def get(self) -> np.ndarray:
        with Device(self.data.device_id):
            if self.size == 0:
                return np.empty(self.shape, self.dtype)
            memory = self._whole()
            return np.ndarray(self.shape, self.dtype, memory, 0, self.strides).copy()

    def set(self, values: np.ndarray) -> None:
        with Device(self.data.device_id):
            if self.size == 0:
                return
            memory = self._whole()
            np.ndarray(self.shape, self.dtype, memory, 0, self.strides)[...] = values
            get_current_stream().queue.to_device(self.data.ptr, memory)

    def __setitem__(self, key: object, value: Any) -> None:
        assert key is Ellipsis
        same_device(self)
        self.set(value.get() if isinstance(value, ndarray) else np.asarray(value))

    def __getitem__(self, key: Any) -> ndarray:
        """Slices that NumPy makes views of."""
        shadow = np.lib.stride_tricks.as_strided(
            np.empty(1, self.dtype), self.shape, self.strides, writeable=False
        )
        part = shadow[key]
        offset = part.__array_interface__["data"][0] - shadow.__array_interface__["data"][0]
        return ndarray(part.shape, self.dtype, self.data + offset, part.strides)

    def reshape(self, *shape: Any) -> ndarray:
        sizes = shape[0] if len(shape) == 1 and not isinstance(shape[0], int) else shape
        assert self.flags.c_contiguous and math.prod(sizes) == self.size
        return ndarray(sizes, self.dtype, self.data)

    def astype(self, dtype: Any, order: str = "K", copy: bool = True) -> ndarray:
        if not copy and self.dtype == np.dtype(dtype) and self.flags.c_contiguous:
            return self
        same_device(self)
        return asarray(self.get().astype(dtype))

    def take(self, indices: ndarray, axis: int | None = None) -> ndarray:
        same_device(self)
        return asarray(self.get().take(indices.get(), axis))

    def copy(self) -> ndarray:
        return self.astype(self.dtype)

    def mean(self) -> ndarray:
        return asarray(self.get().mean())

    def __float__(self) -> float:
        return float(self.get())

    def tobytes(self) -> bytes:
        return self.get().tobytes()


def same_device(array: ndarray) -> None:
    """CuPy's own kernels run on the current device."""
    if array.data.device_id != _current_device():
        raise ValueError("Array device must be same as the current device")


def empty(shape: Any, dtype: Any = np.float64) -> ndarray:
    return ndarray(shape, dtype)


def zeros(shape: Any, dtype: Any = np.float64) -> ndarray:
    made = ndarray(shape, dtype)
    made.set(np.zeros(made.shape, made.dtype))
    return made


def asarray(x: Any, dtype: Any = None) -> ndarray:
    """A copy of what is on the host; what is on the device stays where it is."""
    if isinstance(x, ndarray):
        return x if dtype is None else x.astype(dtype, copy=False)
    if hasattr(x, "__cuda_array_interface__"):
        return _of_interface(x)
    values = np.ascontiguousarray(x, dtype).reshape(np.shape(x))
    made = ndarray(values.shape, values.dtype)
    made.set(values)
    return made


def _of_interface(x: Any) -> ndarray:
    said = x.__cuda_array_interface__
    if said.get("stream"):  # CuPy waits for it on the host
        _core.DeviceQueue(BACKEND, 0, said["stream"]).synchronise()
    dtype = np.dtype(said["typestr"])
    data = MemoryPointer(said["data"][0], getattr(x, "device_id", _current_device()), x)
    return ndarray(said["shape"], dtype, data, said.get("strides"))


def from_dlpack(x: Any) -> ndarray:
    """`__dlpack__` of tests returns the ndarray, where CuPy's would find a capsule."""
    with Device(x.__dlpack_device__()[1]):
        return x.__dlpack__(stream=get_current_stream().ptr or 1)


def asnumpy(x: ndarray) -> np.ndarray:
    return x.get()


def alloc(size: int) -> MemoryPointer:
    return _pool.malloc(size)


cuda = SimpleNamespace(
    Device=Device,
    Stream=Stream,
    get_current_stream=get_current_stream,
    alloc=alloc,
    runtime=SimpleNamespace(getDevice=_current_device),
)
