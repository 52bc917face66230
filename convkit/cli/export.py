"""`convkit export`."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import numpy as np

from convkit import configuration
from convkit.cli import trained
from convkit.cli.errors import CommandError
from convkit.cli.train import check_writable
from convkit.models import files

_ENDINGS = (".npz", ".json", ".safetensors")


def run(arguments: argparse.Namespace) -> None:
    """Writes the weights or the architecture of a saved model in a form that others read."""
    target = Path(arguments.target).expanduser()
    if target.suffix not in _ENDINGS:
        raise CommandError(
            f"expected a name ending in {', '.join(_ENDINGS[:-1])} or {_ENDINGS[-1]}, got "
            f"{arguments.target}"
        )
    check_writable(target, "TARGET")
    model = trained.load_any(Path(arguments.model).expanduser())
    if target.suffix == ".json":
        text = json.dumps(configuration.described(model), indent=1)
        files.write_atomically(target, f"{text}\n".encode())
        print(f"Architecture of {model.name}, {len(model.layers)} layers, written to {target}")
        return
    arrays = named_weights(model)
    if target.suffix == ".npz":
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]
        files.write_atomically(target, content.getvalue())
    else:
        files.write(target, arrays, None)
    numbers = sum(array.size for array in arrays.values())
    print(f"{len(arrays)} arrays of {numbers:,} weights written to {target}")


def named_weights(model: Any) -> dict[str, np.ndarray]:
    """All weights by names such as conv2d/kernel."""
    found: dict[str, np.ndarray] = {}
    for variable in model.weights:
        name, number = variable.name, 1
        while name in found:  # of layers of models inside the model, perhaps
            number += 1
            name = f"{variable.name}_{number}"
        found[name] = variable.numpy()
    return found
