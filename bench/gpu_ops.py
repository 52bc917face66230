"""The tables of `bench_ops.py --device cuda`: convkit beside cuDNN through PyTorch."""

from __future__ import annotations

import argparse
import math
from typing import Any

import report
from driver import Result, run_engines
from gpu_cases import GpuCase, gpu_cases

HEAD = ("op", "shape", "precision", "kernels µs", "spread", "call µs", "speed", "of copy")
PEER_HEAD = ("{0} µs", "its call µs", "its share", "{0} / {1}", "calls")


def measure(arguments: argparse.Namespace) -> None:
    """Runs each room in processes of its own, and publishes one table for all."""
    rows: list[dict[str, Any]] = []
    results: list[Result] = []
    for room in arguments.room:
        settings = {
            "room": room,
            "target": arguments.seconds,
            "only": arguments.only,
            "scale": arguments.scale,
        }
        found = run_engines(arguments.engines, "ops", settings, arguments)
        chosen = list(gpu_cases(room, arguments.only, arguments.scale))
        if found and chosen:
            rows += _rows(room, chosen, found)
        results += found
    if not rows:
        raise SystemExit("no engine could run, or no op has this name")
    # An engine that failed in one room still has its columns.
    names = [name for name in arguments.engines if any(name in row["engines"] for row in rows)]
    head = [*HEAD]
    for name in names[1:]:
        head += [text.format(name, names[0]) for text in PEER_HEAD]
    bars = {
        f"{name} / {names[0]}": [_ratio(row, name, names[0]) for row in rows] for name in names[1:]
    }
    if not bars:
        bars = {names[0]: [1e6 * row["engines"][names[0]]["kernels"] for row in rows]}
    report.publish(
        "ops on a GPU",
        f"ops, median of {arguments.rounds} rounds; kernels: by events around a CUDA graph of many "
        "calls; call: wall time of one call from Python among many, the last waited for",
        arguments,
        results,
        rows,
        report.table(head, [_cells(row, names) for row in rows]),
        report.Bars(
            "times as long" if len(names) > 1 else "µs",
            [f"{row['op']} {row['shape']} {row['precision']}" for row in rows],
            bars,
            logarithmic=True,
            line=1.0 if len(names) > 1 else None,
        ),
    )


def _rows(room: str, chosen: list[GpuCase], results: list[Result]) -> list[dict[str, Any]]:
    rows = []
    medians = {result.engine: result.medians() for result in results}
    sizes = results[0].set_up["bytes"]
    for item, case in enumerate(chosen):
        engines = {}
        for result in results:
            times = medians[result.engine]
            share = math.nan
            if chosen[0].op == "copy":  # bytes a second, by those of the same engine's copy
                share = (sizes[item] / times[item]) / (sizes[0] / times[0])
            engines[result.engine] = {
                "kernels": times[item],
                "spread": result.spread(item),
                "call": times[item + len(chosen)],
                "share": share,
            }
        base = medians[results[0].engine][item]
        if case.flops:
            speed = f"{report.digits(case.flops / base / 1e12)} TFLOP/s"
        else:
            speed = f"{report.digits(sizes[item] / base / 1e9)} GB/s"
        rows.append(
            {
                "room": room,
                "op": case.function,
                "shape": case.shape,
                "precision": case.precision,
                "engines": engines,
                "speed": speed,
            }
        )
    return rows


def _ratio(row: dict[str, Any], name: str, first: str, what: str = "kernels") -> float:
    """An engine's time over the first one's; NaN where one of them did not run."""
    engines = row["engines"]
    if name not in engines or first not in engines:
        return math.nan
    return float(engines[name][what] / engines[first][what])


def _cells(row: dict[str, Any], names: list[str]) -> list[str]:
    first = names[0]
    own = row["engines"].get(first)
    cells = [row["op"], row["shape"], row["precision"]]
    if own is None:
        cells += ["-"] * (len(HEAD) - len(cells))
    else:
        cells += [
            report.digits(1e6 * own["kernels"]),
            f"{own['spread']:.0%}",
            report.digits(1e6 * own["call"]),
            row["speed"],
            _share(own["share"]),
        ]
    for name in names[1:]:
        peer = row["engines"].get(name)
        if peer is None:
            cells += ["-"] * len(PEER_HEAD)
            continue
        cells += [
            report.digits(1e6 * peer["kernels"]),
            report.digits(1e6 * peer["call"]),
            _share(peer["share"]),
            _times(_ratio(row, name, first)),
            _times(_ratio(row, name, first, "call")),
        ]
    return cells


def _share(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.0%}"


def _times(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.2f}"
