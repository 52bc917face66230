"""Arrays as models take them: checked against the model, in a dtype that programs read."""

from __future__ import annotations

from collections.abc import Sequence
from math import inf
from typing import Any, NamedTuple

import numpy as np

from convkit import device, geometry
from convkit.array import label_array
from convkit.geometry import Shape
from convkit.graph import SOURCE_TYPES
from convkit.losses import Loss


class Arrays(NamedTuple):
    """A model's arrays, one of each for each input or output, None where there is none.

    Attributes:
        x: inputs.
        y: targets.
        weights: of the samples, for each output.
    """

    x: list[Any]
    y: list[Any]
    weights: list[Any]


def rows_of(arrays: Arrays) -> int:
    """How many samples there are."""
    return len(arrays.x[0])


def form_of(arrays: Sequence[Any]) -> tuple[Any, ...]:
    """What a program for these arrays is recorded for: their dtypes and the shapes of samples."""
    return tuple(None if array is None else (array.dtype, array.shape[1:]) for array in arrays)


def moved(arrays: Arrays, function: Any) -> Arrays:
    """What a function of a list of arrays makes of them all."""
    there = [array for values in arrays for array in values if array is not None]
    made = iter(function(there))
    return Arrays(*([None if one is None else next(made) for one in values] for values in arrays))


def by_name(op: str, role: str, value: Any, names: Sequence[str], every: bool = True) -> list[Any]:
    """One value for each input or output: of one thing, a list, or a dictionary by their names.

    Args:
        every: whether a dictionary must have them all; otherwise None stands for those it has not.
    """
    if isinstance(value, dict):
        if not set(value) <= set(names) or (every and len(value) < len(names)):
            raise geometry.fail(
                op, f"{role} for {', '.join(names)}", ", ".join(map(str, value)) or "none"
            )
        return [value.get(name) for name in names]
    if len(names) == 1:
        # A list of one array may be meant as that, or as rows.
        if isinstance(value, (list, tuple)) and len(value) == 1 and _is_array(value[0]):
            return [value[0]]
        return [value]
    if not isinstance(value, (list, tuple)) or len(value) != len(names):
        got = f"{len(value)}" if isinstance(value, (list, tuple)) else type(value).__name__
        raise geometry.fail(op, f"{role} as a list of {len(names)} arrays", got)
    return list(value)


def alone(value: Any) -> Any:
    """The one thing of a list or dictionary that holds one array; anything else as it is."""
    values = list(value.values()) if isinstance(value, dict) else value
    return values[0] if len(values) == 1 and _is_array(values[0]) else value


def _is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray) or device.is_device_array(value)


def weights(op: str, value: Any, loss_shape: Shape, rows: int, dtype: str, gpu: int | None) -> Any:
    """Weights of the samples, (N,), or one for each of a sample's losses; None: all 1.

    Args:
        loss_shape: of the losses of one output: (None, ...).
    """
    if value is None:
        return None
    array = source(op, "sample_weight", value, dtype, gpu)
    if array.ndim == 2 and array.shape[1] == 1:
        array = array.reshape(-1)
    if len(array) != rows or array.shape[1:] not in ((), tuple(loss_shape[1:])):
        expected = f"sample_weight of shape ({rows},)"
        if len(loss_shape) > 1:
            expected += f" or {describe((rows, *loss_shape[1:]))}"
        raise geometry.fail(op, expected, array.shape)
    return array


def class_weights(op: str, value: Any, y: Any, sparse: bool, factors: Any) -> Any:
    """The weight of each sample from that of its class; classes that are not named have 1.

    Args:
        y: targets, one label (or one row for all classes) per sample.
        factors: what `weights` gave: the classes' are multiplied by them.
    """
    if not isinstance(value, dict):
        raise TypeError(f"{op}: expected class_weight to be a dictionary, got {value!r}")
    array = device.to_numpy(y) if device.is_device_array(y) else np.asarray(y)
    if not sparse and array.ndim > 1 and array.shape[-1] > 1:
        array = array.argmax(-1)
    if array.size != len(array):
        raise geometry.fail(op, "class_weight with one label per sample", array.shape)
    given = sorted(
        (geometry.integer(op, "a class", key, 0), geometry.number(op, "class_weight", one, 0, inf))
        for key, one in value.items()
    )
    # A class after all others, so that every label has a place.
    classes, found = np.array([*given, (inf, 1.0)]).T
    labels = np.rint(array.reshape(-1))
    at = np.searchsorted(classes, labels)
    made = np.where(classes[at] == labels, found[at], 1.0).astype(np.float32)
    if factors is None:
        return made
    factors = device.to_numpy(factors) if device.is_device_array(factors) else factors
    return made.reshape(-1, *[1] * (factors.ndim - 1)) * factors


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


def inputs(
    op: str, x: Any, shape: Shape, dtype: str, gpu: int | None = None, name: str = "x"
) -> Any:
    """x for a model's input of this shape."""
    array = source(op, name, x, dtype, gpu)
    if array.shape[1:] != tuple(shape[1:]):
        raise geometry.fail(op, f"{name} of shape {describe(shape)}", array.shape)
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


def split(op: str, arrays: Arrays, whole: Arrays, share: float) -> tuple[Arrays, Arrays]:
    """The last share of the samples, before any shuffling, kept for validation, as Keras does.

    Args:
        arrays: of which the first samples are trained on.
        whole: of which the last are validated on.
    """
    rows = rows_of(arrays)
    at = int(rows * (1 - share))
    if at == 0 or at == rows:
        raise geometry.fail(
            op, "validation_split to leave samples on both sides", f"{share} of {rows}"
        )
    return (
        moved(arrays, lambda some: [array[:at] for array in some]),
        moved(whole, lambda some: [array[at:] for array in some]),
    )


def first(op: str, arrays: Arrays, steps: int | None, batch: int) -> Arrays:
    """The first so many batches; None: all."""
    if steps is None:
        return arrays
    rows = geometry.integer(op, "steps", steps, 1) * batch
    return moved(arrays, lambda some: [array[:rows] for array in some])


def joined(parts: Sequence[Any]) -> Any:
    """Arrays that are on one side, one after the other."""
    if isinstance(parts[0], np.ndarray):
        return np.concatenate(parts)
    with device.on(device.device_of(parts[0])):
        shape = (sum(map(len, parts)), *parts[0].shape[1:])
        whole, at = device.empty(shape, parts[0].dtype), 0
        for part in parts:
            whole[at : at + len(part)][...] = part
            at += len(part)
    return whole


def listed(value: Any) -> list[Any]:
    """One thing, several or None, as a list."""
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]
