"""Pictures made of small images: predictions, filters, feature maps."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.plot import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]

_MOST_FILTERS = 64
_MOST_INPUTS = 16
_MOST_MAPS = 64
_CELL = 0.85  # inches of a small image


def predictions(
    images: Any,
    y_true: Any,
    y_pred: Any,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
    most: int = 40,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """Images with what a model took them for: right ones blue with ✓, wrong ones red with ✗.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3); bytes or numbers from 0 to 1.
        y_true: labels (N,); None where they are not known.
        y_pred: probabilities (N, classes), or labels (N,).
        class_names: a name per class; None: their numbers.
        columns: images side by side.
        most: only the first so many images are shown.
        title: above the picture; None: how many of all the images are right.
        path: where to save the picture; its ending says as what (.png, .svg, .pdf).
    """
    images, y_pred = np.asarray(images), np.asarray(y_pred)
    y_true = None if y_true is None else np.asarray(y_true).reshape(-1)
    for name, array in (("y_true", y_true), ("y_pred", y_pred)):
        if array is not None and len(array) != len(images):
            raise ValueError(
                f"plot.predictions: expected {name} with as many rows as images "
                f"({len(images)}), got {len(array)}"
            )
    if not len(images) or images.ndim not in (3, 4):
        raise ValueError(
            "plot.predictions: expected images of shape (N, H, W) or (N, H, W, channels), "
            f"got {images.shape}"
        )
    count = min(len(images), most)
    columns = min(columns, count)
    if title is None and y_true is not None:
        hits = int(np.count_nonzero(_labels(y_pred) == y_true))
        title = f"{hits:,} of {len(images):,} right"

    def paint(figure: Any) -> None:
        draw_predictions(
            figure,
            images[:count],
            None if y_true is None else y_true[:count],
            y_pred[:count],
            canvas.names_of(class_names, _classes(y_pred, y_true)),
            columns,
        )
        if title:
            canvas.heading(figure, title)

    rows = -(-count // columns)
    size = 1.3 * _CELL
    return canvas.draw(max(size * columns, 2.5), (size + 0.3) * rows + 0.35, paint, path)


def draw_predictions(
    part: Any,
    images: np.ndarray,
    y_true: np.ndarray | None,
    y_pred: np.ndarray,
    names: list[str],
    columns: int,
) -> None:
    """The images in a figure or in a part of one."""
    labels = _labels(y_pred)
    for i, ax in enumerate(canvas.grid(part, len(images), columns)):
        canvas.show_grey(ax, images[i])
        said = names[labels[i]]
        if y_pred.ndim == 2:
            said += f"  {_percent(float(y_pred[i, labels[i]]))}"
        colour = canvas.INK
        if y_true is not None:
            right = labels[i] == y_true[i]
            colour = canvas.RIGHT if right else canvas.WRONG
            said = f"✓ {said}" if right else f"✗ {said}\nis {names[y_true[i]]}"
            ax.add_patch(_frame(colour))
        ax.set_title(said, color=colour, fontsize=8, loc="center", pad=3, linespacing=1.1)


def _percent(probability: float) -> str:
    """Never 100 % for what is not certain."""
    return f"{min(probability, 0.999) * 100:.0f} %" if probability < 0.995 else ">99 %"


def _frame(colour: str) -> Any:
    """A border around an image, in units of its axes."""
    from matplotlib.patches import Rectangle

    return Rectangle(
        (0, 0), 1, 1, transform=None, fill=False, edgecolor=colour, linewidth=2, clip_on=False
    )


def _labels(y_pred: np.ndarray) -> np.ndarray:
    return y_pred.argmax(axis=1) if y_pred.ndim == 2 else y_pred.astype(np.int64).reshape(-1)


def _classes(y_pred: np.ndarray, y_true: np.ndarray | None) -> int:
    highest = y_pred.shape[1] - 1 if y_pred.ndim == 2 else int(y_pred.max())
    return 1 + max(highest, -1 if y_true is None else int(y_true.max()))
