"""`convkit predict`."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

import convkit
from convkit.cli import images, trained
from convkit.cli.errors import CommandError
from convkit.cli.train import check_plot

_SHOWN = 0.001  # probabilities below are not told one by one
_MOST = 5  # classes that are told


def run(arguments: argparse.Namespace) -> None:
    """Tells the class of each image; goes on after one that cannot be read."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    images.require_pillow()
    plot_target = check_plot(arguments.plot, "--plot")
    path = Path(arguments.model).expanduser() if arguments.model else _newest()
    model, description = trained.load(path)
    if not arguments.model:
        print(f"With {path}:")

    if description.data == "digits":
        print(
            "(These weights saw 1,442 small images of a few hands; `convkit train --data mnist` "
            "gives ones that read most writing.)",
            file=sys.stderr,
        )

    inputs, failed = [], 0
    for name in arguments.images:
        try:
            inputs.append(images.as_input(Path(name).expanduser(), description, model))
        except CommandError as error:
            print(f"convkit: error: {error}", file=sys.stderr)
            failed += 1
            continue
        probabilities = model.predict(inputs[-1][np.newaxis])[0]
        print(f"{name}: {describe(probabilities, description.class_names)}")
    if plot_target and inputs:
        from convkit import plot

        x = np.stack(inputs)
        plot.predictions(
            x, None, model.predict(x), class_names=description.class_names, path=plot_target
        )
        print(f"Picture saved to {plot_target}")
    if failed:
        raise CommandError(f"{failed} of {len(arguments.images)} images could not be read")


def describe(probabilities: np.ndarray, class_names: tuple[str, ...]) -> str:
    """7 (99.6 %; 1 0.3 %; others below 0.1 %)"""
    order = np.argsort(-probabilities, kind="stable")
    shown = [i for i in order[1:_MOST] if probabilities[i] >= _SHOWN]
    parts = [f"{probabilities[order[0]]:.1%}"]
    parts += [f"{class_names[i]}: {probabilities[i]:.1%}" for i in shown]
    rest = probabilities[order[len(shown) + 1 :]]
    if len(rest):
        below = max(_SHOWN, float(np.ceil(rest.max() * 1000) / 1000))
        parts.append(f"{'others' if shown else 'all others'} below {below:.1%}")
    return f"{class_names[order[0]]} ({'; '.join(parts)})"


def _newest() -> Path:
    found = sorted(Path().glob("*.safetensors"), key=lambda path: path.stat().st_mtime)
    if not found:
        raise CommandError(
            "there is no trained model (*.safetensors) in this folder: "
            'run "convkit train" first, or say where one is with --model FILE'
        )
    return found[-1]
