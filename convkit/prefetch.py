"""Batches that threads make ahead of their reader: in order, few at a time, gone when closed.

A batch is made of parts (its samples, mostly). Threads take the parts of all batches in order, and
whoever brings a batch's last part puts it together. So what the reader gets depends on nothing but
the functions that make parts and batches; how many threads there are makes no difference.
"""

from __future__ import annotations

import atexit
import os
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

# How long the end of the process waits for threads in the middle of a part.
_PATIENCE = 1.0


class Failure:
    """What making a part raised, in place of the part."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


class Closed(Exception):
    """`take` after `close`, or while another thread closed."""


class _Batch:
    """The parts of a batch that are there, and how many are not."""

    def __init__(self, parts: int) -> None:
        self.parts: list[Any] = [None] * parts
        self.taken = 0
        self.missing = parts


class Prefetch:
    """The batches `first` to `last - 1`, made by threads that run ahead of `take`.

    At most `ahead` batches are begun or whole and not yet taken, so no more than their parts are in
    memory, and beside them one batch for each thread that is putting one together. The threads end
    by themselves after the last batch. They are daemons: a part that never ends keeps no process
    alive.

    Args:
        parts: how many parts a batch of this number has, at least 1.
        load: makes a part: of a batch's number and the part's place in it. Called by any thread.
        finish: makes a batch: of its number and its parts in order, of which those that `load`
            raised for are a `Failure`. Called by any thread; what it raises, `take` does.
        threads: how many threads; 0: `take` itself does the work.
        ahead: at least 1.
    """

    def __init__(
        self,
        first: int,
        last: int,
        parts: Callable[[int], int],
        load: Callable[[int, int], Any],
        finish: Callable[[int, list[Any]], Any],
        threads: int,
        ahead: int,
    ) -> None:
        self._next = first  # the batch that the reader gets next
        self._begun = first  # the batch that threads take parts of
        self._last = last
        self._parts, self._load, self._finish = parts, load, finish
        self._ahead = ahead
        self._batches: dict[int, _Batch] = {}
        self._whole: dict[int, Any] = {}
        self._closed = False
        self._broken: BaseException | None = None  # what ended a thread before its work was done
        self._process = os.getpid()
        # Re-entrant: the garbage collector may close this in a thread that holds the lock.
        lock = threading.RLock()
        self._room = threading.Condition(lock)
        self._arrival = threading.Condition(lock)
        self._threads: list[threading.Thread] = []
        if threads:
            _open.add(self)
        try:
            for number in range(threads):
                thread = threading.Thread(
                    target=self._work, name=f"convkit-data-{number}", daemon=True
                )
                thread.start()
                self._threads.append(thread)
        except BaseException:
            self.close()
            raise

    @property
    def inherited(self) -> bool:
        """Whether this was made before a fork: its threads are in another process."""
        return self._process != os.getpid()

    def take(self) -> Any:
        """The next batch, once it is there. Ctrl-C ends the waiting.

        There must be one left.

        Raises:
            Whatever making the batch raised.
            Closed: there will be none.
        """
        if not self._threads:
            if self._closed:
                raise Closed
            number = self._next
            self._next += 1
            loaded = [self._loaded(number, part) for part in range(self._parts(number))]
            return self._finish(number, loaded)
        with self._arrival:
            while self._next not in self._whole:
                if self._broken is not None:
                    raise self._broken
                if self._closed:
                    raise Closed
                self._arrival.wait()
            result = self._whole.pop(self._next)
            self._next += 1
            self._room.notify_all()
        if isinstance(result, Failure):
            raise result.error
        return result

    def close(self) -> None:
        """Let the threads go, each after the part it is at, and forget what they made."""
        if self.inherited:  # the lock may be held, for ever, by a thread that is not in here
            return
        with self._room:
            self._closed = True
            self._batches.clear()
            self._whole.clear()
            self._room.notify_all()
            self._arrival.notify_all()

    def join(self, seconds: float) -> None:
        """Wait for the threads to end, but no longer than this."""
        until = time.monotonic() + seconds
        if not self.inherited:
            for thread in self._threads:
                thread.join(max(0.0, until - time.monotonic()))

    def _work(self) -> None:
        try:
            # `_make` is a frame of its own, so that no part lives on while this waits for room.
            while (taken := self._take_part()) is not None:
                self._make(*taken)
                del taken
        except BaseException as error:  # no memory for the smallest things, say
            with self._arrival:
                self._broken = error
                self._arrival.notify_all()

    def _take_part(self) -> tuple[int, int, _Batch] | None:
        """The next part to be made; None when there is no more to do."""
        with self._room:
            while (
                not self._closed
                and self._begun < self._last
                and self._begun >= self._next + self._ahead
            ):
                self._room.wait()
            if self._closed or self._begun == self._last:
                return None
            number = self._begun
            batch = self._batches.get(number)
            if batch is None:
                batch = self._batches[number] = _Batch(self._parts(number))
            part = batch.taken
            batch.taken += 1
            if batch.taken == len(batch.parts):
                self._begun += 1
            return number, part, batch

    def _make(self, number: int, part: int, batch: _Batch) -> None:
        batch.parts[part] = self._loaded(number, part)
        with self._room:
            batch.missing -= 1
            if batch.missing or self._closed:
                return
            del self._batches[number]
        result = self._finished(number, batch.parts)
        with self._arrival:
            if not self._closed:
                self._whole[number] = result
                self._arrival.notify_all()

    def _loaded(self, number: int, part: int) -> Any:
        try:
            return self._load(number, part)
        except BaseException as error:
            return Failure(error)

    def _finished(self, number: int, parts: list[Any]) -> Any:
        try:
            return self._finish(number, parts)
        except BaseException as error:
            return Failure(error)


_open: weakref.WeakSet[Prefetch] = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """Before the interpreter goes: a thread that then asks for it would hang or be torn down."""
    left = list(_open)
    for one in left:
        one.close()
    until = time.monotonic() + _PATIENCE
    for one in left:
        one.join(max(0.0, until - time.monotonic()))
