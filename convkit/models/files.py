"""Weights on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from convkit.graph import Variable

# The one entry of a file's metadata that is ours. All is kept in it, as JSON, because safetensors
# writes several entries in no fixed order, and equal models are to give equal files.
_ENTRY = "convkit"


def write_atomically(path: Path, content: bytes) -> None:
    """The new content or, after a crash at any moment, the old file as it was.

    Raises:
        OSError: naming `path`, which is left as it was.
    """
    path = path.resolve()  # of a link, what it points to is replaced
    if path.exists() and not path.is_file():
        raise OSError(errno.EINVAL, "expected a file to replace, got something else", str(path))
    temporary = path.with_name(f"{_beginning(path)}{os.getpid()}.{secrets.token_hex(4)}")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.errno is None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from None  # not the temporary name
    finally:
        temporary.unlink(missing_ok=True)


def _beginning(path: Path) -> str:
    """How the names of temporary files for a path begin."""
    return f".{path.name}."


def remove_unfinished(path: Path) -> None:
    """Removes temporary files that killed processes left; no other process may be writing."""
    for left in path.parent.iterdir():
        if left.name.startswith(_beginning(path)):
            left.unlink(missing_ok=True)


def check_name(op: str, path: Any) -> None:
    """Refuses the names of Keras's formats, in which nothing is written here."""
    if str(path).endswith((".h5", ".keras")):
        raise ValueError(
            f"{op}: expected a name such as model.safetensors (the format), got {path}"
        )


def named(model: Any) -> dict[str, Variable]:
    """Keys that do not depend on how many layers were made before: 0/kernel, 0/bias, 2/kernel, …

    What a layer's own layers have goes by their numbers: 3/0/kernel.
    """
    return _numbered(
        model.layers, lambda layer: layer.ordered_weights(), lambda layer: layer._variables
    )


def states(model: Any) -> dict[str, Variable]:
    """Seeds and steps of random numbers, likewise."""

    def own(layer: Any) -> list[Variable]:
        nested = {id(state) for inner in layer.sublayers for state in inner.states}
        return [state for state in layer.states if id(state) not in nested]

    return _numbered(model.layers, lambda layer: layer.states, own)


def _numbered(
    layers: Any, everything: Callable[[Any], list[Variable]], own: Callable[[Any], list[Variable]]
) -> dict[str, Variable]:
    """Variables by the number of their layer among those that have any, and their name."""
    found: dict[str, Variable] = {}
    seen: set[int] = set()
    for i, layer in enumerate(layer for layer in layers if everything(layer)):
        for variable in own(layer):
            if id(variable) not in seen:
                seen.add(id(variable))
                found[f"{i}/{variable.name.split('/', 1)[-1]}"] = variable
        for key, variable in _numbered(layer.sublayers, everything, own).items():
            if id(variable) not in seen:
                seen.add(id(variable))
                found[f"{i}/{key}"] = variable
    return found


def save(path: Any, model: Any, metadata: dict[str, Any] | None = None) -> None:
    """Writes a model's weights, and beside them what `read_metadata` is to give back (JSON)."""
    variables = named(model)
    if not variables:
        raise ValueError("save_weights: expected a model with weights, got one without")
    write(path, {key: variable.host() for key, variable in variables.items()}, metadata)


def write(path: Any, tensors: dict[str, np.ndarray], metadata: dict[str, Any] | None) -> None:
    """Writes arrays, and beside them what `read` is to give back (JSON)."""
    from safetensors.numpy import save as serialise

    check_name("save", path)
    # Keys stay in their order: that of a model's inputs and outputs is theirs.
    entries = None if metadata is None else {_ENTRY: json.dumps(metadata)}
    write_atomically(Path(path), serialise(tensors, entries))


def read(path: Any) -> tuple[dict[str, np.ndarray], Any]:
    """The arrays of a file and what was written beside them, None if nothing was."""
    content = Path(path).read_bytes()  # once: another process may be replacing the file
    return _arrays("load", path, content), _metadata(path, content)


def read_metadata(path: Any) -> dict[str, Any] | None:
    """What `save` was given as metadata; None for a file without."""
    from safetensors import SafetensorError, safe_open

    Path(path).open("rb").close()  # a missing or unreadable file is an OSError that names it
    try:
        with safe_open(path, framework="numpy") as file:
            return _parsed(file.metadata())
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"expected a safetensors file, got {path}: {error}") from None


def _metadata(path: Any, content: bytes) -> dict[str, Any] | None:
    """The same of a file's bytes: the header's length, 8 bytes, and the header, which is JSON."""
    length = int.from_bytes(content[:8], "little")
    try:
        return _parsed(json.loads(content[8 : 8 + length]).get("__metadata__"))
    except json.JSONDecodeError as error:
        raise ValueError(f"expected a safetensors file, got {path}: {error}") from None


def _parsed(entries: dict[str, str] | None) -> dict[str, Any] | None:
    metadata = json.loads((entries or {}).get(_ENTRY, "null"))
    return metadata if isinstance(metadata, dict) else None


def _arrays(op: str, path: Any, content: bytes) -> dict[str, np.ndarray]:
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        arrays: dict[str, np.ndarray] = parse(content)
    except SafetensorError as error:
        raise ValueError(f"{op}: expected a safetensors file, got {path}: {error}") from None
    return arrays


def load(path: Any, model: Any) -> None:
    """Reads a model's weights, of a file with these alone or with a whole model.

    All of them fit, or nothing is changed.
    """
    arrays = _arrays("load_weights", path, Path(path).read_bytes())
    arrays = {
        key: array
        for key, array in arrays.items()
        if not key.startswith(("optimizer/", "state/"))  # of a whole model
    }
    assign("load_weights", named(model), arrays, path)


def assign(
    op: str, variables: dict[str, Variable], arrays: dict[str, np.ndarray], path: Any
) -> None:
    """Gives each variable the array of its key; all of them fit, or nothing is changed."""
    if set(arrays) != set(variables):
        missing = ", ".join(sorted(set(variables) - set(arrays))) or "none"
        unknown = ", ".join(sorted(set(arrays) - set(variables))) or "none"
        raise ValueError(
            f"{op}: expected the weights of this model, got {path} "
            f"(missing: {missing}; unknown: {unknown})"
        )
    for key, variable in variables.items():
        if arrays[key].shape != variable.shape:
            raise ValueError(
                f"{op}: expected {key} of shape {variable.shape}, got {arrays[key].shape} in {path}"
            )
    for key, variable in variables.items():
        variable.assign(arrays[key])
