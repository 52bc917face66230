"""How long calls take, and which of several is the fastest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

Call = Callable[[], Any]
SLOW = 0.2  # seconds: what takes longer is tried fewer times
TRIAL = 2e-3  # seconds of each try, so that a call of some microseconds can be told from another
TRIALS = 5

Made = TypeVar("Made", bound=Call)


def timed(call: Call, repeats: int) -> float:
    """Seconds of one call among many."""
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    return (time.perf_counter() - start) / repeats


def trial(call: Call) -> float:
    """Seconds of a call, roughly; the first calls, which compile, allocate and start threads, do
    not count."""
    timed(call, 1)
    seconds = timed(call, 1)
    return seconds if seconds > SLOW else min(timed(call, 1) for _ in range(3))


def fastest(calls: Sequence[Made]) -> Made:
    """The fastest of calls that do the same, by trials in turn."""
    if len(calls) == 1:
        return calls[0]
    best = [trial(call) for call in calls]
    repeats = [max(1, round(TRIAL / seconds)) for seconds in best]
    for _ in range(TRIALS if min(best) < SLOW else 0):
        for i, call in enumerate(calls):
            if best[i] < 2 * min(best):
                best[i] = min(best[i], timed(call, repeats[i]))
    return calls[best.index(min(best))]
