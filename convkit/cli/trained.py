"""Trained models on disk: whole models, with what is needed to use them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from convkit.cli import networks
from convkit.cli.data import DRAWINGS, NAMES
from convkit.cli.errors import CommandError
from convkit.models import Model, files, load_model, saving

# Sizes of the inputs of networks of which files held the weights alone.
_SIZES = {"lenet": 28, "lenet_1998": 32, "lenet_caffe": 28}


@dataclass(frozen=True)
class Description:
    """What a file says about its model.

    Attributes:
        model: a key of NETWORKS.
        data: the data set's name, or None for the user's own.
        drawings: whether its images are drawings, light on dark, of which only the ink counts.
        class_names: one per output.
    """

    model: str
    data: str | None
    drawings: bool
    class_names: tuple[str, ...]


def save(path: Path, model: Model, description: Description) -> None:
    """Writes model and description to one file, whole or not at all."""
    saving.save(model, path, extra=asdict(description))


def load(path: Path) -> tuple[Model, Description]:
    """The model in a file, which takes images of 0 to 255.

    Raises:
        CommandError: the file is not one that `convkit train` saved.
        OSError: it cannot be read.
    """
    try:
        metadata = files.read_metadata(path)
        if metadata is not None and "extra" in metadata:
            description = _parse(path, metadata["extra"])
            return load_model(path, compile=False), description
        return _load_weights(path, metadata)
    except ValueError as error:
        raise CommandError(str(error)) from None


def load_any(path: Path, compile: bool = False) -> Model:
    """The model in a file, whoever saved it.

    Args:
        compile: whether it has its optimizer.
    """
    try:
        metadata = files.read_metadata(path)
        if metadata is not None and "extra" in metadata:
            return load_model(path, compile=compile)
        return _load_weights(path, metadata)[0]
    except ValueError as error:
        raise CommandError(str(error)) from None


def _parse(path: Path, fields: Any) -> Description:
    try:
        known = dict(fields or {})
        names = tuple(str(name) for name in known.pop("class_names"))
        description = Description(class_names=names, **known)
        right = description.model in networks.NETWORKS and description.data in (None, *NAMES)
    except (KeyError, TypeError, ValueError):
        right = False
    if not right or len(names) < 2:
        raise CommandError(f"{path}: expected a model that convkit train saved, got another file")
    return description


def _load_weights(path: Path, metadata: dict[str, Any] | None) -> tuple[Model, Description]:
    """A file of the time before whole models were saved: weights, and what they are of."""
    fields = dict(metadata or {})
    size = fields.pop("size", None)
    drawings = {"drawings": fields.get("data") in (None, *DRAWINGS)}
    description = _parse(path, {**fields, **drawings} if metadata else None)
    if size != _SIZES.get(description.model):
        raise CommandError(f"{path}: expected a model that convkit train saved, got another file")
    model = networks.make(description.model, (size, size, 1), len(description.class_names))
    files.load(path, model)
    return model, description
