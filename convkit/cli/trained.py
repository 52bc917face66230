"""Trained models on disk: the weights, and what is needed to use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convkit.cli.data import NAMES
from convkit.cli.errors import CommandError
from convkit.cli.parser import VARIANTS
from convkit.models import Sequential, files, zoo


@dataclass(frozen=True)
class Description:
    """What a file of weights says about its model.

    Attributes:
        model: a key of VARIANTS.
        data: the data set's name, or None for the user's own.
        size: height and width of the input.
        class_names: one per output.
    """

    model: str
    data: str | None
    size: int
    class_names: tuple[str, ...]


def input_size(model: str) -> int:
    """Height and width of the images that a model of this name takes."""
    return 32 if model == "lenet_1998" else 28


def make(description: Description) -> Sequential:
    """The untrained model."""
    return zoo.lenet(VARIANTS[description.model], classes=len(description.class_names))


def save(path: Path, model: Sequential, description: Description) -> None:
    """Writes weights and description to one file, whole or not at all."""
    files.save(path, model, asdict(description))


def load(path: Path) -> tuple[Sequential, Description]:
    """The model in a file.

    Raises:
        CommandError: the file is not one that `save` wrote.
        OSError: it cannot be read.
    """
    try:
        description = _parse(path, files.read_metadata(path))
        model = make(description)
        files.load(path, model)
    except ValueError as error:
        raise CommandError(str(error)) from None
    return model, description


def _parse(path: Path, metadata: dict[str, Any] | None) -> Description:
    try:
        fields = dict(metadata or {})
        names = tuple(str(name) for name in fields.pop("class_names"))
        description = Description(class_names=names, **fields)
        known = description.model in VARIANTS and description.data in (None, *NAMES)
    except (KeyError, TypeError):
        known = False
    if not known or description.size != input_size(description.model) or len(names) < 2:
        raise CommandError(f"{path}: expected weights that convkit train saved, got others")
    return description
