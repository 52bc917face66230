"""Helpers with Keras's names: one-hot labels and the random seed."""

from __future__ import annotations

import operator
import random as python_random
from typing import Any

import numpy as np

from convkit import geometry
from convkit import random as convkit_random


def to_categorical(x: Any, num_classes: int | None = None) -> np.ndarray:
    """Labels as one-hot rows.

    Args:
        x: whole numbers from 0, of any shape; a last axis of size 1 is dropped.
        num_classes: how many classes; None: the largest label plus one.

    Returns:
        float32 array of shape (*x.shape, num_classes).

    Raises:
        ValueError: a label is negative, not whole, or not below num_classes.
    """
    labels = np.asarray(x)
    if labels.dtype.kind not in "fiub":
        raise TypeError(f"to_categorical: expected whole numbers, got dtype {labels.dtype}")
    if labels.dtype.kind == "f" and not (
        np.isfinite(labels).all() and np.array_equal(labels, np.trunc(labels))
    ):
        raise geometry.fail("to_categorical", "whole numbers", "fractions, NaN or infinity")
    whole = labels.astype(np.int64)
    if whole.ndim > 1 and whole.shape[-1] == 1:
        whole = whole[..., 0]
    if num_classes is None:
        if not whole.size:
            raise geometry.fail("to_categorical", "at least one label or num_classes", "neither")
        num_classes = int(whole.max()) + 1
    classes = geometry.integer("to_categorical", "num_classes", num_classes, 1)
    if whole.size and (whole.min() < 0 or whole.max() >= classes):
        worst = whole.min() if whole.min() < 0 else whole.max()
        raise geometry.fail("to_categorical", f"labels between 0 and {classes - 1}", worst)
    result = np.zeros((*whole.shape, classes), np.float32)
    np.put_along_axis(result, whole[..., None], 1, axis=-1)
    return result


def set_random_seed(seed: int) -> None:
    """Seeds convkit, NumPy's global generator and Python's `random`.

    With a seed, two runs of a program give the same bits, whatever the number of threads.

    Args:
        seed: 0 .. 2**32 - 1.
    """
    try:
        number = operator.index(seed)
    except TypeError:
        raise TypeError(f"set_random_seed: expected an integer, got {seed!r}") from None
    if not 0 <= number < 2**32:
        raise geometry.fail("set_random_seed", "a seed between 0 and 2**32 - 1", seed)
    python_random.seed(number)
    np.random.seed(number)  # noqa: NPY002 - callers who use the global generator expect it
    convkit_random.seed(number)


def plot_model(
    model: Any,
    to_file: Any = "model.png",
    show_shapes: bool = False,
    show_dtype: bool = False,
    show_layer_names: bool = False,
    expand_nested: bool = False,
    show_trainable: bool = False,
) -> Any:
    """Keras's name for `convkit.plot.model`, with its defaults.

    Args:
        model: a built model.
        to_file: where to save the picture (.png, .svg, .pdf); None: nowhere.
        show_shapes, show_dtype, expand_nested, show_trainable: as for `convkit.plot.model`.
        show_layer_names: whether boxes tell the layers' names, beside their classes.

    Returns:
        The picture, a `matplotlib.figure.Figure`.
    """
    from convkit import plot  # Matplotlib is a long import

    return plot.model(
        model,
        show_shapes=show_shapes,
        show_dtype=show_dtype,
        show_names=show_layer_names,
        expand_nested=expand_nested,
        show_trainable=show_trainable,
        path=to_file,
    )
