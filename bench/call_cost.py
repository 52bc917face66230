"""What a call of an op costs beside its kernels: checks, the memory of the result, and Python.

The time of the kernels alone is that of a call with several rounds of them, less that of a call
with one: what `replayed` remembers of such a function is run without Python in between.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import report
from driver import Result
from engines.clock import timed
from op_cases import Case, Input, cases

ASKED = 1.5  # microseconds
ROUNDS_OF_KERNELS = 5
SIDES = {28: 8, 14: 6, 10: 4}  # of images: enough for every kernel and window
CALLS = 2000
OFTEN = 15
KEYS = ("call", "kernels", "cost", "cost with out")

Call = Callable[[], Any]


def small_cases(only: str = "") -> Iterator[Case]:
    """The cases of `op_cases.py` with one small sample."""
    for case in cases((1,)):
        if only in case.function:
            yield replace(case, inputs=tuple(map(_small, case.inputs)))


def _small(given: Input) -> Input:
    if not given.batched or len(given.shape) != 3:
        return given
    height, width, channels = given.shape
    return replace(given, shape=(SIDES.get(height, height), SIDES.get(width, width), channels))


def measure(only: str, arguments: argparse.Namespace) -> None:
    """Measures every op, and publishes the table."""
    from engines import convkit_engine

    from convkit import ops

    convkit_engine.set_up(arguments.threads)
    rows = []
    for case in small_cases(only):
        arrays = case.arrays()
        call = case.bind(ops, arrays)
        result = call()
        out = tuple(result) if isinstance(result, tuple) else result
        calls = (
            call,
            partial(call, out=out),
            repeated(case, arrays, 1),
            repeated(case, arrays, ROUNDS_OF_KERNELS),
        )
        whole, into, one, several = _medians(calls)
        kernels = (several - one) / (ROUNDS_OF_KERNELS - 1)
        rows.append(
            {
                "op": case.function,
                "shape": case.shape,
                "call": whole,
                "kernels": kernels,
                "cost": whole - kernels,
                "cost with out": into - kernels,
            }
        )
    if not rows:
        raise SystemExit(f"no op with {only!r}")
    head = ("op", "shape", "call µs", "kernels µs", "cost µs", "with out= µs")
    cells = [[row["op"], row["shape"], *(f"{1e6 * row[k]:.2f}" for k in KEYS)] for row in rows]
    above = sum(1e6 * row["cost"] > ASKED for row in rows)
    largest = max(1e6 * row["cost"] for row in rows)
    report.publish(
        "cost of a call",
        f"cost of a call: its time less that of its kernels, median of {OFTEN} times {CALLS} calls",
        arguments,
        [Result("convkit", convkit_engine.version(), {})],
        rows,
        report.table(head, cells)
        + f"\n\nThe largest cost is {largest:.2f} µs; {above} of {len(rows)} are above {ASKED} µs.",
        report.Bars(
            "µs",
            [f"{row['op']} {row['shape']}" for row in rows],
            {key: [1e6 * row[key] for row in rows] for key in KEYS[2:]},
            line=ASKED,
        ),
    )


def repeated(case: Case, arrays: list[np.ndarray], times: int) -> Call:
    """The op's kernels so many times, into the same results."""
    from convkit import _core, ops

    function = getattr(ops, case.function).__wrapped__

    @_core.replayed
    def run(*given: Any) -> Any:
        result = function(*given, **case.arguments)
        for _ in range(times - 1):
            function(*given, **case.arguments, out=result)
        return result

    given = case.bind(ops, arrays).args
    run(*given)
    run(*given)
    if run.replays == 0:
        raise RuntimeError(f"{case.function}: expected its kernels to be replayed")
    return lambda: run(*given)


def _medians(calls: tuple[Call, ...]) -> list[float]:
    """Seconds of each, measured in turn."""
    for call in calls:
        timed(call, CALLS // 10)
    rounds = [[timed(call, CALLS) for call in calls] for _ in range(OFTEN)]
    return [statistics.median(values) for values in zip(*rounds, strict=True)]
