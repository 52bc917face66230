"""Callbacks that write down how training went."""

from __future__ import annotations

import csv
import importlib.util
import os
import time
from pathlib import Path
from typing import Any

from convkit import geometry
from convkit.callbacks.base import Callback, Logs


class CSVLogger(Callback):
    """A line for each epoch in a CSV file: its number from 0, and the scores by their names.

    The first epoch's scores are the columns, and those of validation where there is validation
    data, though it may come later. What an epoch has not is "NA".

    Args:
        filename: of the file.
        separator: between values.
        append: whether lines are added to a file that is there already, in its columns.
    """

    def __init__(self, filename: Any, separator: str = ",", append: bool = False) -> None:
        self.filename = Path(filename)
        self.separator = separator
        self.append = bool(append)
        self._keys: list[str] | None = None
        self._bytes = 0

    def state(self) -> dict[str, Any]:
        return {"keys": self._keys, "bytes": self._bytes}

    def restore(self, state: dict[str, Any]) -> None:
        # What was written after the state was kept is written once more.
        self._keys, self._bytes = state["keys"], state["bytes"]
        self.filename.touch()
        os.truncate(self.filename, min(self._bytes, self.filename.stat().st_size))

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._keys, self._bytes = None, 0
        if self.append and self.filename.exists():
            with self.filename.open(newline="") as file:
                first = next(csv.reader(file, delimiter=self.separator), None)
            self._keys = first[1:] if first else None
            self._bytes = self.filename.stat().st_size
        self.filename.open("a").close()  # where it cannot be written, training does not begin

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        begin = self._bytes
        mode = "r+" if begin and self.filename.exists() else "w"
        with self.filename.open(mode, newline="") as file:
            file.seek(begin)
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self._keys is None:
                self._keys = self._columns(logs)
                writer.writerow(["epoch", *self._keys])
            writer.writerow([epoch, *(logs.get(key, "NA") for key in self._keys)])
            file.flush()
            self._bytes = file.tell()

    def _columns(self, logs: Logs) -> list[str]:
        names = sorted(logs)
        if self.params.get("validation") and not any(name.startswith("val_") for name in names):
            names += [f"val_{name}" for name in names if name != "learning_rate"]
        return names


class TensorBoard(Callback):
    """Scores of each epoch, and histograms of weights, for TensorBoard (needs `tensorboard`).

    Names, runs and steps are those of Keras: "epoch_loss" by the epoch, "batch_loss" by the batch,
    "evaluation_loss_vs_iterations" by the updates made, "dense/kernel/histogram".

    Args:
        log_dir: a directory; the runs "train" and "validation" are written in it.
        histogram_freq: histograms of all weights every so many epochs; 0: none.
        update_freq: "epoch"; or every how many batches the scores so far are written too, where
            "batch" is 1.
    """

    def __init__(
        self, log_dir: Any = "logs", histogram_freq: int = 0, *, update_freq: str | int = "epoch"
    ) -> None:
        op = "TensorBoard"
        self.log_dir = Path(log_dir)
        self.histogram_freq = geometry.integer(op, "histogram_freq", histogram_freq, 0)
        self.update_freq = update_freq
        self.every_batch = update_freq != "epoch"
        if self.every_batch:
            every = 1 if update_freq == "batch" else update_freq
            self._every = geometry.integer(op, "update_freq", every, 1)
        self._writers: dict[str, Any] = {}
        self._step = 0

    def state(self) -> dict[str, Any]:
        return {"step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        self._step = state["step"]

    def _write(self, run: str, summaries: list[Any], step: int) -> None:
        """Writes protocol buffers of summaries to a run, in a file that is made at the first."""
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        if run not in self._writers:
            self._writers[run] = EventFileWriter(str(self.log_dir / run))
        for summary in summaries:
            event = Event(wall_time=time.time(), step=step, summary=summary)
            self._writers[run].add_event(event)

    def _scalars(self, run: str, values: Logs, step: int) -> None:
        from tensorboard.plugins.scalar.summary_v2 import scalar_pb

        self._write(run, [scalar_pb(name, value) for name, value in values.items()], step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        _require()
        self._step = 0

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step += 1
        if self.every_batch and self._step % self._every == 0:
            values = {f"batch_{name}": value for name, value in (logs or {}).items()}
            self._scalars("train", values, self._step)

    def on_test_end(self, logs: Logs | None = None) -> None:
        iterations = int(self.model.optimizer.iterations.host()[-1])
        values = {f"evaluation_{name}_vs_iterations": value for name, value in (logs or {}).items()}
        _require()  # in `evaluate` nothing came before
        self._scalars("validation", values, iterations)
        self._writers["validation"].flush()

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        scores = {**(logs or {}), "learning_rate": float(self.model.optimizer.learning_rate)}
        runs: dict[str, Logs] = {"train": {}, "validation": {}}
        for name, value in scores.items():
            run = "validation" if name.startswith("val_") else "train"
            runs[run][f"epoch_{name.removeprefix('val_')}"] = value
        for run, values in runs.items():
            if values:
                self._scalars(run, values, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            from tensorboard.plugins.histogram.summary_v2 import histogram_pb

            weights = self.model.weights
            names = [f"{variable.name}/histogram" for variable in weights]
            pairs = zip(names, weights, strict=True)
            self._write("train", [histogram_pb(name, v.numpy()) for name, v in pairs], epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}


def _require() -> None:
    if importlib.util.find_spec("tensorboard") is None:
        raise ImportError("TensorBoard: expected the package tensorboard; pip install tensorboard")
