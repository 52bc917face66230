"""Dense layers on tiles, with their activation, and their gradients."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import reference
from cases import DENSE, Case, dense, upstream
from checkers import assert_exact, assert_within, backward, expected, forward, gamma, guarded, sizes
from tiles import TILE, Descent, from_tiles, gradient_to_tiles, to_tiles

from convkit import _core, geometry

pytestmark = pytest.mark.usefixtures("backend")

LINEAR = -1
# What the shared table lacks: rows that compete for the cache, blocks of rows and of tiles.
MORE = [
    dense("rows_of_a_power_of_two", (1, 37), 512),
    dense("rows_in_a_sample", (1, 3, 25), 50),
    dense("many_outputs", (1, 7), 131),
    dense("many_inputs", (1, 131), 7),
]
SAMPLES = (5, 16, 37, 1, 80)
CASES = [
    case.batch(n)
    for case, n in zip([*DENSE, *MORE], itertools.cycle(SAMPLES), strict=False)
    if len(case.shapes[0]) > 1 and case.shapes[0][0]
]

every_case = pytest.mark.parametrize("case", CASES, ids=lambda c: f"{c.name}-{c.shapes[0][0]}")


def run(name: str, spec, n: int, dtype: type, inputs: list, outputs: list) -> None:
    """The kernel, on copies of the inputs and in outputs with NaN around them."""
    copies = [None if array is None else guarded(array.astype(dtype)) for array in inputs]
    places = [None if array is None else guarded(array) for array in outputs]
    _core.run_kernel(
        name,
        spec,
        n,
        np.dtype(dtype).name,
        [copy and copy[0] for copy in copies],
        [place and place[0] for place in places],
    )
    assert all(given is None or given[1]() for given in [*copies, *places])
    for array, place in zip(outputs, places, strict=True):
        if array is not None:
            array[...] = place[0]


def blank(n: int, shape: tuple[int, ...], dtype: type) -> np.ndarray:
    return np.full((-(-n // TILE), *shape, TILE), np.nan, dtype)


def run_forward(case: Case, given: list, dtype: type, kind=LINEAR, slope=0.0) -> np.ndarray:
    spec, shape = geometry.dense("dense", *case.shapes)
    y = blank(shape[0], shape[1:], dtype)
    fused = _core.FusedDense(dense=spec, activation=kind, slope=slope)
    run("tile_dense", fused, shape[0], dtype, [to_tiles(given[0]), *given[1:]], [y])
    assert not np.isnan(y).any(), "lanes without a sample"
    return from_tiles(y, shape[0])


def run_backward(case: Case, dy: np.ndarray, given: list, dtype: type, before: tuple) -> tuple:
    """dx, and `before`, previous contents of dkernel and dbias, with the gradients added."""
    spec, _ = geometry.dense("dense", *case.shapes)
    n, *shape = case.shapes[0]
    tiles = gradient_to_tiles(dy)
    dx = blank(n, tuple(shape), dtype)
    run("tile_dense_backward_input", spec, n, dtype, [tiles, given[1]], [dx])
    sums = [None if array is None else array.astype(dtype) for array in before]
    run("tile_dense_backward_kernel", spec, n, dtype, [tiles, to_tiles(given[0])], sums)
    return from_tiles(dx, n), *sums


def contents(given: list) -> tuple:
    """Small integers in the shapes of kernel and bias."""
    rng = np.random.default_rng(3)
    return tuple(a if a is None else rng.integers(-4, 5, a.shape).astype(float) for a in given[1:])


@every_case
def test_integers_are_exact(case, dtype):
    given, dy, y, gradients = expected(case, "integers")
    assert_exact(run_forward(case, given, dtype), y, dtype)
    before = contents(given)
    dx, dkernel, dbias = run_backward(case, dy, given, dtype, before)
    assert_exact(dx, gradients[0], dtype)
    assert_exact(dkernel, gradients[1] + before[0], dtype)
    if before[1] is not None:
        assert_exact(dbias, gradients[2] + before[1], dtype)


@every_case
@pytest.mark.parametrize("tiles_at_once", [1, 3])
def test_the_first_tiles_of_a_program_store_their_sums(case, tiles_at_once, dtype):
    given, dy, _, (_, *rights) = expected(case, "integers")
    spec, (n, *_) = geometry.dense("dense", *case.shapes)
    x, dy = given[0].astype(dtype), dy.astype(dtype)
    kernel, bias = "tile_dense_backward_kernel", "bias" if rights[1] is not None else None
    found = Descent(kernel, spec, x, dy, [("kernel", bias)], tiles_at_once).run(n, max(n, 1))
    for actual, right in zip(found.values(), rights, strict=False):
        assert_exact(actual, right.ravel(), dtype)


@every_case
def test_rounding_stays_within_its_bound(case, dtype):
    given, dy, y, gradients = expected(case)
    inputs, units = case.shapes[1]
    bound = gamma(inputs + 1, dtype) * forward(case, sizes(given), module=reference)
    assert_within(run_forward(case, given, dtype), y, bound, dtype)

    before = contents(given)
    rows = dy[..., 0].size + 1
    scales = list(backward(case, np.abs(dy), sizes(given), module=reference))
    rights = list(gradients)
    for i, sums in enumerate(before, 1):
        if sums is not None:
            rights[i], scales[i] = rights[i] + sums, scales[i] + np.abs(sums)
    found = run_backward(case, dy, given, dtype, before)
    for actual, right, scale, count in zip(found, rights, scales, (units, rows, rows), strict=True):
        if right is not None:
            assert_within(actual, right, gamma(count, dtype) * scale, dtype)


@every_case
def test_samples_do_not_depend_on_their_number(case, dtype):
    case = case.batch(37)
    given, dy, _, _ = expected(case)
    y = run_forward(case, given, dtype)
    dx = run_backward(case, dy, given, dtype, contents(given))[0]
    for n in (1, 16):
        part = [given[0][:n], *given[1:]]
        assert run_forward(case.batch(n), part, dtype).tobytes() == y[:n].tobytes()
        found = run_backward(case.batch(n), dy[:n], part, dtype, contents(given))[0]
        assert found.tobytes() == dx[:n].tobytes()


@pytest.mark.parametrize("name", ["linear", *geometry.ACTIVATION_KINDS])
def test_activation_equals_the_op_after_it(name, dtype):
    case = dense(name, (21, 7), 17)
    given, _, z, _ = expected(case, "integers")
    given = [given[0] / 64, given[1], given[2] / 64]  # keeps exp in range; sums stay exact
    z = z / 64
    right = z if name == "linear" else getattr(reference, name)(z)
    kind = geometry.ACTIVATION_KINDS.get(name, LINEAR)
    y = run_forward(case, given, dtype, kind, 0.2)
    assert_within(y, right, gamma(8, dtype) * np.abs(right), dtype)


def test_nan_stays_in_its_sample_and_unit(dtype):
    case = dense("nan", (18, 7), 33)
    given, dy, _, _ = expected(case)
    x, kernel, bias = (array.copy() for array in given)
    x[17, 6] = np.nan
    kernel[0, 32] = np.nan
    spec, shape = geometry.dense("dense", *case.shapes)
    y = blank(18, (33,), dtype)
    fused = _core.FusedDense(dense=spec, activation=geometry.ACTIVATION_KINDS["relu"], slope=0.0)
    run("tile_dense", fused, 18, dtype, [to_tiles(x), kernel, bias], [y])
    right = np.zeros(shape, bool)
    right[17] = right[:, 32] = True
    np.testing.assert_array_equal(np.isnan(from_tiles(y, 18)), right)

    dy = dy.copy()
    dy[17, 4] = np.nan
    dx, dkernel, dbias = run_backward(case, dy, list(given), dtype, contents(given))
    np.testing.assert_array_equal(np.isnan(dx).any(axis=1), np.arange(18) == 17)
    np.testing.assert_array_equal(np.isnan(dkernel).all(axis=0), np.arange(33) == 4)
    np.testing.assert_array_equal(np.isnan(dkernel).any(axis=0), np.arange(33) == 4)
    np.testing.assert_array_equal(np.isnan(dbias), np.arange(33) == 4)


def test_no_samples_leave_the_sums_as_they_are(dtype):
    case = dense("empty_batch", (0, 6), 3)
    given = [np.zeros((0, 6)), np.ones((6, 3)), np.ones(3)]
    assert run_forward(case, given, dtype).shape == (0, 3)
    before = contents(given)
    dx, dkernel, dbias = run_backward(case, upstream(case, (0, 3)), given, dtype, before)
    assert dx.shape == (0, 6)
    assert_exact(dkernel, before[0], dtype)
    assert_exact(dbias, before[1], dtype)
