"""How long a prediction takes, per engine: `python bench/bench_infer.py --help`."""

from __future__ import annotations

import argparse

import report
from driver import Result, add_options, note, run_engines
from engines import PREDICTORS
from networks import NETWORKS

HEAD = ("images", "engine", "time", "spread", "ratio", "images/s", "in pieces of")
TOLERANCE = 1e-4


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", choices=NETWORKS, default="lenet")
    parser.add_argument("--batch-size", type=int, nargs="+", default=[1, 256, 10_000])
    parser.add_argument("--seconds", type=float, default=0.3, help="per round and batch size")
    add_options(parser, PREDICTORS)
    arguments = parser.parse_args()

    settings = {
        "network": arguments.network,
        "batches": arguments.batch_size,
        "target": arguments.seconds,
    }
    results = run_engines(arguments.engines, "infer", settings, arguments)
    if not results:
        raise SystemExit("no engine could run")
    _compare(results)
    rows = [
        {
            "batch": batch,
            "engine": result.engine,
            "seconds": result.medians()[item],
            "rounds": [seconds[item] for seconds in result.seconds],
            "spread": result.spread(item),
            "ratio": result.medians()[item] / results[0].medians()[item],
            "piece": result.set_up["pieces"][item],
        }
        for item, batch in enumerate(arguments.batch_size)
        for result in results
    ]
    what = f"{arguments.network}, inference, median of {arguments.rounds} rounds"
    cells = [
        [
            f"{row['batch']:,}",
            row["engine"],
            report.duration(row["seconds"]),
            f"{row['spread']:.0%}",
            f"{row['ratio']:.2f}",
            f"{row['batch'] / row['seconds']:,.0f}",
            f"{row['piece']:,}",
        ]
        for row in rows
    ]
    bars = {result.engine: [1e3 * seconds for seconds in result.medians()] for result in results}
    groups = [f"batch {batch:,}" for batch in arguments.batch_size]
    report.publish(
        "infer",
        what,
        arguments,
        results,
        rows,
        report.table(HEAD, cells),
        report.Bars("milliseconds", groups, bars, logarithmic=True),
    )


def _compare(results: list[Result]) -> None:
    """Says which engines' probabilities differ from the first one's: they have equal weights."""
    expected = results[0].set_up["first"]
    for result in results[1:]:
        pairs = zip(expected, result.set_up["first"], strict=True)
        difference = max(abs(a - b) for a, b in pairs)
        if difference > TOLERANCE:
            note(f"{result.engine}: probabilities differ by {difference:.1e} from the first's")


if __name__ == "__main__":
    main()
