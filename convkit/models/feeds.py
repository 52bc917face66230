"""Streams of batches: data sets, iterables and generators, as `fit` takes them."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import islice
from typing import Any

import numpy as np

from convkit import device, geometry


def is_stream(x: Any) -> bool:
    """Whether x gives batches one after the other, rather than being all samples at once."""
    if isinstance(x, (np.ndarray, list, tuple, dict, str, bytes)) or device.is_device_array(x):
        return False
    return (hasattr(x, "__iter__") or hasattr(x, "__next__")) and not hasattr(x, "__array__")


def check_alone(op: str, **others: Any) -> None:
    """Fails where something is given beside a stream, which has it in its batches."""
    for name, value in others.items():
        if value is not None:
            raise geometry.fail(op, f"no {name} beside a stream of batches", "one")


def parts(op: str, batch: Any) -> tuple[Any, Any, Any]:
    """(x, y, sample_weight) of a batch."""
    if not isinstance(batch, (tuple, list)) or len(batch) not in (2, 3):
        kind = f"{len(batch)} values" if isinstance(batch, (tuple, list)) else type(batch).__name__
        raise TypeError(f"{op}: expected batches (x, y) or (x, y, sample_weight), got {kind}")
    x, y, *weights = batch
    return x, y, weights[0] if weights else None


def batches(op: str, stream: Any, steps: int | None) -> Iterator[tuple[Any, Any, Any]]:
    """The parts of each batch; at most so many."""
    reader = Reader(op, stream, steps)
    try:
        yield from reader.epoch()
    finally:
        reader.close()


def inputs_of(op: str, stream: Any, steps: int | None) -> Iterator[Any]:
    """x of each batch, of (x, y), (x, y, sample_weight) or x alone."""
    limit = None if steps is None else geometry.integer(op, "steps", steps, 1)
    for batch in islice(stream, limit):
        yield batch[0] if isinstance(batch, tuple) else batch


class Counted:
    """A generator, and how many batches it has given."""

    def __init__(self, stream: Iterator[Any]) -> None:
        self.stream = stream
        self.given = 0

    def __iter__(self) -> Counted:
        return self

    def __next__(self) -> Any:
        batch = next(self.stream)
        self.given += 1
        return batch

    def state(self) -> int:
        """How many batches it has given."""
        return self.given

    def restore(self, given: int) -> None:
        """Goes on behind so many batches."""
        while self.given < given:
            next(self)


def counted(stream: Any) -> Any:
    """Validation data of which `place_of` tells where they are, if that matters."""
    return Counted(stream) if is_stream(stream) and hasattr(stream, "__next__") else stream


def place_of(stream: Any) -> Any:
    """Where a stream is, if it knows that itself: it has `state()` and `restore(state)`."""
    known = is_stream(stream) and hasattr(stream, "state") and hasattr(stream, "restore")
    return stream.state() if known else None


def place_between(stream: Any) -> Any:
    """The same between two loops: each of them begins an epoch of the stream's."""
    place = place_of(stream)
    if isinstance(place, dict) and "position" in place:  # of a `convkit.data.Dataset`
        place["position"] = 0
    return place


def go_to(stream: Any, place: Any) -> None:
    """Has a stream go on from where it was when `place_of` told this."""
    if place is not None:
        stream.restore(place)


class Reader:
    """The batches of one epoch after the other.

    Args:
        op: for messages.
        stream: what gives them: with `__next__` (a generator) it goes on from epoch to epoch, else
            it is iterated over anew.
        steps: batches in an epoch; None: until the stream ends.

    Attributes:
        steps: as far as it is known beforehand.
    """

    def __init__(self, op: str, stream: Any, steps: int | None) -> None:
        self.op = op
        self.stream = stream
        self.limit = None if steps is None else geometry.integer(op, "steps", steps, 1)
        self.once = hasattr(stream, "__next__")
        self.steps = self.limit
        if steps is None and hasattr(stream, "__len__"):
            self.steps = len(stream)
        self._iterator: Iterator[Any] | None = None

    def state(self) -> Any:
        """Where the stream is, if it knows that itself."""
        return place_of(self.stream)

    def go_on(self, epoch: int, batches: int, state: Any) -> None:
        """Begins where a reader was after so many epochs and batches.

        A stream that does not know its place itself is read up to there.
        """
        if state is not None:
            go_to(self.stream, state)
            return
        skipped = batches
        if self.once or self.limit is not None:
            skipped += epoch * (self.limit or 0)
        for _ in range(skipped):
            self._next()

    def _next(self) -> Any:
        if self._iterator is None:
            self._iterator = iter(self.stream)
        try:
            return next(self._iterator)
        except StopIteration:
            if self.once:
                raise geometry.fail(
                    self.op, "a generator with batches left to go on with", "none"
                ) from None
            self._iterator = iter(self.stream)
            return next(self._iterator)

    def epoch(self, first: int = 0) -> Iterator[tuple[Any, Any, Any]]:
        """The parts of the epoch's batches.

        Args:
            first: how many of it were read before.

        Raises:
            ValueError: a generator ended before the epoch did.
        """
        if self._iterator is None:
            self._iterator = iter(self.stream)
        number = first
        restarted = False
        while self.limit is None or number < self.limit:
            try:
                batch = next(self._iterator)
            except StopIteration:
                if self.limit is not None and self.once:
                    raise geometry.fail(
                        self.op, f"{self.limit} batches for each epoch", f"{number} in the last"
                    ) from None
                if self.once and not number:
                    raise geometry.fail(
                        self.op,
                        "steps_per_epoch, or what can be iterated over anew for each epoch",
                        "a generator without any batch left",
                    ) from None
                if self.limit is None or restarted:
                    self._iterator = None
                    break
                # As Keras: an epoch that is longer than the stream goes on with its beginning.
                self._iterator, restarted = iter(self.stream), True
                continue
            restarted = False
            number += 1
            yield parts(self.op, batch)

    def close(self) -> None:
        """Ends what reads ahead."""
        close = getattr(self._iterator, "close", None)
        if close is not None and not self.once:
            close()
        self._iterator = None
