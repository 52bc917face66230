"""Pictures of numbers: a training's history, learning rates, a confusion matrix."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.geometry import integer
from convkit.plot import canvas

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]

# Classes of which a confusion matrix tells the numbers; of more, colours have to do.
_MOST_NUMBERED = 30


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
        if name == "learning_rate":
            _draw_rates(ax, next(iter(lines.values())))
            continue
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


def _draw_rates(ax: Any, rates: Sequence[float]) -> None:
    """A step for each epoch."""
    epochs = np.arange(1, len(rates) + 1)
    ax.step(epochs, rates, color=canvas.BLUE, where="mid", marker="o", markersize=3)
    ax.set_title("learning rate")
    ax.set_xlabel("epoch")
    _finish_rates(ax, rates)


def _finish_rates(ax: Any, rates: Sequence[float]) -> None:
    ax.grid(axis="y")
    ax.margins(x=0.03)
    ax.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    if 0 < 200 * min(rates) < max(rates):
        ax.set_yscale("log")
    else:
        ax.set_ylim(bottom=0)


def learning_rate(
    source: Any,
    steps: int | None = None,
    *,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """The learning rate over the steps of a schedule, or over the epochs of a training.

    Args:
        source: a schedule of `convkit.schedules`, or any function of the step; an optimizer that
            has one; or what `fit` returned, where a callback noted the rates (as
            `LearningRateScheduler` and `ReduceLROnPlateau` do), or its dictionary.
        steps: of a schedule, how many are drawn; None: as many as it goes on changing for.
        title: above the picture; None: the schedule's name.
        path: where to save the picture.
    """
    op = "plot.learning_rate"
    schedule = getattr(source, "_schedule", source)
    name = getattr(schedule, "__name__", type(schedule).__name__)
    if callable(schedule):
        count = integer(op, "steps", _horizon(schedule) if steps is None else steps, 1)
        # So many points that a curve is smooth and a jump is upright.
        x: Any = np.unique(np.linspace(0, count - 1, min(count, 2000)).astype(np.int64))
        y = [float(schedule(int(step))) for step in x]
    else:
        values: Any = getattr(source, "history", source)
        if not isinstance(values, Mapping) or not values.get("learning_rate"):
            raise ValueError(
                f"{op}: expected a schedule, or a history with learning_rate, got {source!r}"
            )
        y = list(values["learning_rate"])
        x, name = None, "learning rate"

    def paint(figure: Any) -> None:
        ax = figure.subplots()
        if x is None:
            _draw_rates(ax, y)
            ax.set_title("")
        else:
            ax.plot(x, y, color=canvas.BLUE)
            ax.set_xlabel("step")
            ax.set_ylabel("learning rate")
            _finish_rates(ax, y)
        canvas.heading(figure, title or name)

    return canvas.draw(5.2, 3.0, paint, path)


def _horizon(schedule: Any) -> int:
    """How many steps a schedule changes for, by what its arguments say."""
    total = getattr(schedule, "total_steps", None)
    if total is not None:
        return int(total)
    boundaries = getattr(schedule, "boundaries", None)
    if boundaries:
        return int(boundaries[-1] * 1.25) + 1
    first = getattr(schedule, "first_decay_steps", None)  # of cosines with restarts: three of them
    if first is not None:
        factor = float(getattr(schedule, "t_mul", 1.0))
        return int(first * (1 + factor + factor * factor))
    steps = getattr(schedule, "decay_steps", None)
    if steps is None:
        raise ValueError("plot.learning_rate: expected steps for a schedule that has none itself")
    return int(steps + (getattr(schedule, "warmup_steps", 0) or 0)) + 1


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
    Of more than 30 classes the numbers are left out.

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

    cell = 0.42 if len(counts) <= _MOST_NUMBERED else 0.14
    side = cell * len(counts) + 0.06 * max(map(len, names)) + 1
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
    numbered = classes <= _MOST_NUMBERED
    size = 7.5 if classes <= 12 else max(3.0, 90 / classes)
    for row, column in np.argwhere(counts > 0) if numbered else ():
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
    if not numbered:
        ax.set_xticks(ticks, names, rotation=90, ha="center")
        ax.tick_params(labelsize=5.5)
    ax.set_xlabel("taken for")
    ax.set_ylabel("is")
    ax.set_xticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.set_yticks(np.arange(classes - 1) + 0.5, minor=True)
    ax.grid(which="minor", color=canvas.LINES, linewidth=0.7)
    ax.tick_params(which="minor", length=0)
    for spine in ax.spines.values():
        spine.set_visible(False)
