"""Whole models on disk: one safetensors file, the architecture as JSON in its header.

Nothing is executed on loading: configurations name classes of convkit or such as were registered.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

import numpy as np

from convkit import configuration, registered
from convkit.graph import Variable
from convkit.models import files
from convkit.models.model import Model

FORMAT = 1
OPTIMIZER = "optimizer"
STATE = "state"


def save(model: Model, path: Any, include_optimizer: bool = True, extra: Any = None) -> None:
    """Writes a model to a file: architecture, weights and, if it is compiled, how it is trained.

    Args:
        model: a built model.
        path: of the file, which is replaced in one step: after a crash it is the old or the new.
        include_optimizer: whether the optimizer and its state are part of it.
        extra: what else `read` is to give back, made of what JSON holds.
    """
    model._require_built("save")
    header, tensors = contents(model, include_optimizer)
    files.write(path, tensors, {**header, "extra": extra})


def contents(
    model: Model, include_optimizer: bool = True
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """What a file holds of a model: the header, and arrays by their keys, which are the model's."""
    header: dict[str, Any] = {
        "format": FORMAT,
        "model": configuration.described(model),
        "compile": None,
        "extra": None,
    }
    if include_optimizer and model.optimizer is not None:
        header["compile"] = compile_config(model)
    named = variables(model, include_optimizer)
    return header, {key: variable.host() for key, variable in named.items()}


def compile_config(model: Model) -> dict[str, Any]:
    """What `compile` was given, as plain values."""
    loss, weights, metrics = model._compiled
    assert model.optimizer is not None
    return {
        "optimizer": configuration.described(model.optimizer),
        "loss": configuration.plain(loss, "compile: loss"),
        "loss_weights": configuration.plain(weights, "compile: loss_weights"),
        "metrics": configuration.plain(metrics, "compile: metrics"),
    }


def compile_from(model: Model, config: dict[str, Any]) -> None:
    """Compiles a model as `compile_config` says."""
    model.compile(
        registered.made(config["optimizer"], "optimizers", "schedules"),
        loss=registered.made(config["loss"], "losses"),
        loss_weights=config["loss_weights"],
        metrics=registered.made(config["metrics"], "metrics"),
    )


def variables(model: Model, include_optimizer: bool = True) -> dict[str, Variable]:
    """All that a file holds, by its key: weights, random states, the optimizer's arrays."""
    named = files.named(model)
    result = dict(named)
    result.update({f"{STATE}/{key}": variable for key, variable in files.states(model).items()})
    if include_optimizer and model.optimizer is not None:
        result.update(
            {
                f"{OPTIMIZER}/{key}": variable
                for key, variable in model.optimizer.named_variables(named).items()
            }
        )
    return result


def load_model(path: Any, compile: bool = True) -> Model:
    """A model from a file that `model.save` wrote.

    Args:
        path: of the file.
        compile: whether it is compiled as the saved one was, with the optimizer's state.

    Raises:
        ValueError: it is no such file, or names a class that is neither convkit's nor registered
            (`convkit.models.register`).
        OSError: the file cannot be read.
    """
    tensors, header = files.read(path)
    if not isinstance(header, dict) or "model" not in header:
        raise ValueError(
            f"load_model: expected a file written by model.save, got {path} (for weights alone, "
            "make the model and use load_weights)"
        )
    if header.get("format") != FORMAT:
        raise ValueError(
            f"load_model: expected format {FORMAT}, which this version of convkit reads, got "
            f"{header.get('format')!r} in {path}"
        )
    try:
        return _made(header, tensors, path, compile)
    except (TypeError, KeyError, IndexError, AttributeError) as error:
        raise ValueError(
            f"load_model: expected the configuration of a model in {path}, got one that cannot be "
            f"made: {type(error).__name__}: {error}"
        ) from error


def _made(
    header: dict[str, Any], tensors: dict[str, np.ndarray], path: Any, compile: bool
) -> Model:
    """The model of which `contents` gave this."""
    model = registered.made(header["model"], "models")
    if not isinstance(model, Model):
        raise ValueError(f"load_model: expected a model in {path}, got {type(model).__name__}")
    if compile and header["compile"] is not None:
        compile_from(model, header["compile"])
    restore(model, tensors, path, optimizer=compile)
    return model


def reduced(model: Model) -> tuple[Any, ...]:
    """How `pickle` and `copy` make a model again: in the host's memory, wherever it is."""
    found: dict[str, Any] = {}
    _note_own(model, found, set())
    return _unpickled, (*contents(model), found)


def _unpickled(
    header: dict[str, Any], tensors: dict[str, np.ndarray], own: dict[str, Any]
) -> Model:
    with registered.lent(own):
        return _made(header, tensors, "a pickle", compile=True)


def _note_own(value: Any, found: dict[str, Any], seen: set[int]) -> None:
    """Notes classes and functions that are not convkit's, by the names that headers have.

    They go with a pickle, as references, so that they need not be registered where it is read.
    """
    if isinstance(value, (list, tuple)):
        for part in value:
            _note_own(part, found, seen)
    elif isinstance(value, dict):
        _note_own(list(value.values()), found, seen)
    elif isinstance(value, FunctionType):
        _note(value, found)
    elif hasattr(value, "get_config") and not isinstance(value, type) and id(value) not in seen:
        seen.add(id(value))
        _note(type(value), found)
        _note_own(vars(value), found, seen)


def _note(thing: Any, found: dict[str, Any]) -> None:
    if thing.__module__.partition(".")[0] != "convkit":
        found[thing.__name__] = thing


def restore(
    model: Model,
    tensors: dict[str, np.ndarray],
    path: Any,
    optimizer: bool = True,
    op: str = "load_model",
) -> None:
    """Assigns what a file holds to a model's variables; nothing is changed if one does not fit."""
    optimizer = optimizer and model.optimizer is not None
    if optimizer:
        _make_slots(model, tensors)
    known = variables(model, optimizer)
    given = {
        key: array
        for key, array in tensors.items()
        if optimizer or not key.startswith(f"{OPTIMIZER}/")
    }
    files.assign(op, known, given, path)


def _make_slots(model: Model, tensors: dict[str, np.ndarray]) -> None:
    """Has the optimizer make the state that a file holds."""
    assert model.optimizer is not None
    weights = files.named(model)
    for key in tensors:
        of_weight, _, name = key.removeprefix(f"{OPTIMIZER}/").rpartition("/")
        if key.startswith(f"{OPTIMIZER}/") and of_weight in weights:
            model.optimizer.slot(weights[of_weight], name)
