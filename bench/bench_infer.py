"""How long a prediction takes, per engine: `python bench/bench_infer.py --help`."""

from __future__ import annotations

import argparse
from typing import Any

import report
from driver import Result, add_options, add_peak_option, note, parse, run_with_peak
from engines import CUDA_PREDICTORS, PREDICTORS
from measured import NETWORKS

HEAD = (
    "network",
    "images",
    "engine",
    "time",
    "spread",
    "ratio",
    "queued",
    "its ratio",
    "of peak",
    "images/s",
    "in pieces of",
)
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, nargs="+", default=["lenet"])
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 256, 10_000])
    parser.add_argument("--seconds", type=float, default=0.3, help="per round and batch size")
    add_options(parser, PREDICTORS, CUDA_PREDICTORS)
    add_peak_option(parser)
    arguments = parse(parser)

    results: list[Result] = []
    rows: list[dict[str, Any]] = []
    peaks: list[float] = []
    for network in arguments.network:
        settings = {
            "network": network,
            "batches": arguments.batch_size,
            "target": arguments.seconds,
        }
        found, peak = run_with_peak(arguments.engines, "infer", settings, arguments)
        _compare(found)
        results += found
        rows += _rows(network, arguments.batch_size, found, peak)
        peaks.append(peak)
    if not rows:
        raise SystemExit("no engine could run")
    names = ", ".join(arguments.network)
    hide = report.hidden(arguments)
    text = report.table(HEAD, [_cells(row) for row in rows], hide or ("queued", "its ratio"))
    how = "wall time from and to the GPU's memory" if hide else report.peak(peaks)
    report.publish(
        "infer",
        f"{names}, inference; median of {arguments.rounds} rounds; {how}",
        arguments,
        results,
        rows,
        text + report.against_best_peer(rows, hide),
        report.bars(rows, "milliseconds"),
    )


def _rows(
    network: str, batches: list[int], results: list[Result], peak: float
) -> list[dict[str, Any]]:
    rows = []
    for item, batch in enumerate(batches):
        for result in results:
            medians, first = result.medians(), results[0].medians()
            seconds = medians[item]
            # On a GPU the second half is of calls among many, of which the last is waited for.
            queued = item + len(batches) if len(medians) > len(batches) else item
            rows.append(
                {
                    "network": network,
                    "batch": batch,
                    "engine": result.engine,
                    "seconds": seconds,
                    "rounds": [seconds[item] for seconds in result.seconds],
                    "spread": result.spread(item),
                    "ratio": seconds / first[item],
                    "queued": medians[queued],
                    "queued_ratio": medians[queued] / first[queued],
                    "share": NETWORKS[network].multiply_adds() * batch / seconds / peak,
                    "piece": result.set_up["pieces"][item],
                }
            )
    return rows


def _cells(row: dict[str, Any]) -> list[str]:
    return [
        row["network"],
        f"{row['batch']:,}",
        row["engine"],
        report.duration(row["seconds"]),
        f"{row['spread']:.0%}",
        f"{row['ratio']:.2f}",
        report.duration(row["queued"]),
        f"{row['queued_ratio']:.2f}",
        f"{row['share']:.1%}",
        f"{row['batch'] / row['seconds']:,.0f}",
        f"{row['piece']:,}",
    ]


def _compare(results: list[Result]) -> None:
    """Says which engines' probabilities differ from the first one's: they have equal weights."""
    for result in results[1:]:
        pairs = zip(results[0].set_up["first"], result.set_up["first"], strict=True)
        difference = max(abs(a - b) for a, b in pairs)
        if difference > TOLERANCE:
            note(f"{result.engine}: probabilities differ by {difference:.1e} from the first's")


if __name__ == "__main__":
    main()
