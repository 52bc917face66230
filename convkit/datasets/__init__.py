"""Data sets: `digits` (inside the package), `mnist` and `fashion_mnist` (downloaded once).

Each has `load_data() -> ((x_train, y_train), (x_test, y_test))`, as in Keras. The submodules, and
`idx`, the reader of IDX files, are imported when they are first used.
"""

from __future__ import annotations

import importlib
from types import ModuleType

import numpy as np

# Images (N, H, W) and labels (N,).
Split = tuple[np.ndarray, np.ndarray]

__all__ = ["digits", "fashion_mnist", "idx", "mnist"]


def __getattr__(name: str) -> ModuleType:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
