"""Graphs carried out node by node from Python: where some of it is a function of NumPy or CuPy.

The same interface as `convkit.program.Program`, as far as models use it.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from convkit import _core, device
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

    def takes(self, array: Any) -> bool:
        """Any array will do."""
        return True

    @contextmanager
    def bound(self, *pairs: tuple[Symbol, Any]) -> Iterator[None]:
        """While these arrays are bound to these symbols."""
        for symbol, array in pairs:
            self._arrays[id(root(symbol))] = array
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
        started = time.perf_counter()
        if shuffle is not None:
            self._shuffle(shuffle)
        with nullcontext() if self.gpu is None else device.on(self.gpu):
            at = begin
            while at < end:
                rows = min(batch_size, end - at)
                self._step(at, rows)
                at += rows
                if time.perf_counter() - started >= seconds:
                    break
        return at

    def _shuffle(self, seed: int) -> None:
        """The order that a native program makes of this seed, in the array bound to the index."""
        for node in self._nodes:
            index = node.inputs[1] if node.kernel.startswith("gather") else None
            if index is not None and id(index) in self._arrays:
                order = self._arrays[id(index)]
                source = Symbol((None,), "int64", place="source")
                place = Symbol((None,), "int64", place="fed")
                rows = gather(source, place, "float64")
                program = Program("float64", results=[rows])
                values = np.empty(len(order))
                with program.bound((source, order.copy()), (place, order), (rows, values)):
                    program.run(0, 1, 1, shuffle=seed)
                return

    def _step(self, begin: int, rows: int) -> None:
        values: dict[int, Any] = {}

        def array_of(symbol: Symbol | None) -> Any:
            if symbol is None:
                return None
            if symbol.variable is not None:
                return symbol.variable.value
            if id(symbol) in values:
                return values[id(symbol)]
            array = self._arrays[id(symbol)]
            return array if symbol.place == "source" else array[begin : begin + rows]

        for node in self._nodes:
            given = [array_of(value) for value in node.inputs]
            made = self._run(node, given, rows)
            for symbol, array in zip(node.outputs, made, strict=True):
                if symbol is not None:
                    values[id(symbol)] = array
        for result in self._results:
            if id(result) in self._arrays:
                target = self._arrays[id(result)]
                value = array_of(result)
                if isinstance(target, np.ndarray) and not isinstance(value, np.ndarray):
                    value = device.to_numpy(value)
                target[begin : begin + rows] = value

    def _run(self, node: Node, given: list[Any], rows: int) -> list[Any]:
        if node.kernel == "reshape":
            (output,) = node.outputs
            assert output is not None
            return [given[0].reshape(_sizes(output, rows))]
        if node.kernel in PYTHON:
            return list(node.spec(node.kernel, given, node.outputs))
        if node.kernel.startswith("gather"):
            given = [*given[:1], self._on_side(given[1])]
            if self.gpu is not None and isinstance(given[0], np.ndarray):
                given = self._few_rows(given)
        targets: list[Any] = []
        for symbol in node.outputs:
            if symbol is None:
                targets.append(None)
            elif symbol.variable is not None:
                targets.append(symbol.variable.value)
            elif node.kernel == "gather_labels" or symbol.dtype != self.dtype:
                targets.append(self._empty(_sizes(symbol, rows), symbol.dtype))
            else:
                targets.append(_sizes(symbol, rows))
        if self.gpu is None:
            return list(_core.run_kernel(node.kernel, node.spec, rows, self.dtype, given, targets))
        return device.run_kernel(node.kernel, node.spec, rows, given, targets, self.dtype)

    def _on_side(self, index: Any) -> Any:
        if self.gpu is None or index is None or not isinstance(index, np.ndarray):
            return index
        return device.from_numpy(index)

    def _few_rows(self, given: list[Any]) -> list[Any]:
        """The rows of data in the host's memory that a step reads, on the GPU."""
        source, index = given
        if index is not None:
            source = source[device.to_numpy(index)]
        return [device.from_numpy(np.ascontiguousarray(source)), None]

    def _empty(self, shape: tuple[int, ...], dtype: str) -> Any:
        return np.empty(shape, dtype) if self.gpu is None else device.empty(shape, dtype)


def _sizes(symbol: Symbol, rows: int) -> tuple[int, ...]:
    return tuple(rows if size is None else size for size in symbol.shape)
