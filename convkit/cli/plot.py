"""`convkit plot`."""

from __future__ import annotations

import argparse
import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import convkit
from convkit import plot
from convkit.cli import images, scores, trained
from convkit.cli.errors import CommandError
from convkit.cli.evaluate import test_images
from convkit.cli.train import check_plot

_MOST = 24  # mistakes
_IMAGES = 8  # of the test images, where none are given


def run(arguments: argparse.Namespace) -> None:
    """Draws one picture."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    target = check_plot(arguments.output or f"{arguments.kind}.png", "--output")
    path = Path(arguments.file).expanduser()
    try:
        KINDS[arguments.kind](arguments, path, target)
    except ValueError as error:  # such as a layer that the model does not have
        raise CommandError(str(error).removeprefix("plot.")) from None
    print(f"Picture saved to {target}")


def _model(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    plot.model(trained.load_any(path), expand_nested=True, path=target)


def _filters(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    model = trained.load_any(path)
    if arguments.layer:
        layer = model.get_layer(arguments.layer)
    else:
        found = [layer for layer in model.layers if "Conv2D" in type(layer).__name__]
        if not found:
            raise CommandError(f"{path}: expected a model with a convolution, found none")
        layer = found[0]
    plot.filters(layer, path=target)


def _feature_maps(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    model, _, x = _given_images(arguments, path, 1)
    if arguments.layer:
        plot.feature_maps(model, x[0], arguments.layer, path=target)
    else:
        plot.layer_outputs(model, x[0], path=target)


def _grad_cam(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    model, names, x = _given_images(arguments, path, _IMAGES)
    plot.grad_cam(model, x, arguments.layer, class_names=names, path=target)


def _confusion(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    model, description = trained.load(path)
    _, test = test_images(path, model, description, arguments.data)
    y_true, y_pred = [], []
    for x, y in test.batches():
        y_true.append(y)
        y_pred.append(model.predict(x, 256))
    names = description.class_names
    plot.confusion_matrix(np.concatenate(y_true), np.concatenate(y_pred), names, path=target)


def _mistakes(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    model, description = trained.load(path)
    name, test = test_images(path, model, description, arguments.data)
    found = scores.score(model, test, len(description.class_names), most=_MOST)
    count = found.images - found.right
    title = f"{name}: {count:,} mistake{'' if count == 1 else 's'} in {found.images:,} images"
    if not count:
        raise CommandError(f"{path} makes no mistake on {name}: there is nothing to draw")
    if count > _MOST:
        title += f", the {_MOST} that the model is surest of"
    plot.mistakes(*found.worst, class_names=description.class_names, title=title, path=target)


def _history(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    plot.history(_read_history(path), path=target)


def _learning_rate(arguments: argparse.Namespace, path: Path, target: Any) -> None:
    optimizer = trained.load_any(path, compile=True).optimizer
    rate = None if optimizer is None else optimizer.get_config()["learning_rate"]
    if not isinstance(rate, dict):
        raise CommandError(f"{path}: expected a model that was trained with a schedule")
    plot.learning_rate(optimizer, path=target)


def _read_history(path: Path) -> dict[str, list[float]]:
    """A file that `convkit train --csv` wrote."""
    try:
        with path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        columns = {name: [float(row[name]) for row in rows] for name in rows[0] if name != "epoch"}
    except (ValueError, TypeError, IndexError, csv.Error):
        columns = {}
    if not columns:
        raise CommandError(f"{path}: expected a file that convkit train --csv wrote")
    return columns


def _given_images(
    arguments: argparse.Namespace, path: Path, most: int
) -> tuple[Any, tuple[str, ...], np.ndarray]:
    """The model, its classes, and the images of the option, or else the first test images."""
    model, description = trained.load(path)
    if arguments.image:
        images.require_pillow()
        paths = [Path(name).expanduser() for name in arguments.image]
        x = np.stack([images.as_input(one, description, model) for one in paths])
    else:
        _, test = test_images(path, model, description, arguments.data)
        x, _ = test.first(most)
    return model, description.class_names, x


KINDS: dict[str, Callable[[argparse.Namespace, Path, Any], None]] = {
    "model": _model,
    "filters": _filters,
    "feature-maps": _feature_maps,
    "grad-cam": _grad_cam,
    "confusion": _confusion,
    "mistakes": _mistakes,
    "history": _history,
    "learning-rate": _learning_rate,
}
