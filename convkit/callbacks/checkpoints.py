"""Callbacks that keep a model, or a whole training, on disk."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from convkit import geometry
from convkit.callbacks.base import Callback, Logs
from convkit.callbacks.control import say
from convkit.callbacks.monitor import Monitor, optional


class _Saving(Callback):
    """A callback that saves at the end of epochs, or every so many batches."""

    def _set_frequency(self, op: str, save_freq: Any) -> None:
        self.save_freq = save_freq
        self.every_batch = save_freq != "epoch"
        if self.every_batch:
            self._every = geometry.integer(op, "save_freq", save_freq, 1)
        self._batches = 0

    def _due(self) -> bool:
        """Counts a batch; whether it is time to save."""
        self._batches += 1
        return self.every_batch and self._batches % self._every == 0


class ModelCheckpoint(_Saving):
    """Saves the model as it trains. A file is the old one or the new one, whatever happens.

    Args:
        filepath: of the file; may name the epoch and scores, as in
            "{epoch:02d}-{val_loss:.2f}.safetensors".
        monitor: name of the score of which "best" is.
        verbose: 1: says so.
        save_best_only: whether only what is better than all before is saved. Where there is no such
            score, a warning says so, and the model is saved.
        save_weights_only: whether the weights alone are saved.
        mode: "min", "max" or "auto": by the score's name.
        save_freq: "epoch", or every so many batches.
        initial_value_threshold: what the first best has to be better than.
    """

    def __init__(
        self,
        filepath: Any,
        monitor: str = "val_loss",
        verbose: int = 0,
        save_best_only: bool = False,
        save_weights_only: bool = False,
        mode: str = "auto",
        save_freq: str | int = "epoch",
        initial_value_threshold: float | None = None,
    ) -> None:
        from convkit.models import files  # which imports callbacks

        self.filepath = os.fspath(filepath)
        files.check_name("ModelCheckpoint", self.filepath)
        self._monitor = Monitor("ModelCheckpoint", monitor, mode)
        self.verbose = verbose
        self.save_best_only = bool(save_best_only)
        self.save_weights_only = bool(save_weights_only)
        self._set_frequency("ModelCheckpoint", save_freq)
        self.best = optional(initial_value_threshold)
        self._epoch = 0

    def state(self) -> dict[str, Any]:
        return {"best": self.best, "batches": self._batches}

    def restore(self, state: dict[str, Any]) -> None:
        self.best, self._batches = state["best"], state["batches"]

    def on_epoch_begin(self, epoch: int, logs: Logs | None = None) -> None:
        self._epoch = epoch

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._due():
            self._save(self._epoch, batch, logs or {})

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.every_batch:
            self._save(epoch, None, logs or {})

    def _save(self, epoch: int, batch: int | None, logs: Logs) -> None:
        if self.save_best_only:
            value = self._monitor.value(self.model, logs)
            if value is not None:
                if not self._monitor.better(value, self.best):
                    return
                self.best = value
        numbers = {} if batch is None else {"batch": batch + 1}
        try:
            path = Path(self.filepath.format(epoch=epoch + 1, **numbers, **logs))
        except (KeyError, IndexError, ValueError) as error:
            known = ", ".join(["epoch", *numbers, *logs])
            raise ValueError(
                f"ModelCheckpoint: expected filepath to name scores among {known}, got {error}"
            ) from None
        path.parent.mkdir(parents=True, exist_ok=True)
        if self.save_weights_only:
            self.model.save_weights(path)
        else:
            self.model.save(path)
        if self.verbose:
            say(f"Epoch {epoch + 1}: model saved to {path}")


class BackupAndRestore(_Saving):
    """Goes on where a training was interrupted, with the bits of one that was not.

    Kept are the weights, the optimizer, the seeds, the place in the epoch and its order, the scores
    so far, and what the other callbacks know (`Callback.state`). Run the same program again after a
    crash: `fit` begins at the last save. When training has ended, the backup is removed.

    In the middle of an epoch, `on_epoch_begin` of the callbacks is called once more for it. A
    stream that does not know its place, as `convkit.data.Dataset` does, is read again up to there:
    it has to give the same batches.

    Args:
        backup_dir: a directory of this training's own.
        save_freq: "epoch", or every so many batches.
        delete_checkpoint: whether the backup is removed at the end.
    """

    last = True

    def __init__(
        self,
        backup_dir: Any,
        save_freq: str | int = "epoch",
        *,
        delete_checkpoint: bool = True,
    ) -> None:
        if not os.fspath(backup_dir):
            raise geometry.fail("BackupAndRestore", "a directory", repr(backup_dir))
        self.backup_dir = Path(backup_dir)
        self.delete_checkpoint = bool(delete_checkpoint)
        self._set_frequency("BackupAndRestore", save_freq)

    @property
    def path(self) -> Path:
        """Of the file that the backup is."""
        return self.backup_dir / "training.safetensors"

    def on_train_begin(self, logs: Logs | None = None) -> None:
        from convkit.models import checkpoint, files

        self.backup_dir.mkdir(parents=True, exist_ok=True)
        files.remove_unfinished(self.path)
        self._batches = 0
        if self.path.exists():
            self._batches = checkpoint.restore(self.path, self.model, self._others())

    def _others(self) -> list[Callback]:
        """The callbacks that know something."""
        callbacks: list[Callback] = self.params["callbacks"]
        return [one for one in callbacks if type(one).state is not Callback.state]

    def _save(self) -> None:
        from convkit.models import checkpoint

        checkpoint.save(self.path, self.model, self._others(), self._batches)

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        if self._due():
            self._save()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        if not self.every_batch:
            self._save()

    def on_train_end(self, logs: Logs | None = None) -> None:
        if self.delete_checkpoint:
            self.path.unlink(missing_ok=True)
