"""convkit: small convolutional networks at full speed.

Hand-written C++ kernels for convolution, pooling, up-sampling and dense layers on NumPy arrays
(`convkit.ops`), and a Keras-shaped API on top of them (`convkit.Sequential`, `convkit.layers`, …).
Submodules are loaded when they are first used, so that `import convkit` costs milliseconds.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

try:
    from convkit import _core as _core
except ImportError as error:
    if not isinstance(error, ModuleNotFoundError) and "cannot import name" not in str(error):
        raise  # it is there, and says itself what is wrong
    raise ImportError(
        "convkit: Python found the sources rather than the installed package, and they hold no "
        "compiled part (convkit._core). Start Python in another folder; or, to work on the "
        "sources, run `pip install -e .` in the folder with pyproject.toml."
    ) from None

from convkit.config import get_num_threads, get_precision, set_num_threads, set_precision

__version__: str = _core.__version__

_SUBMODULES = (
    "activations",
    "callbacks",
    "config",
    "constraints",
    "data",
    "datasets",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "plot",
    "regularizers",
    "schedules",
    "sklearn",
    "utils",
)
_NAMES = {
    "Input": "convkit.layers",
    "Model": "convkit.models",
    "Perceptron": "convkit.perceptron",
    "profile": "convkit.profiling",
    "Sequential": "convkit.models",
    "value_and_grad": "convkit.models",
}

if TYPE_CHECKING:
    from convkit import (
        activations,
        callbacks,
        config,
        constraints,
        data,
        datasets,
        initializers,
        layers,
        losses,
        metrics,
        models,
        ops,
        optimizers,
        plot,
        regularizers,
        schedules,
        utils,
    )
    from convkit.layers import Input
    from convkit.models import Model, Sequential, value_and_grad
    from convkit.perceptron import Perceptron
    from convkit.profiling import profile

__all__ = [
    "Input",
    "Model",
    "Perceptron",
    "Sequential",
    "__version__",
    "activations",
    "callbacks",
    "config",
    "constraints",
    "data",
    "datasets",
    "get_num_threads",
    "get_precision",
    "initializers",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "plot",
    "profile",
    "regularizers",
    "schedules",
    "set_num_threads",
    "set_precision",
    "utils",
    "value_and_grad",
]


def __getattr__(name: str) -> Any:
    if name in _SUBMODULES:
        return importlib.import_module(f"convkit.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(_NAMES[name]), name)
    raise AttributeError(f"module 'convkit' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(__all__)
