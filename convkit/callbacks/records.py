"""Callbacks that write down how training went."""

from __future__ import annotations

import csv
import os
import time
from pathlib import Path
from typing import Any

from convkit.callbacks.base import Callback, Logs


class CSVLogger(Callback):
    """A line for each epoch in a CSV file.

    Args:
        filename: of the file.
        separator: between values.
        append: whether lines are added to a file that is there already.
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

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        begin = self._bytes
        mode = "r+" if begin and self.filename.exists() else "w"
        with self.filename.open(mode, newline="") as file:
            file.seek(begin)
            writer = csv.writer(file, delimiter=self.separator, lineterminator="\n")
            if self._keys is None:
                self._keys = sorted(logs)
                writer.writerow(["epoch", *self._keys])
            writer.writerow([epoch, *(logs.get(key, "NA") for key in self._keys)])
            file.flush()
            self._bytes = file.tell()


class TensorBoard(Callback):
    """Scores of each epoch, and histograms of weights, for TensorBoard (needs `tensorboard`).

    Args:
        log_dir: a directory; the runs "train" and "validation" are written in it, as Keras does.
        histogram_freq: histograms of all weights every so many epochs; 0: none.
        update_freq: "epoch", or every how many batches the batch's scores are written, too.
    """

    def __init__(
        self, log_dir: Any = "logs", histogram_freq: int = 0, update_freq: str | int = "epoch"
    ) -> None:
        self.log_dir = Path(log_dir)
        self.histogram_freq = int(histogram_freq)
        self.update_freq = update_freq
        self.every_batch = update_freq != "epoch"
        self._writers: dict[str, Any] = {}
        self._step = 0

    def state(self) -> dict[str, Any]:
        return {"step": self._step}

    def restore(self, state: dict[str, Any]) -> None:
        self._step = state["step"]

    def _writer(self, run: str) -> Any:
        if run not in self._writers:
            try:
                from tensorboard.summary.writer.event_file_writer import EventFileWriter
            except ImportError:
                raise ImportError(
                    "TensorBoard: expected the package tensorboard; pip install tensorboard"
                ) from None
            self._writers[run] = EventFileWriter(str(self.log_dir / run))
        return self._writers[run]

    def _write(self, run: str, summary: Any, step: int) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        event = Event(wall_time=time.time(), step=step, summary=summary)
        self._writer(run).add_event(event)

    def _scalars(self, run: str, values: Logs, step: int) -> None:
        for name, value in values.items():
            self._writer(run)  # says what is missing
            from tensorboard.plugins.scalar.summary_v2 import scalar_pb

            self._write(run, scalar_pb(name, value), step)

    def on_train_begin(self, logs: Logs | None = None) -> None:
        self._step = 0
        self._writer("train")

    def on_train_batch_end(self, batch: int, logs: Logs | None = None) -> None:
        self._step += 1
        if self.every_batch and self._step % int(self.update_freq) == 0:
            values = {f"batch_{name}": value for name, value in (logs or {}).items()}
            self._scalars("train", values, self._step)

    def on_epoch_end(self, epoch: int, logs: Logs | None = None) -> None:
        logs = logs or {}
        kept = {f"epoch_{name}": v for name, v in logs.items() if not name.startswith("val_")}
        held_out = {
            f"epoch_{name.removeprefix('val_')}": v
            for name, v in logs.items()
            if name.startswith("val_")
        }
        self._scalars("train", kept, epoch)
        if held_out:
            self._scalars("validation", held_out, epoch)
        if self.histogram_freq and epoch % self.histogram_freq == 0:
            from tensorboard.plugins.histogram.summary_v2 import histogram_pb

            for variable in self.model.weights:
                summary = histogram_pb(f"{variable.name}/histogram", variable.numpy())
                self._write("train", summary, epoch)
        for writer in self._writers.values():
            writer.flush()

    def on_train_end(self, logs: Logs | None = None) -> None:
        for writer in self._writers.values():
            writer.close()
        self._writers = {}
