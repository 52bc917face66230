"""Arrays as models take them: checked against the model, in a dtype that programs read."""

from __future__ import annotations

from typing import Any

import numpy as np

from convkit import device, geometry
from convkit.array import label_array
from convkit.geometry import Shape
from convkit.graph import SOURCE_TYPES
from convkit.losses import Loss


def source(op: str, name: str, value: Any, dtype: str, gpu: int | None = None) -> Any:
    """A contiguous array of a dtype that programs read, without a copy where it is one already.

    Args:
        gpu: where the program runs: arrays there stay there, as CuPy's.
    """
    if device.is_device_array(value):
        return _on_gpu(op, name, value, dtype, gpu)
    array = np.asarray(value)
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{op}: expected {name} to hold real numbers, got dtype {array.dtype}")
    if not array.ndim:
        raise geometry.fail(op, f"{name} with one row per sample", "a number")
    if array.dtype.newbyteorder("=").name not in SOURCE_TYPES:
        return np.require(array, dtype, ["C", "A"])
    return np.require(array, array.dtype.newbyteorder("="), ["C", "A"])


def _on_gpu(op: str, name: str, value: Any, dtype: str, gpu: int | None) -> Any:
    if gpu is None:
        raise TypeError(
            f"{op}: expected {name} to be a NumPy array, got an array on a GPU, where the model is "
            'not; model.to("cuda") moves it there'
        )
    array = device.as_array(op, name, value)
    if device.device_of(array) != gpu:
        raise geometry.fail(
            op, f"{name} on the GPU {gpu}, where the model is", f"one on {device.device_of(array)}"
        )
    if array.dtype.kind not in "fiub":
        raise TypeError(f"{op}: expected {name} to hold real numbers, got dtype {array.dtype}")
    if not array.ndim:
        raise geometry.fail(op, f"{name} with one row per sample", "a number")
    known = array.dtype.name in SOURCE_TYPES
    if known and array.flags.c_contiguous:
        return array
    with device.on(gpu):
        return array.astype(array.dtype if known else dtype, order="C", copy=False)


def inputs(op: str, x: Any, shape: Shape, dtype: str, gpu: int | None = None) -> Any:
    """x for a model whose inputs have this shape."""
    array = source(op, "x", x, dtype, gpu)
    if array.shape[1:] != tuple(shape[1:]):
        raise geometry.fail(op, f"x of shape {describe(shape)}", array.shape)
    return array


def targets(
    op: str, y: Any, loss: Loss, y_pred: Shape, rows: int, dtype: str, gpu: int | None = None
) -> Any:
    """y for a loss on predictions of this shape: labels as int32 of NumPy's, else numbers."""
    array = source(op, "y", y, dtype, gpu)
    if loss.sparse and not isinstance(array, np.ndarray):
        array = device.to_numpy(array)  # they are few, and must be looked at
    if len(array) != rows:
        raise geometry.fail(op, f"y with as many rows as x ({rows})", len(array))
    integers = array.dtype.kind in "iu"
    if loss.sparse and array.shape[1:] == (*y_pred[1:-1], 1):
        array = array.reshape(array.shape[:-1])
    elif not loss.sparse and y_pred[-1] == 1 and array.shape[1:] == y_pred[1:-1]:
        array = array.reshape(*array.shape, 1)
    loss.check_target((None, *array.shape[1:]), y_pred, integers)
    if loss.sparse:
        return label_array(op, "y", array, int(y_pred[-1] or 0))
    return array


def describe(shape: Shape) -> str:
    """(N, 28, 28, 1)"""
    return "(" + ", ".join("N" if s is None else str(s) for s in shape) + ")"


def split(op: str, x: Any, y: Any, share: float) -> tuple[Any, Any, tuple[Any, Any]]:
    """The last share of the samples, before any shuffling, kept for validation, as Keras does."""
    x, y = (value if device.is_device_array(value) else np.asarray(value) for value in (x, y))
    at = int(len(x) * (1 - share))
    if at == 0 or at == len(x):
        raise geometry.fail(
            op, "validation_split to leave samples on both sides", f"{share} of {len(x)}"
        )
    return x[:at], y[:at], (x[at:], y[at:])


def listed(value: Any) -> list[Any]:
    """One thing, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
