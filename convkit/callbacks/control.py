"""Callbacks that steer training: its end and its learning rate."""

from __future__ import annotations

import inspect
import math
import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from convkit import geometry
from convkit.callbacks.base import Callback, Logs
from convkit.callbacks.monitor import Monitor, optional


def say(text: str) -> None:
    """A line on standard error."""
    print(text, file=sys.stderr, flush=True)


class EarlyStopping(Callback):
    """Ends training when a score has stopped getting better.

    Args:
        monitor: name of the score.
        min_delta: what is less than this is no improvement.
        patience: epochs without improvement after which training ends.
        verbose: 1: says so.
        mode: "min", "max" or "auto": by the score's name.
        baseline: an improvement has to be better than this, too.
        restore_best_weights: whether the model ends with the weights of its best epoch.
        start_from_epoch: epochs before which nothing is watched.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        min_delta: float = 0,
        patience: int = 0,
        verbose: int = 0,
        mode: str = "auto",
        baseline: float | None = None,
        restore_best_weights: bool = False,
        start_from_epoch: int = 0,
    ) -> None:
        self._monitor = Monitor("EarlyStopping", monitor, mode, min_delta)
        self.patience = geometry.integer("EarlyStopping", "patience", patience, 0)
        self.verbose = verbose
        self.baseline = optional(baseline)
        self.restore_best_weights = bool(restore_best_weights)
        self.start_from_epoch = geometry.integer(
            "EarlyStopping", "start_from_epoch", start_from_epoch, 0
        )
        self._reset()

    def _reset(self) -> None:
        self.wait = 0
        self.stopped_epoch = 0
        self.best: float | None = None
        self.best_epoch = 0
        self.best_weights: list[np.ndarray] | None = None

    def state(self) -> dict[str, Any]:
        return {
            "wait": self.wait,
            "best": self.best,
            "best_epoch": self.best_epoch,
            "best_weights": self.best_weights,
            "stopped_epoch": self.stopped_epoch,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.wait, self.best = state["wait"], state["best"]
        self.stopped_epoch = state["stopped_epoch"]
        self.best_epoch, self.best_weights = state["best_epoch"], state["best_weights"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        value = self._monitor.value(self.model, logs)
        if value is None or epoch < self.start_from_epoch:
            return
        if self.restore_best_weights and self.best_weights is None:
            self.best_weights, self.best_epoch = self.model.get_weights(), epoch
        self.wait += 1
        if self._monitor.better(value, self.best):
            self.best, self.best_epoch = value, epoch
            if self.restore_best_weights:
                self.best_weights = self.model.get_weights()
            if self.baseline is None or self._monitor.better(value, self.baseline):
                self.wait = 0
            return
        if self.wait >= self.patience and epoch > 0:
            self.stopped_epoch = epoch
            self.model.stop_training = True

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.stopped_epoch and self.verbose:
            say(f"Epoch {self.stopped_epoch + 1}: early stopping")
        if self.restore_best_weights and self.best_weights is not None:
            if self.verbose:
                say(f"Restoring weights of the best epoch: {self.best_epoch + 1}")
            self.model.set_weights(self.best_weights)


class ReduceLROnPlateau(Callback):
    """Lowers the learning rate when a score has stopped getting better.

    Args:
        monitor: name of the score.
        factor: the new rate is the old one times this, 0 < factor < 1.
        patience: epochs without improvement after which it is lowered.
        verbose: 1: says so.
        mode: "min", "max" or "auto": by the score's name.
        min_delta: what is less than this is no improvement.
        cooldown: epochs after that which do not count.
        min_lr: the least rate.
    """

    def __init__(
        self,
        monitor: str = "val_loss",
        factor: float = 0.1,
        patience: int = 10,
        verbose: int = 0,
        mode: str = "auto",
        min_delta: float = 1e-4,
        cooldown: int = 0,
        min_lr: float = 0.0,
    ) -> None:
        op = "ReduceLROnPlateau"
        self._monitor = Monitor(op, monitor, mode, min_delta)
        self.factor = geometry.number(op, "factor", factor, 0, 1)
        self.patience = geometry.integer(op, "patience", patience, 0)
        self.verbose = verbose
        self.cooldown = geometry.integer(op, "cooldown", cooldown, 0)
        self.min_lr = geometry.number(op, "min_lr", min_lr, 0, math.inf)
        self._reset()

    def _reset(self) -> None:
        self.wait = 0
        self.cooldown_counter = 0
        self.best: float | None = None

    def state(self) -> dict[str, Any]:
        return {"wait": self.wait, "cooldown": self.cooldown_counter, "best": self.best}

    def restore(self, state: dict[str, Any]) -> None:
        self.wait, self.best = state["wait"], state["best"]
        self.cooldown_counter = state["cooldown"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._reset()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        optimizer = self.model.optimizer
        if logs is not None:
            logs["learning_rate"] = float(optimizer.learning_rate)
        value = self._monitor.value(self.model, logs)
        if value is None:
            return
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.wait = 0
        if self._monitor.better(value, self.best):
            self.best, self.wait = value, 0
        elif self.cooldown_counter <= 0:
            self.wait += 1
            old = float(optimizer.learning_rate)
            if self.wait >= self.patience and old > self.min_lr:
                optimizer.learning_rate = max(old * self.factor, self.min_lr)
                if self.verbose:
                    say(f"Epoch {epoch + 1}: learning rate {float(optimizer.learning_rate):g}")
                self.cooldown_counter, self.wait = self.cooldown, 0


class LearningRateScheduler(Callback):
    """Sets the learning rate of each epoch.

    Args:
        schedule: a function of the epoch, counted from 0, and the rate so far (or of the epoch
            alone) that returns the rate.
        verbose: 1: says so.
    """

    def __init__(self, schedule: Callable[..., float], verbose: int = 0) -> None:
        if not callable(schedule):
            raise TypeError(f"LearningRateScheduler: expected a function, got {schedule!r}")
        self.schedule = schedule
        self.verbose = verbose
        self._set_for: int | None = None  # the epoch whose rate was set

    def state(self) -> dict[str, Any]:
        return {"set_for": self._set_for}

    def restore(self, state: dict[str, Any]) -> None:
        self._set_for = state["set_for"]

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._set_for = None

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        if epoch == self._set_for:  # begun, and gone on with after an interruption
            return
        optimizer = self.model.optimizer
        found = _called(self.schedule, epoch, float(optimizer.learning_rate))
        what = f"the rate of epoch {epoch}"
        rate = geometry.number("LearningRateScheduler", what, found, 0, math.inf)
        optimizer.learning_rate = rate
        self._set_for = epoch
        if self.verbose:
            say(f"Epoch {epoch + 1}: learning rate {rate:g}")

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if logs is not None:
            logs["learning_rate"] = float(self.model.optimizer.learning_rate)


def _called(schedule: Callable[..., float], epoch: int, rate: float) -> float:
    """What a schedule says, be it a function of both or of the epoch alone."""
    try:
        inspect.signature(schedule).bind(epoch, rate)
    except TypeError:
        return schedule(epoch)
    except ValueError:  # of some functions that are written in C nobody knows beforehand
        try:
            return schedule(epoch, rate)
        except TypeError:
            return schedule(epoch)
    return schedule(epoch, rate)


class TerminateOnNaN(Callback):
    """Ends training at the batch after which the loss is not a finite number.

    Args:
        raise_error: whether `fit` fails there, rather than ends as it always does.
    """

    def __init__(self, raise_error: bool = False) -> None:
        self.raise_error = bool(raise_error)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        loss = (logs or {}).get("loss", 0.0)
        if math.isfinite(loss):
            return
        if self.raise_error:
            raise RuntimeError(
                f"TerminateOnNaN: expected a finite loss, got {loss} (batch {batch})"
            )
        say(f"Batch {batch}: the loss is {loss}, training ends")
        self.model.stop_training = True


class LambdaCallback(Callback):
    """A callback made of functions.

    Args:
        on_epoch_begin, on_epoch_end: functions of the epoch and the logs.
        on_train_begin, on_train_end, on_test_begin, on_test_end: functions of the logs.
        on_train_batch_begin, on_train_batch_end: functions of the batch's number and the logs.
    """

    def __init__(
        self,
        on_epoch_begin: Callable[..., Any] | None = None,
        on_epoch_end: Callable[..., Any] | None = None,
        on_train_begin: Callable[..., Any] | None = None,
        on_train_end: Callable[..., Any] | None = None,
        on_train_batch_begin: Callable[..., Any] | None = None,
        on_train_batch_end: Callable[..., Any] | None = None,
        on_test_begin: Callable[..., Any] | None = None,
        on_test_end: Callable[..., Any] | None = None,
    ) -> None:
        given = {
            "on_epoch_begin": on_epoch_begin,
            "on_epoch_end": on_epoch_end,
            "on_train_begin": on_train_begin,
            "on_train_end": on_train_end,
            "on_train_batch_begin": on_train_batch_begin,
            "on_train_batch_end": on_train_batch_end,
            "on_test_begin": on_test_begin,
            "on_test_end": on_test_end,
        }
        for name, function in given.items():
            if function is None:
                continue
            if not callable(function):
                raise TypeError(f"LambdaCallback: expected {name} to be a function")
            setattr(self, name, function)
