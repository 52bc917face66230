"""Pictures of numbers: a training's history and a confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]


def history(
    history: Any,
    *,
    validation: str = "validation",
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """Loss and metrics over the epochs, for training and validation.

    Args:
        history: what `fit` returned, or its dictionary of lists.
        validation: what the validation data are called in the picture.
        title: above the picture; None: no title.
        path: where to save the picture.
    """
    curves = curves_of(history)

    def paint(figure: Any) -> None:
        draw_history(figure, curves, validation)
        if title:
            canvas.heading(figure, title)

    return canvas.draw(4.2 * len(curves) + 0.4, 3.0, paint, path)


def curves_of(history: Any) -> dict[str, dict[str, list[float]]]:
    """{"loss": {"loss": [...], "val_loss": [...]}, "accuracy": ...}, the loss first."""
    values: Mapping[str, list[float]] = getattr(history, "history", history)
    names = sorted((n for n in values if not n.startswith("val_")), key=lambda n: n != "loss")
    if not names or not values[names[0]]:
        raise ValueError("plot.history: expected at least one epoch, got none")
    return {n: {k: list(values[k]) for k in (n, f"val_{n}") if k in values} for n in names}


def draw_history(part: Any, curves: dict[str, dict[str, list[float]]], validation: str) -> None:
    """One panel per loss or metric, in a figure or in a part of one."""
    for ax, (name, lines) in zip(
        part.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True
    ):
        styles = (("training", canvas.MUTED, "--"), (validation, canvas.BLUE, "-"))
        for values, (label, colour, dashes) in zip(lines.values(), styles, strict=False):
            epochs = np.arange(1, len(values) + 1)
            ax.plot(epochs, values, dashes, color=colour, label=label, marker="o", markersize=3)
        ax.set_title(name)
        ax.set_xlabel("epoch")
        ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        ax.grid(axis="y")
        ax.margins(x=0.03)
        if name == "loss" and min(min(v) for v in lines.values()) >= 0:
            ax.set_ylim(bottom=0)
        if len(lines) > 1:
            ax.legend()


def confusion_matrix(
    y_true: Any,
    y_pred: Any,
    class_names: Sequence[str] | None = None,
    *,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """How often each class (a row) was taken for each class (a column).

    Right ones, on the diagonal, are shaded blue by their share of the row; mistakes red by their
    number, from the rarest to the most frequent, as otherwise the many right ones would hide them.

    Args:
        y_true: labels (N,).
        y_pred: labels (N,), or probabilities (N, classes).
        class_names: a name per class; None: their numbers.
        title: above the picture; None: the accuracy.
        path: where to save the picture.
    """
    counts = counts_of(y_true, y_pred)
    names = canvas.names_of(class_names, len(counts))

    def paint(figure: Any) -> None:
        draw_confusion(figure.subplots(), counts, names)
        total = int(counts.sum())
        canvas.heading(figure, title or f"{np.trace(counts) / total:.2%} of {total:,} right")

    side = 0.42 * len(counts) + 0.06 * max(map(len, names)) + 1
    return canvas.draw(max(side, 3), max(side, 3) + 0.2, paint, path)


def counts_of(y_true: Any, y_pred: Any) -> np.ndarray:
    """(classes, classes): how often the class of the row was taken for that of the column."""
    y_true, y_pred = np.asarray(y_true).reshape(-1), np.asarray(y_pred)
    classes = y_pred.shape[1] if y_pred.ndim == 2 else 0
    labels = y_pred.argmax(axis=1) if y_pred.ndim == 2 else y_pred.reshape(-1)
    if len(labels) != len(y_true) or not len(labels):
        raise ValueError(
            "plot.confusion_matrix: expected as many predictions as labels, and some, "
            f"got {len(labels)} and {len(y_true)}"
        )
    for name, values in (("y_true", y_true), ("y_pred", labels)):
        if values.dtype.kind not in "iu" or values.min() < 0:
            raise ValueError(f"plot.confusion_matrix: expected {name} to be whole numbers from 0")
    classes = max(classes, int(y_true.max()) + 1, int(labels.max()) + 1)
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (y_true.astype(np.int64), labels.astype(np.int64)), 1)
    return counts


def draw_confusion(ax: Axes, counts: np.ndarray, names: list[str]) -> None:
    """The matrix on axes."""
    import matplotlib

    classes = len(counts)
    right = np.eye(classes, dtype=bool)
    share = np.diag(counts) / np.maximum(counts.sum(axis=1), 1)
    most = max(int(counts[~right].max()) if classes > 1 else 0, 1)
    colours = np.ones((classes, classes, 4))
    # Only the light parts of the two scales, so that dark figures can be read on all of them.
    colours[right] = matplotlib.colormaps["Blues"](0.12 + 0.33 * share)
    wrong = ~right & (counts > 0)
    colours[wrong] = matplotlib.colormaps["Oranges"](0.1 + 0.45 * counts[wrong] / most)
    ax.imshow(colours)
    size = 7.5 if classes <= 12 else max(3.0, 90 / classes)
    for row, column in np.argwhere(counts > 0):
        ax.text(
            column,
            row,
            str(counts[row, column]),
            ha="center",
            va="center",
            fontsize=size,
            color=canvas.INK,
            fontweight="bold" if row == column else "normal",
        )
    ticks = range(classes)
    upright = all(len(name) <= 2 for name in names)
    ax.set_xticks(ticks, names, rotation=0 if upright else 45, ha="center" if upright else "right")
    ax.set_yticks(ticks, names)
    ax.set_xlabel("taken for")
    ax.set_ylabel("is")
    ax.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.grid(which="minor", color=canvas.LINES, linewidth=0.7)
    ax.tick_params(which="minor", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
