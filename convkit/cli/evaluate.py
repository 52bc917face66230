"""`convkit evaluate`."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import convkit
from convkit.cli import data, scores, trained
from convkit.cli.errors import CommandError
from convkit.cli.networks import Network


def run(arguments: argparse.Namespace) -> None:
    """Tells the test accuracy of a saved model, class by class."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    path = Path(arguments.model).expanduser()
    model, description = trained.load(path)
    name, test = test_images(path, model, description, arguments.data)
    print(f"{path}: {description.model}, {model.count_params():,} parameters, on {name}")
    found = scores.score(model, test, len(description.class_names))
    print(found.line())
    print(f"\n{scores.class_table(found.counts, description.class_names)}")
    print(f"\n{scores.confusion_table(found.counts, description.class_names)}")


def test_images(
    path: Path, model: Any, description: trained.Description, name: str | None
) -> tuple[str, data.Images]:
    """The test images for a saved model, and what they are called.

    Args:
        name: as `--data` takes it; None: those of the data set that it was trained on.
    """
    name = name or description.data
    if name is None:
        raise CommandError(f"{path} was trained on data of your own: say which with --data")
    dataset = data.load(name, Network(lambda shape, classes: model, model.input_shape[1:]))
    classes = len(description.class_names)
    largest = int(dataset.test.y.max())
    if largest >= classes:
        raise CommandError(
            f"{name}: expected labels below {classes}, as {path} has so many classes, got {largest}"
        )
    names = dataset.class_names
    if not dataset.known and names != description.class_names and not names[0].isdigit():
        raise CommandError(
            f"{name}: expected the classes {', '.join(description.class_names)}, as in {path}, "
            f"got {', '.join(names)}"
        )
    return dataset.name, dataset.test
