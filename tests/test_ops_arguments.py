"""What every op has in common: arrays of any kind in, `out`, `needs`, threads, no stray access."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from cases import CASES, LARGE, arrays, typical, upstream
from checkers import assert_same_bits, backward, disguises, forward, guarded

from convkit import ops

pytestmark = pytest.mark.usefixtures("backend")

every_op = pytest.mark.parametrize("case", typical(CASES), ids=lambda case: case.op)
TYPICAL = {case.op: case for case in typical(CASES)}


def prepared(case, dtype=np.float32) -> tuple:
    """Arguments, y, dy and gradients of a case on plain arrays."""
    given = arrays(case, dtype)
    y = forward(case, given)
    dy = upstream(case, y.shape, dtype)
    return given, y, dy, backward(case, dy, given)


def assert_all_same(found, gradients) -> None:
    for actual, right in zip(found, gradients, strict=True):
        if right is None:
            assert actual is None
        else:
            assert_same_bits(actual, right)


@every_op
def test_arrays_of_any_strides_order_and_flags(case, dtype):
    given, y, dy, gradients = prepared(case, dtype)
    for which, array in enumerate(given):
        for name, disguised in disguises(array) if array is not None else ():
            before = disguised.tobytes()
            mixed = [*given[:which], disguised, *given[which + 1 :]]
            assert_same_bits(forward(case, mixed), y)
            assert_all_same(backward(case, dy, mixed), gradients)
            assert disguised.tobytes() == before, f"{name} argument {which} was written to"
    for name, disguised in disguises(dy):
        before = disguised.tobytes()
        assert_all_same(backward(case, disguised, given), gradients)
        assert disguised.tobytes() == before, f"{name} dy was written to"


@pytest.mark.parametrize("case", CASES, ids=str)
def test_nothing_is_read_or_written_beside_the_arrays(case, dtype):
    """Arguments and outputs lie between NaNs: those must neither get into a result nor change."""
    given, y, dy, gradients = prepared(case, dtype)
    inside, intact = zip(
        *(guarded(array) if array is not None else (None, lambda: True) for array in given),
        strict=True,
    )
    safe_y, y_intact = guarded(np.full_like(y, np.nan))
    assert forward(case, inside, out=safe_y) is safe_y
    assert_same_bits(safe_y, y)
    assert y_intact()

    safe_dy, _ = guarded(dy)
    outs, outs_intact = [], []
    for gradient in gradients:
        safe, still = (None, None) if gradient is None else guarded(np.full_like(gradient, np.nan))
        outs.append(safe)
        if still is not None:
            outs_intact.append(still)
    found = backward(case, safe_dy, inside, out=outs[0] if len(outs) == 1 else tuple(outs))
    assert_all_same(found, gradients)
    for actual, out in zip(found, outs, strict=True):
        assert actual is out
    assert all(still() for still in (*outs_intact, *intact))


@pytest.mark.parametrize(
    "case", [case for case in typical(CASES) if len(case.shapes) > 1], ids=lambda case: case.op
)
def test_gradients_that_nobody_needs_are_left_out(case):
    given, _, dy, gradients = prepared(case)
    for needs in itertools.product([True, False], repeat=len(given)):
        found = backward(case, dy, given, needs=needs)
        wanted = [
            gradient if need else None for gradient, need in zip(gradients, needs, strict=True)
        ]
        assert_all_same(found, wanted)


@every_op
def test_out_may_have_strides(case, dtype):
    _, y, dy, gradients = prepared(case, dtype)
    given = arrays(case, dtype)
    out = np.full((*y.shape, 2), np.nan, dtype)[..., 0]
    assert forward(case, given, out=out) is out
    assert_same_bits(np.ascontiguousarray(out), y)
    outs = [
        None if g is None else np.full((*g.shape, 2), np.nan, g.dtype)[..., 1] for g in gradients
    ]
    found = backward(case, dy, given, out=outs[0] if len(outs) == 1 else tuple(outs))
    for actual, out, right in zip(found, outs, gradients, strict=True):
        assert actual is out
        if right is not None:
            assert_same_bits(np.ascontiguousarray(out), right)


@every_op
def test_some_gradients_may_go_to_out(case):
    given, _, dy, gradients = prepared(case)
    if len(gradients) == 1 or gradients[0] is None:
        return
    outs = (np.empty_like(gradients[0]), *[None] * (len(gradients) - 1))
    found = backward(case, dy, given, out=outs)
    assert found[0] is outs[0]
    assert_all_same(found, gradients)


def test_out_may_be_an_input(dtype):
    """Where a kernel works in place, and where the result must take a detour."""
    for name in ("relu", "leaky_relu", "sigmoid", "tanh", "exp", "softmax", "log_softmax"):
        (x,), y, dy, (dx,) = prepared(TYPICAL[name], dtype)
        same = x.copy()
        assert_same_bits(forward(TYPICAL[name], [same], out=same), y)
        same = dy.copy()
        assert_same_bits(backward(TYPICAL[name], same, [x], out=same)[0], dx)
    rng = np.random.default_rng(1)
    x, kernel = (
        rng.normal(size=(2, 7, 6, 5)).astype(dtype),
        rng.normal(size=(3, 3, 5, 5)).astype(dtype),
    )
    y = ops.conv2d(x, kernel, padding="same")
    dx, _, _ = ops.conv2d_backward(y, x, kernel, padding="same")
    same = y.copy()
    out = (same, None, None)
    assert_same_bits(ops.conv2d_backward(same, x, kernel, padding="same", out=out)[0], dx)
    assert_same_bits(ops.conv2d(x, kernel, padding="same", out=x), y)
    x = rng.normal(size=(4, 5)).astype(dtype)
    y = ops.add(x, x)
    assert_same_bits(ops.add(x, x, out=x), y)
    x = rng.normal(size=(1, 4, 5, 3)).astype(dtype)
    overlap = np.concatenate([x, x])
    y = ops.max_pool2d(x, 1)
    assert_same_bits(ops.max_pool2d(overlap[:1], 1, out=overlap[:1]), y)


@pytest.mark.parametrize("given", [np.int64, np.int8, np.uint8, np.float16])
def test_other_numbers_become_float32(given):
    for case in typical(CASES):
        whole = [
            array if array is None or array.dtype.kind == "i" else np.abs(array).astype(given)
            for array in arrays(case, np.float64, None if case.fills else "integers")
        ]
        assert forward(case, whole).dtype == np.float32


def test_booleans_become_float32():
    x = np.array([[True, False], [True, True]])
    assert_same_bits(ops.relu(x), x.astype(np.float32))
    assert_same_bits(ops.add(x, x), np.array([[2, 0], [2, 2]], np.float32))


def test_lists_are_taken_as_numpy_takes_them():
    assert_same_bits(ops.relu([-1.0, 2.0]), np.array([0.0, 2.0]))
    assert_same_bits(ops.dense([[1.0, 2.0]], [[3.0], [4.0]]), np.array([[11.0]]))


@every_op
def test_results_share_no_memory_with_arguments(case):
    given, y, dy, gradients = prepared(case)
    for array in [*given, dy]:
        for result in [y, *gradients]:
            assert result is None or array is None or not np.may_share_memory(array, result)


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_any_number_of_threads_gives_the_same_bits(case, backend, threads):
    threads(1)
    given, y, dy, gradients = prepared(case)
    # The emulator has threads of its own, in orders that other tests choose.
    for count in () if backend == "cuda_emulated" else (2, 3):
        threads(count)
        assert_same_bits(forward(case, given), y)
        assert_all_same(backward(case, dy, given), gradients)
