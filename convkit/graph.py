"""One way to call a kernel, on arrays (it runs) or on symbols (it is recorded).

`call` is the seam between the public functions and the two ways to reach a kernel. What is recorded
is a graph of nodes, each one kernel call; `convkit.program` turns it into a native program.
"""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Protocol

import numpy as np

from convkit import _core, device
from convkit.geometry import Shape

# Dtypes of arrays that a program reads itself; see SourceType in csrc/specs.h.
SOURCE_TYPES = {
    "uint8": 0,
    "int32": 1,
    "int64": 2,
    "float32": 3,
    "float64": 4,
    "bool": 5,
}

_sequence = itertools.count()
_layer: ContextVar[str] = ContextVar("_layer", default="")
_recorded: ContextVar[bool] = ContextVar("_recorded", default=False)


class _Changes:
    """A number that is another one after each change, whichever threads make them."""

    def __init__(self) -> None:
        self._numbers = itertools.count(1)
        self.number = 0

    def note(self) -> None:
        # Two threads may store theirs in any order: each is one that nobody has seen before.
        self.number = next(self._numbers)


_values = _Changes()
_trainable = _Changes()


def version() -> int:
    """A number that is another one when a variable was assigned to, or trained, since."""
    return _values.number


def touch() -> None:
    """Says that values of variables have changed; to be called behind the change."""
    _values.note()


def arrangement() -> int:
    """A number that is another one when something became trainable or ceased to be, since."""
    return _trainable.number


def rearrange() -> None:
    """Says that what is trainable, or what weights there are, has changed."""
    _trainable.note()


class User(Protocol):
    """What uses a variable's array where it is."""

    def forget(self) -> None:
        """The array is another one from now on."""


class Variable:
    """A named array that stays: a parameter, an optimizer's state, a counter.

    Attributes:
        name: what it is called in messages and files.
        value: the array: NumPy's, or CuPy's where the variable is on a GPU. Assign to it with
            `assign`, so that programs go on seeing it.
        regularizer, constraint: of `convkit.regularizers` and `convkit.constraints`, or None.
    """

    def __init__(self, value: np.ndarray, name: str, trainable: bool = True) -> None:
        self.name = name
        self.value: Any = np.array(value, order="C")
        self.trainable = trainable
        self.regularizer: Any = None
        self.constraint: Any = None
        self.symbol = Symbol(self.value.shape, str(self.value.dtype), place="state", variable=self)
        self._users: weakref.WeakSet[Any] = weakref.WeakSet()

    @property
    def trainable(self) -> bool:
        """Whether `fit` changes it."""
        return self._trainable

    @trainable.setter
    def trainable(self, value: bool) -> None:
        self._trainable = value
        rearrange()

    @property
    def shape(self) -> tuple[int, ...]:
        """The value's sizes."""
        return tuple(self.value.shape)

    @property
    def dtype(self) -> str:
        """The value's dtype: "float32", "float64", "int64"."""
        return str(self.value.dtype)

    @property
    def gpu(self) -> int | None:
        """The number of the GPU that the value is on; None: it is in the host's memory."""
        return None if isinstance(self.value, np.ndarray) else device.device_of(self.value)

    def to(self, gpu: int | None) -> None:
        """Moves the value to a GPU, or to the host's memory.

        Raises:
            MemoryError: there is no room; the value is where it was.
        """
        if gpu == self.gpu:
            return
        value: Any = self.host()
        if gpu is not None:
            try:
                with device.on(gpu):
                    value = device.from_numpy(value)
            except MemoryError:
                raise MemoryError(
                    f"{self.name}: no room on the GPU for {value.nbytes:,} bytes"
                ) from None
        self.value = value
        users = list(self._users)
        self._users.clear()
        for user in users:
            user.forget()

    def add_user(self, user: User) -> None:
        """Has `user.forget()` called when the value has moved. The user is not kept alive."""
        self._users.add(user)

    def host(self) -> np.ndarray:
        """The value in the host's memory: the array itself if it is there, else a copy."""
        if isinstance(self.value, np.ndarray):
            return self.value
        return device.to_numpy(self.value)

    def numpy(self) -> np.ndarray:
        """A copy of the value."""
        value = self.host()
        return value.copy() if value is self.value else value

    def assign(self, value: Any) -> None:
        """Writes a value of the same shape into the variable."""
        if device.is_device_array(value):
            value = device.to_numpy(device.as_array("assign", self.name, value))
        array = np.asarray(value)
        if array.shape != self.shape:
            raise ValueError(
                f"{self.name}: expected a value of shape {self.shape}, got {array.shape}"
            )
        gpu = self.gpu
        if gpu is None:
            self.value[...] = array
        else:
            with device.on(gpu):
                self.value.set(np.require(array, self.dtype, ["C", "A"]))
        touch()

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        if _recorded.get():  # the array would stay as it is while the weight changes
            raise TypeError(
                f"{self.name}: expected a function of convkit.ops in a layer's call, got NumPy's, "
                "which would make a constant of the weight"
            )
        return np.array(self.host(), dtype=dtype)

    def __repr__(self) -> str:
        return f"<Variable {self.name}, shape {self.shape}, {self.dtype}>"


class Symbol:
    """A value that is not known yet.

    Attributes:
        shape: sizes; the first is None where there is one row per sample.
        dtype: "float32", "float64", "int32", …
        place: "arena" (the result of a node), "fed" (one row per sample, given at each run),
            "source" (an array from which rows are gathered), "state" (a variable); a planner adds
            "tile" (a tile of samples) and "sum" (what the tiles of a batch add to).
        node, variable: what makes it, what it stands for.
        history: the call of a layer that returned it; None if none did.
    """

    def __init__(
        self,
        shape: Shape,
        dtype: str,
        *,
        place: str = "arena",
        node: Node | None = None,
        variable: Variable | None = None,
    ) -> None:
        self.shape = tuple(shape)
        self.dtype = dtype
        self.place = place
        self.node = node
        self.variable = variable
        self.history: LayerCall | None = None

    @property
    def ndim(self) -> int:
        """How many axes it has."""
        return len(self.shape)

    # Arithmetic is that of `convkit.ops`, so that layers and losses written with operators work on
    # arrays and are recorded.

    def __add__(self, other: Any) -> Any:
        return _op("add", self, other)

    def __radd__(self, other: Any) -> Any:
        return _op("add", other, self)

    def __sub__(self, other: Any) -> Any:
        return _op("subtract", self, other)

    def __rsub__(self, other: Any) -> Any:
        return _op("subtract", other, self)

    def __mul__(self, other: Any) -> Any:
        return _op("multiply", self, other)

    def __rmul__(self, other: Any) -> Any:
        return _op("multiply", other, self)

    def __truediv__(self, other: Any) -> Any:
        return _op("divide", self, other)

    def __rtruediv__(self, other: Any) -> Any:
        return _op("divide", other, self)

    def __neg__(self) -> Any:
        return _op("multiply", self, -1.0)

    def __pow__(self, exponent: Any) -> Any:
        if exponent != 2:
            raise TypeError(f"**: expected a symbol to the power of 2, got {exponent!r}")
        return _op("square", self)

    def __array_ufunc__(self, ufunc: Any, method: str, *values: Any, **options: Any) -> Any:
        name = ufunc.__name__
        operator = name in ("add", "subtract", "multiply", "divide") and method == "__call__"
        if operator and not options:  # with an array on its left
            return _op(name, *values)
        raise self._refused(name)

    def __array_function__(self, function: Any, types: Any, values: Any, options: Any) -> Any:
        raise self._refused(function.__name__)

    def _refused(self, name: str) -> TypeError:
        return TypeError(
            f"numpy.{name}: expected arrays, got {self!r}; functions of convkit.ops take symbols"
        )

    def __repr__(self) -> str:
        return f"<Symbol shape {self.shape}, {self.dtype}>"


def _op(name: str, *values: Any) -> Any:
    from convkit import ops  # which is made of this module

    return getattr(ops, name)(*values)


class LayerCall:
    """A layer's call on symbols.

    Attributes:
        layer: what was called.
        inputs: a symbol, or a nest of them (see `convkit.structure`); None for a model's input.
        outputs: likewise, what it returned.
    """

    __slots__ = ("inputs", "layer", "outputs")

    def __init__(self, layer: Any, inputs: Any, outputs: Any) -> None:
        self.layer = layer
        self.inputs = inputs
        self.outputs = outputs


class Node:
    """One kernel call, or a new shape for the same memory (kernel "reshape")."""

    def __init__(
        self, kernel: str, spec: Any, inputs: Sequence[Symbol | None], outputs: Sequence[Any]
    ) -> None:
        self.kernel = kernel
        self.spec = spec
        self.inputs = list(inputs)
        self.outputs: list[Symbol | None] = list(outputs)
        self.sequence = next(_sequence)  # a graph's nodes run in the order of recording
        self.layer = _layer.get()  # whose call recorded it, for profiles

    def __repr__(self) -> str:
        return f"<Node {self.kernel} {self.spec}>"


@contextmanager
def on_behalf_of(layer: str) -> Iterator[None]:
    """While the nodes of a layer's call, or of its gradient, are recorded."""
    token = _layer.set(layer)
    try:
        yield
    finally:
        _layer.reset(token)


@contextmanager
def recording(values: Iterable[object]) -> Iterator[None]:
    """While a layer is called on these values.

    If there is a symbol among them, ops on the layer's weights alone are recorded, too: a value
    worked out now would stay as it is while the weights change.
    """
    token = _recorded.set(_recorded.get() or is_symbolic(values))
    try:
        yield
    finally:
        _recorded.reset(token)


def is_symbolic(values: Iterable[object]) -> bool:
    """Whether a call on these values is to be recorded."""
    kinds = (Symbol, Variable) if _recorded.get() else Symbol
    return any(isinstance(value, kinds) for value in values)


def symbol_of(value: object) -> Any:
    """A symbol for a symbol, a variable or an array; None stays None."""
    if value is None or isinstance(value, Symbol):
        return value
    if isinstance(value, Variable):
        return value.symbol
    return Variable(np.asarray(value), "constant", trainable=False).symbol


def array_of(value: object) -> Any:
    """The array of a variable; anything else as it is."""
    return value.value if isinstance(value, Variable) else value


def call(
    kernel: str,
    spec: Any,
    n: int | None,
    inputs: Sequence[Any],
    outputs: Sequence[Shape | np.ndarray | None],
    dtype: str,
) -> list[Any]:
    """Runs a kernel on arrays, or records it where an input is a symbol.

    Inputs are all symbols, all NumPy arrays or all on one GPU, but for None. An output is the shape
    of a result to make, an array to write to, or None for a result that nobody needs. Returns the
    outputs in order.
    """
    if isinstance(inputs[0], Symbol):
        node = Node(kernel, spec, inputs, [])
        node.outputs = [
            None if shape is None else Symbol(tuple(shape), dtype, node=node) for shape in outputs
        ]
        return list(node.outputs)
    assert n is not None  # only symbols leave it open
    if isinstance(inputs[0], np.ndarray):
        return _core.run_kernel(kernel, spec, n, dtype, inputs, outputs)
    return device.run_kernel(kernel, spec, n, inputs, outputs, dtype)


def update(kernel: str, spec: Any, inputs: Sequence[Symbol | None]) -> Node:
    """Records a kernel that changes variables among its inputs and has no other output."""
    return Node(kernel, spec, inputs, [])


def reshape(x: Any, shape: Shape) -> Any:
    """The same values in the same order under another shape."""
    if not isinstance(x, Symbol):
        return x.reshape(shape)
    node = Node("reshape", None, [x], [])
    node.outputs = [Symbol(shape, x.dtype, node=node)]
    return node.outputs[0]


def root(symbol: Symbol) -> Symbol:
    """The symbol whose memory this one is a view of."""
    while symbol.node is not None and symbol.node.kernel == "reshape":
        source = symbol.node.inputs[0]
        assert source is not None
        symbol = source
    return symbol


def ordered_nodes(targets: Iterable[Symbol | Node]) -> list[Node]:
    """All nodes that the targets depend on, in the order of their recording."""
    found: dict[int, Node] = {}
    stack: list[Any] = list(targets)
    while stack:
        item = stack.pop()
        node = item.node if isinstance(item, Symbol) else item
        if node is None or node.sequence in found:
            continue
        found[node.sequence] = node
        stack.extend(value for value in node.inputs if value is not None)
    return [found[sequence] for sequence in sorted(found)]


class Notes:
    """What the calls of layers ask for while a training step is recorded.

    Attributes:
        after: what records nodes that come after all gradients: counters of random numbers and
            running means that move on.
        losses: symbols with a value per row that are added to the loss.
    """

    def __init__(self) -> None:
        self.after: list[Callable[[], Node]] = []
        self.losses: list[Symbol] = []


_notes: ContextVar[Notes | None] = ContextVar("_notes", default=None)


@contextmanager
def training_step() -> Iterator[Notes]:
    """While a training step is recorded: collects what `after_step` and `add_loss` ask for."""
    notes = Notes()
    token = _notes.set(notes)
    try:
        yield notes
    finally:
        _notes.reset(token)


def after_step(record: Callable[[], Node]) -> int:
    """Has `record` called at the end of the training step that is being recorded, if any.

    Returns:
        How many calls were asked for before: a number of this one's own within the step.
    """
    notes = _notes.get()
    if notes is None:
        return 0
    notes.after.append(record)
    return len(notes.after) - 1


def is_step_recorded() -> bool:
    """Whether `after_step` and `add_loss` have an effect now."""
    return _notes.get() is not None


def add_loss(rows: Symbol) -> None:
    """Adds the mean of these values to the loss of the step that is being recorded, if any."""
    notes = _notes.get()
    if notes is not None:
        notes.losses.append(rows)
