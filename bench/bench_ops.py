"""Ops beside those of PyTorch, TensorFlow, JAX and NumPy, and beside what is asked of them.

`python bench/bench_ops.py` prints the table of `cpu_cases.py`; with `--room lenet` every op at
LeNet's shapes, against plain NumPy. Each engine has a process of its own, rounds are interleaved.
`pytest bench/bench_ops.py` gives pytest-benchmark's statistics of convkit and NumPy,
which then share a process: good for comparing two versions of an op, less so for the ratio.
"""

from __future__ import annotations

import argparse
import importlib
from typing import TYPE_CHECKING, Any

import call_cost
import gpu_cases
import gpu_ops
import ops_table
import report
from cpu_cases import cpu_cases
from driver import Result, add_options, parse, run_engines
from engines import CUDA_OPERATORS, ENGINES, OPERATORS, OWN
from op_cases import Case, cases

if TYPE_CHECKING:
    from pytest_benchmark.fixture import BenchmarkFixture

# On a processor; `table` and `lenet` are those of cpu_cases.py, `overhead` is call_cost.py.
ROOMS = ("table", "lenet", "overhead")
QUICK_BATCHES = {"table": (1,), "lenet": (32,)}
NETWORKS_ALONE = "onnxruntime"  # has no ops to be called one by one
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

    assert set(ops.__all__) - {"plan"} == {case.function for case in cases()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument(
        "--room",
        nargs="+",
        choices=dict.fromkeys((*ROOMS, *gpu_cases.ROOMS)),
        help=f"one of {', '.join(ROOMS)} (default {ROOMS[0]}); on a GPU any of "
        f"{', '.join(gpu_cases.ROOMS)} (default all)",
    )
    parser.add_argument("--batch-size", type=int, nargs="+", help="cases with these batches alone")
    parser.add_argument(
        "--only", default="", metavar="TEXT", help="cases with this in the op's name or the shape"
    )
    parser.add_argument("--seconds", type=float, default=0.02, help="per case and round")
    parser.add_argument(
        "--quick", action="store_true", help="batch 1 only (lenet: 32), 5 ms per case, 3 rounds"
    )
    parser.add_argument(
        "--peers", action="store_true", help="lenet: PyTorch, JAX and TensorFlow too"
    )
    parser.add_argument(
        "--scale", type=int, default=1, help="on a GPU: batches are divided by this"
    )
    add_options(parser, (*OPERATORS, NETWORKS_ALONE), CUDA_OPERATORS)
    arguments = parse(parser)
    if arguments.device != "cpu":
        arguments.room = arguments.room or gpu_cases.ROOMS
        gpu_ops.measure(arguments)
        return
    room, *others = arguments.room or ROOMS[:1]
    if others or room not in ROOMS:
        parser.error(f"--room: expected one of {', '.join(ROOMS)} on a processor")
    if room == "overhead":
        call_cost.measure(arguments.only, arguments)
        return
    if arguments.quick:
        arguments.batch_size, arguments.seconds = QUICK_BATCHES[room], 0.005
        arguments.rounds = min(arguments.rounds, 3)
    where = {"room": room, "only": arguments.only, "batches": arguments.batch_size}
    chosen = list(cpu_cases(**where))
    if not chosen:
        raise SystemExit(f"no op with {arguments.only!r}")
    settings = {**where, "target": arguments.seconds}
    if room == "table":
        ops_table.measure(chosen, settings, arguments)
    else:
        _against_numpy(chosen, settings, arguments)


def _against_numpy(
    chosen: list[Case], settings: dict[str, Any], arguments: argparse.Namespace
) -> None:
    names = arguments.engines
    if arguments.all_engines:
        names = OPERATORS if arguments.peers else OWN
    results = run_engines(names, "ops", settings, arguments)
    if not results:
        raise SystemExit("no engine could run")
    ops_table.compare(chosen, results)
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
