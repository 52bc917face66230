"""Graphs carried out node by node from Python: where some of it is a function of NumPy or CuPy.

The same interface as `convkit.program.Program`, as far as models use it.
"""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from convkit import _core, array, device, planner
from convkit.geometry import Shape
from convkit.graph import Node, Symbol, Variable, ordered_nodes, root
from convkit.program import Program, gather

# Kernels of nodes that are functions in Python: the spec is called with arrays and gives arrays.
PYTHON = ("python", "python_backward")


def has_python(targets: Iterable[Any]) -> bool:
    """Whether something that these depend on is a function in Python."""
    return any(node.kernel in PYTHON for node in ordered_nodes(targets))


class _NoPlan:
    """What an interpreter has in place of a native plan: every value is an array of its own."""

    def arena_bytes(self, samples: int) -> int:
        """Not known beforehand."""
        return 0


class Interpreter:
    """Computes `results` and carries out `effects`, one call of a kernel after the other.

    Args:
        dtype, results, effects, gpu: as of `Program`.
    """

    fused = False
    unfused = "a layer computes in Python"

    def __init__(
        self,
        dtype: str,
        results: Sequence[Symbol] = (),
        effects: Iterable[Node] = (),
        gpu: int | None = None,
    ) -> None:
        self.dtype = dtype
        self.gpu = gpu
        self.forgotten = False
        self.native = _NoPlan()
        self.steps: list[Any] = []
        self._nodes = ordered_nodes([*results, *effects])
        self._results = [root(result) for result in results]
        self._indices = {id(n.inputs[1]) for n in self._nodes if n.kernel.startswith("gather")}
        self._arrays: dict[int, Any] = {}
        for variable in self.variables:
            variable.to(gpu)
            variable.add_user(self)

    @property
    def variables(self) -> list[Variable]:
        """All variables that are read or changed."""
        found: dict[int, Variable] = {}
        for node in self._nodes:
            for value in (*node.inputs, *node.outputs):
                if value is not None and value.variable is not None:
                    found[id(value.variable)] = value.variable
        return list(found.values())

    def forget(self) -> None:
        """A variable has moved: what is recorded anew is made for where it is."""
        self.forgotten = True

    def takes(self, given: Any) -> bool:
        """Any array will do."""
        return True

    @contextmanager
    def bound(self, *pairs: tuple[Symbol, Any]) -> Iterator[None]:
        """While these arrays are bound to these symbols."""
        for symbol, given in pairs:
            self._arrays[id(root(symbol))] = given
        try:
            yield
        finally:
            for symbol, _ in pairs:
                self._arrays.pop(id(root(symbol)), None)

    def run(
        self,
        begin: int,
        end: int,
        batch_size: int,
        seconds: float = float("inf"),
        shuffle: int | None = None,
        wait: bool = True,
    ) -> int:
        """Runs samples begin .. end in steps of batch_size: see `Program.run`."""
        if self.forgotten:
            raise RuntimeError("program: expected weights where they were, got them elsewhere")
        started = time.perf_counter()
        if shuffle is not None:
            self._shuffle(shuffle)
        with (
            nullcontext() if self.gpu is None else device.on(self.gpu),
            _Interrupts() as interrupts,
        ):
            at = begin
            while at < end:
                rows = min(batch_size, end - at)
                self._step(at, rows)
                at += rows
                interrupts.let_in()
                if time.perf_counter() - started >= seconds:
                    break
        return at

    def prepared(self, x: Symbol, y: Symbol, shape: Shape, most: int) -> Any:
        """A function of arrays in the host's memory: see `Program.prepared`.

        For arrays that it does not take as they are it returns None. Calls wait for each other.
        """
        sample = tuple(int(size or 0) for size in x.shape[1:])
        result = tuple(int(size or 0) for size in shape[1:])
        lock = threading.Lock()

        def function(given: Any, out: Any) -> Any:
            if not _plain(given, sample, x.dtype) or len(given) > most:
                return None
            rows = len(given)
            if out is None:
                out = np.empty((rows, *result), y.dtype)
            elif not (_plain(out, result, y.dtype) and array.direct(out, [given])) or (
                len(out) != rows or not out.flags.writeable
            ):
                return None
            with lock, self.bound((x, given), (y, out)):
                self.run(0, rows, max(1, rows))
            return out

        return function

    def _shuffle(self, seed: int) -> None:
        """The order that a native program makes of this seed, in the array bound to the index."""
        for order in [self._arrays[key] for key in self._indices if key in self._arrays]:
            source = Symbol((None,), "int64", place="source")
            place = Symbol((None,), "int64", place="fed")
            rows = gather(source, place, "float64")
            program = Program("float64", results=[rows])
            values = np.empty(len(order))
            with program.bound((source, order.copy()), (place, order), (rows, values)):
                program.run(0, 1, 1, shuffle=seed)

    def _step(self, begin: int, rows: int) -> None:
        values: dict[int, Any] = {}

        def array_of(symbol: Symbol | None) -> Any:
            if symbol is None:
                return None
            if symbol.variable is not None:
                return symbol.variable.value
            if id(symbol) in values:
                return values[id(symbol)]
            whole = self._arrays[id(symbol)]
            if symbol.place == "source":
                return whole
            part = whole[begin : begin + rows]
            if self.gpu is None or id(symbol) in self._indices or not isinstance(part, np.ndarray):
                return part
            values[id(symbol)] = device.from_numpy(np.ascontiguousarray(part))
            return values[id(symbol)]

        for node in self._nodes:
            given = [array_of(value) for value in node.inputs]
            made = self._run(node, given, rows)
            for symbol, value in zip(node.outputs, made, strict=True):
                if symbol is not None:
                    values[id(symbol)] = value
        for result in self._results:
            if id(result) in self._arrays:
                target = self._arrays[id(result)]
                value = array_of(result)
                if isinstance(target, np.ndarray) and not isinstance(value, np.ndarray):
                    value = device.to_numpy(value)
                target[begin : begin + rows][...] = value

    def _run(self, node: Node, given: list[Any], rows: int) -> list[Any]:
        """What a node gives for these arrays of so many samples."""
        if node.kernel == "reshape":
            (output,) = node.outputs
            assert output is not None
            return [given[0].reshape(_sizes(output, rows))]
        if node.kernel in PYTHON:
            return list(node.spec(node.kernel, given, node.outputs))
        if node.kernel.startswith("gather") and self.gpu is not None:
            given = [self._rows(*given), None]
        once = not any(planner.per_sample(value) for value in (*node.inputs, *node.outputs))
        if once and node.kernel != "penalty":  # which counts the samples of a step
            rows = 1
        targets: list[Any] = []
        for symbol in node.outputs:
            if symbol is None:
                targets.append(None)
            elif symbol.variable is not None:
                targets.append(symbol.variable.value)
            elif symbol.dtype != self.dtype:
                targets.append(self._empty(_sizes(symbol, rows), symbol.dtype))
            else:
                targets.append(_sizes(symbol, rows))
        if self.gpu is None:
            return list(_core.run_kernel(node.kernel, node.spec, rows, self.dtype, given, targets))
        return device.run_kernel(node.kernel, node.spec, rows, given, targets, self.dtype)

    def _rows(self, source: Any, index: Any = None) -> Any:
        """The rows of data that a step reads, on the GPU: kernels check no index there."""
        if isinstance(source, np.ndarray):
            if index is not None:
                source = source[device.to_numpy(index)]
            return device.from_numpy(np.ascontiguousarray(source))
        if index is None:
            return source
        if isinstance(index, np.ndarray):
            index = device.from_numpy(index)
        return source.take(index, axis=0)

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.empty(shape, dtype) if self.gpu is None else device.empty(shape, dtype)


def _plain(x: Any, sample: tuple[int, ...], dtype: str) -> bool:
    """Whether x is an array of such samples that kernels take."""
    return (
        isinstance(x, np.ndarray)
        and x.dtype == dtype
        and x.shape[1:] == sample
        and x.ndim == len(sample) + 1
        and x.flags.c_contiguous
        and x.flags.aligned
    )


class _Interrupts:
    """While steps are carried out, Ctrl-C waits for the end of one: weights are whole then.

    A second one does not wait.
    """

    def __init__(self) -> None:
        self._before: Any = None
        self._pending = False

    def __enter__(self) -> _Interrupts:
        ours = threading.current_thread() is threading.main_thread()
        if ours and callable(signal.getsignal(signal.SIGINT)):
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        self._give_back()
        self.let_in()  # a step may have failed before it

    def _give_back(self) -> None:
        if self._before is not None:
            signal.signal(signal.SIGINT, self._before)
            self._before = None

    def _note(self, number: int, frame: Any) -> None:
        self._pending = True
        self._give_back()

    def let_in(self) -> None:
        """Between two steps: what came meanwhile takes effect."""
        if self._pending:
            self._pending = False
            signal.raise_signal(signal.SIGINT)


def _sizes(symbol: Symbol, rows: int) -> tuple[int, ...]:
    return tuple(rows if size is None else size for size in symbol.shape)
