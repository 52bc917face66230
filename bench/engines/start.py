"""The process that `bench_start.py` measures from outside: from nothing to one trained epoch.

`python -m engines.start '{"engine": ..., "network": ..., "batch_size": ..., ...}'` prints a line of
JSON: seconds for the import of the engine, for the data, and for the model with its epoch, and
the epoch's loss and accuracy. Nothing is warmed up.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from itertools import pairwise

from data import training_data
from measured import NETWORKS

from engines import ENGINES
from engines.processors import use_processors


def main() -> None:
    settings = json.loads(sys.argv[1])
    use_processors(settings["threads"])
    moments = [time.perf_counter()]
    module_name, options = ENGINES[settings["engine"]]
    module = importlib.import_module(module_name)
    module.set_up(settings["threads"])
    moments.append(time.perf_counter())
    network = NETWORKS[settings["network"]]
    x, targets = training_data(network, settings["samples"])
    moments.append(time.perf_counter())
    loss, accuracy = module.trainer(network, x, targets, settings["batch_size"], **options)()
    moments.append(time.perf_counter())
    parts = [after - before for before, after in pairwise(moments)]
    reply = {"parts": parts, "loss": loss, "accuracy": accuracy, "version": module.version()}
    print(json.dumps(reply), flush=True)


if __name__ == "__main__":
    main()
