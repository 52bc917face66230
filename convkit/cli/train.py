"""`convkit train`."""

from __future__ import annotations

import argparse
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import convkit
from convkit import _core, device, optimizers, utils
from convkit.cli import data, trained
from convkit.cli.errors import CommandError

# Epochs, batch size and Adam's learning rate: few images want small batches, and often.
_FOR_DIGITS = (20, 32, 0.003)
_FOR_OTHERS = (5, 128, 0.001)


def run(arguments: argparse.Namespace) -> None:
    """Trains, tells the test accuracy, saves."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    size = trained.input_size(arguments.model)
    dataset = data.load(arguments.data, size)
    target = Path(arguments.save or f"{arguments.model}-{dataset.name}.safetensors").expanduser()
    # What would fail after the training is looked at before it.
    check_writable(target, "--save")
    plot_target = check_plot(arguments.plot)
    place = check_device(arguments.device)

    description = trained.Description(
        model=arguments.model,
        data=dataset.name if dataset.known else None,
        size=size,
        class_names=dataset.class_names,
    )
    utils.set_random_seed(arguments.seed)
    model = trained.make(description)
    epochs, batch_size, rate = _FOR_DIGITS if dataset.name == "digits" else _FOR_OTHERS
    epochs, batch_size = arguments.epochs or epochs, arguments.batch_size or batch_size
    optimizer = optimizers.get(arguments.optimizer)
    if arguments.learning_rate or arguments.optimizer == "adam":
        optimizer.learning_rate = arguments.learning_rate or rate
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.to(place)

    if not arguments.quiet:
        _announce(arguments, model, dataset, epochs, batch_size, optimizer)
    start = time.perf_counter()
    history = model.fit(
        *dataset.train,
        batch_size=batch_size,
        epochs=epochs,
        validation_data=dataset.test,
        validation_batch_size=256,
        verbose=0 if arguments.quiet else _verbosity(),
    )
    seconds = time.perf_counter() - start
    if not np.isfinite(history.history["loss"][-1]):
        raise CommandError(
            "the loss is no number any more: the training ran away (a smaller --learning-rate may "
            "help); nothing was saved"
        )
    report(model, dataset.test)
    trained.save(target, model, description)
    print(f"Trained in {seconds:.1f} s; weights saved to {target}")
    if plot_target:
        from convkit import plot

        plot.overview(
            model, history, *dataset.test, class_names=dataset.class_names, path=plot_target
        )
        print(f"Picture saved to {plot_target}")


def _verbosity() -> int:
    """1, a bar, on a terminal; else 2, a line per epoch."""
    return 1 if sys.stderr.isatty() else 2


def report(model: Any, test: Any) -> None:
    """Prints the accuracy of a compiled model on test images."""
    loss, accuracy = model.evaluate(*test, batch_size=256, verbose=0)
    count = len(test[0])
    print(
        f"Test accuracy: {accuracy:.2%} ({round(accuracy * count):,} of {count:,} images right), "
        f"loss {loss:.4f}"
    )


def check_writable(target: Path, option: str) -> None:
    """Raises a CommandError where a file cannot be written."""
    folder = target.parent
    if target.is_dir():
        raise CommandError(f"{option}: expected a file's name, got the folder {target}")
    if not folder.is_dir():
        raise CommandError(f"{option}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{option}: no permission to write in {folder.absolute()}")


def check_plot(option: str | None) -> Path | None:
    """Where to draw, or None; raises a CommandError where that cannot be done."""
    if option is None:
        return None
    target = Path(option).expanduser()
    if target.suffix.lower() not in (".png", ".svg", ".pdf", ".jpg"):
        raise CommandError(
            f"--plot: expected a name ending in .png, .svg, .pdf or .jpg, got {option}"
        )
    check_writable(target, "--plot")
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CommandError("--plot needs Matplotlib: pip install 'convkit-nn[plot]'") from None
    return target


def check_device(option: str) -> str:
    """ "cpu" or "cuda"; raises a CommandError where CUDA was asked for and cannot be had."""
    if option == "auto":
        return "cuda" if device.available() else "cpu"
    if option == "cuda":
        try:
            device.require("--device cuda")
        except RuntimeError as error:
            raise CommandError(str(error)) from None
    return option


def _announce(
    arguments: argparse.Namespace,
    model: Any,
    dataset: data.Data,
    epochs: int,
    batch_size: int,
    optimizer: Any,
) -> None:
    images, test = len(dataset.train[0]), len(dataset.test[0])
    threads = convkit.get_num_threads()
    where = f"{_core.backend_name()}, {threads} thread{'s' if threads > 1 else ''}"
    if model.device != "cpu":
        where = model.device
    print(
        f"{arguments.model}, {model.count_params():,} parameters; "
        f"{dataset.name}, {images:,} images to train on, {test:,} to test on\n"
        f"{arguments.optimizer} at {optimizer.learning_rate:g}, batches of {batch_size}, "
        f"epochs: {epochs}, seed {arguments.seed}; {where}",
        flush=True,
    )
