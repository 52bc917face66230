"""Every op against plain NumPy, at LeNet's shapes.

`python bench/bench_ops.py --help` gives the table: each engine in a process of its own, rounds
interleaved. `pytest bench/bench_ops.py` gives pytest-benchmark's statistics of convkit and NumPy,
which then share a process: good for comparing two versions of an op, less so for the ratio.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

import gpu_ops
import report
from driver import Result, add_options, note, parse, run_engines
from engines import CUDA_OPERATORS, ENGINES, OPERATORS, OWN
from gpu_cases import ROOMS
from op_cases import BATCHES, Case, cases

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

QUICK_BATCHES = (32,)
TOLERANCE = 1e-4  # of a result's sum, as a share of that of the magnitudes
MAX_TIME = 0.05  # seconds that pytest-benchmark gives to a case


def pytest_generate_tests(metafunc: Any) -> None:
    """One test for each case and engine, grouped by case."""
    import pytest  # the table can do without pytest

    if "case" not in metafunc.fixturenames:
        return
    parameters = []
    for case in cases():
        name = f"{case.function} {case.shape}"
        mark = pytest.mark.benchmark(group=name, max_time=MAX_TIME)
        parameters.append(pytest.param(case, id=_plain(name), marks=mark))
    metafunc.parametrize("case", parameters)
    metafunc.parametrize("engine", OWN)


def _plain(name: str) -> str:
    """For `-k`: pytest would escape other characters than ASCII."""
    return name.replace("×", "x").replace(" → ", "-to-").replace(" ", "-")


def test_op(case: Case, engine: str, benchmark: BenchmarkFixture) -> None:
    """Measures one op."""
    module = importlib.import_module(ENGINES[engine][0])
    benchmark(module.operation(case, case.arrays()))


def test_every_op_has_a_case() -> None:
    """No op of convkit is forgotten here."""
    from convkit import ops  # the table can do without convkit

    assert set(ops.__all__) == {case.function for case in cases()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--batch-size", type=int, nargs="+", default=BATCHES)
    parser.add_argument("--only", default="", metavar="TEXT", help="ops with this in their name")
    parser.add_argument("--seconds", type=float, default=0.02, help="per case and round")
    parser.add_argument(
        "--quick", action="store_true", help=f"batch {QUICK_BATCHES[0]} only, 5 ms per case"
    )
    parser.add_argument("--peers", action="store_true", help="PyTorch, JAX and TensorFlow too")
    parser.add_argument(
        "--room", nargs="+", choices=ROOMS, default=ROOMS, help="on a GPU: see gpu_cases.py"
    )
    parser.add_argument(
        "--scale", type=int, default=1, help="on a GPU: batches are divided by this"
    )
    add_options(parser, OPERATORS, CUDA_OPERATORS)
    arguments = parse(parser)
    if arguments.device != "cpu":
        gpu_ops.measure(arguments)
        return
    if arguments.quick:
        arguments.batch_size, arguments.seconds = QUICK_BATCHES, 0.005
    names = OWN if arguments.all_engines and not arguments.peers else arguments.engines

    settings = {
        "batches": arguments.batch_size,
        "target": arguments.seconds,
        "only": arguments.only,
    }
    results = run_engines(names, "ops", settings, arguments)
    chosen = [case for case in cases(arguments.batch_size) if arguments.only in case.function]
    if not results or not chosen:
        raise SystemExit("no engine could run" if chosen else f"no op with {arguments.only!r}")
    _compare(chosen, results)
    rows = _rows(chosen, results)
    what = f"ops, median of {arguments.rounds} rounds"
    first, *others = [result.engine for result in results]
    head = [
        "op",
        "shape",
        f"{first} µs",
        *(f"{name} µs" for name in others),
        *(f"{name} / {first}" for name in others),
        "speed",
    ]
    cells = [
        [
            row["op"],
            row["shape"],
            *(_cell(report.digits(1e6 * seconds)) for seconds in row["seconds"].values()),
            *(_cell(f"{ratio:.2f}") for ratio in row["ratios"].values()),
            row["speed"],
        ]
        for row in rows
    ]
    groups = [f"{row['op']} {row['shape']}" for row in rows]
    bars = {f"{name} / {first}": [row["ratios"][name] for row in rows] for name in others}
    if not bars:
        bars = {first: [1e6 * row["seconds"][first] for row in rows]}
    unit = f"times as long as {first}" if others else "µs"
    report.publish(
        "ops",
        what,
        arguments,
        results,
        rows,
        report.table(head, cells),
        report.Bars(unit, groups, bars, logarithmic=True, line=1.0 if others else None),
    )


def _compare(chosen: list[Case], results: list[Result]) -> None:
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


def _cell(text: str) -> str:
    """A number, or a dash for an op that an engine has not."""
    return "-" if text == "nan" else text


def _rows(chosen: list[Case], results: list[Result]) -> list[dict[str, Any]]:
    medians = {result.engine: result.medians() for result in results}
    first = results[0]
    rows = []
    for item, case in enumerate(chosen):
        seconds = {name: values[item] for name, values in medians.items()}
        base = seconds[first.engine]
        if case.flops:
            speed = f"{report.digits(case.flops / base / 1e9)} GFLOP/s"
        else:
            speed = f"{report.digits(first.set_up['bytes'][item] / base / 1e9)} GB/s"
        ratios = {name: value / base for name, value in seconds.items() if name != first.engine}
        rows.append(
            {
                "op": case.function,
                "shape": case.shape,
                "seconds": seconds,
                "ratios": ratios,
                "speed": speed,
            }
        )
    return rows


if __name__ == "__main__":
    main()
