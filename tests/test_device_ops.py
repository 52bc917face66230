"""Ops on arrays of a GPU: CuPy's where there is one, else those of tests/fake_cupy.py, on the
emulated device."""

from __future__ import annotations

import importlib.util
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import numpy as np
import pytest
from cases import CASES, Case, arrays, typical, upstream
from checkers import (
    IMAGE_OPS,
    assert_exact,
    assert_same_bits,
    backward,
    expected,
    forward,
    narrowed,
    to_first,
)
from devices import DEVICES, emulator

import convkit
from convkit import _core, device, models, ops
from convkit.layers import Dense, Input

BACKENDS = [
    name
    for name in DEVICES
    if name == "cuda_emulated" or importlib.util.find_spec("cupy") is not None
]
EVERY_OP = typical(CASES)
EXACT = ("conv2d", "dense", "add", "concatenate", "relu", "max_pool2d", "upsample2d")

every_op = pytest.mark.parametrize("case", EVERY_OP, ids=lambda case: case.op)


@pytest.fixture(params=BACKENDS or [pytest.param("", marks=pytest.mark.skip("no device"))])
def kernels(request: pytest.FixtureRequest) -> Iterator[str]:
    """The kernels that run on the arrays; on NumPy's, they are not in use."""
    yield request.param
    if request.param == "cuda_emulated":
        emulator().emulator_recover()


@pytest.fixture
def stand_in(cp: Any) -> Any:
    """Only what stands for CuPy, whose streams do nothing before they must."""
    if cp.__name__ != "fake_cupy":
        pytest.skip("of the emulated device")
    return cp


@pytest.fixture
def two_devices(cp: Any) -> Iterator[Any]:
    if cp.__name__ != "fake_cupy":
        if cp.cuda.runtime.getDeviceCount() < 2:
            pytest.skip("needs two GPUs")
        yield cp
        return
    emulator().emulator_set(b"devices", 2)
    yield cp
    emulator().emulator_set(b"devices", 1)


class Staged:
    """The same kernels on NumPy arrays, to which other tests hold the reference."""

    def __init__(self, backend: str) -> None:
        self.backend = backend

    def __call__(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        before = _core.backend_name()
        _core.use_backend(self.backend)
        try:
            return call(*arguments, **options)
        finally:
            _core.use_backend(before)


@pytest.fixture
def staged(kernels: str) -> Staged:
    return Staged(kernels)


def given_of(case: Case, dtype: Any) -> tuple[list, np.ndarray]:
    given = arrays(case, dtype)
    return given, upstream(case, forward(case, given).shape, dtype)


def up(given: Any) -> Any:
    """NumPy arrays as those of the device."""
    if isinstance(given, (list, tuple)):
        return [up(array) for array in given]
    return None if given is None else device.from_numpy(given)


def assert_is(actual: Any, right: Any) -> None:
    """An array of the device with these bits; or several; or None."""
    if isinstance(right, (list, tuple)):
        assert len(actual) == len(right)
        for one, other in zip(actual, right, strict=True):
            assert_is(one, other)
    elif right is None:
        assert actual is None
    else:
        assert isinstance(actual, device.array_module().ndarray)
        assert_same_bits(device.to_numpy(actual), right)


# ---- every op ----------------------------------------------------------------------------------


@pytest.mark.parametrize("case", CASES, ids=str)
def test_values_and_gradients_have_the_bits_of_the_kernels_on_numpy_arrays(case, dtype, cp, staged):
    given, dy = given_of(case, dtype)
    there = up(given)
    assert_is(forward(case, there), staged(forward, case, given))
    right = staged(backward, case, dy, given)
    assert_is(backward(case, up(dy), there), right)
    assert_is(there, given)


@pytest.mark.parametrize("case", [c for c in EVERY_OP if c.op in EXACT], ids=lambda c: c.op)
def test_values_and_gradients_are_those_of_the_reference(case, dtype, cp):
    given, dy, y, gradients = expected(case, "integers")
    there = up(narrowed(given, dtype))
    assert_exact(device.to_numpy(forward(case, there)), y, dtype)
    found = backward(case, up(dy.astype(dtype)), there)
    for actual, right in zip(found, gradients, strict=True):
        if right is not None:
            assert_exact(device.to_numpy(actual), right, dtype)


@pytest.mark.parametrize("activation", ["relu", "softmax"])
@pytest.mark.parametrize("case", [c for c in EVERY_OP if c.op in ("conv2d", "dense")], ids=str)
def test_activations_within_an_op(case, activation, cp, staged):
    given, dy = given_of(case, np.float32)
    options = {"activation": activation}
    assert_is(forward(case, up(given), **options), staged(forward, case, given, **options))
    right = staged(backward, case, dy, given, **options)
    assert_is(backward(case, up(dy), up(given), **options), right)


@pytest.mark.parametrize("case", [c for c in EVERY_OP if c.op in IMAGE_OPS], ids=lambda c: c.op)
def test_channels_first(case, dtype, cp, staged):
    given, dy = given_of(case, dtype)
    given, dy = [to_first(given[0]), *given[1:]], to_first(dy)
    options = {"data_format": "channels_first"}
    y = staged(forward, case, given, **options)
    assert_is(forward(case, up(given), **options), y)
    right = staged(backward, case, dy, given, **options)
    assert_is(backward(case, up(dy), up(given), **options), right)
    out = up(np.zeros_like(y))
    assert forward(case, up(given), out=out, **options) is out
    assert_is(out, y)


@pytest.mark.parametrize("case", [c for c in EVERY_OP if len(c.shapes) > 1], ids=lambda c: c.op)
def test_gradients_that_nobody_needs_are_left_out(case, cp, staged):
    given, dy = given_of(case, np.float32)
    right = staged(backward, case, dy, given)
    for which in range(len(given)):
        needs = [i == which for i in range(len(given))]
        wanted = [g if need else None for g, need in zip(right, needs, strict=True)]
        assert_is(backward(case, up(dy), up(given), needs=needs), wanted)


def test_a_bias_may_be_none(cp, staged, rng):
    x, kernel = rng.normal(size=(3, 4)).astype("f4"), rng.normal(size=(4, 5)).astype("f4")
    assert_is(ops.dense(up(x), up(kernel)), staged(ops.dense, x, kernel))
    found = ops.dense_backward(up(np.ones((3, 5), "f4")), up(x), up(kernel))
    assert found[2] is None


def test_arrays_of_no_axes_and_of_no_elements(cp):
    assert_is(ops.relu(up(np.array(-1.5, np.float32))), np.array(0, np.float32))
    for dtype in (np.float32, np.uint8, np.float16):
        empty = up(np.zeros((0, 3), dtype))
        assert_is(ops.relu(empty), np.zeros((0, 3), np.float32))


def test_precision_is_that_of_the_setting(cp, staged, rng):
    x, kernel = (rng.normal(size=(64, 64)).astype(np.float32) for _ in range(2))
    try:
        for precision in ("bf16", "tf32", "float32"):
            convkit.set_precision(precision)
            assert_is(ops.dense(up(x), up(kernel)), staged(ops.dense, x, kernel))
    finally:
        convkit.set_precision("float32")


def test_variables_may_hold_them(cp):
    variable = convkit.graph.Variable(np.zeros((2, 3), np.float32), "x")
    variable.value = up(np.float32([[1, -2, 3], [-4, 5, -6]]))
    assert_is(ops.relu(variable), np.float32([[1, 0, 3], [0, 5, 0]]))


# ---- arrays of any kind ------------------------------------------------------------------------


def inside(array: np.ndarray, poison: Any = np.nan) -> tuple[Any, Callable[[], bool]]:
    """An array between two stretches of NaN, not aligned to vectors; whether those still stand."""
    margin = 33
    if array.dtype.kind != "f":
        poison = np.iinfo(array.dtype).max
    whole = np.full(array.size + 2 * margin, poison, array.dtype)
    whole[margin : margin + array.size] = array.ravel()
    there = up(whole)

    def intact() -> bool:
        now = device.to_numpy(there)
        beside = [now[:margin], now[margin + array.size :]]
        return all(part.tobytes() == whole[:margin].tobytes() for part in beside)

    return there[margin : margin + array.size].reshape(array.shape), intact


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_read_or_written_beside_the_arrays(case, dtype, cp, staged):
    given, dy = given_of(case, dtype)
    y = staged(forward, case, given)
    gradients = staged(backward, case, dy, given)
    kept = [(None, lambda: True) if array is None else inside(array) for array in given]
    there = [array for array, _ in kept]
    out, out_intact = inside(np.full_like(y, np.nan))
    assert forward(case, there, out=out) is out
    assert_is(out, y)
    outs = [
        (None, lambda: True) if g is None else inside(np.full_like(g, np.nan)) for g in gradients
    ]
    into = outs[0][0] if len(outs) == 1 else tuple(out for out, _ in outs)
    found = backward(case, inside(dy)[0], there, out=into)
    for actual, (out, _), right in zip(found, outs, gradients, strict=True):
        assert actual is out
        assert_is(out, right)
    assert out_intact()
    assert all(intact() for _, intact in [*kept, *outs])


@every_op
def test_arrays_with_strides(case, dtype, cp, staged):
    given, dy = given_of(case, dtype)

    def spread(array: np.ndarray | None) -> Any:
        if array is None:
            return None
        whole = np.zeros((*array.shape[:-1], 2 * array.shape[-1]), array.dtype)
        whole[..., ::2] = array
        return up(whole)[..., ::2]

    there = [spread(array) for array in given]
    assert_is(forward(case, there), staged(forward, case, given))
    assert_is(backward(case, spread(dy), there), staged(backward, case, dy, given))
    assert_is(there, given)


@pytest.mark.parametrize("kind", ["uint8", "int32", "int64", "bool", "int8", "uint16", "float16"])
def test_other_numbers_become_float32_or_follow(kind, cp):
    x = np.array([[0, 1, 100], [1, 0, 3]]).astype(kind)
    assert_is(ops.relu(up(x)), x.astype(np.float32))
    for dtype in (np.float32, np.float64):
        ones = np.ones((2, 3), dtype)
        assert_is(ops.add(up(x), up(ones)), x.astype(dtype) + ones)


@pytest.mark.parametrize("kind", ["int32", "int64", "uint8", "int16", "uint64", "bool"])
def test_labels_of_any_integers(kind, cp, staged, rng):
    labels = rng.integers(0, 2 if kind == "bool" else 7, size=(9, 2)).astype(kind)
    y_pred = rng.uniform(0.1, 1, size=(9, 7)).astype(np.float32)
    right = staged(ops.sparse_categorical_crossentropy, labels[:, 0].astype(int), y_pred)
    for given in (up(labels)[:, 0], up(labels[:, 0].copy())):
        assert_is(ops.sparse_categorical_crossentropy(given, up(y_pred)), right)


@pytest.mark.parametrize("wrong", [7, -1, 2**31, 2**32, -(2**32)])
def test_a_label_that_is_none_gives_nan(wrong, cp, rng):
    labels = np.array([3, wrong, 0])
    y_pred = rng.uniform(0.1, 1, size=(3, 7)).astype(np.float32)
    loss = ops.sparse_categorical_crossentropy(up(labels), up(y_pred))
    assert np.isnan(device.to_numpy(loss)).tolist() == [False, True, False]
    _, dx = ops.sparse_categorical_crossentropy_backward(
        up(np.ones(3, np.float32)), up(labels), up(y_pred)
    )
    assert np.isnan(device.to_numpy(dx)).all(axis=1).tolist() == [False, True, False]


# ---- out ---------------------------------------------------------------------------------------


@every_op
def test_out_may_have_strides_or_be_missing_here_and_there(case, dtype, cp, staged):
    given, dy = given_of(case, dtype)
    y, gradients = staged(forward, case, given), staged(backward, case, dy, given)
    out = up(np.zeros((*y.shape, 2), dtype))[..., 1]
    assert forward(case, up(given), out=out) is out
    assert_is(out, y)
    if len(gradients) > 1 and gradients[-1] is not None:
        outs = (*[None] * (len(gradients) - 1), up(np.zeros_like(gradients[-1])))
        found = backward(case, up(dy), up(given), out=outs)
        assert found[-1] is outs[-1]
        assert_is(found, gradients)


def test_out_may_be_an_input_or_overlap_it(cp, rng):
    x = rng.normal(size=(6, 8)).astype(np.float32)
    for op in (ops.relu, ops.tanh, ops.softmax):
        right = device.to_numpy(op(up(x)))
        there = up(x)
        assert op(there, out=there) is there
        assert_is(there, right)
        there = up(np.concatenate([x, x]))
        assert_is(op(there[3:9], out=there[:6]), device.to_numpy(op(up(np.roll(x, -3, axis=0)))))


# ---- errors, before anything runs --------------------------------------------------------------

X = np.ones((2, 6, 7, 4), np.float32)
KERNEL = np.ones((3, 3, 4, 6), np.float32)
ROWS = np.ones((2, 3), np.float32)

MISTAKES: list[tuple[Callable[[], Any], type[Exception], str]] = [
    (
        lambda: ops.conv2d(up(X), KERNEL),
        TypeError,
        "conv2d: expected x to be a NumPy array, as kernel is, got an array on a GPU",
    ),
    (
        lambda: ops.conv2d(X, up(KERNEL)),
        TypeError,
        "conv2d: expected kernel to be a NumPy array, as x is, got an array on a GPU",
    ),
    (lambda: ops.add(up(ROWS), [[1.0] * 3] * 2), TypeError, "add: expected x1 .* as x2 is"),
    (lambda: ops.concatenate([up(ROWS), ROWS]), TypeError, "concatenate: expected array 0 "),
    (lambda: ops.relu_backward(ROWS, up(ROWS)), TypeError, "relu_backward: expected x .* as dy is"),
    (
        lambda: ops.sparse_categorical_crossentropy(np.array([0, 1]), up(ROWS)),
        TypeError,
        "sparse_categorical_crossentropy: expected y_pred .* as y_true is",
    ),
    (
        lambda: ops.sparse_categorical_crossentropy(up(np.array([0, 1])), ROWS),
        TypeError,
        "sparse_categorical_crossentropy: expected y_true .* as y_pred is",
    ),
    (
        lambda: ops.sparse_categorical_crossentropy_backward(
            ROWS[:, 0], up(np.array([0, 1])), up(ROWS)
        ),
        TypeError,
        "sparse_categorical_crossentropy_backward: expected y_true .* as dy is",
    ),
    (
        lambda: ops.sparse_categorical_crossentropy(up(ROWS[:, 0]), up(ROWS)),
        TypeError,
        "sparse_categorical_crossentropy: expected y_true to hold integers, got dtype float32",
    ),
    (
        lambda: ops.sparse_categorical_crossentropy(None, up(ROWS)),
        TypeError,
        "sparse_categorical_crossentropy: expected y_true to be an array, got None",
    ),
    (
        lambda: ops.add(up(ROWS), up(ROWS.astype(np.float64))),
        TypeError,
        "add: expected x1 and x2 of one dtype, got float32 and float64",
    ),
    (
        lambda: ops.relu(up(ROWS.astype(np.complex64))),
        TypeError,
        "relu: expected x to hold real numbers, got dtype complex64",
    ),
    (lambda: ops.conv2d(up(X), None), TypeError, "conv2d: expected kernel .* got None"),
    (lambda: ops.conv2d(up(X[0]), up(KERNEL)), ValueError, r"conv2d: expected x of shape \(N, H"),
    (lambda: ops.add(up(ROWS), up(ROWS[:, :2])), ValueError, "add: expected x1 and x2 of shapes"),
    (
        lambda: ops.relu(up(ROWS), out=np.zeros_like(ROWS)),
        TypeError,
        r"relu: expected out to be a CuPy array, got numpy\.ndarray",
    ),
    (
        lambda: ops.relu(up(ROWS), out=7),
        TypeError,
        "relu: expected out to be a CuPy array, got int",
    ),
    (
        lambda: ops.relu(ROWS, out=up(ROWS)),
        TypeError,
        r"relu: expected out to be a NumPy array, got \w+\.ndarray",
    ),
    (
        lambda: ops.conv2d(up(X), up(KERNEL), activation="relu", out=np.zeros((2, 4, 5, 6), "f4")),
        TypeError,
        "conv2d: expected out to be a CuPy array",
    ),
    (
        lambda: ops.add_backward(up(ROWS), up(ROWS), up(ROWS), out=(None, np.zeros_like(ROWS))),
        TypeError,
        "add_backward: expected out to be a CuPy array",
    ),
    (
        lambda: ops.relu(up(ROWS), out=up(ROWS[:1])),
        ValueError,
        r"relu: expected out of shape \(2, 3\), got \(1, 3\)",
    ),
    (
        lambda: ops.relu(up(ROWS), out=up(ROWS.astype(np.float64))),
        TypeError,
        "relu: expected out of dtype float32, got float64",
    ),
    (
        lambda: ops.dense(Input((3,)), up(np.ones((3, 2), np.float32))),
        TypeError,
        "dense: expected kernel to be a NumPy array, got an array on a GPU",
    ),
    (
        lambda: convkit.Perceptron().fit(up(ROWS), [0, 1]),
        TypeError,
        "Perceptron.fit: expected x to be a NumPy array, got an array on a GPU",
    ),
    (
        lambda: convkit.Perceptron().fit(ROWS, up(np.array([0, 1]))),
        TypeError,
        "Perceptron.fit: expected y to be a NumPy array, got an array on a GPU",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=range(len(MISTAKES)))
def test_what_does_not_fit_is_one_clear_error_before_anything_runs(call, error, message, cp):
    launched = emulator().emulator_launched_kernels() if cp.__name__ == "fake_cupy" else 0
    with pytest.raises(error, match=f"^{message}"):
        call()
    if cp.__name__ == "fake_cupy":
        assert emulator().emulator_launched_kernels() == launched


def test_two_devices_are_refused(two_devices):
    cp = two_devices
    here = up(ROWS)
    with cp.cuda.Device(1):
        there = up(ROWS)
    for call in (
        lambda: ops.add(here, there),
        lambda: ops.add_backward(here, here, there),
        lambda: ops.concatenate([here, here, there]),
        lambda: ops.relu(here, out=there),
        lambda: ops.sparse_categorical_crossentropy(up(np.array([0, 1])), there),
    ):
        with pytest.raises(ValueError, match=r"expected \w.* on one GPU, got the GPUs 0 and 1"):
            call()


def test_the_native_call_checks_what_memory_safety_needs(cp, kernels):
    x = up(np.zeros((4, 8), np.float32))
    one = (x.data.ptr, x.size, x.dtype)
    spec = _core.Elementwise(size=8)

    def call(arguments: Any, kernel: str = "add", n: int = 4, spec: Any = spec) -> None:
        _core.run_on_device(kernels, kernel, spec, n, "float32", arguments, 0, 1, cp.cuda.alloc)

    call([one, one, one])
    long = np.dtype(np.float64)
    for arguments, message in (
        ([one, one], "add: expected more arguments"),
        ([one] * 4, "add: expected fewer arguments"),
        ([one, one, (x.data.ptr, 31, x.dtype)], "add: .*: expected another number of elements"),
        ([one, (x.data.ptr, 32, long), one], "add: .*: expected another dtype"),
        ([one, (x.data.ptr + 2, 32, x.dtype), one], "add: .*: expected an aligned array"),
        ([None, one, one], "add: .*: expected an array, not None"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call(arguments)
    with pytest.raises(ValueError, match="expected n >= 0"):
        call([one] * 3, n=-1)
    rows = _core.Gather(size=8, type=3, scale=1.0, offset=0.0)
    index = (x.data.ptr, 4, np.dtype(np.int64))
    call([one, None, one], "gather", spec=rows)
    for arguments, n, message in (
        ([one, index, one], 4, "gather: index: expected None: its rows cannot be checked"),
        ([one, None, (x.data.ptr, 40, x.dtype)], 5, "gather: source: expected rows that"),
        ([(x.data.ptr, 31, x.dtype), None, one], 4, "gather: source: expected rows of another"),
    ):
        with pytest.raises(ValueError, match=f"^{message}"):
            call(arguments, "gather", n, rows)
    with pytest.raises(ValueError, match="expected one that was loaded, got 'rocm'"):
        _core.run_on_device("rocm", "add", spec, 4, "float32", [one] * 3, 0, 1, cp.cuda.alloc)


# ---- streams and devices -----------------------------------------------------------------------


def test_work_goes_to_the_current_stream(stand_in):
    """Without an event another stream does not see it, with one it does."""
    x, other = up(np.full(1000, 2, np.float32)), stand_in.cuda.Stream()
    y = up(np.zeros(1000, np.float32))
    with stand_in.cuda.Stream() as stream:
        ops.relu(x, out=y)
    with other:
        assert (device.to_numpy(y) == 0).all()
        other.wait_stream(stream)
        assert (device.to_numpy(y) == 2).all()


def test_a_chain_of_ops_in_a_stream_of_its_own(cp, staged, rng):
    x = rng.normal(size=(4, 8, 8, 3)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, 3, 8)).astype(np.float32)

    def chain(x: Any, kernel: Any) -> Any:
        y = ops.max_pool2d(ops.conv2d(x, kernel, activation="relu"))
        dy = ops.max_pool2d_backward(y, ops.conv2d(x, kernel))
        return ops.conv2d_backward(dy, x, kernel)[1]

    there = up(x), up(kernel)
    with cp.cuda.Stream(non_blocking=True) as stream:
        if cp.__name__ == "fake_cupy":
            stream.wait_stream(cp.cuda.Stream.null)
        else:
            stream.wait_event(cp.cuda.Stream.null.record())
        found = chain(*there)
        assert_is(found, staged(chain, x, kernel))
    del there, found


def test_the_current_device_and_stream_are_as_before(two_devices):
    cp = two_devices
    with cp.cuda.Device(1):
        there = up(ROWS)
        labels, whole = up(np.array([0, 1])), up(np.ones((2, 6), np.float32))
        out = up(np.zeros((2, 3, 2), np.float32))[..., 0]
    stream = cp.cuda.Stream(non_blocking=True)
    with stream:
        before = device.current()
        assert before == (0, stream.ptr)
        for made in (
            ops.relu(there),
            ops.relu(whole[:, ::2]),
            ops.concatenate([there]),
            ops.softmax(there, out=out),
            ops.sparse_categorical_crossentropy(labels, there),
            ops.max_pool2d_backward(*[ops.upsample2d(there.reshape(2, 3, 1, 1), 1)] * 2, 1),
        ):
            assert device.device_of(made) == 1
            assert device.current() == before
        with pytest.raises(ValueError, match="expected out of shape"):
            ops.relu(there, out=there[:1])
        assert device.current() == before
        assert_is(ops.relu(there), ROWS)
    assert device.current() == (0, 1)


def test_threads_with_a_stream_each(cp, staged, rng):
    kernel = rng.normal(size=(16, 16)).astype(np.float32)
    inputs = [rng.normal(size=(8, 16)).astype(np.float32) for _ in range(4)]
    right = [staged(ops.dense, x, kernel) for x in inputs]
    wrong: list[Any] = []

    def work(x: np.ndarray, y: np.ndarray) -> None:
        try:
            with cp.cuda.Stream(non_blocking=True):
                for _ in range(5):
                    assert_is(ops.dense(up(x), up(kernel)), y)
        except BaseException as error:
            wrong.append(error)

    with ExitStack() as done:
        for x, y in zip(inputs, right, strict=True):
            thread = threading.Thread(target=work, args=(x, y))
            thread.start()
            done.callback(thread.join)
    assert not wrong


# ---- memory ------------------------------------------------------------------------------------


def test_memory_is_the_pools_and_goes_back(cp, rng):
    pool = cp.get_default_memory_pool()
    x, kernel = (
        up(rng.normal(size=(4, 9, 9, 8)).astype("f4")),
        up(rng.normal(size=(3, 3, 8, 8)).astype("f4")),
    )
    y = ops.conv2d(x, kernel)
    used, blocks = pool.used_bytes(), _core.device_blocks(device.backend())
    for _ in range(3):
        ops.conv2d_backward(y, x, kernel, activation="relu")
        ops.max_pool2d_backward(ops.max_pool2d(x), x)
        ops.sparse_categorical_crossentropy(up(np.zeros((4, 7, 7), np.int64)), y)
    assert pool.used_bytes() == used
    if cp.__name__ == "fake_cupy":
        total = pool.total_bytes()
        ops.conv2d_backward(y, x, kernel, activation="relu")
        assert pool.total_bytes() == total
    else:
        assert _core.device_blocks(device.backend()) == blocks


def test_workspaces_are_the_pools_too(stand_in):
    pool = stand_in.get_default_memory_pool()
    x = up(np.arange(2 * 6 * 6 * 3, dtype=np.float32).reshape(2, 6, 6, 3))
    dy = ops.max_pool2d(x, 3, strides=1)
    before = pool.asked["workspaces"]
    ops.max_pool2d_backward(dy, x, 3, strides=1)
    assert pool.asked["workspaces"] > before


def test_every_allocation_may_fail(stand_in):
    """The error is a MemoryError, what was taken goes back, and the next call is well."""
    pool = stand_in.get_default_memory_pool()
    x = up(np.arange(2 * 6 * 6 * 3, dtype=np.float32).reshape(2, 6, 6, 3))
    dy = ops.max_pool2d(x, 3, strides=1)
    right = device.to_numpy(ops.max_pool2d_backward(dy, x, 3, strides=1))
    used = pool.used_bytes()
    failures = 0
    for k in range(1, 9):
        stand_in.cuda.Stream.null.synchronize()
        pool.free_all_blocks()
        emulator().emulator_fail_allocation(k)
        found = None
        try:
            found = ops.max_pool2d_backward(dy, x, 3, strides=1)
        except MemoryError:
            failures += 1
        emulator().emulator_fail_allocation(0)
        if found is not None:
            assert_is(found, right)
            break
        assert pool.used_bytes() == used
    assert found is not None and failures >= 2


# ---- arrays of other libraries -----------------------------------------------------------------


class Interface:
    """`__cuda_array_interface__` and nothing else, as Numba's arrays."""

    def __init__(self, array: Any, stream: int | None = None) -> None:
        self.array = array
        self.device_id = array.data.device_id
        self.stream = stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.array.__cuda_array_interface__, "stream": self.stream, "version": 3}


class Exporter:
    """DLPack and nothing else, as PyTorch's tensors and JAX's arrays."""

    def __init__(self, array: Any, kind: int = 2, error: Exception | None = None) -> None:
        self.array = array
        self.kind = kind
        self.error = error
        self.streams: list[int] = []

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.kind, 0

    def __dlpack__(self, *, stream: Any = None, **options: Any) -> Any:
        self.streams.append(stream)
        if self.error:
            raise self.error
        if isinstance(self.array, device.array_module().ndarray) and hasattr(
            self.array, "__dlpack__"
        ):
            return self.array.__dlpack__(stream=stream, **options)
        return self.array


@pytest.mark.parametrize("foreign", [Interface, Exporter])
def test_arrays_of_other_libraries_are_read_where_they_lie(foreign, cp, rng):
    x = rng.normal(size=(4, 6)).astype(np.float32)
    there = foreign(up(x))
    assert device.is_device_array(there)
    assert device.pointer(device.as_array("relu", "x", there)) == there.array.data.ptr
    assert_is(ops.relu(there), np.maximum(x, 0))
    assert_is(ops.add(there, up(x)), x + x)
    assert_is(ops.relu_backward(up(x), foreign(there.array[:, :])), np.where(x > 0, x, 0))
    labels, rows = foreign(up(np.array([0, 1, 2, 3]))), foreign(up(np.abs(x)))
    assert np.isfinite(device.to_numpy(ops.sparse_categorical_crossentropy(labels, rows))).all()
    with pytest.raises(
        TypeError, match=f"relu: expected out to be a CuPy array, got .*{foreign.__name__}"
    ):
        ops.relu(up(x), out=there)


def test_the_stream_of_an_interface_is_waited_for(stand_in):
    x = up(np.zeros(100, np.float32))
    with stand_in.cuda.Stream() as stream:
        ops.rescale(x, 1.0, 3.0, out=x)
    with stand_in.cuda.Stream():
        assert_is(ops.relu(Interface(x, stream.ptr)), np.full(100, 3, np.float32))


def test_exporters_are_told_the_stream(cp):
    there = Exporter(up(ROWS))
    ops.relu(there)
    with cp.cuda.Stream(non_blocking=True) as stream:
        ops.relu(there)
    assert there.streams == [1, stream.ptr]


def test_an_exporter_that_refuses_is_one_error(cp):
    there = Exporter(up(ROWS), error=BufferError("it requires gradients"))
    with pytest.raises(
        TypeError, match=r"relu: expected x to be .* CuPy can read, got a Exporter \(it req"
    ):
        ops.relu(there)


def test_tensors_on_the_host_are_numpys():
    class Tensor(Exporter):
        def __array__(self, *_: object, **__: object) -> np.ndarray:
            return self.array

    assert_same_bits(ops.relu(Tensor(ROWS, kind=1)), ROWS)


# ---- what is missing ---------------------------------------------------------------------------


@pytest.fixture
def unbound(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process that has seen no array of a GPU."""
    monkeypatch.setattr(device, "_binding", None)


class OnGpu:
    __cuda_array_interface__ = {"shape": (1,), "typestr": "<f4", "data": (0, False)}  # noqa: RUF012


@pytest.mark.parametrize(
    "reason",
    [
        "no NVIDIA driver was found",
        "no GPU was found",
        "the NVIDIA driver is too old: expected one for CUDA 13.0, got one for CUDA 12.2",
        "the GPU is older than this build's code: expected 7.5 or newer, got 6.1",
    ],
)
def test_without_a_gpu_the_reason_is_one_sentence(reason, unbound, monkeypatch):
    def load() -> str:
        raise RuntimeError(f"cuda: {reason}")

    monkeypatch.setattr(_core, "load_device", load)
    with pytest.raises(RuntimeError, match=f"^relu: {reason}$"):
        ops.relu(OnGpu())
    with pytest.raises(RuntimeError, match=f"^fit: {reason}$"):
        device.require("fit")
    assert not device.available()


def test_without_cupy_the_message_says_how_to_have_it(unbound, monkeypatch):
    monkeypatch.setattr(_core, "load_device", lambda: "cuda")
    monkeypatch.setitem(sys.modules, "cupy", None)
    with pytest.raises(RuntimeError, match=r"^relu: CuPy is missing: pip install cupy-cuda"):
        ops.relu(OnGpu())
    assert not device.available()


def test_a_cupy_that_cannot_be_imported(unbound, monkeypatch, tmp_path):
    monkeypatch.setattr(_core, "load_device", lambda: "cuda")
    monkeypatch.delitem(sys.modules, "cupy", raising=False)
    (tmp_path / "cupy.py").write_text("raise ImportError('libcudart.so.13 is not there\\nat all')")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(
        RuntimeError, match=r"^relu: CuPy cannot be imported: libcudart.so.13 is not there$"
    ):
        ops.relu(OnGpu())


@pytest.mark.skipif(_core.cuda_built, reason="this build has the kernels")
def test_a_build_without_cuda_says_so(unbound):
    with pytest.raises(RuntimeError, match=r"^relu: this convkit was built without CUDA; .*ON"):
        ops.relu(OnGpu())


@pytest.mark.parametrize("x", [None, 1, 1.5, "x", [1], ROWS, ROWS[0, 0], Dense])
def test_what_is_no_array_of_a_gpu(x):
    assert not device.is_device_array(x)


def test_models_still_want_numpy_arrays(cp):
    model = models.Sequential([Input((3,)), Dense(2)])
    with pytest.raises(TypeError, match="x to be a NumPy array, got an array on a GPU"):
        model.predict(up(ROWS), verbose=0)
