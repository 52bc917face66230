"""Pictures of images with what a model took them for."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.plot import canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Path = str | os.PathLike[str]

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
    images, y_true, y_pred = _checked("plot.predictions", images, y_true, y_pred)
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
    width = max(size * columns, 2.5, canvas.heading_width(title or ""))
    return canvas.draw(width, (size + 0.3) * rows + 0.35, paint, path)


def mistakes(
    images: Any,
    y_true: Any,
    y_pred: Any,
    *,
    class_names: Sequence[str] | None = None,
    columns: int = 8,
    most: int = 24,
    title: str | None = None,
    path: Path | None = None,
) -> Figure:
    """The images that a model got wrong, those first of which it was surest.

    Args:
        images: (N, H, W), (N, H, W, 1) or (N, H, W, 3); bytes or numbers from 0 to 1.
        y_true: labels (N,).
        y_pred: probabilities (N, classes).
        class_names: a name per class; None: their numbers.
        columns: images side by side.
        most: so many are shown.
        title: above the picture; None: how many mistakes there are.
        path: where to save the picture.
    """
    op = "plot.mistakes"
    images, y_true, y_pred = _checked(op, images, y_true, y_pred)
    if y_pred.ndim != 2:
        raise ValueError(f"{op}: expected probabilities (N, classes), got {y_pred.shape}")
    wrong = worst_first(y_true, y_pred)
    if title is None:
        count = "no" if not len(wrong) else f"{len(wrong):,}"
        title = f"{count} mistake{'' if len(wrong) == 1 else 's'} in {len(images):,} images"
        if len(wrong) > most:
            title += f", the {most} that the model is surest of"
        title = title[0].upper() + title[1:]
    if not len(wrong):
        return canvas.draw(
            3.5, 0.6, lambda figure: canvas.heading(figure, title), path, constrained=False
        )
    shown = wrong[:most]
    return predictions(
        images[shown],
        y_true[shown],
        y_pred[shown],
        class_names=canvas.names_of(class_names, _classes(y_pred, y_true)),
        columns=columns,
        most=most,
        title=title,
        path=path,
    )


def worst_first(y_true: np.ndarray, y_pred: np.ndarray) -> np.ndarray:
    """Which rows of probabilities are mistakes; the surer the model was, the earlier."""
    labels = y_pred.argmax(axis=1)
    wrong = np.flatnonzero(labels != y_true)
    found: np.ndarray = wrong[np.argsort(-y_pred[wrong, labels[wrong]], kind="stable")]
    return found


def _checked(op: str, images: Any, y_true: Any, y_pred: Any) -> tuple[Any, Any, Any]:
    """As arrays."""
    images, y_pred = np.asarray(images), np.asarray(y_pred)
    y_true = None if y_true is None else np.asarray(y_true).reshape(-1)
    for name, array in (("y_true", y_true), ("y_pred", y_pred)):
        if array is not None and len(array) != len(images):
            raise ValueError(
                f"{op}: expected {name} with as many rows as images ({len(images)}), "
                f"got {len(array)}"
            )
    if not len(images) or images.ndim not in (3, 4):
        raise ValueError(
            f"{op}: expected images of shape (N, H, W) or (N, H, W, channels), got {images.shape}"
        )
    return images, y_true, y_pred


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
        canvas.show_image(ax, images[i])
        said = names[labels[i]]
        if y_pred.ndim == 2:
            said += f"  {canvas.percent(float(y_pred[i, labels[i]]))}"
        colour = canvas.INK
        if y_true is not None:
            right = labels[i] == y_true[i]
            colour = canvas.RIGHT if right else canvas.WRONG
            said = f"✓ {said}" if right else f"✗ {said}\nis {names[y_true[i]]}"
            canvas.frame(ax, colour)
        ax.set_title(said, color=colour, fontsize=8, loc="center", pad=3, linespacing=1.1)


def _labels(y_pred: np.ndarray) -> np.ndarray:
    return y_pred.argmax(axis=1) if y_pred.ndim == 2 else y_pred.astype(np.int64).reshape(-1)


def _classes(y_pred: np.ndarray, y_true: np.ndarray | None) -> int:
    highest = y_pred.shape[1] - 1 if y_pred.ndim == 2 else int(y_pred.max())
    return 1 + max(highest, -1 if y_true is None else int(y_true.max()))
