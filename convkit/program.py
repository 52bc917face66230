"""Graphs as native programs: values get a place, nodes stand in order, arrays are bound.

On a GPU a program is the same plan, carried out by `_core.DeviceProgram`: depth-first by blocks of
threads, where one has room for a sample and all that is made of it, else breadth-first.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod
from typing import Any

import numpy as np

from convkit import _core, device, planner
from convkit.geometry import Shape
from convkit.graph import SOURCE_TYPES, Node, Symbol, Variable, ordered_nodes, root

# Of what a block of threads reads and writes on a GPU, in bytes.
ALIGNMENT = 16


def gather(source: Symbol, index: Symbol | None, dtype: str, scale: float = 1.0) -> Symbol:
    """Records rows of `source` (those that `index` names, or one after the other) as `dtype`.

    Args:
        source: a symbol at "source" (with index) or "fed" (without), of a dtype in SOURCE_TYPES.
        dtype: "float32", "float64", or "int32" for labels.
        scale: factor for what is read.
    """
    spec = _core.Gather(
        size=prod(s for s in source.shape[1:] if s is not None),
        type=SOURCE_TYPES[source.dtype],
        scale=scale,
        offset=0.0,
    )
    kernel = "gather_labels" if dtype == "int32" else "gather"
    node = Node(kernel, spec, [source, index], [])
    result = Symbol((None, *source.shape[1:]), dtype, node=node)
    node.outputs = [result]
    return result


class Program:
    """A native program that computes `results` and carries out `effects`.

    Args:
        dtype: "float32" or "float64", that of its kernels.
        results: symbols whose values are wanted; each is written to an array bound to it.
        effects: nodes that change variables.
        depth_first: whether tiles of samples go through the program one after the other, as far
            as that is possible; otherwise each kernel works on the whole batch. On a GPU all of it
            is depth-first ("fused") or nothing, by shapes and the kind of GPU alone.
        gpu: the number of the GPU on which it runs; None: on the processor.

    Variables are bound when the program is made, and used where they are: what a program changes is
    seen by everything else that holds the variable. Those that are elsewhere are moved to where it
    runs.

    Attributes:
        native: the plan; on the processor also what carries it out.
        gpu: as above.
        fused: whether blocks of threads of a GPU carry it out depth-first.
        unfused: why they do not, though it was asked for.
        forgotten: whether a variable has moved since; then the program is of no use any more.
    """

    def __init__(
        self,
        dtype: str,
        results: Sequence[Symbol] = (),
        effects: Iterable[Node] = (),
        depth_first: bool = False,
        gpu: int | None = None,
    ) -> None:
        self.gpu = gpu
        self.forgotten = False
        self.fused = False
        self.unfused = ""
        nodes = [node for node in ordered_nodes([*results, *effects]) if node.kernel != "reshape"]
        self._run: _core.Program | _core.DeviceProgram
        if gpu is None:
            self._record(dtype, nodes, results, depth_first)
            self._run = self.native
        else:
            with device.on(gpu):
                self._run = self._on_gpu(dtype, nodes, results, depth_first)
        for symbol in self._symbols:
            if symbol.variable is not None:
                symbol.variable.to(gpu)
                symbol.variable.add_user(self)
                self.bind(symbol, symbol.variable.value)

    def _on_gpu(
        self, dtype: str, nodes: list[Node], results: Sequence[Symbol], depth_first: bool
    ) -> _core.DeviceProgram:
        assert self.gpu is not None
        if depth_first:
            self._record(dtype, nodes, results, True)
            try:
                made = self._fit_in_blocks()
                self.fused = True
                return made
            except _core.DoesNotFit as error:
                self.unfused = str(error).removeprefix("stretch: ")
        self._record(dtype, nodes, results, False)
        return _core.DeviceProgram(self.native, device.backend(), self.gpu)

    def _fit_in_blocks(self) -> _core.DeviceProgram:
        assert self.gpu is not None
        arguments = (self.native, device.backend(), self.gpu, True)
        try:
            return _core.DeviceProgram(*arguments)
        except MemoryError:
            device.array_module().get_default_memory_pool().free_all_blocks()
        try:
            return _core.DeviceProgram(*arguments)
        except MemoryError:
            raise MemoryError(
                "program: no room on the GPU for what blocks of threads put aside"
            ) from None

    def _record(
        self, dtype: str, nodes: list[Node], results: Sequence[Symbol], depth_first: bool
    ) -> None:
        self.native = _core.Program(dtype)
        self.steps = planner.plan(nodes, results, depth_first)
        self._ids: dict[int, int] = {}
        self._symbols: list[Symbol] = []  # what _ids was made for stays alive
        wanted = {id(root(result)) for result in results}
        for step in self.steps:
            arguments = [
                -1 if value is None else self._value(value, wanted)
                for value in [*step.inputs, *step.outputs]
            ]
            self.native.node(step.kernel, step.spec, arguments, step.tiled)
        tile_bytes = self.native.tile_bytes()
        self.native.set_tiles_at_once(planner.tiles_at_once(self.steps, tile_bytes))

    def _value(self, symbol: Symbol, wanted: set[int]) -> int:
        if id(symbol) in self._ids:
            return self._ids[id(symbol)]
        elements = prod(s for s in symbol.shape if s is not None)
        item_bytes = np.dtype(symbol.dtype).itemsize
        if symbol.place in ("state", "source"):
            value = self.native.state(item_bytes, elements)
        elif symbol.place == "fed" or id(symbol) in wanted:
            value = self.native.fed(item_bytes, elements)
        elif symbol.place == "tile":
            value = self.native.tile(item_bytes, elements)
        elif symbol.place == "sum":
            value = self.native.sum(item_bytes, elements)
        else:
            value = self.native.arena(item_bytes, elements, planner.per_sample(symbol))
        self._ids[id(symbol)] = value
        self._symbols.append(symbol)
        return int(value)

    def forget(self) -> None:
        """A variable has moved: see `forgotten`."""
        self.forgotten = True

    @property
    def variables(self) -> list[Variable]:
        """All variables that the program reads or changes."""
        return [symbol.variable for symbol in self._symbols if symbol.variable is not None]

    def bind(self, symbol: Symbol, array: Any) -> None:
        """Has the program use `array` for a fed symbol, a source or a result.

        The array must be C-contiguous and of the symbol's dtype; its first axis counts samples. A
        symbol that nothing in the program depends on is passed over. On a GPU it is a CuPy array
        there, or one of NumPy's, of which some rows at a time are copied there (or back) while the
        program runs.
        """
        value = self._ids.get(id(root(symbol)))
        if value is None:
            return
        if isinstance(self._run, _core.DeviceProgram) and not isinstance(array, np.ndarray):
            rows = array.shape[0] if array.shape else 1
            place, item = device.pointer(array), array.dtype.itemsize
            if not self.takes(array) and root(symbol).place in ("fed", "source"):
                assert self.gpu is not None
                with device.on(self.gpu):
                    array = array.copy()
                    place = device.pointer(array)
            self._run.bind_device(value, place, item, array.size, rows, array)
        else:
            self._run.bind(value, array)

    def takes(self, array: Any) -> bool:
        """Whether the program can read and write an array where it is."""
        if not self.fused or isinstance(array, np.ndarray):
            return True
        return device.pointer(array) % ALIGNMENT == 0

    @contextmanager
    def bound(self, *pairs: tuple[Symbol, Any]) -> Iterator[None]:
        """While these arrays are bound to these symbols; the program lets go of them afterwards."""
        try:
            for symbol, array in pairs:
                self.bind(symbol, array)
            yield
        finally:
            for symbol, _ in pairs:
                value = self._ids.get(id(root(symbol)))
                if value is not None:
                    self._run.unbind(value)

    def prepared(self, x: Symbol, y: Symbol, shape: Shape, most: int) -> _core.Prepared:
        """The program as a function of arrays that takes up to `most` samples at a time.

        Args:
            x: the only fed symbol that nodes of the program read.
            y: its only result.
            shape: of the array for y: (None, ...).
        """
        sides = [
            (self._ids[id(root(symbol))], form[1:], np.dtype(symbol.dtype))
            for symbol, form in ((x, x.shape), (y, shape))
        ]
        return _core.prepare(self.native, *sides[0], *sides[1], most)

    def keep_weights(self, steps: Iterable[int]) -> None:
        """Has steps of these numbers keep what they work out of their weights, on the processor.

        `native.weights_changed` tells them, and functions that `prepared` returned since, when
        weights have another value.
        """
        for step in steps:
            self.native.keep_weights(step)

    def run(
        self,
        begin: int,
        end: int,
        batch_size: int,
        seconds: float = float("inf"),
        shuffle: int | None = None,
        wait: bool = True,
    ) -> int:
        """Runs samples begin .. end in steps of batch_size; the last may be smaller.

        Args:
            shuffle: a seed of 64 bits: the whole array bound to the index of `gather` is first
                filled with a permutation of its rows, which depends on the seed and their number
                alone. A run that goes on with that order has no seed. None: the array is used as
                it is.
            wait: on a GPU, whether all is done when `run` returns. Otherwise CuPy's current stream
                waits for it, and so does what is asked of the arrays there.

        Returns:
            The sample it came to: `end`, or less if `seconds` had passed after a step.

        Raises:
            ValueError: with a seed, an index that is read-only or has more rows than its source.
            IndexError: without, an index that is outside its source.
            MemoryError: there is no room for the values of a batch.
            RuntimeError: a kernel failed on a GPU; or a variable has moved, which another model did
                that has it too.
        """
        if self.forgotten:
            raise RuntimeError("program: expected weights where they were, got them elsewhere")
        if self.gpu is None:
            return int(self.native.run(begin, end, batch_size, seconds, shuffle))
        assert isinstance(self._run, _core.DeviceProgram)
        with device.on(self.gpu):
            one_step = min(batch_size, end - begin)  # at a time needs room for no more
            self._make_room(end - begin if seconds > 0 else one_step, batch_size)
            stream = device.current()[1]
            try:
                return self._run.run(begin, end, batch_size, seconds, shuffle, stream, wait)
            except MemoryError:
                # Not for want of what CuPy's pool keeps for others.
                device.array_module().get_default_memory_pool().free_all_blocks()
            try:
                begin = self._run.reached()
                return self._run.run(begin, end, batch_size, seconds, None, stream, wait)
            except MemoryError:
                raise self._no_room("what kernels put aside", batch_size) from None

    def _make_room(self, rows: int, batch_size: int) -> None:
        assert isinstance(self._run, _core.DeviceProgram)
        wanted = self._run.wanted(rows, batch_size)
        if not wanted:
            return
        try:
            block = device.empty((wanted,), np.uint8)
            self._run.lend(device.pointer(block), block)
        except MemoryError:
            raise self._no_room(f"{wanted:,} bytes", batch_size) from None

    def _no_room(self, what: str, batch_size: int) -> MemoryError:
        return MemoryError(
            f"program: no room on the GPU for {what} in steps of {batch_size}; expected a smaller "
            "batch_size"
        )

    def set_window(self, size: int) -> None:
        """How many bytes of what is on the host go to the GPU at a time, at most; for tests."""
        assert isinstance(self._run, _core.DeviceProgram)
        self._run.set_window(size)

    def profile(self, on: bool) -> None:
        """Whether runs add up the seconds of each step, on the processor on one thread.

        Of a fused program all are the first step's.
        """
        self._run.profile(on)

    def blocks(self, batch_size: int) -> tuple[int, int, int] | None:
        """Of a fused program: bytes of the GPU's memory, of a block of threads, and 0."""
        if not self.fused:
            return None
        assert isinstance(self._run, _core.DeviceProgram)
        return self._run.stretch_bytes(batch_size), self._run.block_bytes(), 0

    def seconds(self) -> list[float]:
        """Of each step, since `profile(True)`."""
        return self._run.seconds()
