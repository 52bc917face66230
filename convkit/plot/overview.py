"""One picture of a trained classifier: its training, what it says, what it sees."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit.plot import canvas, features, images, scores

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_COLUMNS = 8
_WIDTHS = (1.25, 1)


def overview(
    model: Any,
    history: Any,
    x: Any,
    y: Any,
    *,
    class_names: Sequence[str] | None = None,
    title: str | None = None,
    path: str | os.PathLike[str] | None = None,
) -> Figure:
    """History, confusion matrix, predictions with the worst mistakes, filters and feature maps.

    Args:
        model: a trained model with probabilities (N, classes) as its output and a convolution.
        history: what `fit` returned; its validation data are taken to be x and y.
        x: test images, as the model takes them.
        y: their labels (N,).
        class_names: a name per class; None: their numbers.
        title: above the picture; None: the model's name and its accuracy.
        path: where to save the picture.
    """
    x, y = np.asarray(x), np.asarray(y).reshape(-1)
    y_pred = model.predict(x, 256)
    labels = y_pred.argmax(axis=1)
    names = canvas.names_of(class_names, y_pred.shape[1])
    worst = images.worst_first(y, y_pred)[:_COLUMNS]
    correct = np.flatnonzero(labels == y)
    first = correct[_first_of_each_class(y[correct])][:_COLUMNS]
    sample, layer, maps = features.maps_of(model, x[0])
    curves = scores.curves_of(history)

    def paint(figure: Any) -> None:
        hits = f"{(labels == y).mean():.2%} of {len(y):,} test images right"
        canvas.heading(figure, title or f"{model.name}: {hits}", size=13)
        top, bottom = figure.subfigures(2, 1, height_ratios=(1.3, 1))
        upper_left, upper_right = top.subfigures(1, 2, width_ratios=_WIDTHS)
        canvas.heading(upper_left, "Training")
        scores.draw_history(upper_left, curves, "test")
        canvas.heading(upper_right, "What is taken for what")
        scores.draw_confusion(upper_right.subplots(), scores.counts_of(y, y_pred), names)

        left, right = bottom.subfigures(1, 2, width_ratios=_WIDTHS)
        canvas.heading(left, "Images read right, and the mistakes the model is surest of")
        shown = np.concatenate([first, worst])
        images.draw_predictions(left, x[shown], y[shown], y_pred[shown], names, _COLUMNS)
        filters, seen = right.subfigures(2, 1)
        canvas.heading(filters, f"Filters of {layer.name}")
        features.draw_filters(filters, features.kernel_of(layer))
        canvas.heading(seen, f"What {layer.name} makes of an image")
        features.draw_feature_maps(seen, sample, maps)

    return canvas.draw(12, 7.4, paint, path)


def _first_of_each_class(y: np.ndarray) -> np.ndarray:
    return np.sort(np.unique(y, return_index=True)[1])
