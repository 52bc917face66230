"""Callbacks: what `fit` calls as it goes."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterable
from typing import Any

Logs = dict[str, float]


class Callback:
    """Base class; override what you need.

    Attributes:
        model: the model that is trained. Set `model.stop_training = True` to end after the epoch.
        params: {"epochs", "steps", "verbose", "validation", "callbacks"} of this `fit`: whether
            there is validation data, and all callbacks in the order in which they are called.

    A callback that overrides a method on batches is called at every batch; without one, `fit` goes
    on for many batches before it comes back to Python.
    """

    model: Any = None
    params: dict[str, Any]
    # Whether it comes after all others, since it keeps what they know.
    last = False

    def set_model(self, model: Any) -> None:
        """Called by `fit` with the model that is trained."""
        self.model = model

    def set_params(self, params: dict[str, Any]) -> None:
        """Called by `fit` with its parameters."""
        self.params = params

    def state(self) -> dict[str, Any]:
        """What the callback has to know again where a training goes on that was interrupted.

        Returns:
            Numbers, texts, lists and dictionaries of them, and NumPy arrays by name.
        """
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Takes up what `state` gave."""

    def on_train_begin(self, logs: Logs | None = None) -> None:
        """Before the first epoch."""

    def on_train_end(self, logs: Logs | None = None) -> None:
        """After the last epoch."""

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        """Before an epoch, counted from 0."""

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        """After an epoch and its validation; logs hold loss, metrics and val_ values."""

    def on_train_batch_begin(self, batch: int, logs: Logs | None = None) -> None:
        """Before a batch, counted from 0 in each epoch."""

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        """After a batch; logs hold the means of the epoch so far."""

    def on_test_begin(self, logs: Logs | None = None) -> None:
        """Before an evaluation, that of `fit` included."""

    def on_test_end(self, logs: Logs | None = None) -> None:
        """After an evaluation; logs hold its loss and metrics."""


class History(Callback):
    """What `fit` returns.

    Attributes:
        history: {"loss": [...], "accuracy": [...], "val_loss": [...], ...}, a value per epoch.
        epoch: the numbers of the epochs.
    """

    def __init__(self) -> None:
        self.history: dict[str, list[float]] = {}
        self.epoch: list[int] = []

    def __getstate__(self) -> dict[str, Any]:
        # Pickled without the model: what is kept of a training is its numbers.
        return {"history": self.history, "epoch": self.epoch}

    def state(self) -> dict[str, Any]:
        return {"history": self.history, "epoch": self.epoch}

    def restore(self, state: dict[str, Any]) -> None:
        self.history, self.epoch = state["history"], state["epoch"]

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.epoch.append(epoch)
        for name, value in (logs or {}).items():
            self.history.setdefault(name, []).append(value)


class ProgressBar(Callback):
    """One bar per epoch, on standard error: step, time left, running loss and metrics.

    What stays of an epoch is one line with its time, loss, metrics and validation.

    Args:
        bar: whether a bar moves while the epoch runs.
    """

    def __init__(self, bar: bool = True) -> None:
        self.bar = bar
        self._bar: Any = None
        self._start = 0.0

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._start = time.perf_counter()
        if not self.bar:
            return
        from tqdm import tqdm

        self._bar = tqdm(
            total=self.params["steps"],
            desc=self._title(epoch),
            leave=False,
            ncols=_columns(),
            nrows=24,  # where the terminal says 0, tqdm would hide the bar
            bar_format="{desc} {n_fmt}/{total_fmt} {bar} {elapsed}<{remaining}{postfix}",
        )

    def _title(self, epoch: int) -> str:
        return f"Epoch {epoch + 1}/{self.params['epochs']}"

    def progress(self, step: int, logs: Logs) -> None:
        """Moves the bar to a step."""
        if self._bar is not None:
            self._bar.set_postfix_str(describe(logs), refresh=False)
            self._bar.update(step - self._bar.n)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        self.close()
        seconds = time.perf_counter() - self._start
        line = f"{self._title(epoch)} - {seconds:.1f} s - {describe(logs or {})}"
        print(line, file=sys.stderr, flush=True)

    def close(self) -> None:
        """Takes the bar away."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def _columns() -> int:
    """The width of the terminal behind standard error; 80 where nobody knows."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns or 80
    except (AttributeError, OSError, ValueError):  # standard error may be any object, or none
        return 80


def describe(logs: Logs) -> str:
    """accuracy: 0.9812 (val 0.9790) - loss: 0.0584 (val 0.0671), short enough for 80 columns."""
    told = []
    for name, value in logs.items():
        if name.removeprefix("val_") in logs and name.startswith("val_"):
            continue  # with what it is the validation of
        held_out = logs.get(f"val_{name}")
        more = "" if held_out is None else f" (val {_number(held_out)})"
        told.append(f"{name}: {_number(value)}{more}")
    return " - ".join(told)


def _number(value: float) -> str:
    return f"{value:.1e}" if 0 < abs(value) < 0.001 else f"{value:.4f}"


class CallbackList:
    """Calls every callback in turn."""

    def __init__(self, callbacks: Iterable[Callback], model: Any, params: dict[str, Any]) -> None:
        self.callbacks = list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"fit: expected callbacks to be Callback objects, got {callback!r}")
        self.callbacks.sort(key=lambda callback: callback.last)
        for callback in self.callbacks:
            callback.set_model(model)
            callback.set_params({**params, "callbacks": self.callbacks})
        self.every_batch = any(
            _overrides(callback, name)
            for callback in self.callbacks
            for name in ("on_train_batch_begin", "on_train_batch_end")
        )

    def __call__(self, event: str, *arguments: Any) -> None:
        for callback in self.callbacks:
            getattr(callback, event)(*arguments)


def _overrides(callback: Callback, name: str) -> bool:
    asked = getattr(callback, "every_batch", True)
    other = getattr(type(callback), name) is not getattr(Callback, name)
    return bool(asked) and (other or name in vars(callback))
