"""Which processors a process may use."""

from __future__ import annotations

import os


def use_processors(threads: int) -> None:
    """Keeps the process on as many processors as it has threads, one of each core first.

    The number of threads alone would not bind every engine: some size their pools by what the
    process may use.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, sorted(allowed, key=_rank_within_core)[:threads])


def _rank_within_core(processor: int) -> int:
    path = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings"
    try:
        with open(path, encoding="ascii") as file:
            siblings = int(file.read().replace(",", ""), 16)
    except OSError:
        return 0
    return (siblings & ((1 << processor) - 1)).bit_count()
