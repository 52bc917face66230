"""A call that comes again runs its kernels without Python, and nobody can tell but by the clock."""

from __future__ import annotations

import copy
import inspect
import pickle
import pydoc
import sys
import threading
import tracemalloc
import weakref
from functools import partial

import numpy as np
import pytest
from cases import CASES, LARGE, arrays, typical, upstream
from checkers import IMAGE_OPS, assert_same_bits, to_first
from processes import output_of

from convkit import _core, layers, ops
from convkit.graph import Symbol, Variable

every_op = pytest.mark.parametrize("case", typical(CASES), ids=lambda case: case.op)


def call_of(case, dtype, *, backward=False, other=False):
    """An op and its arguments; `other` ones have the same shapes."""
    given = arrays(case, dtype, "integers" if other and not case.fills else None)
    if other and case.fills:  # what the fills promise stays true row by row
        given = [None if a is None else np.ascontiguousarray(a[::-1]) for a in given]
    listed = [list(given)] if case.op == "concatenate" else given
    if not backward:
        return getattr(ops, case.op), listed
    y = getattr(ops, case.op).__wrapped__(*listed, **case.options)
    dy = upstream(case, y.shape, dtype, "integers" if other else "normal")
    return getattr(ops, f"{case.op}_backward"), [dy, *listed]


def flat(values) -> list:
    """All arrays (and None) in arguments or results, one after the other."""
    if isinstance(values, (list, tuple)):
        return [item for value in values for item in flat(value)]
    return [values]


def assert_same(found, right) -> None:
    assert type(found) is type(right)
    for a, b in zip(flat(found), flat(right), strict=True):
        if b is None:
            assert a is None
        else:
            assert_same_bits(a, b)


def bits(values) -> list:
    return [value.tobytes() for value in flat(values) if isinstance(value, np.ndarray)]


def assert_replayed(op, *arguments, **options):
    """The result of a call that is replayed, after a check that the function says the same."""
    right = op.__wrapped__(*arguments, **options)
    before, count = bits(arguments), op.replays
    found = op(*arguments, **options)
    assert op.replays == count + 1, "the function ran again"
    assert_same(found, right)
    assert bits(arguments) == before
    return found


def assert_not_replayed(op, *arguments, **options):
    count = op.replays
    found = op(*arguments, **options)
    assert op.replays == count
    return found


def array(*shape, dtype=np.float32, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=shape).astype(dtype)


# ---- the same bits -----------------------------------------------------------------------------


@pytest.mark.parametrize("backward", [False, True], ids=["forward", "backward"])
@pytest.mark.parametrize("case", [*CASES, *LARGE], ids=str)
def test_a_replay_gives_the_bits_of_the_function(case, backward, dtype):
    if case.op == "concatenate" and len(case.shapes) == 1:
        return  # a copy, without any kernel
    op, arguments = call_of(case, dtype, backward=backward)
    first = op(*arguments, **case.options)
    assert_same(assert_replayed(op, *arguments, **case.options), first)
    _, others = call_of(case, dtype, backward=backward, other=True)
    before = bits([first])
    found = assert_replayed(op, *others, **case.options)
    assert bits([first]) == before, "an earlier result was written to"
    for result in flat(found):
        for given in flat([others, first]):
            assert result is None or given is None or not np.may_share_memory(result, given)


@every_op
def test_out_and_needs_are_honoured_in_a_replay(case, dtype):
    op, arguments = call_of(case, dtype)
    y = op(*arguments, **case.options)
    for _ in range(2):
        count, out = op.replays, np.full_like(y, np.nan)
        assert op(*arguments, **case.options, out=out) is out
        assert_same_bits(out, y)
    assert op.replays == count + 1

    op, arguments = call_of(case, dtype, backward=True)
    gradients = flat(op(*arguments, **case.options))
    for which, gradient in enumerate(gradients):
        needs = [i == which for i in range(len(gradients))]
        for _ in range(2):
            count = op.replays
            found = flat(op(*arguments, **case.options, needs=needs))
            assert [value is not None for value in found] == [
                need and gradient is not None for need in needs
            ]
            assert_same(found[which], gradient)
        assert op.replays == count + 1
        if gradient is None:
            continue
        for _ in range(2):
            count, out = op.replays, [None] * len(gradients)
            out[which] = np.full_like(gradient, np.nan)
            assert flat(op(*arguments, **case.options, out=out))[which] is out[which]
            assert_same_bits(out[which], gradient)
        assert op.replays == count + 1


@pytest.mark.parametrize("op", IMAGE_OPS)
def test_channels_first_is_replayed_too(op, dtype):
    case = next(case for case in typical(CASES) if case.op == op)
    for backward in (False, True):
        function, arguments = call_of(case, dtype, backward=backward)
        images = 2 if backward else 1
        arguments[:images] = [to_first(image) for image in arguments[:images]]
        options = {**case.options, "data_format": "channels_first"}
        function(*arguments, **options)
        assert_replayed(function, *arguments, **options)


@pytest.mark.parametrize(
    "activation", ["relu", "leaky_relu", "sigmoid", "tanh", "exp", "softmax", "log_softmax"]
)
def test_activations_are_replayed_with_their_layer(activation, dtype):
    x, kernel, bias, dy = (array(*s, dtype=dtype) for s in ((4, 5), (5, 3), (3,), (4, 3)))
    ops.dense(x, kernel, bias, activation=activation)
    assert_replayed(ops.dense, x, kernel, bias, activation=activation)
    ops.dense_backward(dy, x, kernel, bias, activation=activation)
    assert_replayed(ops.dense_backward, dy, x, kernel, bias, activation=activation)


def test_backends_and_threads_are_those_of_the_moment(threads):
    case = next(case for case in LARGE if case.op == "conv2d")
    op, arguments = call_of(case, np.float32, backward=True)
    before = _core.backend_name()
    try:
        seen = set()
        for name in _core.available_backends():
            _core.use_backend(name)
            for count in (1, 2):
                threads(count)
                op(*arguments, **case.options)
                found = assert_replayed(op, *arguments, **case.options)
            seen.add(b"".join(bits(found)))
        # They round differently, so a replay by the wrong one would not have gone unnoticed.
        assert len(seen) > 1 or len(_core.available_backends()) == 1
    finally:
        _core.use_backend(before)


def test_a_named_algorithm_is_replayed_where_it_is_not_refused():
    x, kernel = array(2, 9, 7, 16), array(3, 3, 16, 16)
    before = _core.backend_name()
    try:
        for name in _core.available_backends():
            _core.use_backend(name)
            algorithm = ops.plan("conv2d", x, kernel)["forward"]
            ops.conv2d(x, kernel, algorithm=algorithm)
            assert_replayed(ops.conv2d, x, kernel, algorithm=algorithm)
            for _ in range(2):
                with pytest.raises(ValueError, match="computed"):
                    ops.conv2d(x, kernel, algorithm="depthwise")
    finally:
        _core.use_backend(before)


# ---- what makes a call another one -------------------------------------------------------------


def test_constants_are_told_apart_by_type():
    x = array(2, 6, 6, 3)
    ops.max_pool2d(x, 1)
    assert_replayed(ops.max_pool2d, x, 1)
    with pytest.raises((TypeError, ValueError)):
        ops.max_pool2d(x, True)
    with pytest.raises((TypeError, ValueError)):
        ops.max_pool2d(x, 1.0)
    with pytest.raises(ValueError, match="needs"):
        ops.relu_backward(x, x, needs=True)


def test_constants_are_told_apart_by_value():
    x = array(3, 7)
    for slope in (0.0, 0.1, 0.25, 1, 1.0):
        ops.leaky_relu(x, slope)
    for slope in (0.0, 0.1, 0.25, 1, 1.0):
        assert_replayed(ops.leaky_relu, x, slope)
        assert_not_replayed(ops.leaky_relu, x, negative_slope=slope)
        assert_replayed(ops.leaky_relu, x, negative_slope=slope)
    images = array(2, 6, 5, 3)
    for options in ({}, {"interpolation": "bilinear"}, {"data_format": "channels_first"}):
        ops.upsample2d(images, 2, **options)
        assert_replayed(ops.upsample2d, images, 2, **options)
    for size in ((2, 3), [2, 3], (3, 2)):
        ops.upsample2d(images, size)
        assert_replayed(ops.upsample2d, images, size)


def test_shapes_and_dtypes_are_told_apart():
    for shape in ((6,), (2, 3), (3, 2), (1, 6), (1, 2, 3)):
        for dtype in (np.float32, np.float64):
            ops.softmax(array(*shape, dtype=dtype))
    for shape in ((6,), (2, 3), (3, 2), (1, 6), (1, 2, 3)):
        for dtype in (np.float32, np.float64):
            found = assert_replayed(ops.softmax, array(*shape, dtype=dtype))
            assert found.shape == shape and found.dtype == dtype
    with pytest.raises(TypeError, match="one dtype"):
        ops.add(array(2, 3), array(2, 3, dtype=np.float64))
    with pytest.raises(ValueError, match="x2"):
        ops.add(array(2, 3), array(3, 2))


def test_mistakes_are_told_at_every_call():
    for _ in range(3):
        with pytest.raises(ValueError, match="axis"):
            ops.softmax(array(2, 3), 5)
        with pytest.raises(TypeError, match="unexpected keyword"):
            ops.softmax(array(2, 3), axes=1)


def test_only_plain_arrays_are_replayed():
    x = array(4, 6)
    ops.relu(x)
    y = ops.relu(x)

    class Mine(np.ndarray):
        pass

    swapped = x.astype(x.dtype.newbyteorder())
    for other in (x.view(Mine), np.asfortranarray(x), swapped, Variable(x, "x")):
        for _ in range(2):
            assert_same_bits(assert_not_replayed(ops.relu, other), y)
    for other in (np.arange(6).reshape(2, 3), [[1, 2], [3, 4]]):
        for _ in range(2):
            assert assert_not_replayed(ops.relu, other).dtype == np.float32


def test_a_list_may_change_between_calls():
    a, b = array(2, 3, seed=1), array(2, 3, seed=2)
    given = [a, b]
    ops.concatenate(given)
    assert_replayed(ops.concatenate, given)
    given.reverse()
    assert_replayed(ops.concatenate, given)
    given.append(a)
    assert assert_not_replayed(ops.concatenate, given).shape == (2, 9)
    assert_not_replayed(ops.concatenate, tuple(given))  # the first of its kind
    given.append(given)
    with pytest.raises((TypeError, ValueError)):
        ops.concatenate(given)


def test_symbols_are_recorded_after_arrays():
    x = array(2, 5)
    ops.relu(x)
    ops.relu(x)
    symbol = layers.Input(shape=(5,))
    count = ops.relu.replays
    assert isinstance(ops.relu(symbol), Symbol)
    assert isinstance(ops.add(symbol, symbol), Symbol)
    assert ops.relu.replays == count
    assert_replayed(ops.relu, x)


# ---- writing to what the caller gives ----------------------------------------------------------


def test_out_may_be_an_input_in_a_replay(dtype):
    for op in (ops.relu, ops.sigmoid, ops.tanh):
        x = array(5, 7, dtype=dtype)
        y = op(x)
        for _ in range(2):  # first elsewhere: that must not become the rule for x itself
            assert_same_bits(op(x, out=np.empty_like(x)), y)
        for _ in range(2):
            count, same = op.replays, x.copy()
            assert op(same, out=same) is same
            assert_same_bits(same, y)
        assert op.replays == count + 1
    a, b = array(5, 7, dtype=dtype, seed=1), array(5, 7, dtype=dtype, seed=2)
    for _ in range(3):
        for which in (0, 1):
            given = [a.copy(), b.copy()]
            assert_same_bits(ops.add(*given, out=given[which]), a + b)
            assert_same_bits(given[1 - which], (b, a)[which])
        same = a.copy()
        assert_same_bits(ops.add(same, same, out=same), a + a)


@pytest.mark.parametrize("op", [ops.relu, ops.softmax])
def test_out_may_overlap_an_input(op):
    buffer = array(9, 16)
    x = buffer[:8].copy()
    right = op.__wrapped__(x)
    for _ in range(2):
        op(x, out=np.empty_like(x))
    count = op.replays
    given = buffer.copy()
    assert_same_bits(op(given[:8], out=given[1:]), right)
    given = np.concatenate([buffer[:1], buffer[:8]])
    assert_same_bits(op(given[1:], out=given[:8]), right)
    assert op.replays == count
    op(x, out=np.empty_like(x))
    assert op.replays == count + 1


def test_outputs_that_overlap_are_left_to_the_function():
    dy, x = array(4, 6), array(4, 6)
    for _ in range(2):
        ops.add_backward(dy, x, x, out=(np.empty_like(x), np.empty_like(x)))
    count = ops.add_backward.replays
    buffer = np.empty((5, 6), np.float32)
    ops.add_backward(dy, x, x, out=(buffer[:4], buffer[1:]))
    both = np.empty_like(x)
    for _ in range(2):
        assert all(value is both for value in ops.add_backward(dy, x, x, out=(both, both)))
        assert_same_bits(both, dy)
    assert ops.add_backward.replays == count


def test_one_out_for_several_pieces_holds_what_the_function_leaves_in_it():
    dy, pieces = array(2, 9), [array(2, 3) for _ in range(3)]
    for _ in range(3):
        same, last = np.empty((2, 3), np.float32), np.empty((2, 3), np.float32)
        ops.concatenate_backward(dy, pieces, out=(same, same, last))
        right = np.empty_like(same)
        ops.concatenate_backward.__wrapped__(dy, pieces, out=(right, right, last))
        assert_same_bits(same, right)


def test_a_read_only_out_is_refused_at_every_call():
    x = array(4, 6)
    for _ in range(2):
        ops.exp(x, out=np.empty_like(x))
    out = np.zeros_like(x)
    out.flags.writeable = False
    for _ in range(2):
        with pytest.raises(ValueError, match="writable"):
            ops.exp(x, out=out)
    assert not out.any()
    x.flags.writeable = False  # an input may be read-only
    assert_same_bits(ops.exp(x, out=np.empty_like(x)), ops.exp(x))


# ---- labels ------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.int64, np.longlong])
def test_labels_are_checked_at_every_call(kind):
    good, y_pred = np.array([0, 2, 1], kind), ops.softmax(array(3, 4))
    forward, backward = (
        ops.sparse_categorical_crossentropy,
        ops.sparse_categorical_crossentropy_backward,
    )
    y = forward(good, y_pred)
    assert_same_bits(assert_replayed(forward, good, y_pred), y)
    backward(y, good, y_pred)
    assert_replayed(backward, y, good, y_pred)
    other = np.array([3, 0, 0], kind)
    assert_replayed(forward, other, y_pred)
    assert_replayed(backward, y, other, y_pred)
    for bad in ([0, 4, 1], [0, -1, 1], [2**31, 0, 0]):
        labels = np.array(bad).astype(kind)
        if labels.min() >= 0 and labels.max() < 4:
            continue  # the type has no such number
        out = np.zeros_like(y)
        for _ in range(2):
            with pytest.raises(ValueError, match="y_true between 0 and 3"):
                forward(labels, y_pred)
            with pytest.raises(ValueError, match="y_true between 0 and 3"):
                backward(y, labels, y_pred)
            with pytest.raises(ValueError, match="y_true between 0 and 3"):
                forward(labels, y_pred, out=out)
        assert not out.any()
    assert_replayed(forward, good, y_pred)


def test_labels_as_floats_are_converted_at_every_call():
    y_pred = ops.softmax(array(3, 4))
    labels = np.array([0, 2, 1])
    y = ops.sparse_categorical_crossentropy(labels, y_pred)
    floats = labels.astype(np.float32)
    for _ in range(3):
        assert_same_bits(ops.sparse_categorical_crossentropy(floats, y_pred), y)
    floats[0] = 0.5
    with pytest.raises(ValueError, match="whole numbers"):
        ops.sparse_categorical_crossentropy(floats, y_pred)


# ---- what is not replayed ----------------------------------------------------------------------


def run_add(a, b, out=None):
    target = a.shape if out is None else out
    return _core.run_kernel("add", _core.Elementwise(size=a.size), 1, "float32", [a, b], [target])[
        0
    ]


def writes_beside(a, b, out):
    run_add(a, b, out)
    out[...] = -1
    return a


NOT_JUST_KERNELS = {
    "an input": lambda a, b: a,
    "a copy": lambda a, b: a.copy(),
    "a view": lambda a, b: run_add(a, b).reshape(-1),
    "another number": lambda a, b: 3,
    "a list": lambda a, b: [run_add(a, b)],
    "a copied input": lambda a, b: run_add(a.copy(), b),
    "an input's view": lambda a, b: run_add(a.reshape(a.shape), b),
    "a result by NumPy": lambda a, b: run_add(np.add(a, b), b),
    "an array from elsewhere": lambda a, b: run_add(a, np.ones_like(b)),
    "an out that does not come back": writes_beside,
    "an out written twice": lambda a, b, out: (run_add(a, b, out), run_add(b, b, out))[1],
    "too large": lambda a, b: run_add(np.resize(a, 5_000_000), np.resize(a, 5_000_000)),
}


@pytest.mark.parametrize("name", NOT_JUST_KERNELS)
def test_what_kernels_alone_do_not_make_is_not_replayed(name):
    op = _core.replayed(NOT_JUST_KERNELS[name])
    a, b = array(3, 4, seed=1), array(3, 4, seed=2)
    more = [np.empty_like(a)] if "out" in inspect.signature(op).parameters else []
    for _ in range(3):
        op(a, b, *more)
    assert op.replays == 0


def test_kernels_alone_are_replayed():
    """The control for the test above."""
    a, b, out = array(3, 4, seed=1), array(3, 4, seed=2), np.empty((3, 4), np.float32)
    op = _core.replayed(run_add)
    for _ in range(3):
        assert_same_bits(op(a, b), a + b)
        assert op(a, b, out=out) is out
    assert op.replays == 4
    op = _core.replayed(lambda a, b, out: run_add(a, run_add(a, b, out), out))
    for _ in range(3):  # what the second kernel changes in place is the work of both
        out.fill(-1)
        assert op(a, b, out) is out
        assert_same_bits(out, a + (a + b))
    assert op.replays == 2
    op = _core.replayed(lambda a, b: (None, run_add(run_add(a, b), b)))
    for _ in range(3):
        assert_same(op(a, b), (None, (a + b) + b))
    assert op.replays == 2
    inner = _core.replayed(run_add)
    outer = _core.replayed(lambda a, b: inner(inner(a, b), b))
    for _ in range(3):
        assert_same_bits(outer(a, b), (a + b) + b)
    assert (outer.replays, inner.replays) == (2, 0)


def test_more_calls_than_are_remembered():
    op = _core.replayed(lambda a, number: run_add(a, a))
    a = array(2, 2)
    for number in range(2000):
        assert_same_bits(op(a, number), a + a)
    assert op.replays == 0
    op(a, 1999)
    assert op.replays == 1
    long = "long" * 1000
    for key in (2**70, long, 1j, b"bytes", "\ud800"):
        for _ in range(2):
            op(a, key)
    assert op.replays == 1
    for key in (-(2**63), "", "text", "a text of more than eight bytes", (), ((), [None])):
        for _ in range(2):
            op(a, key)
    assert op.replays == 7


# ---- memory and threads ------------------------------------------------------------------------


@pytest.mark.parametrize("activation", ["relu", "tanh", "exp"])
def test_a_layer_with_an_activation_writes_to_out(activation, dtype):
    x, image = array(4, 5, dtype=dtype), array(2, 6, 7, 3, dtype=dtype)
    shapes = {"dense": (5, 5), "conv2d": (3, 3, 3, 3), "depthwise_conv2d": (3, 3, 3, 1)}
    for name, shape in shapes.items():
        op, kernel = getattr(ops, name), array(*shape, dtype=dtype, seed=1)
        given = x if name == "dense" else image
        options = {} if name == "dense" else {"padding": "same"}
        right = op(given, kernel, activation=activation, **options)
        buffer = np.empty((2, *right.shape), dtype)
        for out in (np.empty_like(right), buffer[1], np.asfortranarray(right), buffer.T[..., 0].T):
            for _ in range(3):
                out.fill(np.nan)
                assert op(given, kernel, activation=activation, out=out, **options) is out
                assert_same_bits(np.ascontiguousarray(out), right)
        for _ in range(3):  # the layer's own input
            same = given.copy()
            assert op(same, kernel, activation=activation, out=same, **options) is same
            assert_same_bits(same, right)


def test_out_takes_the_place_of_new_memory():
    x, image = array(128, 96), array(4, 32, 32, 8)
    kernel, filters, bias = array(96, 128), array(3, 3, 8, 16), array(16)
    calls = [
        partial(ops.dense, x, kernel, activation="relu"),
        partial(ops.conv2d, image, filters, bias, padding="same", activation="relu"),
        partial(ops.depthwise_conv2d, image, filters[..., :1], padding="same", activation="tanh"),
        partial(ops.max_pool2d, image),
        partial(ops.avg_pool2d_backward, array(4, 16, 16, 8), image),
        partial(ops.upsample2d, image, interpolation="bilinear"),
        partial(ops.softmax, x),
        partial(ops.add, x, x),
        partial(ops.batch_norm_backward, image, image, *array(4, 8) ** 2),
    ]
    for call in calls:
        result = call()
        first = result[0] if isinstance(result, tuple) else result
        out = tuple(map(np.empty_like, result)) if isinstance(result, tuple) else first
        taken = []
        for options in ({}, {"out": out}):
            for _ in range(3):
                call(**options)
            tracemalloc.start()
            call(**options)
            taken.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        assert taken[0] > first.nbytes > 8000 > taken[1], call.func.__name__


def test_nothing_is_kept_alive_or_lost():
    x, kernel, bias, dy = (array(*shape) for shape in ((4, 5), (5, 3), (3,), (4, 3)))
    labels, out = np.array([0, 1, 2, 0]), np.empty((4, 3), np.float32)
    given = [x, kernel, bias, dy, labels, out]

    def work() -> None:
        y = ops.dense(x, kernel, bias, activation="relu")
        ops.dense_backward(dy, x, kernel, bias, activation="relu", needs=[True, True, False])
        ops.sparse_categorical_crossentropy(labels, y, from_logits=True)
        ops.softmax(y, out=out)
        ops.concatenate([x, x, x])

    for _ in range(10):
        work()
    counts = [sys.getrefcount(a) for a in given]
    none = sys.getrefcount(None)
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(10_000):
        work()
    growth = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    assert [sys.getrefcount(a) for a in given] == counts
    assert abs(sys.getrefcount(None) - none) < 100
    assert growth < 2000

    first = array(3, 3)  # of a shape that has not been seen
    gone = [weakref.ref(first), weakref.ref(ops.relu(first))]
    del first
    assert [reference() for reference in gone] == [None, None]


@pytest.mark.parametrize("side", [8, 128])  # with the GIL, and without
def test_many_threads_may_call_one_op(side):
    given = [array(side, side, seed=seed) for seed in range(4)]
    right = [(np.tanh(x), x + x) for x in given]
    wrong: list[int] = []

    def work(which: int) -> None:
        x = given[which]
        for turn in range(200):
            shift = turn % 5  # shapes come and go in all threads
            y = ops.tanh(x[shift:])
            z = ops.add(x[shift:], x[shift:])
            tanh, double = right[which]
            if (
                not np.allclose(y, tanh[shift:], atol=1e-5)
                or z.tobytes() != double[shift:].tobytes()
            ):
                wrong.append(which)

    workers = [threading.Thread(target=work, args=(which,)) for which in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert not wrong


def test_too_little_memory_is_an_exception(tmp_path):
    code = """
import resource
import numpy as np
from convkit import _core, ops
x = np.ones((1, 1, 1, 1), np.float32)
for _ in range(2):
    ops.upsample2d(x, 3500)  # 47 MiB
replays = ops.upsample2d.replays
_core.release_memory()  # what earlier results had would do
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (8 << 20), -1))
try:
    ops.upsample2d(x, 3500)
except MemoryError:
    resource.setrlimit(resource.RLIMIT_AS, (-1, -1))
    print(replays, ops.upsample2d(x, 3500).sum() == 3500**2)
"""
    assert output_of(code, tmp_path) == "1 True"


# ---- ops as Python functions -------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in ops.__all__ if name != "plan"])
def test_an_op_looks_like_the_function_it_is(name):
    op = getattr(ops, name)
    assert op.__name__ == op.__qualname__ == name
    assert op.__module__.startswith("convkit.ops.")
    assert op.__doc__ == op.__wrapped__.__doc__
    assert inspect.isroutine(op)
    assert callable(op)
    assert inspect.signature(op) == inspect.signature(op.__wrapped__)
    assert name in repr(op)
    text = pydoc.render_doc(op, renderer=pydoc.plaintext)
    assert f"{name}(" in text
    assert op.__doc__.splitlines()[0] in text
    assert pickle.loads(pickle.dumps(op)) is op
    assert copy.copy(op) is op
    assert copy.deepcopy(op) is op
    assert weakref.ref(op)() is op
    assert {op: 1}[op] == 1


def test_an_op_in_a_class_is_a_method():
    class Box(np.ndarray):
        relu = _core.replayed(lambda self: "method")

    assert np.zeros(3).view(Box).relu() == "method"
    assert Box.relu(1) == "method"


def test_only_functions_become_ops():
    with pytest.raises(TypeError):
        _core.replayed(3)
    with pytest.raises(TypeError):
        type(ops.add)()
