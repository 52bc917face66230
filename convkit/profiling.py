"""What a model's programs do, node by node: how it is scheduled, how much it is, how long it takes."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from convkit import _core, geometry
from convkit.graph import Symbol
from convkit.planner import Step, per_sample
from convkit.program import Program

_UPDATES = ("sgd", "adam")


@dataclass(frozen=True)
class Row:
    """One kernel of a program.

    Attributes:
        layer: the layer that it belongs to, or "" for what the whole model shares.
        kernel: its name.
        schedule: "depth-first", "breadth-first", or "update": piece by piece as soon as the sums
            of the tiles are known.
        multiply_adds: for one sample, by the direct method's count.
        bytes: read and written for one sample, without weights.
        seconds: for one sample on one thread; None if it was not measured.
        share: of the arithmetic peak of one core, 0 .. 1; None likewise.
    """

    layer: str
    kernel: str
    schedule: str
    multiply_adds: int
    bytes: int
    seconds: float | None = None
    share: float | None = None


@dataclass(frozen=True)
class Profile:
    """A program taken apart. `print` it, or draw it with `convkit.plot.profile`.

    Attributes:
        title: what was looked at.
        rows: its kernels in order.
        batch_size: samples per step.
        arena_bytes, tile_bytes, sum_bytes: the memory of a step, of one thread's tile, and of the
            gradients that the tiles add to.
        peak: multiply-adds per second of one core; None if nothing was measured.
    """

    title: str
    rows: tuple[Row, ...]
    batch_size: int
    arena_bytes: int
    tile_bytes: int
    sum_bytes: int
    peak: float | None = None

    def __str__(self) -> str:
        return _table(self)


def describe(title: str, program: Program, batch_size: int) -> Profile:
    """A program's plan, without times."""
    native = program.native
    rows = tuple(_row(step) for step in program.steps)
    return Profile(
        title,
        rows,
        batch_size,
        native.arena_bytes(batch_size),
        native.tile_bytes(),
        native.sum_bytes(batch_size),
    )


def profile(
    model: Any,
    x: Any,
    y: Any = None,
    batch_size: int = 128,
    seconds: float = 0.5,
    print_fn: Callable[[str], object] | None = print,
) -> Profile:
    """Measures a model node by node, on one thread.

    The model stays as it was: weights and the optimizer's state are put back.

    Args:
        model: built; compiled, if y is given.
        x: samples, as for `fit`; their number should be at least batch_size.
        y: targets, for a training step; None: a forward pass.
        batch_size: samples per step.
        seconds: how long to measure, at least one pass over x.
        print_fn: what prints the table; None: nothing is printed.

    Returns:
        Profile: the rows of the table; `convkit.plot.profile` draws it.
    """
    batch_size = geometry.integer("profile", "batch_size", batch_size, 1)
    seconds = geometry.number("profile", "seconds", seconds, 0, float("inf"))
    title, program, bound, n = model._program_for_profile(x, y, batch_size)
    saved = [variable.numpy() for variable in program.variables]
    batch_size = min(batch_size, n)
    taken, samples = np.zeros(len(program.steps)), 0
    try:
        with bound:
            program.run(0, n, batch_size)
            program.native.profile(True)
            start = time.perf_counter()
            while not samples or time.perf_counter() - start < seconds:
                program.run(0, n, batch_size)
                samples += n
            taken[:] = program.native.seconds()
    finally:
        program.native.profile(False)
        for variable, value in zip(program.variables, saved, strict=True):
            variable.assign(value)
    peak = measure_peak(model.dtype)
    plan = describe(title, program, batch_size)
    rows = tuple(
        Row(
            row.layer,
            row.kernel,
            row.schedule,
            row.multiply_adds,
            row.bytes,
            each,
            row.multiply_adds / each / peak if row.multiply_adds and each else None,
        )
        for row, each in zip(plan.rows, taken / samples, strict=True)
    )
    result = Profile(
        title, rows, batch_size, plan.arena_bytes, plan.tile_bytes, plan.sum_bytes, peak
    )
    if print_fn is not None:
        print_fn(str(result))
    return result


def measure_peak(dtype: str = "float32") -> float:
    """Multiply-adds per second of one core, in registers, with the instruction set in use."""
    rounds, best = 100_000, float("inf")
    spec = _core.Elementwise(size=rounds)
    for _ in range(8):
        x = np.full(16, 0.5, dtype)
        start = time.perf_counter()
        _core.run_kernel("multiply_add_peak", spec, 1, dtype, [], [x])
        best = min(best, time.perf_counter() - start)
    return rounds * 384 / best


def multiply_adds(step: Step) -> int:
    """For one sample, counted directly; 0 for kernels that multiply nothing together."""
    spec = getattr(step.spec, "conv", getattr(step.spec, "dense", step.spec))
    if isinstance(spec, _core.Conv2d):
        taps = spec.kernel_height * spec.kernel_width * (spec.channels // spec.groups)
        return int(spec.out_height * spec.out_width * taps * spec.filters) * (
            "unpool" not in step.kernel
        )
    if isinstance(spec, _core.Dense):
        return int(spec.rows * spec.inputs * spec.units)
    return 0


def _row(step: Step) -> Row:
    names = dict.fromkeys(node.layer for node in step.nodes)
    schedule = "depth-first" if step.tiled else "breadth-first"
    if step.kernel in _UPDATES and any(v is not None and v.place == "sum" for v in step.inputs):
        schedule = "update"
    values = [*step.inputs, *step.outputs]
    return Row(
        " + ".join(name for name in names if name),
        step.kernel,
        schedule,
        multiply_adds(step),
        sum(_sample_bytes(value) for value in values if value is not None),
    )


def _sample_bytes(value: Symbol) -> int:
    if not per_sample(value):
        return 0
    return prod(s for s in value.shape if s is not None) * np.dtype(value.dtype).itemsize


# ---- the table -----------------------------------------------------------------------------------


def _table(profile: Profile) -> str:
    measured = profile.peak is not None
    head = ["layer", "kernel", "schedule", "mult-adds", "bytes"]
    if measured:
        head += ["ns", "time", "of peak"]
    total = sum(row.seconds or 0 for row in profile.rows)
    body = [_cells(row, total, measured) for row in profile.rows]
    all_adds = sum(row.multiply_adds for row in profile.rows)
    last = ["", "a sample", "", f"{all_adds:,}", f"{sum(r.bytes for r in profile.rows):,}"]
    if measured:
        assert profile.peak is not None
        last += [f"{total * 1e9:,.0f}", "100%", f"{all_adds / total / profile.peak:.0%}"]
    widths = [max(len(row[i]) for row in [head, *body, last]) for i in range(len(head))]
    line = "  ".join("-" * width for width in widths)
    lines = [f"{profile.title}, batches of {profile.batch_size}", _line(head, widths), line]
    lines += [_line(row, widths) for row in body]
    lines += [line, _line(last, widths), _memory(profile)]
    if measured:
        assert profile.peak is not None
        peak = f"{2 * profile.peak / 1e9:.0f} GFLOP/s"
        lines.append(f"one thread, {_core.backend_name()}; arithmetic peak of the core {peak}")
    return "\n".join(lines)


def _cells(row: Row, total: float, measured: bool) -> list[str]:
    count = f"{row.multiply_adds:,}" if row.multiply_adds else ""
    cells = [row.layer, row.kernel, row.schedule, count, f"{row.bytes:,}" if row.bytes else ""]
    if measured:
        assert row.seconds is not None
        share = "" if row.share is None else f"{row.share:.0%}"
        cells += [f"{row.seconds * 1e9:,.0f}", f"{row.seconds / total:.1%}", share]
    return cells


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    texts = [
        f"{cell:<{width}}" if i < 3 else f"{cell:>{width}}"
        for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return "  ".join(texts).rstrip()


def _memory(profile: Profile) -> str:
    parts = [f"memory: {_kilobytes(profile.arena_bytes)} for a batch's values"]
    if profile.tile_bytes:
        parts.append(f"{_kilobytes(profile.tile_bytes)} per thread for a tile of 16 samples")
    if profile.sum_bytes:
        parts.append(f"{_kilobytes(profile.sum_bytes)} for sums of gradients")
    return ", ".join(parts)


def _kilobytes(count: int) -> str:
    return f"{count / 1024:,.0f} KB"
