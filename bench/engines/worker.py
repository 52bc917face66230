"""The process of one engine: `python -m engines.worker NAME DEVICE`, started by `driver.py`.

It reads one JSON object a line from stdin and answers each with one on stdout: first
`{"do": "set up", "task": ..., "threads": ..., ...}`, a task of `tasks.py`, then any number of
`{"do": "round"}`. An answer holds "error" if the request failed, "missing" if the engine is not
installed. Whatever libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from typing import Any

from engines import CUDA_ENGINES, ENGINES
from engines.processors import use_processors
from engines.tasks import CUDA_TASKS, TASKS, Reply, Round


def main() -> None:
    # Libraries may write to the descriptor itself, so the protocol gets one of its own.
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    run_round: Round | None = None
    for line in sys.stdin:
        request = json.loads(line)
        try:
            if request.pop("do") == "set up":
                reply, run_round = set_up(*sys.argv[1:], **request)
            else:
                assert run_round is not None, "a round before the set-up"
                reply = run_round()
        except ModuleNotFoundError as error:
            reply = {"missing": str(error)}
        except Exception as error:  # whatever an engine raises is for the driver to report
            reply = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(reply), file=answers, flush=True)


def set_up(
    engine: str, device: str, task: str, threads: int, **settings: Any
) -> tuple[Reply, Round]:
    """Imports the engine and prepares its task; the reply says its version."""
    use_processors(threads)
    if device == "cpu":
        module_name, options = ENGINES[engine]
        module = importlib.import_module(module_name)
        module.set_up(threads)
        reply, run_round = TASKS[task](module, options, **settings)
    else:
        module_name, options = CUDA_ENGINES[engine]
        module = importlib.import_module(module_name)
        module.set_up(threads, device)
        reply, run_round = CUDA_TASKS[task](module, options, **settings)
    return {"version": module.version(), **reply}, run_round


if __name__ == "__main__":
    main()
