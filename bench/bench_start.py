"""From the start of a process to its end, with one epoch trained: `bench_start.py --help`.

What somebody waits for who types `python train.py`: interpreter, import of the library, data from
its files, compilation, first epoch, exit. Every measurement is a fresh process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import time
from typing import Any

import report
from data import describe_data
from driver import HERE, SETTLE_SECONDS, Result, add_options, environment, interpreter, note, parse
from engines import TRAINERS
from measured import NETWORKS

HEAD = (
    "network",
    "batch",
    "engine",
    "whole",
    "spread",
    "ratio",
    "import",
    "data",
    "epoch",
    "rest",
    "loss",
    "accuracy",
)
STARTERS = ("convkit", "torch")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--samples", type=int, help="images in an epoch (default: the network's)")
    add_options(parser, TRAINERS)
    parser.set_defaults(engines=STARTERS)
    arguments = parse(parser)
    network = NETWORKS[arguments.network]
    samples = arguments.samples or network.samples

    results: dict[str, Result] = {}
    for number in range(arguments.rounds + 1):  # the first fills the system's cache of files
        for name in list(arguments.engines if number == 0 else results):
            time.sleep(SETTLE_SECONDS)
            try:
                whole, reply = _start(name, samples, arguments)
            except subprocess.CalledProcessError as error:
                results.pop(name, None)
                note(f"{name}: left out, {_last_line(error.stderr)}")
                continue
            result = results.setdefault(name, Result(name, reply.pop("version"), {}))
            if number:
                parts = reply.pop("parts")
                result.seconds.append([whole, *parts, whole - sum(parts)])
                result.last = reply
        note(f"round {number} of {arguments.rounds}" if number else "ready")
    if not results:
        raise SystemExit("no engine could run")
    rows = _rows(arguments, list(results.values()))
    what = (
        f"process, import, data and one epoch of {samples:,} images ({describe_data(network)}); "
        f"median of {arguments.rounds} rounds"
    )
    report.publish(
        "start",
        what,
        arguments,
        list(results.values()),
        rows,
        report.table(HEAD, [_cells(row) for row in rows]),
        report.bars(rows, "seconds"),
    )


def _start(name: str, samples: int, arguments: argparse.Namespace) -> tuple[float, dict[str, Any]]:
    """Seconds from outside, and what the process says."""
    settings = {
        "engine": name,
        "network": arguments.network,
        "batch_size": arguments.batch_size,
        "samples": samples,
        "threads": arguments.threads,
    }
    start = time.perf_counter()
    process = subprocess.run(
        [interpreter(name, arguments), "-m", "engines.start", json.dumps(settings)],
        cwd=HERE,
        env=environment(arguments.threads, arguments.isa),
        capture_output=True,
        text=True,
        check=True,
    )
    return time.perf_counter() - start, json.loads(_last_line(process.stdout))


def _last_line(text: str) -> str:
    return (text.strip().splitlines() or ["no output"])[-1]


def _rows(arguments: argparse.Namespace, results: list[Result]) -> list[dict[str, Any]]:
    rows = []
    for result in results:
        whole, *parts = result.medians()
        rows.append(
            {
                "network": arguments.network,
                "batch": arguments.batch_size,
                "engine": result.engine,
                "seconds": whole,
                "parts": parts,
                "rounds": [seconds[0] for seconds in result.seconds],
                "spread": result.spread(),
                "ratio": whole / results[0].medians()[0],
                **result.last,
            }
        )
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["network"],
        str(row["batch"]),
        row["engine"],
        report.duration(row["seconds"]),
        f"{row['spread']:.0%}",
        f"{row['ratio']:.2f}",
        *map(report.duration, row["parts"]),
        f"{row['loss']:.4f}",
        f"{row['accuracy']:.4f}",
    ]


if __name__ == "__main__":
    main()
