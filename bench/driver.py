"""Runs engines in processes of their own, in interleaved rounds (A B C, A B C, ...)."""

from __future__ import annotations

import argparse
import getpass
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engines import OWN, PEAK

HERE = Path(__file__).resolve().parent
# Idle threads of the engine before may still spin, waiting for work.
SETTLE_SECONDS = 0.3
# Whether glibc gives the memory of a result back to the system, to be paged in anew at the next
# call, hangs on what else lies on the heap, and costs more than many an op. For ops it is kept: all
# on one heap, of which nothing is given back.
KEEP_MEMORY = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
    "MALLOC_TRIM_THRESHOLD_": "17179869184",
}


# What keeps each library from instructions beyond AVX2: convkit, PyTorch and its compiler, oneDNN
# (in PyTorch and TensorFlow), MKL, NumPy's OpenBLAS, and XLA, of which the products of YNNPACK go
# by the processor alone and are left to others. PyTorch's compiler would otherwise find its kernels
# for wider instructions on disk, and mix them with code that expects others.
LIMITS = {
    "native": {},
    "avx2": {
        "CONVKIT_BACKEND": "avx2",
        "ATEN_CPU_CAPABILITY": "avx2",
        "ONEDNN_MAX_CPU_ISA": "AVX2",
        "MKL_ENABLE_INSTRUCTIONS": "AVX2",
        "OPENBLAS_CORETYPE": "Haswell",
        "TORCHINDUCTOR_CACHE_DIR": str(
            Path(tempfile.gettempdir()) / f"torchinductor_{getpass.getuser()}_avx2"
        ),
        "XLA_FLAGS": "--xla_cpu_max_isa=AVX2 --xla_cpu_experimental_ynn_fusion_type=",
    },
}
# "emulated" is the processor in a GPU's place: it shows that a benchmark runs, not how fast.
DEVICES = {
    "cpu": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
    "cuda": {"JAX_PLATFORMS": "cuda", "XLA_PYTHON_CLIENT_PREALLOCATE": "false"},
    "emulated": {"CUDA_VISIBLE_DEVICES": "", "JAX_PLATFORMS": "cpu"},
}
THREADS = {"cpu": 2, "cuda": 4, "emulated": 2}
UNLIMITED = ("onnxruntime",)  # goes by the processor alone


class EngineFailed(Exception):
    """An engine that cannot run; the text says why."""


@dataclass
class Result:
    """What the rounds of one engine gave: seconds[round][item], and the last round's reply."""

    engine: str
    version: str
    set_up: dict[str, Any]
    seconds: list[list[float]] = field(default_factory=list)
    last: dict[str, Any] = field(default_factory=dict)

    def medians(self) -> list[float]:
        """The median over the rounds, for each item."""
        return [statistics.median(values) for values in zip(*self.seconds, strict=True)]

    def spread(self, item: int = 0) -> float:
        """(slowest - fastest) / median over the rounds of one item."""
        values = [seconds[item] for seconds in self.seconds]
        return (max(values) - min(values)) / statistics.median(values)


class Engine:
    """One engine's process, from its start to `close`."""

    def __init__(self, name: str, task: str, python: str, arguments: argparse.Namespace) -> None:
        threads, isa, device = arguments.threads, arguments.isa, arguments.device
        self.name = name
        self._task = task
        self._threads = threads
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in close()
        self._process = subprocess.Popen(
            [python, "-m", "engines.worker", name, device],
            cwd=HERE,
            env=environment(threads, isa, device)
            | (KEEP_MEMORY if task in ("ops", "limits") else {}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
        )

    def close(self) -> None:
        """Ends the process."""
        self._process.kill()
        self._process.wait()
        self._log.close()

    def set_up(self, settings: dict[str, Any]) -> Result:
        """Imports the engine and prepares its task, one of those of `engines/tasks.py`."""
        request = {"do": "set up", "task": self._task, "threads": self._threads, **settings}
        reply = self._ask(request)
        return Result(self.name, reply.pop("version"), reply)

    def round(self) -> dict[str, Any]:
        """Measures once; the reply holds "seconds", a list."""
        return self._ask({"do": "round"})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            print(json.dumps(request), file=self._process.stdin, flush=True)
            line = self._process.stdout.readline()
        except BrokenPipeError:
            line = ""
        if not line:
            self._log.seek(0)
            lines = self._log.read().strip().splitlines() or ["no output"]
            raise EngineFailed(f"its process ended, {self._process.wait()}: {lines[-1]}")
        reply = json.loads(line)
        if "missing" in reply:
            raise EngineFailed(f"not installed ({reply['missing']})")
        if "error" in reply:
            raise EngineFailed(reply["error"])
        return reply


def environment(threads: int, isa: str, device: str = "cpu") -> dict[str, str]:
    """One number of threads, one device, and the same instructions for everybody."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    return {
        **os.environ,
        **{name: str(threads) for name in names},
        **DEVICES[device],
        "TF_CPP_MIN_LOG_LEVEL": "3",
        **LIMITS[isa],
    }


def run_engines(
    names: Sequence[str], task: str, settings: dict[str, Any], arguments: argparse.Namespace
) -> list[Result]:
    """Sets the engines up one after the other, then measures them in `arguments.rounds` rounds.

    An engine that is not installed or fails is left out, with a line that says so.
    """
    return _run([(name, task, settings) for name in names], arguments)


def run_with_peak(
    names: Sequence[str], task: str, settings: dict[str, Any], arguments: argparse.Namespace
) -> tuple[list[Result], float]:
    """The same, and the processor's peak in multiply-adds a second, measured in the same rounds.

    The peak is `arguments.peak` where that is given, and NaN where it could not be measured.
    """
    jobs = [(name, task, settings) for name in names]
    if arguments.device != "cpu":
        return _run(jobs, arguments), math.nan
    if arguments.peak:
        return _run(jobs, arguments), arguments.peak * 1e9 / 2
    results = _run([*jobs, (PEAK, "peak", {"isa": arguments.isa})], arguments)
    rounds = [result.seconds for result in results if result.engine == PEAK]
    peak = 1e9 / min(seconds[0] for seconds in rounds[0]) if rounds else math.nan
    return [result for result in results if result.engine != PEAK], peak


def run_with_limits(
    names: Sequence[str], settings: dict[str, Any], arguments: argparse.Namespace
) -> tuple[list[Result], list[float]]:
    """Runs the task "ops", and in the same rounds what the processor can do.

    What comes second are the fastest of all rounds: seconds of 10**9 multiply-adds, then of a copy
    of as many bytes as each case; nothing where that could not be measured.
    """
    where = {name: value for name, value in settings.items() if name != "target"}
    jobs = [(name, "ops", settings) for name in names]
    results = _run([*jobs, (PEAK, "limits", {"isa": arguments.isa, **where})], arguments)
    limits = [
        min(item) for r in results if r.engine == PEAK for item in zip(*r.seconds, strict=True)
    ]
    return [result for result in results if result.engine != PEAK], limits


def _run(
    jobs: Sequence[tuple[str, str, dict[str, Any]]], arguments: argparse.Namespace
) -> list[Result]:
    """Jobs are an engine's name, its task, and the task's settings."""
    running: dict[Engine, Result] = {}
    isa = arguments.isa
    try:
        for name, task, settings in jobs:
            if isa != "native" and name in UNLIMITED:
                note(f"{name}: left out, it cannot be limited to {isa}")
                continue
            engine = Engine(name, task, interpreter(name, arguments), arguments)
            try:
                running[engine] = engine.set_up(settings)
                note(f"{name}: ready")
            except EngineFailed as error:
                _leave_out(engine, error)
        for number in range(arguments.rounds):
            for engine, result in list(running.items()):
                time.sleep(SETTLE_SECONDS)
                try:
                    result.last = engine.round()
                    result.seconds.append(result.last.pop("seconds"))
                except EngineFailed as error:
                    del running[engine]
                    _leave_out(engine, error)
            note(f"round {number + 1} of {arguments.rounds}")
    finally:
        for engine in running:
            engine.close()
    return list(running.values())


def _leave_out(engine: Engine, reason: EngineFailed) -> None:
    note(f"{engine.name}: left out, {reason}")
    engine.close()


def note(text: str) -> None:
    """Progress, apart from the tables on stdout."""
    print(text, file=sys.stderr, flush=True)


def interpreter(name: str, arguments: argparse.Namespace) -> str:
    """The Python that runs an engine: --python, else --peers-python for peers, else this one."""
    chosen = dict(arguments.python)
    own = name in (*OWN, PEAK)
    return chosen.get(name) or (None if own else arguments.peers_python) or sys.executable


def add_options(
    parser: argparse.ArgumentParser, engines: Sequence[str], on_gpu: Sequence[str] = ()
) -> None:
    """The options that all benchmarks share; `parse` reads them.

    Args:
        engines: on the processor.
        on_gpu: on a GPU, for benchmarks that run there too.
    """
    parser.set_defaults(known=dict.fromkeys(DEVICES, on_gpu) | {"cpu": engines})
    parser.add_argument(
        "--engines",
        nargs="+",
        choices=list(dict.fromkeys([*engines, *on_gpu])),
        help="what to compare",
    )
    parser.add_argument("--device", choices=DEVICES if on_gpu else ["cpu"], default="cpu")
    parser.add_argument(
        "--threads", type=int, help="threads per engine (default 2; 4 beside a GPU)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure (default 5)")
    parser.add_argument(
        "--isa", choices=LIMITS, default="native", help="instructions that engines may use"
    )
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw the table")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all that was measured")
    parser.add_argument(
        "--peers-python", metavar="PATH", help="interpreter of the engines that are not ours"
    )
    parser.add_argument(
        "--python",
        type=_engine_and_path,
        action="append",
        default=[],
        metavar="ENGINE=PATH",
        help="interpreter of one engine",
    )


def parse(parser: argparse.ArgumentParser) -> argparse.Namespace:
    """The arguments, with what hangs on the device filled in."""
    arguments = parser.parse_args()
    known = arguments.known[arguments.device]
    arguments.all_engines = arguments.engines is None
    for name in arguments.engines or ():
        if name not in known:
            parser.error(f"--engines: {name} does not run on {arguments.device}")
    arguments.engines = arguments.engines or list(known)
    arguments.threads = arguments.threads or THREADS[arguments.device]
    return arguments


def add_peak_option(parser: argparse.ArgumentParser) -> None:
    """For the benchmarks that say which share of the processor's peak an engine reaches."""
    parser.add_argument(
        "--peak", type=float, metavar="GFLOPS", help="of all threads (default: measured)"
    )


def _engine_and_path(text: str) -> tuple[str, str]:
    engine, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected ENGINE=PATH, got {text!r}")
    return engine, path
