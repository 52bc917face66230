"""Where models and their data are: in the host's memory or on a GPU."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from convkit import _core, device, geometry

# An environment variable: bytes of data that `fit` keeps on a GPU, at most; what is more goes there
# batch by batch. Not set: what there is room for.
LIMIT = "CONVKIT_GPU_DATA"
# Of the memory that is free, a share that data never take: kernels put values aside.
SPARE = 0.1
# Values of so many bytes go through a network at a time where the size of batches is ours to
# choose.
AT_ONCE = 256 << 20


def gpu_of(op: str, name: object) -> int | None:
    """The number of a GPU from "cuda" (CuPy's current one) or "cuda:1"; None for "cpu".

    Raises:
        RuntimeError: in one sentence, why no GPU can be used.
        ValueError: it is neither, or there is no such GPU.
    """
    kind, colon, number = str(name).partition(":")
    if name == "cpu":
        return None
    if kind != "cuda" or (colon and not (number.isascii() and number.isdigit())):
        raise geometry.fail(op, 'device "cpu", "cuda" or "cuda:0"', repr(name))
    device.require(op)
    if not colon:
        return device.current()[0]
    count = len(_core.describe_device(device.backend()))
    if int(number) >= count:
        raise geometry.fail(op, f"one of {count} GPUs", repr(name))
    return int(number)


def name_of(gpu: int | None) -> str:
    """ "cpu" or "cuda:0"."""
    return "cpu" if gpu is None else f"cuda:{gpu}"


def to_gpu(gpu: int, arrays: list[Any], room: int) -> list[Any]:
    """The arrays on the GPU, where those of NumPy are copied to if all fit; else all as NumPy's.

    Args:
        room: bytes that something else is going to need.
    """
    wanted = sum(array.nbytes for array in arrays if isinstance(array, np.ndarray))
    limit = _limit()
    free = _core.free_device_memory(device.backend(), gpu) + _unused()
    if wanted <= (free * (1 - SPARE) - room if limit is None else limit):
        try:
            with device.on(gpu):
                return [
                    device.from_numpy(array) if isinstance(array, np.ndarray) else array
                    for array in arrays
                ]
        except MemoryError:  # somebody else was faster
            pass
    return [array if isinstance(array, np.ndarray) else device.to_numpy(array) for array in arrays]


def _limit() -> int | None:
    """Bytes of data that the environment allows on a GPU; None: it says nothing."""
    text = os.environ.get(LIMIT)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        raise geometry.fail(LIMIT, "a number of bytes", repr(text)) from None


def _unused() -> int:
    """Bytes that CuPy's pool has and nobody uses."""
    pool = device.array_module().get_default_memory_pool()
    return int(pool.total_bytes() - pool.used_bytes())
