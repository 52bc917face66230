"""Epochs of a training: over arrays in memory, or over a stream of batches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from convkit import geometry, graph, random
from convkit.callbacks import CallbackList, ProgressBar
from convkit.models import feeds
from convkit.models.data import Arrays, rows_of
from convkit.models.steps import Totals

if TYPE_CHECKING:
    from convkit.models.training import Trainer  # which imports this file

# How long a program runs before Python looks at the progress bar again.
SECONDS_PER_LOOK = 0.1


@dataclass
class Progress:
    """Where a training is, for checkpoints.

    Attributes:
        epoch: its number, counted from 0.
        row: how many samples of the epoch were used; of a stream, how many batches.
        seed: of the epoch's order; None: not shuffled.
        logs: of this epoch so far; at its beginning, those of the one before.
        counters: of the scores, where it goes on from.
        streams: what those for training and validation said of their places, if they know them.
    """

    epoch: int
    row: int
    seed: int | None
    logs: dict[str, float] = field(default_factory=dict)
    counters: Sequence[np.ndarray] = ()
    streams: Sequence[Any] = (None, None)


class Feed:
    """What an epoch is made of."""

    steps: int | None
    held_out: Any = None

    def epoch(self, epoch: int, called: CallbackList, bar: ProgressBar | None) -> dict[str, float]:
        """Runs an epoch; the logs at its end."""
        raise NotImplementedError

    def state(self) -> list[Any]:
        """Where the data are, and those for validation, if they know that themselves."""
        return [None, feeds.place_between(self.held_out)]

    def close(self) -> None:
        """Lets go of what reads ahead."""


class ArrayFeed(Feed):
    """Arrays in memory: many steps at a time without Python."""

    def __init__(
        self, model: Trainer, arrays: Arrays, batch: int, shuffle: bool, steps: int | None
    ) -> None:
        self.model = model
        self.arrays = arrays
        self.batch = batch
        self.shuffle = shuffle
        rows = rows_of(arrays)
        self.rows = rows if steps is None else min(rows, steps * batch)
        self.steps = -(-self.rows // batch)
        self.order = np.arange(rows, dtype=np.int64)

    def epoch(self, epoch: int, called: CallbackList, bar: ProgressBar | None) -> dict[str, float]:
        model, batch, rows = self.model, self.batch, self.rows
        assert model.optimizer is not None
        # Anew, as a callback may have used another model with these weights.
        step = model._training_step(self.arrays, min(batch, rows))
        begun, model.resume_from = model.resume_from, None
        over = False
        if begun is not None:
            feeds.go_to(self.held_out, begun.streams[1])
        if begun is not None and begun.row:
            at, seed = begun.row, begun.seed
            over = model.stop_training  # with the last batch before the interruption
            _count_on(step.scores, begun.counters)
        else:
            at, seed = 0, random.draw_seed() if self.shuffle else None
            step.scores.reset()
        model.scores = step.scores
        model.progress = Progress(epoch, at, seed)
        seconds = 0.0 if called.every_batch else (SECONDS_PER_LOOK if bar else float("inf"))
        to_shuffle = seed
        with step.on(self.arrays, self.order):
            while at < rows and not over:
                number = at // batch
                if called.every_batch:
                    called("on_train_batch_begin", number, {})
                ready = model.optimizer.prepare(None, -(-rows // batch) - number)
                end = min(rows, (number + ready) * batch)
                at = step.program.run(at, end, batch, seconds, to_shuffle)
                graph.touch()  # callbacks and other threads may predict
                to_shuffle = None  # the order stays until the next epoch
                model.progress = Progress(epoch, at, seed)
                if called.every_batch:
                    called("on_train_batch_end", number, step.scores.logs())
                if bar:
                    bar.progress(-(-at // batch), step.scores.logs())
                over = model.stop_training
            return step.scores.logs()


class StreamFeed(Feed):
    """Batches as they come."""

    def __init__(self, model: Trainer, stream: Any, steps: int | None) -> None:
        self.model = model
        self.stream = stream
        self.reader = feeds.Reader("fit", stream, steps)
        self.steps = self.reader.steps

    def epoch(self, epoch: int, called: CallbackList, bar: ProgressBar | None) -> dict[str, float]:
        model = self.model
        assert model.optimizer is not None
        scores: Totals | None = None
        begun, model.resume_from = model.resume_from, None
        first = 0
        if begun is not None:
            first = begun.row
            self.reader.go_on(begun.epoch, first, begun.streams[0])
            feeds.go_to(self.held_out, begun.streams[1])
            if first and model.stop_training:  # with the last batch before the interruption
                return begun.logs
        for number, (x, y, weights) in enumerate(self.reader.epoch(first), first):
            arrays = model._arrays("fit", x, y, weights)
            rows = rows_of(arrays)
            if not rows:
                continue
            if called.every_batch:
                called("on_train_batch_begin", number, {})
            step = model._training_step(arrays, rows)
            model.scores = step.scores
            if scores is None and begun is not None and first:
                _count_on(step.scores, begun.counters)
            else:  # batches of another size may have another program, with counters of its own
                step.scores.follow(scores)
            scores = step.scores
            with step.on(arrays, np.arange(rows, dtype=np.int64)):
                model.optimizer.prepare(None, 1)
                step.program.run(0, rows, rows)
            model.progress = Progress(epoch, number + 1, None)
            if called.every_batch:
                called("on_train_batch_end", number, scores.logs())
            if bar:
                bar.progress(number + 1, scores.logs())
            if model.stop_training:
                break
        if scores is None:
            if begun is not None and first:
                return begun.logs  # it was interrupted behind its last batch
            raise geometry.fail("fit", "at least one batch", "none")
        return scores.logs()

    def state(self) -> list[Any]:
        # One stream for both has one place.
        held_out = None if self.held_out is self.stream else feeds.place_between(self.held_out)
        return [self.reader.state(), held_out]

    def close(self) -> None:
        self.reader.close()


def _count_on(scores: Totals, counters: Sequence[np.ndarray]) -> None:
    """Has scores go on from what their counters were."""
    for variable, value in zip(scores.variables, counters, strict=True):
        variable.assign(value)
    for _, one in scores.scores:
        one.show()
