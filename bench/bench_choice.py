"""Whether convolutions take the fastest algorithm: each pass by each algorithm, at many shapes.

`python bench/bench_choice.py` prints the *regret* of the choice in `csrc/cpu/conv_choice.h`: how
many times as long the algorithm that is chosen takes as the fastest of those that can be used.
`--fit` prints factors for the sums of `csrc/cpu/conv_cost.h`, by which it goes, beside those that
stand there. `--times` takes what `--json` wrote instead of measuring: of a convkit that was built
anew since, it tells what the choice is now.
"""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import choice_fit
import numpy as np
import report
from choice_cases import shapes
from choice_times import Timing, mean, measure, read
from conv_costs import PASSES
from driver import Result, note
from engines import convkit_engine

from convkit import _core, ops

QUICK_SHAPES, QUICK_SECONDS = 24, 1e-3
WRONG = 1.1  # a regret that is no error of the clock
SMALL = 7  # the side of a picture: those below are counted apart too

Chosen = list[tuple[Timing, str]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--isa",
        dest="sets",
        nargs="+",
        choices=_core.available_backends(),
        default=[_core.backend_name()],
        help="instruction sets (default: the one in use)",
    )
    parser.add_argument("--threads", type=int, default=1, help="default 1")
    parser.add_argument(
        "--batch-size", type=int, nargs="+", default=[], help="default: up to 8, fewer if large"
    )
    parser.add_argument("--only", default="", metavar="TEXT", help="shapes with this in their text")
    parser.add_argument(
        "--seconds", type=float, default=0.005, help="per algorithm and pass (default 0.005)"
    )
    parser.add_argument(
        "--quick", action="store_true", help=f"{QUICK_SHAPES} of the shapes, 1 ms per algorithm"
    )
    parser.add_argument("--fit", action="store_true", help="fit the factors of conv_cost.h")
    parser.add_argument(
        "--worst", type=int, default=5, help="of each pass, the worst shapes to print (default 5)"
    )
    parser.add_argument(
        "--times", type=Path, nargs="+", metavar="FILE", help="of --json, instead of measuring"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table of regrets")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.set_defaults(device="cpu", isa="native")
    arguments = parser.parse_args()
    before = _core.backend_name(), _core.get_num_threads()
    try:
        _run(arguments)
    finally:
        _core.use_backend(before[0])
        _core.set_num_threads(before[1])


def _run(arguments: argparse.Namespace) -> None:
    convkit_engine.set_up(arguments.threads)
    timings: list[Timing] = []
    versions = []
    for isa in arguments.sets:
        _core.use_backend(isa)
        versions.append(Result(isa, convkit_engine.version(), {}))
        timings += _timings(isa, arguments)
    if not timings:
        raise SystemExit(f"no shape with {arguments.only!r}")
    chosen = _choices(timings)
    summary = _summary(chosen)
    parts = [_summary_table(summary), *_wrong(chosen, arguments.worst)]
    if arguments.fit:
        parts += choice_fit.tables(timings, chosen)
    count = len({timing.shape for timing in timings})
    how = "measured before" if arguments.times else "lower quartile of bursts"
    report.publish(
        "choice of convolutions",
        f"regret of the choice among algorithms for convolutions, {count} shapes, {how}",
        arguments,
        versions,
        [_row(timing, name) for timing, name in chosen],
        "\n\n".join(parts),
        report.Bars(
            "times as long as the fastest",
            [f"{row['isa']} {row['pass']}" for row in summary],
            {name: [row[name] for row in summary] for name in ("mean", "90 %", "worst")},
            line=1.0,
        ),
    )


def _timings(isa: str, arguments: argparse.Namespace) -> Iterator[Timing]:
    if arguments.times:
        return read(isa, arguments.times, arguments.only, arguments.batch_size)
    found = list(shapes(arguments.only, arguments.batch_size))
    if not arguments.quick:
        return measure(isa, found, arguments.seconds)
    return measure(isa, found[:: max(1, len(found) // QUICK_SHAPES)], QUICK_SECONDS)


def _choices(timings: list[Timing]) -> Chosen:
    """With each what convkit chooses; those whose choice was not measured are left out."""
    found, missed = [], 0
    for isa, several in itertools.groupby(timings, lambda timing: timing.isa):
        _core.use_backend(isa)
        for timing in several:
            shape = timing.shape
            name = ops.plan("conv2d", shape.x, shape.weights, **shape.options)[timing.of_pass]
            if name in timing.seconds:
                found.append((timing, name))
            else:
                missed += 1
    if missed:
        note(f"{missed} times are left out: what is chosen now was not measured")
    return found


def _row(timing: Timing, name: str) -> dict[str, Any]:
    return {
        "isa": timing.isa,
        "pass": timing.of_pass,
        "shape": str(timing.shape),
        "sizes": asdict(timing.shape),
        "seconds": timing.seconds,
        "chosen": name,
        "regret": timing.regret(name),
    }


def _by_pass(chosen: Chosen) -> Iterator[tuple[str, str, Chosen]]:
    for isa, of_pass in itertools.product(dict.fromkeys(t.isa for t, _ in chosen), PASSES):
        several = [(t, name) for t, name in chosen if (t.isa, t.of_pass) == (isa, of_pass)]
        if several:
            yield isa, of_pass, several


def _summary(chosen: Chosen) -> list[dict[str, Any]]:
    rows = []
    for isa, of_pass, several in _by_pass(chosen):
        regrets = [(timing.shape.side < SMALL, timing.regret(name)) for timing, name in several]
        values = [regret for _, regret in regrets]
        rows.append(
            {
                "isa": isa,
                "pass": of_pass,
                "shapes": len(values),
                "mean": mean(values),
                "small": mean([regret for small, regret in regrets if small]),
                "others": mean([regret for small, regret in regrets if not small]),
                "90 %": float(np.quantile(values, 0.9)),
                "worst": max(values),
                "wrong": sum(regret > WRONG for regret in values),
            }
        )
    return rows


def _summary_table(rows: list[dict[str, Any]]) -> str:
    head = ("isa", "pass", "shapes", "mean", f"side < {SMALL}", f"≥ {SMALL}", "90 %", "worst")
    cells = [
        [
            row["isa"],
            row["pass"],
            str(row["shapes"]),
            *(f"{row[name]:.3f}".replace("nan", "-") for name in ("mean", "small", "others")),
            *(f"{row[name]:.2f}" for name in ("90 %", "worst")),
            str(row["wrong"]),
        ]
        for row in rows
    ]
    return report.table((*head, f"> {WRONG}"), cells)


def _wrong(chosen: Chosen, worst: int) -> list[str]:
    """Which algorithms are taken for which, and the worst shapes of each pass."""
    kinds, rows = [], []
    for isa, of_pass, several in _by_pass(chosen):
        wrong = [(t.regret(name), name, t) for t, name in several if t.regret(name) > WRONG]
        wrong.sort(key=lambda found: -found[0])
        pairs: dict[tuple[str, str], list[float]] = {}
        for regret, name, timing in wrong:
            pairs.setdefault((name, timing.best), []).append(regret)
        for pair, regrets in sorted(pairs.items(), key=lambda item: -len(item[1])):
            kinds.append([isa, of_pass, *pair, str(len(regrets)), f"{mean(regrets):.2f}"])
        for regret, name, timing in wrong[:worst]:
            order = sorted(timing.seconds, key=timing.seconds.__getitem__)
            times = ", ".join(f"{a} {report.duration(timing.seconds[a])}" for a in order)
            rows.append([isa, of_pass, str(timing.shape), name, f"{regret:.2f}", times])
    if not rows:
        return []
    return [
        f"Choices with a regret above {WRONG}, and the worst of them:",
        report.table(("isa", "pass", "chosen", "fastest", "shapes", "mean"), kinds),
        report.table(("isa", "pass", "shape", "chosen", "regret", "times"), rows),
    ]


if __name__ == "__main__":
    main()
