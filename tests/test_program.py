"""Programs: the plan of the arena, sample counts, bindings, interrupts, threads.

The judge of most tests is `interpret`: the nodes of a program one after the other, each with arrays
of its own. A plan that lets two living values share memory gives other bits.
"""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from processes import output_of
from tiles import Descent

import convkit
from convkit import _core, gradients, graph, layers, ops
from convkit.graph import Symbol, Variable
from convkit.models.data import Arrays
from convkit.models.steps import Evaluation, Prediction, TrainingStep
from convkit.program import SOURCE_TYPES, Program, gather

SEEDS = range(40)


# ---- the judge ---------------------------------------------------------------------------------


def interpret(program: Program, dtype: str, fed: dict[int, np.ndarray], n: int) -> dict:
    """Runs the program's nodes on n samples, each value in memory of its own.

    Args:
        fed: arrays of fed symbols and sources by the symbol's id.

    Returns:
        The values by the id of their root symbol; variables as copies with their new values.
    """
    values: dict[int, np.ndarray] = {}

    def array(symbol: Symbol | None) -> np.ndarray | None:
        if symbol is None:
            return None
        symbol = graph.root(symbol)
        if id(symbol) not in values:
            if symbol.variable is not None:
                values[id(symbol)] = symbol.variable.value.copy()
            elif id(symbol) in fed:
                values[id(symbol)] = fed[id(symbol)]
            else:
                shape = [n if size is None else size for size in symbol.shape]
                values[id(symbol)] = np.zeros(shape, symbol.dtype)
        return values[id(symbol)]

    for node in program.steps:
        arrays = [array(value) for value in (*node.inputs, *node.outputs)]
        if node.kernel in ("gather", "gather_labels"):
            source, index, y = arrays
            rows = np.arange(n) if index is None else index[:n]
            y[...] = source[rows].reshape(y.shape)
            continue
        symbols = [value for value in (*node.inputs, *node.outputs) if value is not None]
        per_sample = any(bool(s.shape) and s.shape[0] is None for s in symbols)
        _core.run_kernel(node.kernel, node.spec, n if per_sample else 1, dtype, arrays, ())
    return values


def source_symbol(shape: tuple[int, ...], dtype: str, place: str = "fed") -> Symbol:
    return Symbol((None, *shape), dtype, place=place)


# ---- random graphs -----------------------------------------------------------------------------

IMAGE = (4, 6, 2)


def random_value(rng: np.random.Generator, values: list[Symbol], variables: list[Variable]):
    """One more value made of those before, by an op that keeps the shape (N, 4, 6, 2) or returns
    to it."""
    x = values[rng.integers(len(values))]
    other = values[rng.integers(len(values))]
    kind = rng.integers(9)
    if kind == 0:
        return ops.tanh(x)
    if kind == 1:
        return ops.leaky_relu(x, 0.25)
    if kind == 2:
        return ops.add(x, other)
    if kind == 3:
        return ops.add(x, x)
    if kind == 4:
        return ops.softmax(x)
    if kind == 5:
        return graph.reshape(ops.sigmoid(graph.reshape(x, (None, 48))), (None, *IMAGE))
    if kind == 6:
        return ops.upsample2d(ops.max_pool2d(x, 2), 2)
    if kind == 7:
        kernel = Variable(rng.normal(0, 0.3, (3, 3, 4, 2)).astype(x.dtype), "kernel")
        variables.append(kernel)
        return ops.conv2d(ops.concatenate([x, other]), kernel, padding="same")
    kernel = Variable(rng.normal(0, 0.3, (2, 2)).astype(x.dtype), "kernel")
    variables.append(kernel)
    return ops.relu(ops.dense(x, kernel))


def random_graph(seed: int, dtype: str) -> tuple[Symbol, list[Symbol], list[Variable]]:
    """The input, all values and the variables of a graph of 4 to 15 nodes."""
    rng = np.random.default_rng(seed)
    x = source_symbol(IMAGE, dtype)
    values, variables = [x], []
    for _ in range(rng.integers(4, 16)):
        values.append(random_value(rng, values[-4:], variables))
    return x, values, variables


@pytest.mark.parametrize("seed", SEEDS)
def test_random_graphs_give_the_bits_of_nodes_with_memory_of_their_own(seed):
    x, values, _ = random_graph(seed, "float32")
    rng = np.random.default_rng([seed, 1])
    wanted = list({id(v): v for v in (values[-1], *rng.choice(values[1:], 2))}.values())
    program = Program("float32", results=wanted)
    for n, batch in [(1, 1), (5, 5), (7, 3), (2, 5), (12, 12), (0, 4)]:
        given = rng.normal(size=(n, *IMAGE)).astype(np.float32)
        program.bind(x, given)
        results = [np.full((n, *IMAGE), np.nan, np.float32) for _ in wanted]
        for symbol, result in zip(wanted, results, strict=True):
            program.bind(symbol, result)
        assert program.run(0, n, batch) == n
        expected = interpret(program, "float32", {id(x): given}, n)
        for symbol, result in zip(wanted, results, strict=True):
            alone = expected[id(graph.root(symbol))]
            assert result.tobytes() == alone.tobytes(), f"{n} samples in steps of {batch}"


@pytest.mark.parametrize("seed", SEEDS)
def test_random_training_steps_give_the_bits_of_nodes_with_memory_of_their_own(seed):
    x, values, variables = random_graph(seed, "float64")
    target = source_symbol(IMAGE, "float64")
    loss = ops.mean_squared_error(target, values[-1])
    mean = graph.call("mean", _core.Mean(rows=24), None, [loss], [(1,)], "float64")[0]
    found = gradients.gradients([mean], [variable.symbol for variable in variables])
    reached = [(v, g) for v, g in zip(variables, found, strict=True) if g is not None]
    program = Program("float64", results=[loss], effects=sgd_nodes(reached))
    rng = np.random.default_rng([seed, 2])
    n = 5
    arrays = {id(s): rng.normal(size=(n, *IMAGE)) for s in (x, target)}
    expected = interpret(program, "float64", arrays, n)
    losses = np.full((n, 4, 6), np.nan)
    for symbol, array in ((x, arrays[id(x)]), (target, arrays[id(target)]), (loss, losses)):
        if id(graph.root(symbol)) in program._ids:
            program.bind(symbol, array)
    program.run(0, n, n)
    assert losses.tobytes() == expected[id(loss)].tobytes()
    for variable, _ in reached:
        assert variable.value.tobytes() == expected[id(variable.symbol)].tobytes()


def sgd_nodes(pairs: Sequence[tuple[Variable, Symbol]]) -> list:
    nodes = []
    for variable, gradient in pairs:
        rate = Variable(np.full(1, 0.5, variable.dtype), "rate", trainable=False)
        spec = _core.Sgd(size=variable.value.size, momentum=0.0, nesterov=0)
        nodes.append(graph.update("sgd", spec, [rate.symbol, gradient, None, variable.symbol]))
    return nodes


def test_the_judge_notices_memory_that_is_shared_too_early():
    """A positive control: a program whose fed arrays overlap, as a wrong plan's values would."""
    x = source_symbol((4,), "float32")
    first = ops.tanh(x)
    second = ops.sigmoid(x)
    program = Program("float32", results=[first, second])
    given = np.linspace(-1, 1, 12, dtype=np.float32).reshape(3, 4)
    shared = np.empty_like(given)
    for symbol, array in ((x, given), (first, shared), (second, shared)):
        program.bind(symbol, array)
    program.run(0, 3, 3)
    expected = interpret(program, "float32", {id(x): given}, 3)
    assert shared.tobytes() == expected[id(second)].tobytes()
    assert shared.tobytes() != expected[id(first)].tobytes()


# ---- memory ------------------------------------------------------------------------------------


def lenet_step() -> tuple[TrainingStep, Arrays]:
    model = convkit.models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    rng = np.random.default_rng(0)
    x = rng.random((40, 28, 28, 1), dtype=np.float32)
    y = rng.integers(0, 10, 40).astype(np.int32)
    arrays = Arrays([x], [y], [None])
    return TrainingStep(model, arrays, model.optimizer, depth_first=False), arrays


def test_memory_is_shared_in_training_and_in_inference():
    step, _ = lenet_step()
    native = step.program.native
    assert 0 < native.arena_bytes(32) < 0.6 * native.unshared_bytes(32)
    inference = Prediction(convkit.models.lenet(), [np.zeros((1, 28, 28, 1), np.uint8)], False)
    native = inference.program.native
    assert 0 < native.arena_bytes(32) < 0.8 * native.unshared_bytes(32)


def test_a_chain_of_element_wise_kernels_needs_the_memory_of_one_value():
    x = source_symbol((64,), "float32")
    y = ops.tanh(x)
    for _ in range(5):
        y = ops.relu(ops.sigmoid(y))
    y = ops.softmax(y)
    native = Program("float32", results=[y]).native
    assert native.arena_bytes(10) == 64 * 4 * 10
    assert native.unshared_bytes(10) == 11 * 64 * 4 * 10


def test_the_arena_grows_with_the_batch_and_keeps_serving_smaller_ones():
    x = source_symbol((5,), "float64")
    y = ops.add(ops.softmax(ops.tanh(x)), x)
    program = Program("float64", results=[y])
    rng = np.random.default_rng(0)
    for n in (2, 1, 50, 3, 0, 200, 7):
        given = rng.normal(size=(n, 5))
        result = np.full((n, 5), np.nan)
        program.bind(x, given)
        program.bind(y, result)
        program.run(0, n, max(n, 1))
        np.testing.assert_array_equal(result, ops.add(ops.softmax(ops.tanh(given)), given))


def test_a_lenet_training_step_gives_the_bits_of_its_nodes_one_by_one():
    step, arrays = lenet_step()
    order = np.random.default_rng(1).permutation(40)
    fed = {id(symbol): array for symbol, array in step.sources.pairs(arrays)}
    assert len(fed) == 2
    with step.on(arrays, order):
        for first, last in ((0, 16), (16, 29)):
            fed[id(step.index)] = order[first:last]
            expected = interpret(step.program, "float32", fed, last - first)
            step.program.run(first, last, 16)
            for symbol in step.program._symbols:
                if symbol.variable is not None:
                    # Programs take subnormal numbers for zero, and single kernels do not.
                    right = expected[id(symbol)]
                    if right.dtype.kind == "f":
                        small = np.abs(right) < np.finfo(right.dtype).tiny
                        right = np.where(small, np.copysign(right.dtype.type(0), right), right)
                    assert symbol.variable.value.tobytes() == right.tobytes()


# ---- samples and sources -----------------------------------------------------------------------


@pytest.mark.parametrize("dtype", SOURCE_TYPES)
def test_rows_are_gathered_from_sources_of_every_type(dtype):
    x = source_symbol((3,), dtype, "source")
    index = Symbol((None,), "int64", place="fed")
    y = gather(x, index, "float32", scale=0.5)
    program = Program("float32", results=[y])
    source = np.array([[0, 1, 1], [1, 0, 1], [0, 0, 1], [1, 1, 1]]).astype(dtype)
    order = np.array([3, 0, 0, 2, 1], np.int64)
    result = np.empty((5, 3), np.float32)
    for symbol, array in ((x, source), (index, order), (y, result)):
        program.bind(symbol, array)
    program.run(0, 5, 2)
    np.testing.assert_array_equal(result, source[order].astype(np.float32) / 2)


@pytest.mark.parametrize("wrong", [-1, 4, 2**62, -(2**62)])
@pytest.mark.parametrize(("batch", "done"), [(1, 2), (2, 2), (3, 0)])
def test_an_index_outside_its_source_is_caught_before_the_step_that_would_read_it(
    wrong, batch, done
):
    x = source_symbol((3,), "uint8", "source")
    index = Symbol((None,), "int64", place="fed")
    y = gather(x, index, "float64")
    program = Program("float64", results=[y])
    order = np.array([0, 1, wrong], np.int64)
    source = np.arange(10, 22, dtype=np.uint8).reshape(4, 3)
    result = np.full((3, 3), 7.0)
    for symbol, array in ((x, source), (index, order), (y, result)):
        program.bind(symbol, array)
    with pytest.raises(IndexError, match=f"index {wrong} is outside the 4 rows"):
        program.run(0, 3, batch)
    np.testing.assert_array_equal(result[:done], source[:done])  # the steps before it
    np.testing.assert_array_equal(result[done:], 7.0)
    assert program.run(0, 2, 1) == 2  # the rows before it are good
    np.testing.assert_array_equal(result[:2], source[:2])


def test_labels_that_int32_cannot_hold_become_no_class():
    x = source_symbol((), "float64", "source")
    index = Symbol((None,), "int64", place="fed")
    labels = gather(x, index, "int32")
    program = Program("float32", results=[labels])
    source = np.array([3.0, np.nan, np.inf, -1e300, 2.0**31, -(2.0**31), 2.0**31 - 1])
    result = np.empty(7, np.int32)
    for symbol, array in ((x, source), (index, np.arange(7)), (labels, result)):
        program.bind(symbol, array)
    program.run(0, 7, 7)
    assert result.tolist() == [3, -1, -1, -1, -1, -(2**31), 2**31 - 1]


def test_run_stops_after_a_step_when_its_time_is_over():
    x = source_symbol((4,), "float32")
    y = ops.tanh(x)
    program = Program("float32", results=[y])
    program.bind(x, np.zeros((10, 4), np.float32))
    program.bind(y, np.empty((10, 4), np.float32))
    at, stops = 0, []
    while at < 10:
        at = program.run(at, 10, 4, 0.0)
        stops.append(at)
    assert stops == [4, 8, 10]


# ---- what does not fit -------------------------------------------------------------------------


@pytest.fixture
def small() -> tuple[Program, Symbol, Symbol]:
    x = source_symbol((4,), "float32")
    y = ops.tanh(x)
    return Program("float32", results=[y]), x, y


def test_a_value_that_was_never_bound_is_an_error(small):
    program, x, y = small
    program.bind(x, np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="never bound"):
        program.run(0, 2, 2)
    program.bind(y, np.zeros((2, 4), np.float32))
    assert program.run(0, 2, 2) == 2


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.zeros((2, 4)), "another dtype"),
        (np.zeros((2, 5), np.float32), "another size"),
        (np.zeros((2, 8), np.float32)[:, ::2], "C-contiguous"),
        (np.zeros((2, 4), ">f4"), "byte order"),
        ([[0.0] * 4], "NumPy array|incompatible"),
    ],
    ids=["dtype", "size", "strides", "byte order", "list"],
)
def test_an_array_that_does_not_fit_cannot_be_bound(small, array, message):
    program, x, _ = small
    with pytest.raises((ValueError, TypeError), match=message):
        program.bind(x, array)


def test_a_result_cannot_be_written_to_a_read_only_array(small):
    program, x, y = small
    frozen = np.zeros((2, 4), np.float32)
    frozen.flags.writeable = False
    program.bind(x, frozen)
    with pytest.raises(ValueError, match="writable"):
        program.bind(y, frozen)


@pytest.mark.parametrize(
    ("begin", "end", "batch"), [(-1, 2, 1), (2, 1, 1), (0, 2, 0), (0, 3, 1), (0, 2**62, 2**62)]
)
def test_samples_that_are_not_there_are_an_error(small, begin, end, batch):
    program, x, y = small
    program.bind(x, np.zeros((2, 4), np.float32))
    program.bind(y, np.zeros((2, 4), np.float32))
    with pytest.raises(ValueError, match="program: "):
        program.run(begin, end, batch)


def test_nodes_that_do_not_fit_are_refused():
    native = _core.Program("float32")
    spec = _core.Elementwise(size=4)
    four, five = native.fed(4, 4), native.fed(4, 5)
    doubles, fixed = native.fed(8, 4), native.state(4, 4)
    for arguments, message in (
        ([four, four], "arguments"),
        ([four, four, five], "needs 4 elements"),
        ([four, four, doubles], "another type"),
        ([four, fixed, four], "needs 4 elements"),
        ([four, -1, four], "null"),
        ([four, 99, four], "no value"),
        ([four, -2, four], "no value"),
    ):
        with pytest.raises(ValueError, match=message):
            native.node("add", spec, arguments)
    with pytest.raises(ValueError, match="no kernel is named 'subtract'"):
        native.node("subtract", spec, [four, four, four])
    with pytest.raises(ValueError, match="size"):
        native.fed(4, -1)
    with pytest.raises(ValueError, match="dtype"):
        _core.Program("int8")
    native.node("add", spec, [four, four, four])  # and nothing of the refused is left behind


def rows_of(size: int):
    return _core.Gather(size=size, type=SOURCE_TYPES["float32"], scale=1, offset=0)


def test_a_program_has_one_stretch_and_reads_only_what_it_made():
    native = _core.Program("float32")
    spec, rows = _core.Elementwise(size=4), rows_of(4)
    fed, result, made = native.fed(4, 4), native.fed(4, 4), native.arena(4, 4, True)
    tile, other, total = native.tile(4, 4), native.tile(4, 4), native.sum(4, 4)
    for kernel, wrong, arguments, tiled, message in (
        ("add", spec, [made, fed, result], False, "a is read before it is made"),
        ("add", spec, [tile, tile, other], True, "a is read before it is made"),
        ("tile_gather", rows, [fed, -1, made], True, "y is in the wrong place"),
        ("tile_gather", rows, [fed, -1, result], True, "y is in the wrong place"),
    ):
        with pytest.raises(ValueError, match=message):
            native.node(kernel, wrong, arguments, tiled)
    native.node("tile_gather", rows, [fed, -1, tile], True)
    with pytest.raises(ValueError, match="y is in the wrong place"):
        native.node("untile", spec, [tile, other], True)
    native.node("untile", spec, [tile, made], True)
    learning_rate, parameter = native.state(4, 1), native.state(4, 4)
    sgd = _core.Sgd(size=4, momentum=0, nesterov=0)
    with pytest.raises(ValueError, match="gradient is read before it is made"):
        native.node("sgd", sgd, [learning_rate, total, -1, parameter])
    native.node("add", spec, [made, made, result])
    with pytest.raises(ValueError, match="second stretch"):
        native.node("tile_gather", rows, [fed, -1, other], True)


def test_what_is_bound_was_checked_against_all_nodes():
    native = _core.Program("float32")
    source, index, y = native.state(4, 3), native.fed(8, 1), native.fed(4, 3)
    native.bind(source, np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="source is bound already"):
        native.node("gather", rows_of(3), [source, index, y])
    native.unbind(source)
    native.node("gather", rows_of(3), [source, index, y])
    sgd = _core.Sgd(size=3, momentum=0, nesterov=0)
    native.node("sgd", sgd, [native.state(4, 1), source, -1, source])
    with pytest.raises(ValueError, match="size"):  # read as a whole too, it has one row
        native.bind(source, np.zeros((0, 3), np.float32))


def test_states_stay_where_a_prepared_function_reads_them():
    native = _core.Program("float32")
    x, y, kernel = native.fed(4, 2), native.fed(4, 3), native.state(4, 6)
    native.node("dense", _core.Dense(rows=1, inputs=2, units=3), [x, kernel, -1, y])
    native.bind(kernel, np.ones((2, 3), np.float32))
    float32 = np.dtype(np.float32)
    function = _core.prepare(native, x, (2,), float32, y, (3,), float32, 1)
    for change in (native.unbind, lambda value: native.bind(value, np.zeros((2, 3), np.float32))):
        with pytest.raises(ValueError, match="states to stay"):
            change(kernel)
    np.testing.assert_array_equal(function(np.ones((1, 2), np.float32), None), [[2, 2, 2]])


# ---- sums over tiles ---------------------------------------------------------------------------


def dense_sums(n: int, nodes: list, tiles_at_once: int, scale: float = 1) -> tuple:
    """A program of sums, and the x and dy of it: small integers, times `scale`."""
    spec = _core.Dense(rows=1, inputs=40, units=30)
    rng = np.random.default_rng(5)
    x, dy = (np.float32(scale) * rng.integers(-4, 5, (n, size), np.int8) for size in (40, 30))
    return Descent("tile_dense_backward_kernel", spec, x, dy, nodes, tiles_at_once), x, dy


@pytest.mark.parametrize("tiles_at_once", [1, 2, 3, 4, 8])
def test_a_smaller_batch_may_have_more_slots(tiles_at_once):
    """64 samples and then 48 at a time: two slots, then three, with several tiles."""
    sums, x, dy = dense_sums(112, [("kernel", "bias")], tiles_at_once)
    found = sums.run(112, 64)
    np.testing.assert_array_equal(found["kernel"], (x.T @ dy).ravel())
    np.testing.assert_array_equal(found["bias"], dy.sum(0))


@pytest.mark.parametrize(
    "nodes",
    [
        [("a", None)],
        [("a", "b"), ("c", "d")],
        [("a", "b"), ("a", "b")],
        [("a", "b"), ("a", "c"), ("d", None)],
        [("a", "b"), ("c", "b")],
    ],
    ids=["no_bias", "apart", "all_shared", "kernel_shared", "bias_shared"],
)
@pytest.mark.parametrize("tiles_at_once", [1, 3])
@pytest.mark.parametrize("n", [16, 48, 208])
def test_sums_hold_one_step_whoever_adds_to_them(nodes, tiles_at_once, n):
    sums, x, dy = dense_sums(208, nodes, tiles_at_once)
    found = sums.run(n, n)
    for i, right in ((0, (x[:n].T @ dy[:n]).ravel()), (1, dy[:n].sum(0))):
        names = [node[i] for node in nodes]
        for name in {*names} - {None}:
            np.testing.assert_array_equal(found[name], names.count(name) * right)


@pytest.mark.parametrize("tiles_at_once", [1, 3])
def test_sums_have_the_same_bits_for_any_number_of_threads(tiles_at_once, threads):
    sums, _, _ = dense_sums(500, [("a", "b"), ("a", "c")], tiles_at_once, scale=1 / 3)

    def bits(count: int) -> bytes:
        threads(count)
        return b"".join(values.tobytes() for values in sums.run(500, 240).values())

    assert len({bits(count) for count in (1, 2, 3)}) == 1


def test_samples_without_rows_have_gradients_of_zero():
    spec, nothing = _core.Dense(rows=0, inputs=3, units=2), np.zeros((20, 0), np.float32)
    sums = Descent("tile_dense_backward_kernel", spec, nothing, nothing, [("kernel", "bias")])
    found = sums.run(20, 20)
    assert not any(values.any() for values in found.values())


# ---- arrays come and go ------------------------------------------------------------------------


def test_a_step_holds_its_arrays_only_while_it_is_on_them():
    step, arrays = lenet_step()
    order = np.arange(40)
    held = [weakref.ref(array) for array in (*arrays.x, *arrays.y, order)]
    assert len(held) == 3
    with step.on(arrays, order):
        del arrays, order
        assert step.program.run(0, 40, 16) == 40  # the program keeps them alive
        assert all(reference() is not None for reference in held)
    assert all(reference() is None for reference in held)
    with pytest.raises(ValueError, match="never bound"):
        step.program.run(0, 40, 16)


def test_a_step_is_at_work_on_one_thing_at_a_time():
    step, arrays = lenet_step()
    order = np.arange(40)
    few = Arrays([arrays.x[0][:3]], [arrays.y[0][:3]], [None])
    with step.on(arrays, order):
        with (
            pytest.raises(RuntimeError, match="one that is being trained"),
            step.on(few, order[:3]),
        ):
            pass
        assert step.program.run(0, 40, 16) == 40  # still on the first arrays
    with pytest.raises(ZeroDivisionError), step.on(arrays, order):
        raise ZeroDivisionError
    with step.on(arrays, order):
        assert step.program.run(0, 40, 16) == 40


@pytest.mark.parametrize("batch", [4, 0], ids=["run", "failed run"])
def test_predictions_and_evaluations_let_go_of_their_arrays(batch):
    model = convkit.models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy")
    x, y = np.zeros((8, 28, 28, 1), np.float32), np.zeros(8, np.int32)
    pair = Arrays([x], [y], [None])
    prediction = Prediction(model, [x], False)
    evaluation = Evaluation(model, pair, depth_first=False)
    held = [weakref.ref(array) for array in (x, y)]
    for run, arrays in ((prediction.run, [x]), (evaluation.run, pair)):
        if batch:
            run(arrays, batch)
        else:
            with pytest.raises(ValueError, match="batch_size >= 1"):
                run(arrays, batch)
    del x, y, arrays, pair
    gc.collect()  # the traceback of an error holds frames, and they their arguments
    assert all(reference() is None for reference in held)


# ---- state -------------------------------------------------------------------------------------


def test_two_programs_share_a_variable():
    weight = Variable(np.ones((2, 1)), "weight")
    x = source_symbol((2,), "float64")
    y = ops.dense(x, weight)
    reader = Program("float64", results=[y])
    target = source_symbol((1,), "float64")
    loss = ops.mean_squared_error(target, y)
    mean = graph.call("mean", _core.Mean(rows=1), None, [loss], [(1,)], "float64")[0]
    (gradient,) = gradients.gradients([mean], [weight.symbol])
    writer = Program("float64", effects=sgd_nodes([(weight, gradient)]))
    given, result = np.array([[1.0, 2.0]]), np.empty((1, 1))
    for program in (reader, writer):
        program.bind(x, given)
    writer.bind(target, np.array([[0.0]]))
    reader.bind(y, result)
    reader.run(0, 1, 1)
    assert result == 3.0
    writer.run(0, 1, 1)  # weight -= 0.5 * 2 * 3 * x
    np.testing.assert_array_equal(weight.value, [[-2.0], [-5.0]])
    reader.run(0, 1, 1)
    assert result == -12.0
    weight.assign([[1.0], [0.0]])
    reader.run(0, 1, 1)
    assert result == 1.0


def test_a_symbol_that_the_loss_does_not_depend_on_has_no_gradient():
    used, unused = (Variable(np.ones((2, 1)), name) for name in ("used", "unused"))
    loss = ops.mean_squared_error(
        source_symbol((1,), "float64"), ops.dense(source_symbol((2,), "float64"), used)
    )
    mean = graph.call("mean", _core.Mean(rows=1), None, [loss], [(1,)], "float64")[0]
    found = gradients.gradients([mean], [used.symbol, unused.symbol])
    assert found[0] is not None
    assert found[1] is None


# ---- interrupts and threads --------------------------------------------------------------------


def test_ctrl_c_ends_a_run_within_200_ms():
    step, arrays = lenet_step()
    count = 2**22  # minutes of work
    order = np.zeros(count, np.int64)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    waits = []
    try:
        for _ in range(3):  # the best of three: other processes may keep this one waiting
            sent = []

            def interrupt(sent=sent):
                sent.append(time.perf_counter())
                signal.raise_signal(signal.SIGINT)

            with step.on(arrays, order):
                step.program.run(0, 32, 32)
                timer = threading.Timer(0.15, interrupt)
                timer.start()
                with pytest.raises(KeyboardInterrupt):
                    step.program.run(0, count, 32)
            waits.append(time.perf_counter() - sent[0])
            timer.join()
    finally:
        signal.signal(signal.SIGINT, before)
    assert min(waits) < 0.2
    with step.on(arrays, order):
        assert step.program.run(0, 64, 32) == 64


def test_programs_of_their_own_run_in_several_threads_at_once():
    model = convkit.models.lenet()
    x = np.random.default_rng(0).random((24, 28, 28, 1), dtype=np.float32)
    expected = model.predict(x).tobytes()

    def predict(_: int) -> bool:
        own = Prediction(model, [x], True)
        return all(own.run([x], batch)[0].tobytes() == expected for batch in (24, 7, 1))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(predict, range(12)))


SHARED = """if True:
    from concurrent.futures import ThreadPoolExecutor
    import numpy as np
    import convkit
    model = convkit.models.lenet()
    model.compile("adam", "sparse_categorical_crossentropy")
    rng = np.random.default_rng(0)
    inputs = [rng.random((n, 28, 28, 1), dtype=np.float32) for n in (1, 40, 3, 25, 64, 2)]
    labels = [rng.integers(0, 10, len(x)) for x in inputs]
    predicted = [model.predict(x).tobytes() for x in inputs]
    losses = [model.evaluate(x, y) for x, y in zip(inputs, labels)]
    def use(i):
        x, y = inputs[i % 6], labels[i % 6]
        same = model.predict(x, batch_size=1 + i).tobytes() == predicted[i % 6]
        return same and model.evaluate(x, y) == losses[i % 6]
    with ThreadPoolExecutor(6) as pool:
        print(all(pool.map(use, range(90))))
"""


def test_one_model_serves_several_threads_at_once(tmp_path):
    """In a process of its own: memory that two runs share would take the tests down with it."""
    assert output_of(SHARED, tmp_path) == "True"


def test_ops_run_in_several_threads_at_once():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(8, 12, 12, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 5)).astype(np.float32)

    def work(_: int) -> bytes:
        y = ops.max_pool2d(ops.conv2d(x, kernel, activation="relu"))
        dx, dkernel, _ = ops.conv2d_backward(ops.conv2d(x, kernel), x, kernel)
        return y.tobytes() + dx.tobytes() + dkernel.tobytes()

    expected = work(0)
    with ThreadPoolExecutor(8) as pool:
        assert all(result == expected for result in pool.map(work, range(64)))


def test_a_layer_of_ones_own_runs_as_a_program():
    class Twice(layers.Layer):
        def call(self, x):
            return ops.add(x, x)

    model = convkit.Sequential([layers.Input((3,)), Twice(), Twice()])
    x = np.arange(6, dtype=np.float32).reshape(2, 3)
    np.testing.assert_array_equal(model.predict(x), 4 * x)
