"""Arrays at the boundary: what is accepted, and how it becomes what kernels take.

Kernels want contiguous, aligned arrays in native byte order, all float32 or all float64, and all of
a call in NumPy or on one GPU. Whatever else comes is copied; what was given is never written to.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from convkit import _core, device
from convkit.device import is_device_array
from convkit.geometry import fail
from convkit.graph import SOURCE_TYPES

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))


def refuse_device(op: str, name: str, value: object) -> None:
    """TypeError for an array on a GPU where only NumPy's will do."""
    if is_device_array(value):
        raise TypeError(f"{op}: expected {name} to be a NumPy array, got an array on a GPU")


def _numpy(op: str, name: str, value: object) -> np.ndarray:
    refuse_device(op, name, value)
    try:
        array = np.asarray(value)
    except ValueError as error:  # ragged nested lists
        raise ValueError(f"{op}: expected {name} to be an array, got {error}") from None
    if array.dtype.itemsize > 8:
        raise _not_real(op, name, array)
    return array


def _not_real(op: str, name: str, array: Any) -> TypeError:
    return TypeError(f"{op}: expected {name} to hold real numbers, got dtype {array.dtype}")


def device_arrays(
    op: str, names: Sequence[str], values: Sequence[Any], out: object = None
) -> list[Any] | None:
    """The values as CuPy arrays in the same memory, None staying None; None where all are NumPy's.

    Args:
        out: None, an array or several in a list or tuple, which must be where the values are.

    Raises:
        TypeError: some are on a GPU, some are not.
        ValueError: they are on different GPUs.
    """
    there = [is_device_array(value) for value in values]
    if True not in there:
        return None
    first = names[there.index(True)]
    for name, value, here in zip(names, values, there, strict=True):
        if not here and value is not None:
            raise TypeError(
                f"{op}: expected {first} to be a NumPy array, as {name} is, got an array on a GPU"
            )
    arrays = [
        None if value is None else device.as_array(op, name, value)
        for name, value in zip(names, values, strict=True)
    ]
    place = device.device_of(arrays[there.index(True)])
    named = list(zip(names, arrays, strict=True))
    if out is not None:
        kind = device.array_module(op).ndarray
        for array in out if isinstance(out, (tuple, list)) else (out,):
            if array is not None and not isinstance(array, kind):
                raise TypeError(f"{op}: expected out to be a CuPy array, got {_type_name(array)}")
            named.append(("out", array))
    for name, array in named:
        if array is not None and device.device_of(array) != place:
            raise fail(
                op,
                f"{first} and {name} on one GPU",
                f"the GPUs {place} and {device.device_of(array)}",
            )
    return arrays


def float_arrays(
    op: str, names: Sequence[str], values: Sequence[object], out: object = None
) -> list[Any]:
    """The values as arrays of one dtype, float32 or float64, in NumPy or on one GPU; None stays
    None.

    Integers, booleans and float16 follow the others, or become float32. Two float dtypes in one
    call are a TypeError: which of them was meant is the caller's to say.
    """
    arrays = device_arrays(op, names, values, out)
    on_host = arrays is None
    if arrays is None:
        arrays = [
            None if value is None else _numpy(op, name, value)
            for name, value in zip(names, values, strict=True)
        ]
    dtype: np.dtype[Any] | None = None
    first = ""
    for name, array in zip(names, arrays, strict=True):
        if array is None:
            continue
        if array.dtype.kind not in "fiub":
            raise _not_real(op, name, array)
        native = array.dtype.newbyteorder("=")
        if native not in FLOATS:
            continue
        if dtype is None:
            dtype, first = native, name
        elif native != dtype:
            raise TypeError(
                f"{op}: expected {first} and {name} of one dtype, got {dtype} and {native}"
            )
    dtype = dtype or FLOATS[0]
    if on_host:
        return [None if a is None else np.require(a, dtype, ["C", "A"]) for a in arrays]
    return [None if a is None else _device_floats(a, dtype) for a in arrays]


def _device_floats(array: Any, dtype: np.dtype[Any]) -> Any:
    if array.flags.c_contiguous:
        if array.dtype == dtype:
            return array
        if array.dtype.name in SOURCE_TYPES:
            return _gathered("gather", array, dtype, dtype.name)
    with device.on(device.device_of(array)):
        return array.astype(dtype, order="C", copy=False)


def _gathered(kernel: str, array: Any, dtype: Any, kernel_dtype: str) -> Any:
    """A contiguous array on a GPU in another dtype, by the kernel that reads data sets: CuPy would
    compile one first."""
    with device.on(device.device_of(array)):
        made = device.empty(array.shape, dtype)
    if array.size:
        source = SOURCE_TYPES[array.dtype.name]
        spec = _core.Gather(size=array.size, type=source, scale=1.0, offset=0.0)
        device.run_kernel(kernel, spec, 1, [array, None], [made], kernel_dtype)
    return made


def label_array(op: str, name: str, value: object, classes: int) -> np.ndarray:
    """Labels 0 .. classes - 1 as int32; whole floats are taken too."""
    labels = _core.labels(value, classes)
    if labels is not None:
        return labels
    array = _numpy(op, name, value)
    if array.dtype.kind not in "fiub":
        raise _not_real(op, name, array)
    if array.dtype.kind == "f" and not np.array_equal(array, np.trunc(array)):
        raise fail(op, f"{name} to hold whole numbers", "fractions or NaN")
    if array.size and not (array.min() >= 0 and array.max() < classes):
        worst = array.max() if array.min() >= 0 else array.min()
        raise fail(op, f"{name} between 0 and {classes - 1}", f"the label {worst}")
    return np.require(array, np.int32, ["C", "A"])


def device_labels(op: str, name: str, array: Any) -> Any:
    """The integers in a CuPy array as int32; what int32 cannot hold becomes -1.

    Whether they are labels is not looked at, which would wait for the GPU: kernels give a NaN for
    one that is none.
    """
    if array.dtype.kind not in "iub":
        raise TypeError(f"{op}: expected {name} to hold integers, got dtype {array.dtype}")
    if not array.flags.c_contiguous or array.dtype.name not in SOURCE_TYPES:
        with device.on(device.device_of(array)):
            array = array.astype(np.int64, order="C", copy=False)
    if array.dtype == np.int32:
        return array
    return _gathered("gather_labels", array, np.int32, "float32")


def check_out(
    op: str, out: Any, shape: Sequence[int], dtype: np.dtype[Any], on_device: bool = False
) -> Any:
    """`out` if a result of this shape and dtype, in NumPy or on a GPU, can be written to it."""
    kind = device.array_module(op).ndarray if on_device else np.ndarray
    if not isinstance(out, kind):
        expected = "a CuPy array" if on_device else "a NumPy array"
        raise TypeError(f"{op}: expected out to be {expected}, got {_type_name(out)}")
    if out.shape != tuple(shape):
        raise fail(op, f"out of shape {tuple(shape)}", out.shape)
    if out.dtype != dtype:
        raise TypeError(f"{op}: expected out of dtype {dtype}, got {out.dtype}")
    if not on_device and not out.flags.writeable:
        raise fail(op, "out to be writable", "a read-only array")
    return out


def _type_name(value: object) -> str:
    """The name of an object's type; NumPy's and CuPy's are both called ndarray."""
    kind = type(value)
    package = kind.__module__.partition(".")[0]
    return kind.__name__ if package == "builtins" else f"{package}.{kind.__name__}"


def direct(out: Any, inputs: Sequence[Any]) -> bool:
    """Whether a kernel can write to `out` itself, rather than to a copy that is then assigned."""
    if not isinstance(out, np.ndarray):
        return out.flags.c_contiguous and not any(device.overlap(out, a) for a in inputs)
    return (
        out.flags.c_contiguous
        and out.flags.aligned
        and out.dtype.isnative
        and not any(isinstance(a, np.ndarray) and np.may_share_memory(out, a) for a in inputs)
    )


def assign(out: Any, value: Any) -> None:
    """Copies the values of one array into another of its shape, both NumPy's or both on a GPU."""
    if isinstance(out, np.ndarray):
        out[...] = value
    else:
        with device.on(device.device_of(out)):
            out[...] = value


def copy(array: Any) -> Any:
    """A contiguous copy, where the array is."""
    if isinstance(array, np.ndarray):
        return array.copy()
    with device.on(device.device_of(array)):
        return array.copy()
