"""`convkit train`."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import convkit
from convkit import _core, callbacks, device, optimizers, schedules, utils
from convkit.cli import data, networks, scores, trained
from convkit.cli.errors import CommandError

# Epochs, batch size and Adam's learning rate: few images want small batches, and often.
_FOR_DIGITS = (20, 32, 0.003)
_FOR_OTHERS = (5, 128, 0.001)
# Of the images to train on, the share that decides when to stop.
_HELD_OUT = 0.1
_WARM_UP = 0.05  # of all steps
_LAST_SHARE = 0.01  # of the learning rate, where it falls exponentially
_SHOWN = 2000  # test images that an overview is made of, of those that are not in memory


def run(arguments: argparse.Namespace) -> None:
    """Trains, tells the test accuracy, saves."""
    if arguments.threads:
        convkit.set_num_threads(arguments.threads)
    epochs, batch_size, rate = _FOR_DIGITS if arguments.data == "digits" else _FOR_OTHERS
    epochs, batch_size = arguments.epochs or epochs, arguments.batch_size or batch_size
    dataset = data.load(
        arguments.data,
        networks.NETWORKS[arguments.model],
        size=arguments.image_size,
        batch_size=batch_size,
        seed=arguments.seed,
        held_out=_HELD_OUT if arguments.early_stopping else 0.0,
    )
    target = Path(arguments.save or f"{arguments.model}-{dataset.name}.safetensors").expanduser()
    # What would fail after the training is looked at before it.
    check_writable(target, "--save")
    if target.suffix in (".h5", ".keras"):
        raise CommandError(f"--save: expected a name such as model.safetensors, got {target}")
    plot_target = check_plot(arguments.plot, "--plot")
    place = check_device(arguments.device)
    called = _callbacks(arguments)

    utils.set_random_seed(arguments.seed)
    grey = dataset.shape[2] == 1
    augment = arguments.augment
    if augment == []:  # the option without kinds
        augment = networks.AUGMENT_GREY if grey else networks.AUGMENT_COLOUR
    model = networks.make(arguments.model, dataset.shape, len(dataset.class_names), augment or ())
    steps = epochs * -(-len(dataset.train) // batch_size)
    optimizer = optimizers.get(arguments.optimizer)
    if arguments.learning_rate or arguments.optimizer == "adam":
        optimizer.learning_rate = arguments.learning_rate or rate
    first_rate = optimizer.learning_rate
    optimizer.learning_rate = _schedule(arguments.schedule, first_rate, steps)
    model.compile(optimizer, "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.to(place)

    if not arguments.quiet:
        _announce(arguments, model, dataset, epochs, batch_size, first_rate, augment or ())
    start = time.perf_counter()
    history = _fit(
        model,
        dataset,
        batch_size,
        epochs,
        called,
        verbose=0 if arguments.quiet else _verbosity(),
        checkpoint=arguments.checkpoint,
    )
    seconds = time.perf_counter() - start
    found = scores.score(model, dataset.test, len(dataset.class_names))
    print(found.line())
    description = trained.Description(
        model=arguments.model,
        data=dataset.name if dataset.known else None,
        drawings=grey and (not dataset.known or dataset.name in data.DRAWINGS),
        class_names=dataset.class_names,
    )
    trained.save(target, model, description)
    print(f"Trained in {seconds:.1f} s; model saved to {target}")
    if plot_target:
        from convkit import plot

        test = dataset.test
        most = len(test) if isinstance(test.x, np.ndarray) else _SHOWN
        names = dataset.class_names
        plot.overview(model, history, *test.first(most), class_names=names, path=plot_target)
        print(f"Picture saved to {plot_target}")


def _fit(
    model: Any,
    dataset: data.Data,
    batch_size: int,
    epochs: int,
    called: list[callbacks.Callback],
    *,
    verbose: int,
    checkpoint: str | None,
) -> Any:
    validation = dataset.held_out or dataset.test
    try:
        history = model.fit(
            *dataset.train.fed,
            batch_size=batch_size,
            epochs=epochs,
            callbacks=called,
            validation_data=validation.x if validation.fed[1] is None else validation.fed,
            validation_batch_size=256,
            verbose=verbose,
        )
    except KeyboardInterrupt:
        if checkpoint:
            print(f"\nRun the same command again to go on ({checkpoint})", file=sys.stderr, end="")
        raise
    except ValueError as error:
        if checkpoint:  # of another training
            raise CommandError(f"--checkpoint: {error}") from None
        raise
    if not np.isfinite(history.history["loss"][-1]):
        raise CommandError(
            "the loss is no number any more: the training ran away (a smaller --learning-rate may "
            "help); nothing was saved"
        )
    return history


def _callbacks(arguments: argparse.Namespace) -> list[callbacks.Callback]:
    """What the options ask for."""
    found: list[callbacks.Callback] = []
    if arguments.early_stopping:
        found.append(
            callbacks.EarlyStopping(
                "val_loss",
                patience=arguments.early_stopping,
                restore_best_weights=True,
                verbose=0 if arguments.quiet else 1,
            )
        )
    if arguments.csv:
        target = Path(arguments.csv).expanduser()
        check_writable(target, "--csv")
        found.append(callbacks.CSVLogger(target))
    if arguments.tensorboard:
        if importlib.util.find_spec("tensorboard") is None:
            raise CommandError("--tensorboard needs TensorBoard: pip install tensorboard")
        found.append(callbacks.TensorBoard(Path(arguments.tensorboard).expanduser()))
    if arguments.checkpoint:
        folder = Path(arguments.checkpoint).expanduser()
        check_writable(folder / "training.safetensors", "--checkpoint", make=True)
        found.append(callbacks.BackupAndRestore(folder))
    return found


def _schedule(name: str, rate: float, steps: int) -> Any:
    """The learning rate, or a schedule of it over all steps."""
    if name == "constant":
        return rate
    if name == "cosine":
        warm_up = int(_WARM_UP * steps)
        if not warm_up:
            return schedules.CosineDecay(rate, steps)
        return schedules.CosineDecay(0.0, steps - warm_up, warmup_target=rate, warmup_steps=warm_up)
    if name == "exponential":
        return schedules.ExponentialDecay(rate, steps, _LAST_SHARE)
    if name == "steps":
        values = [rate, rate / 10, rate / 100]
        return schedules.PiecewiseConstantDecay([steps // 2, steps * 3 // 4], values)
    return schedules.OneCycle(rate, steps)


def _verbosity() -> int:
    """1, a bar, on a terminal; else 2, a line per epoch."""
    return 1 if sys.stderr.isatty() else 2


def check_writable(target: Path, option: str, make: bool = False) -> None:
    """Raises a CommandError where a file cannot be written.

    Args:
        make: whether its folder is made if there is none.
    """
    folder = target.parent
    if target.is_dir():
        raise CommandError(f"{option}: expected a file's name, got the folder {target}")
    if make and not folder.exists() and folder.parent.is_dir():
        folder = folder.parent
    if not folder.is_dir():
        raise CommandError(f"{option}: there is no folder {folder}")
    if not os.access(folder, os.W_OK | os.X_OK):
        raise CommandError(f"{option}: no permission to write in {folder.absolute()}")


def check_plot(name: str | None, option: str) -> Path | None:
    """Where to draw, or None; raises a CommandError where that cannot be done."""
    if name is None:
        return None
    target = Path(name).expanduser()
    if target.suffix.lower() not in (".png", ".svg", ".pdf", ".jpg"):
        raise CommandError(
            f"{option}: expected a name ending in .png, .svg, .pdf or .jpg, got {name}"
        )
    check_writable(target, option)
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise CommandError("pictures need Matplotlib: pip install 'convkit-nn[plot]'") from None
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
    rate: float,
    augment: Any,
) -> None:
    threads = convkit.get_num_threads()
    where = f"{_core.backend_name()}, {threads} thread{'s' if threads > 1 else ''}"
    if model.device != "cpu":
        where = model.device
    height, width, channels = dataset.shape
    kept = "" if dataset.held_out is None else f" {len(dataset.held_out):,} to stop by,"
    changes = [] if arguments.schedule == "constant" else [f"{arguments.schedule} schedule"]
    if augment:
        changes.append(f"augmented: {', '.join(augment)}")
    rows = [
        (
            "data",
            f"{dataset.name}: {len(dataset.train):,} images to train on,{kept} "
            f"{len(dataset.test):,} to test on",
        ),
        (
            "model",
            f"{arguments.model}, {model.count_params():,} parameters; takes {height} x {width} "
            f"{'in colour' if channels == 3 else 'in grey'}",
        ),
        (
            "training",
            f"{arguments.optimizer} at {rate:g}, batches of {batch_size}, epochs: {epochs}, "
            f"seed {arguments.seed}",
        ),
        *([("", "; ".join(changes))] if changes else []),
        ("device", where),
    ]
    for name, value in rows:
        print(f"{name:<9} {value}", flush=True)
