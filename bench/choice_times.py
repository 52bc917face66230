"""Seconds of convolutions by each algorithm, as measured or read."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from choice_cases import Shape
from conv_costs import BACKWARD_INPUT, BACKWARD_KERNEL, FORWARD, PASSES
from driver import note
from engines.clock import timed, trial

from convkit import ops

NEEDS = {BACKWARD_INPUT: (True, False, False), BACKWARD_KERNEL: (False, True, False)}
ALGORITHMS = ("product", "windows", "planes", "winograd2", "winograd4")  # of one group
BURST = 1e-4  # seconds of calls that are timed together
BURSTS = (5, 40)  # of each algorithm: at least, at most

Call = Callable[[], Any]


@dataclass(frozen=True)
class Timing:
    """Seconds of one pass by each algorithm that can compute it."""

    isa: str
    of_pass: str
    shape: Shape
    seconds: dict[str, float]

    @property
    def best(self) -> str:
        return min(self.seconds, key=self.seconds.__getitem__)

    def regret(self, algorithm: str) -> float:
        """How many times as long as the fastest it takes."""
        return self.seconds[algorithm] / self.seconds[self.best]


def mean(values: Sequence[float]) -> float:
    """The geometric mean; NaN of none."""
    return math.exp(sum(map(math.log, values)) / len(values)) if values else math.nan


def measure(isa: str, chosen: Sequence[Shape], target: float) -> Iterator[Timing]:
    """Times by the instruction set in use, `target` seconds of each algorithm."""
    for number, shape in enumerate(chosen):
        if number % 100 == 0:
            note(f"{isa}: {number} of {len(chosen)} shapes")
        for of_pass, calls in calls_of(shape).items():
            yield Timing(isa, of_pass, shape, _seconds(calls, target))


def calls_of(shape: Shape) -> dict[str, dict[str, Call]]:
    """For each pass a call for each algorithm that computes it, into memory that stays.

    What is chosen of itself is among them, even where nobody could ask for it: an algorithm that
    has no form for the forward pass is refused for the gradients too.
    """
    rng = np.random.default_rng(0)
    x, kernel, dy = (
        rng.standard_normal(size, dtype=np.float32) for size in (shape.x, shape.weights, shape.y)
    )
    y, dx, dkernel = np.empty_like(dy), np.empty_like(x), np.empty_like(kernel)
    results = {BACKWARD_INPUT: (dx, None, None), BACKWARD_KERNEL: (None, dkernel, None)}
    calls: dict[str, dict[str, Call]] = {of_pass: {} for of_pass in PASSES}
    for asked in ("automatic", *ALGORITHMS):
        options = {**shape.options, "algorithm": asked}
        try:
            used = ops.plan("conv2d", x, kernel, **options)
        except ValueError:
            continue  # it has no form for this shape
        for of_pass in PASSES:
            if asked not in ("automatic", used[of_pass]) or used[of_pass] in calls[of_pass]:
                continue
            if of_pass == FORWARD:
                call = partial(ops.conv2d, x, kernel, out=y, **options)
            else:
                given = {"needs": NEEDS[of_pass], "out": results[of_pass], **options}
                call = partial(ops.conv2d_backward, dy, x, kernel, **given)
            calls[of_pass][used[of_pass]] = call
    return calls


def _seconds(calls: dict[str, Call], target: float) -> dict[str, float]:
    """The lower quartile of bursts of each call, in turn: what else runs only adds to a time."""
    once = {name: trial(call) for name, call in calls.items()}
    repeats = {name: max(1, round(BURST / seconds)) for name, seconds in once.items()}
    longest = max(repeats[name] * seconds for name, seconds in once.items())
    least, most = BURSTS
    bursts = [
        [timed(call, repeats[name]) for name, call in calls.items()]
        for _ in range(max(least, min(most, round(target / longest))))
    ]
    return dict(zip(calls, np.quantile(bursts, 0.25, axis=0).tolist(), strict=True))


def read(
    isa: str, paths: Sequence[Path], only: str = "", batches: Sequence[int] = ()
) -> Iterator[Timing]:
    """The times of files that --json wrote, of the shapes that `choice_cases.shapes` would give."""
    for path in paths:
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]:
            shape = Shape(**row["sizes"])
            wanted = only in str(shape) and (not batches or shape.batch in batches)
            if wanted and row["isa"] == isa:
                yield Timing(isa, row["pass"], shape, row["seconds"])
