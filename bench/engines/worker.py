"""The process of one engine: `python -m engines.worker NAME`, started by `driver.py`.

It reads one JSON object a line from stdin and answers each with one on stdout: first
`{"do": "set up", "task": "train" | "infer" | "ops", "threads": ..., ...}`, then any number of
`{"do": "round"}`. An answer holds "error" if the request failed, "missing" if the engine is not
installed. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from engines import ENGINES
from engines.tasks import TASKS, Reply, Round


def main() -> None:
    # Libraries may write to the descriptor itself, so the protocol gets one of its own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run_round: Round | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "set up":
                reply, run_round = set_up(sys.argv[1], **request)
            else:
                assert run_round is not None, "a round before the set-up"
                reply = run_round()
        except ModuleNotFoundError as error:
            reply = {"missing": str(error)}
        except Exception as error:  # whatever an engine raises is for the driver to report
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def set_up(engine: str, task: str, threads: int, **settings: Any) -> tuple[Reply, Round]:
    """Imports the engine and prepares its task; the reply says its version."""
    use_processors(threads)
    module_name, options = ENGINES[engine]
    module = importlib.import_module(module_name)
    module.set_up(threads)
    reply, run_round = TASKS[task](module, options, **settings)
    return {"version": module.version(), **reply}, run_round


def use_processors(threads: int) -> None:
    """Keeps the process on as many processors as it has threads, one of each core first.

    The number of threads alone would not bind every engine: some size their pools by what the
    process may use.
    """
    if hasattr(os, "sched_setaffinity"):
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, sorted(allowed, key=_rank_within_core)[:threads])


def _rank_within_core(processor: int) -> int:
    path = f"/sys/devices/system/cpu/cpu{processor}/topology/thread_siblings"
    try:
        with open(path, encoding="ascii") as file:
            siblings = int(file.read().replace(",", ""), 16)
    except OSError:
        return 0
    return (siblings & ((1 << processor) - 1)).bit_count()


if __name__ == "__main__":
    main()
