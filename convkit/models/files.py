"""Weights on disk: one safetensors file, written whole or not at all."""

from __future__ import annotations

import errno
import json
import os
import secrets
from pathlib import Path
from typing import Any

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
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
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


def _named(model: Any) -> dict[str, Variable]:
    """Keys that do not depend on how many layers were made before: 0/kernel, 0/bias, 2/kernel, …"""
    named = {}
    layers = [layer for layer in model.layers if layer.ordered_weights()]
    for i, layer in enumerate(layers):
        for variable in layer.ordered_weights():
            named[f"{i}/{variable.name.split('/', 1)[-1]}"] = variable
    return named


def save(path: Any, model: Any, metadata: dict[str, Any] | None = None) -> None:
    """Writes a model's weights, and beside them what `read_metadata` is to give back (JSON)."""
    from safetensors.numpy import save as serialise

    if str(path).endswith((".h5", ".keras")):
        raise ValueError(
            f"save_weights: expected a name such as model.safetensors (the format), got {path}"
        )
    named = _named(model)
    if not named:
        raise ValueError("save_weights: expected a model with weights, got one without")
    entries = None if metadata is None else {_ENTRY: json.dumps(metadata, sort_keys=True)}
    content = serialise({key: variable.host() for key, variable in named.items()}, entries)
    write_atomically(Path(path), content)


def read_metadata(path: Any) -> dict[str, Any] | None:
    """What `save` was given as metadata; None for a file without."""
    from safetensors import SafetensorError, safe_open

    Path(path).open("rb").close()  # a missing or unreadable file is an OSError that names it
    try:
        with safe_open(path, framework="numpy") as file:
            metadata = json.loads((file.metadata() or {}).get(_ENTRY, "null"))
    except (SafetensorError, json.JSONDecodeError) as error:
        raise ValueError(f"expected a safetensors file, got {path}: {error}") from None
    return metadata if isinstance(metadata, dict) else None


def load(path: Any, model: Any) -> None:
    """Reads a model's weights; all of them fit, or nothing is changed."""
    from safetensors import SafetensorError
    from safetensors.numpy import load as parse

    try:
        arrays = parse(Path(path).read_bytes())
    except SafetensorError as error:
        raise ValueError(
            f"load_weights: expected a safetensors file, got {path}: {error}"
        ) from None
    named = _named(model)
    if set(arrays) != set(named):
        missing = ", ".join(sorted(set(named) - set(arrays))) or "none"
        unknown = ", ".join(sorted(set(arrays) - set(named))) or "none"
        raise ValueError(
            f"load_weights: expected the weights of this model, got {path} "
            f"(missing: {missing}; unknown: {unknown})"
        )
    for key, variable in named.items():
        if arrays[key].shape != variable.shape:
            raise ValueError(
                f"load_weights: expected {key} of shape {variable.shape}, got "
                f"{arrays[key].shape} in {path}"
            )
    for key, variable in named.items():
        variable.assign(arrays[key])
