"""Graphs as native programs: values get a place, nodes stand in order, arrays are bound."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from math import prod

import numpy as np

from convkit import _core, planner
from convkit.geometry import Shape
from convkit.graph import SOURCE_TYPES, Node, Symbol, Variable, ordered_nodes, root


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
            as that is possible; otherwise each kernel works on the whole batch.

    Variables are bound when the program is made, and used where they are: what a program changes is
    seen by everything else that holds the variable.
    """

    def __init__(
        self,
        dtype: str,
        results: Sequence[Symbol] = (),
        effects: Iterable[Node] = (),
        depth_first: bool = False,
    ) -> None:
        self.native = _core.Program(dtype)
        nodes = [node for node in ordered_nodes([*results, *effects]) if node.kernel != "reshape"]
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
        for symbol in self._symbols:
            if symbol.variable is not None:
                self.bind(symbol, symbol.variable.value)

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

    @property
    def variables(self) -> list[Variable]:
        """All variables that the program reads or changes."""
        return [symbol.variable for symbol in self._symbols if symbol.variable is not None]

    def bind(self, symbol: Symbol, array: np.ndarray) -> None:
        """Has the program use `array` for a fed symbol, a source or a result.

        The array must be C-contiguous and of the symbol's dtype; its first axis counts samples. A
        symbol that nothing in the program depends on is passed over.
        """
        value = self._ids.get(id(root(symbol)))
        if value is not None:
            self.native.bind(value, array)

    @contextmanager
    def bound(self, *pairs: tuple[Symbol, np.ndarray]) -> Iterator[None]:
        """While these arrays are bound to these symbols; the program lets go of them afterwards."""
        try:
            for symbol, array in pairs:
                self.bind(symbol, array)
            yield
        finally:
            for symbol, _ in pairs:
                value = self._ids.get(id(root(symbol)))
                if value is not None:
                    self.native.unbind(value)

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

    def run(
        self,
        begin: int,
        end: int,
        batch_size: int,
        seconds: float = float("inf"),
        shuffle: int | None = None,
    ) -> int:
        """Runs samples begin .. end in steps of batch_size; the last may be smaller.

        Args:
            shuffle: a seed of 64 bits: the whole array bound to the index of `gather` is first
                filled with a permutation of its rows, which depends on the seed and their number
                alone. A run that goes on with that order has no seed. None: the array is used as
                it is.

        Returns:
            The sample it came to: `end`, or less if `seconds` had passed after a step.

        Raises:
            ValueError: with a seed, an index that is read-only or has more rows than its source.
            IndexError: without, an index that is outside its source.
        """
        return int(self.native.run(begin, end, batch_size, seconds, shuffle))
