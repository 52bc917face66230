"""A training on disk, so that it can go on where it was interrupted, bit for bit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from convkit import random
from convkit.models import files, saving
from convkit.models.epochs import Progress

FORMAT = 1
# The key, in the states of callbacks, of the name of an array.
_ARRAY = "array of the file"


def save(path: Path, model: Any, callbacks: Sequence[Any], batches: int) -> None:
    """Writes all that the rest of a training depends on, in one step.

    Args:
        path: of the file.
        model: one that is being trained.
        callbacks: those whose state is kept, in order.
        batches: how many were counted since training began.
    """
    tensors = {key: variable.host() for key, variable in saving.variables(model).items()}
    for i, variable in enumerate(model.scores.variables if model.progress.row else []):
        tensors[f"counter/{i}"] = variable.host()
    states = [
        [type(callback).__name__, _without_arrays(callback.state(), f"callback/{i}", tensors)]
        for i, callback in enumerate(callbacks)
    ]
    progress, optimizer = model.progress, model.optimizer
    header = {
        "checkpoint": FORMAT,
        "epoch": progress.epoch,
        "row": progress.row,
        "seed": progress.seed,
        "logs": model.scores.logs() if progress.row else progress.logs,
        "streams": model.feed_state(),
        "stop": model.stop_training,
        "random": random.state(),
        "optimizer": type(optimizer).__name__,
        "learning_rate": None if optimizer._schedule else optimizer._rate,
        "callbacks": states,
        "batches": batches,
    }
    files.write(path, {key: np.require(value, None, "C") for key, value in tensors.items()}, header)


def restore(path: Path, model: Any, callbacks: Sequence[Any]) -> int:
    """Has a model and callbacks go on from a file that `save` wrote.

    Returns:
        How many batches were counted.

    Raises:
        ValueError: the file is of another model, or of other callbacks.
    """
    model._require_built("BackupAndRestore")
    tensors, header = files.read(path)
    if not isinstance(header, dict) or header.get("checkpoint") != FORMAT:
        raise ValueError(f"BackupAndRestore: expected a backup of a training, got {path}")
    names = [type(callback).__name__ for callback in callbacks]
    kept = [name for name, _ in header["callbacks"]]
    if names != kept:
        raise ValueError(
            f"BackupAndRestore: expected the callbacks {', '.join(kept)} of {path}, got "
            f"{', '.join(names)}"
        )
    optimizer = type(model.optimizer).__name__
    if optimizer != header["optimizer"]:
        raise ValueError(
            f"BackupAndRestore: expected the optimizer {header['optimizer']} of {path}, got "
            f"{optimizer}"
        )
    counters = [tensors.pop(f"counter/{i}") for i in range(_count(tensors, "counter/"))]
    arrays = {key: value for key, value in tensors.items() if key.startswith("callback/")}
    weights = {key: value for key, value in tensors.items() if not key.startswith("callback/")}
    saving.restore(model, weights, path, op="BackupAndRestore")
    if header["learning_rate"] is not None:
        model.optimizer.learning_rate = header["learning_rate"]
    for callback, (_, state) in zip(callbacks, header["callbacks"], strict=True):
        callback.restore(_with_arrays(state, arrays))
    random.restore(header["random"])
    model.stop_training = header["stop"]
    model.resume_from = Progress(
        header["epoch"],
        header["row"],
        header["seed"],
        header["logs"],
        counters,
        header["streams"],
    )
    return int(header["batches"])


def _count(tensors: dict[str, np.ndarray], prefix: str) -> int:
    return sum(key.startswith(prefix) for key in tensors)


def _without_arrays(value: Any, key: str, arrays: dict[str, np.ndarray]) -> Any:
    """The value with names in place of arrays, which go to `arrays`."""
    if isinstance(value, np.ndarray):
        arrays[key] = value
        return {_ARRAY: key}
    if isinstance(value, dict):
        return {
            name: _without_arrays(part, f"{key}/{name}", arrays) for name, part in value.items()
        }
    if isinstance(value, (list, tuple)):
        return [_without_arrays(part, f"{key}/{i}", arrays) for i, part in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _with_arrays(value: Any, arrays: dict[str, np.ndarray]) -> Any:
    if isinstance(value, dict):
        if set(value) == {_ARRAY}:
            return arrays[value[_ARRAY]]
        return {name: _with_arrays(part, arrays) for name, part in value.items()}
    if isinstance(value, list):
        return [_with_arrays(part, arrays) for part in value]
    return value
