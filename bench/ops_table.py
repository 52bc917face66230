"""The table of `bench_ops.py`: how many times as fast as the best of the others convkit is at each
row, what is asked there, and what share of the processor's peak it reaches."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from typing import Any

import report
from cpu_cases import NUMPY_ASKED, NetworkRow, Row
from driver import Result, note, run_with_limits
from op_cases import Case

TOLERANCE = 1e-4  # of a result's sum, as a share of that of the magnitudes
TableRow = Row | NetworkRow


def measure(
    chosen: list[TableRow], settings: dict[str, Any], arguments: argparse.Namespace
) -> None:
    """Runs all engines and publishes the table."""
    results, limits = run_with_limits(arguments.engines, settings, arguments)
    if not results:
        raise SystemExit("no engine could run")
    compare(chosen, results)
    rows = _rows(chosen, results, limits)
    first, *others = [result.engine for result in results]
    head = [
        "op",
        "shape",
        first,
        "spread",
        *(f"{name} /" for name in others),
        "best /",
        "asked",
        "reached",
        "share",
    ]
    unit = f"times as long as {first}"
    bars = {
        "best of the others": [row["best"] for row in rows],
        "asked at least": [row["asked"][0] for row in rows],
        "aim": [row["asked"][1] for row in rows],
    }
    report.publish(
        "ops",
        f"ops, median of {arguments.rounds} rounds; NAME /: {unit}",
        arguments,
        results,
        rows,
        report.table(head, [_cells(row, others) for row in rows]) + _summary(rows, limits),
        report.Bars(
            unit,
            [f"{row['op']} {row['shape']}" for row in rows],
            bars,
            logarithmic=True,
            line=1.0,
        ),
    )


def compare(chosen: Sequence[Case | NetworkRow], results: list[Result]) -> None:
    """Says which engines' results differ from the first one's: they have equal arrays."""
    for result in results[1:]:
        pairs = zip(results[0].set_up["sums"], result.set_up["sums"], strict=True)
        for case, (ours, theirs) in zip(chosen, pairs, strict=True):
            if ours and theirs and not _close(ours, theirs):
                note(f"{result.engine}: {case.function} {case.shape} differs from the first's")


def _close(ours: list[list[float]], theirs: list[list[float]]) -> bool:
    """Whether sums, and sums of magnitudes, of each result are equal but for rounding."""
    return len(ours) == len(theirs) and all(
        abs(a - b) <= TOLERANCE * size
        for (sum_a, size), (sum_b, size_b) in zip(ours, theirs, strict=True)
        for a, b in ((sum_a, sum_b), (size, size_b))
    )


def _rows(
    chosen: list[TableRow], results: list[Result], limits: list[float]
) -> list[dict[str, Any]]:
    medians = {result.engine: result.medians() for result in results}
    first, *others = results
    rows = []
    for item, case in enumerate(chosen):
        seconds = {name: values[item] for name, values in medians.items()}
        base = seconds[first.engine]
        ratios = {result.engine: seconds[result.engine] / base for result in others}
        best = min((ratio for ratio in ratios.values() if ratio > 0), default=math.nan)
        row = {
            "op": case.function,
            "shape": case.shape,
            "seconds": seconds,
            "spread": first.spread(item),
            "ratios": ratios,
            "best": best,
            "asked": case.asked,
            "reached": _reached(best, case.asked),
            "shares": {},
        }
        if limits:
            bounds = {"fma": case.flops / 2e9 * limits[0], "copy": limits[item + 1]}
            row["shares"] = {name: bound / base for name, bound in bounds.items() if bound > 0}
        rows.append(row)
    return rows


def _reached(ratio: float, asked: tuple[float, float]) -> str:
    if math.isnan(ratio):
        return "-"
    least, aim = asked
    return "aim" if ratio >= aim else "yes" if ratio >= least else "no"


def _cells(row: dict[str, Any], others: list[str]) -> list[str]:
    least, aim = row["asked"]
    name, share = max(row["shares"].items(), key=lambda pair: pair[1], default=("", math.nan))
    return [
        row["op"],
        row["shape"],
        report.duration(row["seconds"][next(iter(row["seconds"]))]),
        f"{row['spread']:.0%}",
        *(_times(row["ratios"][other]) for other in others),
        _times(row["best"]),
        f"{least:g} / {aim:g}",
        row["reached"],
        "-" if math.isnan(share) else f"{share:.0%} {name}",
    ]


def _times(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"


def _summary(rows: list[dict[str, Any]], limits: list[float]) -> str:
    """How many rows reach what is asked, and what a share is of."""
    known = [row["reached"] for row in rows if row["reached"] != "-"]
    text = (
        f"\n\nOf {len(known)} rows {len(known) - known.count('no')} reach at least what is asked, "
        f"{known.count('aim')} the aim."
    )
    numpy = [row["ratios"].get("numpy", math.nan) for row in rows]
    numpy = [ratio for ratio in numpy if not math.isnan(ratio)]
    if numpy:
        counts = [sum(ratio >= asked for ratio in numpy) for asked in NUMPY_ASKED]
        text += (
            f" Beside NumPy {counts[0]} of {len(numpy)} are {NUMPY_ASKED[0]:g} times as fast or "
            f"more, {counts[1]} {NUMPY_ASKED[1]:g} times."
        )
    if limits:
        text += (
            f"\nShare: of the multiply-adds at {report.peak([1e9 / limits[0]])} (fma), or of a "
            "copy of as many bytes (copy), whichever is more."
        )
    return text
