"""Tables, pictures and JSON of what was measured, with the machine it was measured on."""

from __future__ import annotations

import argparse
import json
import math
import platform
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driver import Result

INSTRUCTION_SETS = ("avx512f", "avx2", "avx", "asimd")


def machine(arguments: argparse.Namespace) -> str:
    """The processor's line, and before it the GPU's where that is measured."""
    line = hardware(arguments.threads, arguments.isa)
    if arguments.device == "cpu":
        return line
    if arguments.device == "emulated":
        return f"no GPU but its stand-in: times mean nothing; {line}"
    return f"{gpu()}\n{line}"


def gpu() -> str:
    """Name, memory and driver of the first GPU, as the driver's own program says."""
    command = [
        "nvidia-smi",
        "--query-gpu=name,memory.total,driver_version",
        "--format=csv,noheader",
    ]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown GPU"
    name, memory, driver = (part.strip() for part in done.stdout.splitlines()[0].split(","))
    return f"{name}, {memory}, driver {driver}"


def hidden(arguments: argparse.Namespace) -> tuple[str, ...]:
    """Columns of the processor alone."""
    return () if arguments.device == "cpu" else ("of peak", "in pieces of")


def hardware(threads: int, isa: str) -> str:
    """One line: processor, widest instruction set, its limit, threads, Python."""
    name, flags = platform.processor() or platform.machine(), ""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        key, _, value = (part.strip() for part in line.partition(":"))
        if key == "model name":
            name = value
        elif key in ("flags", "Features"):
            flags = value
    widest = next((name for name in INSTRUCTION_SETS if name in flags.split()), "unknown")
    if isa != "native":
        widest += f", limited to {isa}"
    return f"{name}, {widest}, threads: {threads}, Python {platform.python_version()}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]], hide: Sequence[str] = ()) -> str:
    """A Markdown table, its columns aligned: text to the left, numbers to the right; those whose
    head is in `hide` are left out."""
    columns = [column for column in zip(head, *rows, strict=True) if column[0] not in hide]
    head, *rows = zip(*columns, strict=True)
    widths = [max(len(cell) for cell in column) for column in columns]
    numbers = [all(cell[:1] in "0123456789-" for cell in column[1:]) for column in columns]

    def line(cells: Sequence[str]) -> str:
        aligned = [
            cell.rjust(width) if number else cell.ljust(width)
            for cell, width, number in zip(cells, widths, numbers, strict=True)
        ]
        return "| " + " | ".join(aligned) + " |"

    rule = [
        "-" * (width - 1) + (":" if number else "-")
        for width, number in zip(widths, numbers, strict=True)
    ]
    return "\n".join([line(head), line(rule), *map(line, rows)])


def duration(seconds: float) -> str:
    """Three digits in the unit that fits, from microseconds to seconds."""
    for unit, scale in (("s", 1.0), ("ms", 1e-3)):
        if seconds >= scale:
            return f"{digits(seconds / scale)} {unit}"
    return f"{digits(seconds / 1e-6)} µs"


def digits(value: float) -> str:
    """At least three significant digits, with commas."""
    if value <= 0 or not math.isfinite(value):
        return f"{value}"
    return f"{value:,.{max(0, 2 - math.floor(math.log10(value)))}f}"


@dataclass
class Bars:
    """What a picture shows: a group per setting, and in it a bar per engine."""

    unit: str
    groups: list[str]
    values: dict[str, list[float]]
    logarithmic: bool = False
    line: float | None = None  # where to draw a line across, such as a ratio of one


def bars(rows: Sequence[dict[str, Any]], unit: str) -> Bars:
    """A bar for each engine, and a group for each network and batch; `unit` is of time."""
    scale = {"seconds": 1.0, "milliseconds": 1e3}[unit]
    times = {(*_setting(row), row["engine"]): scale * row["seconds"] for row in rows}
    settings = list(dict.fromkeys(map(_setting, rows)))
    engines = dict.fromkeys(row["engine"] for row in rows)
    return Bars(
        unit,
        [f"{network}, {batch:,}" for network, batch in settings],
        {name: [times.get((*key, name), math.nan) for key in settings] for name in engines},
        logarithmic=unit == "milliseconds",
    )


def against_best_peer(rows: Sequence[dict[str, Any]], hide: Sequence[str] = ()) -> str:
    """A second table: the first engine of each setting beside the fastest of the others."""
    cells = []
    for setting in dict.fromkeys(map(_setting, rows)):
        first, *peers = [row for row in rows if _setting(row) == setting]
        if peers:
            best = min(peers, key=lambda row: row["seconds"])
            cells.append(
                [
                    setting[0],
                    f"{setting[1]:,}",
                    duration(first["seconds"]),
                    f"{first['share']:.1%}",
                    best["engine"],
                    duration(best["seconds"]),
                    f"{best['share']:.1%}",
                    f"{best['seconds'] / first['seconds']:.2f}",
                ]
            )
    if not cells:
        return ""
    name = rows[0]["engine"]
    head = ("network", "batch", name, "of peak", "best peer", "its time", "of peak", "ratio")
    return "\n\n" + table(head, cells, hide)


def _setting(row: dict[str, Any]) -> tuple[str, int]:
    return row["network"], row["batch"]


def peak(measured: Sequence[float]) -> str:
    """The processor's peak, from multiply-adds a second of each run."""
    low, high = min(measured), max(measured)
    if math.isnan(low):
        return "peak unknown"
    texts = dict.fromkeys(digits(2 * value / 1e9) for value in (low, high))
    return f"peak {' to '.join(texts)} GFLOP/s"


def publish(
    benchmark: str,
    what: str,
    arguments: argparse.Namespace,
    results: Sequence[Result],
    rows: Sequence[dict[str, Any]],
    text: str,
    bars: Bars,
) -> None:
    """Prints the table under a head that says what ran where; writes --json and draws --plot."""
    where = machine(arguments)
    versions = ", ".join(dict.fromkeys(result.version for result in results))
    print(f"{what}\n{where}\n{versions}\n\n{text}")
    if arguments.json:
        content = {
            "benchmark": benchmark,
            "what": what,
            "machine": where,
            "versions": versions,
            "rows": rows,
        }
        written = json.dumps(content, indent=1, ensure_ascii=False) + "\n"
        arguments.json.write_text(written, encoding="utf-8")
    if arguments.plot:
        _plot(arguments.plot, f"{what}\n{where}", bars)


def _plot(path: Path, title: str, bars: Bars) -> None:
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    thickness = 0.8 / max(1, len(bars.values))
    height = 1.2 + 0.24 * len(bars.groups) * (len(bars.values) + 1)
    figure, axes = plt.subplots(figsize=(9, height), layout="constrained")
    for number, (name, values) in enumerate(bars.values.items()):
        places = [
            i + (number - (len(bars.values) - 1) / 2) * thickness for i in range(len(bars.groups))
        ]
        drawn = axes.barh(places, values, thickness * 0.92, label=name)
        texts = ["" if math.isnan(value) else digits(value) for value in values]
        axes.bar_label(drawn, texts, padding=3, fontsize=8)
    axes.set_yticks(range(len(bars.groups)), bars.groups)
    axes.invert_yaxis()
    axes.margins(x=0.12, y=0.02)
    if bars.logarithmic:
        axes.set_xscale("log")
    if bars.line is not None:
        axes.axvline(bars.line, color="black", linewidth=1)
    axes.set_xlabel(bars.unit)
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if len(bars.values) > 1:
        axes.legend(frameon=False)
    figure.savefig(path, dpi=150)
    plt.close(figure)
