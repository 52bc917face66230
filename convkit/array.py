"""Arrays at the boundary: what is accepted, and how it becomes what kernels take.

Kernels want contiguous, aligned arrays in native byte order, all float32 or all float64. Whatever
else comes is copied; what was given is never written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core
from convkit.geometry import fail

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def _refuse_device(op: str, name: str, value: object) -> None:
    """The seam for arrays on a GPU: until a CUDA table is built in, one clear sentence."""
    if hasattr(value, "__cuda_array_interface__"):
        raise TypeError(
            f"{op}: expected {name} to be a NumPy array, got an array on a GPU "
            "(this build of convkit has no CUDA kernels)"
        )


def _numpy(op: str, name: str, value: object) -> np.ndarray:
    _refuse_device(op, name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{op}: expected {name} to be an array, got {error}") from None
    if array.dtype.kind not in "fiub" or array.dtype.itemsize > 8:
        raise TypeError(f"{op}: expected {name} to hold real numbers, got dtype {array.dtype}")
    return array


def float_arrays(op: str, names: Sequence[str], values: Sequence[object]) -> list[Any]:
    """The values as arrays of one dtype, float32 or float64; None stays None.

    Integers, booleans and float16 follow the others, or become float32. Two float dtypes in one
    call are a TypeError: which of them was meant is the caller's to say.
    """
    arrays = [
        None if value is None else _numpy(op, name, value)
        for name, value in zip(names, values, strict=True)
    ]
    dtype: np.dtype[Any] | None = None
    first = ""
    for name, array in zip(names, arrays, strict=True):
        if array is None:
            continue
        native = array.dtype.newbyteorder("=")
        if native not in FLOATS:
            continue
        if dtype is None:
            dtype, first = native, name
        elif native != dtype:
            raise TypeError(
                f"{op}: expected {first} and {name} of one dtype, got {dtype} and {native}"
            )
    return [
        None if array is None else np.require(array, dtype or np.float32, ["C", "A"])
        for array in arrays
    ]


def label_array(op: str, name: str, value: object, classes: int) -> np.ndarray:
    """Labels 0 .. classes - 1 as int32; whole floats are taken too."""
    labels = _core.labels(value, classes)
    if labels is not None:
        return labels
    array = _numpy(op, name, value)
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise fail(op, f"{name} to hold whole numbers", "fractions or NaN")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        worst = array.max() if array.min() >= 0 else array.min()
        raise fail(op, f"{name} between 0 and {classes - 1}", f"the label {worst}")
    return np.require(array, np.int32, ["C", "A"])


def check_out(op: str, out: object, shape: Sequence[int], dtype: np.dtype[Any]) -> np.ndarray:
    """`out` if a result of this shape and dtype can be written to it."""
    _refuse_device(op, "out", out)
    if not isinstance(out, np.ndarray):
        raise TypeError(f"{op}: expected out to be a NumPy array, got {type(out).__name__}")
    if out.shape != tuple(shape):
        raise fail(op, f"out of shape {tuple(shape)}", out.shape)
    if out.dtype != dtype:
        raise TypeError(f"{op}: expected out of dtype {dtype}, got {out.dtype}")
    if not out.flags.writeable:
        raise fail(op, "out to be writable", "a read-only array")
    return out


def direct(out: np.ndarray, inputs: Sequence[Any]) -> bool:
    """Whether a kernel can write to `out` itself, rather than to a copy that is then assigned."""
    return (
        out.flags.c_contiguous
        and out.flags.aligned
        and out.dtype.isnative
        and not any(isinstance(a, np.ndarray) and np.may_share_memory(out, a) for a in inputs)
    )
