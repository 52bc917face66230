"""What a worker is asked to do. Each task prepares an engine and gives the function of a round."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from functools import partial
from types import ModuleType
from typing import Any

import numpy as np
import numpy_baseline
from cpu_cases import NetworkRow, cpu_cases
from data import random_data, training_data
from gpu_cases import gpu_cases
from measured import NETWORKS
from op_cases import Case, LargeCase

from engines.clock import Call, timed, trial

Reply = dict[str, Any]
Round = Callable[[], Reply]
PIECES = (1024, 256)
CHECKED = 4  # images whose probabilities are compared
BURSTS = 10
STEPS = 4  # of training that are measured together, since an epoch has its own costs
VERY_LONG = 0.5  # seconds of a call
RECORDED_SECONDS = 2e-3  # of calls in one CUDA graph, so that its launch does not count
MOST_RECORDED = 100


class Several:
    """A call that does the same so many times."""

    def __init__(self, call: Call, times: int) -> None:
        self.call, self.times = call, times

    def __call__(self) -> Any:
        return self.call()


def train(
    module: ModuleType, options: Reply, network: str, batch_size: int, samples: int
) -> tuple[Reply, Round]:
    """A round is one epoch. The first, unmeasured, compiles what there is to compile."""
    net = NETWORKS[network]
    epoch = module.trainer(net, *training_data(net, samples), batch_size, **options)
    epoch()

    def run_round() -> Reply:
        start = time.perf_counter()
        loss, accuracy = epoch()
        seconds = time.perf_counter() - start
        return {"seconds": [seconds], "loss": loss, "accuracy": accuracy}

    return {}, run_round


def check(
    module: ModuleType, options: Reply, network: str, batch_size: int, steps: int
) -> tuple[Reply, Round]:
    """A round is `steps` updates on one batch, always the same: the losses should be everybody's.

    An epoch is one batch here, whose order does not matter to a mean.
    """
    net = NETWORKS[network]
    epoch = module.trainer(net, *training_data(net, batch_size), batch_size, **options)

    def run_round() -> Reply:
        start = time.perf_counter()
        losses = [epoch()[0] for _ in range(steps)]
        return {"seconds": [time.perf_counter() - start], "losses": losses}

    return {}, run_round


def infer(
    module: ModuleType, options: Reply, network: str, batches: list[int], target: float
) -> tuple[Reply, Round]:
    """A round runs the network on each of `batches` images, for `target` seconds each.

    Some engines are faster on many images if they get them in pieces; each uses the size of piece
    that is fastest in a trial.
    """
    net = NETWORKS[network]
    x, _ = random_data(net, max(batches))
    predict = module.predictor(net, **options)
    calls, pieces = [], []
    for batch in batches:
        sizes = [batch, *(size for size in PIECES if size < batch)]
        trials = [_in_pieces(predict, x[:batch], size, net.output_shape) for size in sizes]
        best = min(range(len(sizes)), key=lambda i, trials=trials: trial(trials[i]))
        calls.append(trials[best])
        pieces.append(sizes[best])
    # The first image through the one-image path, the next ones through that of many.
    first = np.concatenate((predict(x[:1]), predict(x[:CHECKED])))
    return {"pieces": pieces, "first": first.ravel().tolist()}, _rounds(calls, target)


def peak(module: ModuleType, options: Reply, isa: str) -> tuple[Reply, Round]:
    """A round measures how long the processor needs for 10**9 multiply-adds, at best.

    That is the fastest of several bursts: whatever slows one down is not the arithmetic.
    """
    fma = module.Peak(isa, **options)
    return {}, lambda: {"seconds": [1e9 / max(fma.measure() for _ in range(BURSTS))]}


def ops(
    module: ModuleType,
    options: Reply,
    room: str,
    only: str,
    batches: list[int] | None,
    target: float,
) -> tuple[Reply, Round]:
    """A round runs each case of a room of `cpu_cases.py` for `target` seconds; NaN stands for an op
    that the engine has not.

    The reply holds the bytes that a case's arrays and results have, and two sums of each result,
    which do not depend on the order of its axes and should be every engine's.
    """
    calls: list[Call | None] = []
    sizes, sums = [], []
    for case in cpu_cases(room, only, batches):
        if isinstance(case, NetworkRow):
            call, results = _network_call(module, options, case)
            sizes.append(0)
        else:
            arrays = case.arrays()
            call = module.operation(case, arrays, **options) if _has(module, case) else None
            results = _flat(call()) if call else []
            sizes.append(_bytes(case, arrays))
        calls.append(call)
        sums.append([_sums(result) for result in results])
    return {"bytes": sizes, "sums": sums}, _rounds(calls, target, VERY_LONG)


def _has(module: ModuleType, case: Case) -> bool:
    """Engines that do not have every op list theirs in OPS."""
    return case.op in getattr(module, "OPS", (case.op,))


def _bytes(case: Case, arrays: list[np.ndarray]) -> int:
    if isinstance(case, LargeCase):
        return case.bytes
    return sum(a.nbytes for a in [*arrays, *_flat(case.bind(numpy_baseline, arrays)())])


def _network_call(
    module: ModuleType, options: Reply, row: NetworkRow
) -> tuple[Call | None, list[np.ndarray]]:
    """The call, and the probabilities of `CHECKED` images; None and nothing where the engine
    has no networks, or does not train."""
    network = NETWORKS[row.network]
    if not hasattr(module, "trainer" if row.training else "predictor"):
        return None, []
    if row.training:
        # Every image twice, with two labels: what can be learnt by heart soon has gradients of
        # almost zero, which some engines need far longer to multiply.
        x, labels = random_data(network, STEPS * row.batch // 2)
        x = np.concatenate((x, x))
        targets = np.concatenate((labels, (labels + 1) % network.output_shape[-1]))
        epoch = module.trainer(network, x, targets, row.batch, **options)
        epoch()
        return Several(epoch, STEPS), []
    x, _ = random_data(network, max(row.batch, CHECKED))
    predict = module.predictor(network, **options)
    # By class: all classes together have a sum of one for everybody.
    return partial(predict, x[: row.batch]), list(predict(x[:CHECKED]).T)


def _sums(result: Any) -> tuple[float, float]:
    values = np.asarray(result, np.float64)
    return float(values.sum()), float(np.abs(values).sum())


def limits(
    module: ModuleType,
    options: Reply,
    isa: str,
    room: str,
    only: str,
    batches: list[int] | None,
) -> tuple[Reply, Round]:
    """A round measures how long the processor needs at best for 10**9 multiply-adds, then for a
    copy that moves as many bytes as each case of a room."""
    fma = module.Peak(isa, **options)
    sizes = [getattr(case, "bytes", 0) for case in cpu_cases(room, only, batches)]
    distinct = sorted(set(sizes))
    copy = module.Copy(distinct[-1])

    def run_round() -> Reply:
        best = 1e9 / max(fma.measure() for _ in range(BURSTS))
        copied = {size: copy.measure(size) for size in distinct}
        return {"seconds": [best, *(copied[size] for size in sizes)]}

    return {}, run_round


TASKS: dict[str, Callable[..., tuple[Reply, Round]]] = {
    "train": train,
    "check": check,
    "infer": infer,
    "ops": ops,
    "peak": peak,
    "limits": limits,
}


# ---- on a GPU ------------------------------------------------------------------------------------


def infer_on_gpu(
    module: ModuleType, options: Reply, network: str, batches: list[int], target: float
) -> tuple[Reply, Round]:
    """A round gives two times for each number of images, from and to the device's memory: of a call
    and waiting for it, then of a call among many of which only the last is waited for."""
    net = NETWORKS[network]
    x, _ = random_data(net, max(*batches, CHECKED))
    predict = module.predictor(net, **options)
    waited, queued = [], []
    for batch in batches:
        there = module.place(x[:batch])
        queued.append(partial(predict, there))
        waited.append(partial(_and_wait, module, queued[-1]))
    first = np.concatenate([module.fetch(predict(module.place(x[:n]))) for n in (1, CHECKED)])
    one_by_one = _rounds(waited, target)
    repeats = [max(1, round(target / trial(call))) for call in waited]

    def run_round() -> Reply:
        times = [_queued(module, call, n) for call, n in zip(queued, repeats, strict=True)]
        return {"seconds": [*one_by_one()["seconds"], *times]}

    return {"pieces": batches, "first": first.ravel().tolist()}, run_round


def ops_on_gpu(
    module: ModuleType, options: Reply, room: str, target: float, only: str, scale: int
) -> tuple[Reply, Round]:
    """A round gives two times for each case of `gpu_cases.py`: of its kernels, by events around a
    CUDA graph of several calls, and of a call from Python among many."""
    graphs, calls, sizes = [], [], []
    for case in gpu_cases(room, only, scale):
        arrays = case.arrays()
        call = module.operation(case, arrays, **options)
        results = _flat(call())
        sizes.append(sum(array.nbytes for array in [*arrays, *results]))
        del results
        seconds = min(_queued(module, call, 3) for _ in range(3))
        times = max(1, min(MOST_RECORDED, round(RECORDED_SECONDS / seconds)))
        graphs.append((module.recorded(call, times), times))
        calls.append((call, max(1, round(target / seconds))))

    def run_round() -> Reply:
        kernels = []
        for launch, times in graphs:
            launch()
            repeats = max(1, round(target / RECORDED_SECONDS))
            measured = [module.by_events(launch) for _ in range(repeats)]
            kernels.append(float(np.median(measured)) / times)
        return {"seconds": [*kernels, *(_queued(module, call, n) for call, n in calls)]}

    return {"bytes": sizes}, run_round


def _and_wait(module: ModuleType, call: Call) -> None:
    call()
    module.finish()


def _queued(module: ModuleType, call: Call, repeats: int) -> float:
    """Seconds of one call among many, until the device is done with the last."""
    module.finish()
    start = time.perf_counter()
    for _ in range(repeats):
        call()
    module.finish()
    return (time.perf_counter() - start) / repeats


CUDA_TASKS: dict[str, Callable[..., tuple[Reply, Round]]] = {
    "train": train,
    "check": check,
    "infer": infer_on_gpu,
    "ops": ops_on_gpu,
}

# ---- clocks --------------------------------------------------------------------------------------


def _rounds(calls: Sequence[Call | None], target: float, longest: float = math.inf) -> Round:
    """Measures each call, repeated to last about `target` seconds; the mean of one call, NaN where
    there is none. A call of more than `longest` seconds is measured in the first round alone, and
    that time is given in every round."""
    seconds = [trial(call) if call else math.nan for call in calls]
    repeats = [0 if math.isnan(s) else max(1, round(target / s)) for s in seconds]
    again = [s <= longest for s in seconds]
    first = True

    def run_round() -> Reply:
        nonlocal first
        for i, call in enumerate(calls):
            if call and (first or again[i]):
                seconds[i] = timed(call, repeats[i]) / getattr(call, "times", 1)
        first = False
        return {"seconds": list(seconds)}

    return run_round


def _in_pieces(
    predict: Callable[[np.ndarray], np.ndarray], x: np.ndarray, size: int, shape: tuple[int, ...]
) -> Callable[[], np.ndarray]:
    if size >= len(x):
        return lambda: predict(x)

    def run() -> np.ndarray:
        result = np.empty((len(x), *shape), np.float32)
        for start in range(0, len(x), size):
            result[start : start + size] = predict(x[start : start + size])
        return result

    return run


def _flat(result: Any) -> list[np.ndarray]:
    """The arrays of a result that may be one or several, or None where there is no gradient."""
    found = list(result) if isinstance(result, list | tuple) else [result]
    return [array for array in found if array is not None]
