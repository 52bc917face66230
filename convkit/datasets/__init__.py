"""Data sets: ready ones, and readers of the user's own.

`digits` (inside the package), `mnist`, `fashion_mnist`, `cifar10` and `cifar100` (downloaded once)
each have `load_data() -> ((x_train, y_train), (x_test, y_test))`, as in Keras. `image_folder` and
`coco_segmentation` stream images from folders, as a `convkit.data.Dataset`; these need Pillow, the
extra `data`. `idx` reads IDX files. Everything is imported when it is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from convkit.datasets import cifar10, cifar100, digits, fashion_mnist, idx, mnist
    from convkit.datasets.coco import coco_segmentation
    from convkit.datasets.folder import image_folder

# Images (N, H, W) and labels (N,).
Split = tuple[np.ndarray, np.ndarray]

__all__ = [
    "cifar10",
    "cifar100",
    "coco_segmentation",
    "digits",
    "fashion_mnist",
    "idx",
    "image_folder",
    "mnist",
]
_FUNCTIONS = {"coco_segmentation": "coco", "image_folder": "folder"}


def __getattr__(name: str) -> Any:
    if name in _FUNCTIONS:
        return getattr(importlib.import_module(f"{__name__}.{_FUNCTIONS[name]}"), name)
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))
