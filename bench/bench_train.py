"""How long an epoch of training takes, per engine: `python bench/bench_train.py --help`."""

from __future__ import annotations

import argparse
from typing import Any

import report
from data import SAMPLES, describe_data
from driver import Result, add_options, run_engines
from engines import TRAINERS
from networks import NETWORKS

HEAD = ("batch", "engine", "epoch", "spread", "ratio", "samples/s", "loss", "accuracy")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--samples", type=int, default=SAMPLES, help="images in an epoch")
    add_options(parser, TRAINERS)
    arguments = parser.parse_args()

    runs: dict[int, list[Result]] = {}
    for batch_size in arguments.batch_size:
        settings = {
            "network": arguments.network,
            "batch_size": batch_size,
            "samples": arguments.samples,
        }
        runs[batch_size] = run_engines(arguments.engines, "train", settings, arguments)
    rows = [
        row for batch, results in runs.items() for row in _rows(batch, results, arguments.samples)
    ]
    if not rows:
        raise SystemExit("no engine could run")
    what = (
        f"{arguments.network}, epoch of {arguments.samples:,} images ({describe_data()}), "
        f"median of {arguments.rounds} rounds"
    )
    bars = {
        name: [_seconds(rows, name, batch) for batch in runs]
        for name in dict.fromkeys(row["engine"] for row in rows)
    }
    groups = [f"batch {batch}" for batch in runs]
    everybody = [result for results in runs.values() for result in results]
    text = report.table(HEAD, [_cells(row) for row in rows])
    report.publish(
        "train", what, arguments, everybody, rows, text, report.Bars("seconds", groups, bars)
    )


def _rows(batch: int, results: list[Result], samples: int) -> list[dict[str, Any]]:
    first = results[0].medians()[0] if results else 0.0
    return [
        {
            "batch": batch,
            "engine": result.engine,
            "seconds": result.medians()[0],
            "rounds": [seconds[0] for seconds in result.seconds],
            "spread": result.spread(),
            "ratio": result.medians()[0] / first,
            "samples_per_second": samples / result.medians()[0],
            **result.last,
        }
        for result in results
    ]


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        str(row["batch"]),
        row["engine"],
        report.duration(row["seconds"]),
        f"{row['spread']:.0%}",
        f"{row['ratio']:.2f}",
        f"{row['samples_per_second']:,.0f}",
        f"{row['loss']:.4f}",
        f"{row['accuracy']:.4f}",
    ]


def _seconds(rows: list[dict[str, Any]], engine: str, batch: int) -> float:
    found = [r["seconds"] for r in rows if r["engine"] == engine and r["batch"] == batch]
    return found[0] if found else float("nan")


if __name__ == "__main__":
    main()
