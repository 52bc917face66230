"""Runs engines in processes of their own, in interleaved rounds (A B C, A B C, ...)."""

from __future__ import annotations

import argparse
import json
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

from engines import OWN

HERE = Path(__file__).resolve().parent
# Idle threads of the engine before may still spin, waiting for work.
SETTLE_SECONDS = 0.3
# Whether glibc gives the memory of a result back to the system, to be paged in anew at the next
# call, hangs on what else lies on the heap, and costs more than many an op. For ops it is kept.
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "33554432", "MALLOC_TRIM_THRESHOLD_": "1073741824"}


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

    def __init__(self, name: str, task: str, python: str, threads: int) -> None:
        self.name = name
        self._task = task
        self._threads = threads
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115, closed in close()
        self._process = subprocess.Popen(
            [python, "-m", "engines.worker", name],
            cwd=HERE,
            env=_environment(threads) | (KEEP_MEMORY if task == "ops" else {}),
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


def _environment(threads: int) -> dict[str, str]:
    """One number of threads, and the CPU, for everybody."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "NPROC")
    return {
        **os.environ,
        **{name: str(threads) for name in names},
        "CUDA_VISIBLE_DEVICES": "",
        "JAX_PLATFORMS": "cpu",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }


def run_engines(
    names: Sequence[str], task: str, settings: dict[str, Any], arguments: argparse.Namespace
) -> list[Result]:
    """Sets the engines up one after the other, then measures them in `arguments.rounds` rounds.

    An engine that is not installed or fails is left out, with a line that says so.
    """
    running: dict[Engine, Result] = {}
    try:
        for name in names:
            engine = Engine(name, task, interpreter(name, arguments), arguments.threads)
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
    return chosen.get(name) or (None if name in OWN else arguments.peers_python) or sys.executable


def add_options(parser: argparse.ArgumentParser, engines: Sequence[str]) -> None:
    """The options that all benchmarks share."""
    parser.add_argument(
        "--engines", nargs="+", choices=engines, default=list(engines), help="what to compare"
    )
    parser.add_argument("--threads", type=int, default=2, help="threads per engine (default 2)")
    parser.add_argument("--rounds", type=int, default=5, help="rounds to measure (default 5)")
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


def _engine_and_path(text: str) -> tuple[str, str]:
    engine, separator, path = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"expected ENGINE=PATH, got {text!r}")
    return engine, path
