"""`convkit evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path

import convkit
from convkit.cli import data, trained
from convkit.cli.errors import CommandError
from convkit.cli.train import report


def run(arguments: argparse.Namespace) -> None:
    """Tells the test accuracy of a saved model."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    path = Path(arguments.model).expanduser()
    model, description = trained.load(path)
    name = arguments.data or description.data
    if name is None:
        raise CommandError(f"{path} was trained on data of your own: say which with --data")
    dataset = data.load(name, description.size)
    largest, classes = int(dataset.test[1].max()), len(description.class_names)
    if largest >= classes:
        raise CommandError(
            f"{name}: expected labels below {classes}, as {path} has so many classes, got {largest}"
        )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    print(f"{path}: {description.model}, {model.count_params():,} parameters, on {dataset.name}")
    report(model, dataset.test)
