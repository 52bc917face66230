"""How long an epoch of training takes, per engine: `python bench/bench_train.py --help`."""

from __future__ import annotations

import argparse
from typing import Any

import report
from data import describe_data
from driver import Result, add_options, add_peak_option, parse, run_engines, run_with_peak
from engines import CUDA_TRAINERS, TRAINERS
from measured import NETWORKS

HEAD = (
    "network",
    "batch",
    "engine",
    "epoch",
    "spread",
    "ratio",
    "of peak",
    "samples/s",
    "loss",
    "accuracy",
)
CHECKED_STEPS = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=["lenet"])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32, 128, 512])
    parser.add_argument("--samples", type=int, help="images in an epoch (default: the network's)")
    parser.add_argument(
        "--check",
        action="store_true",
        help=f"compare the losses of {CHECKED_STEPS} updates on one batch, and measure nothing",
    )
    add_options(parser, TRAINERS, CUDA_TRAINERS)
    add_peak_option(parser)
    arguments = parse(parser)
    if arguments.check:
        _check(arguments)
        return

    results: list[Result] = []
    rows: list[dict[str, Any]] = []
    peaks: list[float] = []
    for network in arguments.network:
        samples = arguments.samples or NETWORKS[network].samples
        for batch in arguments.batch_size:
            settings = {"network": network, "batch_size": batch, "samples": samples}
            found, peak = run_with_peak(arguments.engines, "train", settings, arguments)
            results += found
            rows += _rows(network, batch, samples, found, peak)
            peaks.append(peak)
    if not rows:
        raise SystemExit("no engine could run")
    what = "epoch of " + ", ".join(
        f"{name} ({arguments.samples or NETWORKS[name].samples:,}: {describe_data(NETWORKS[name])})"
        for name in arguments.network
    )
    hide = report.hidden(arguments)
    text = report.table(HEAD, [_cells(row) for row in rows], hide)
    how = "wall time to the epoch's scores on the host" if hide else report.peak(peaks)
    report.publish(
        "train",
        f"{what}; median of {arguments.rounds} rounds; {how}",
        arguments,
        results,
        rows,
        text + report.against_best_peer(rows, hide),
        report.bars(rows, "seconds"),
    )


def _rows(
    network: str, batch: int, samples: int, results: list[Result], peak: float
) -> list[dict[str, Any]]:
    multiply_adds = NETWORKS[network].training_multiply_adds() * samples
    rows = []
    for result in results:
        seconds = result.medians()[0]
        rows.append(
            {
                "network": network,
                "batch": batch,
                "engine": result.engine,
                "seconds": seconds,
                "rounds": [seconds[0] for seconds in result.seconds],
                "spread": result.spread(),
                "ratio": seconds / results[0].medians()[0],
                "share": multiply_adds / seconds / peak,
                "samples_per_second": samples / seconds,
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
        f"{row['share']:.1%}",
        f"{row['samples_per_second']:,.0f}",
        f"{row['loss']:.4f}",
        f"{row['accuracy']:.4f}",
    ]


def _check(arguments: argparse.Namespace) -> None:
    """Prints each engine's losses: equal weights and one batch should give equal numbers."""
    arguments.rounds = 1
    cells = []
    for network in arguments.network:
        for batch in arguments.batch_size:
            settings = {"network": network, "batch_size": batch, "steps": CHECKED_STEPS}
            results = run_engines(arguments.engines, "check", settings, arguments)
            for result in results:
                losses, first = result.last["losses"], results[0].last["losses"]
                off = max(abs(a / b - 1) for a, b in zip(losses, first, strict=True))
                shown = (f"{loss:.6f}" for loss in losses)
                cells.append([network, str(batch), result.engine, *shown, f"{off:.0e}"])
    steps = [f"loss {step + 1}" for step in range(CHECKED_STEPS)]
    print(report.table(["network", "batch", "engine", *steps, "off by"], cells))


if __name__ == "__main__":
    main()
